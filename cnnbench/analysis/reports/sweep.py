"""The page of a sweep: its runs side by side, also while it runs."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cnnbench.analysis.reports.compared import page_of
from cnnbench.analysis.reports.comparison import compare
from cnnbench.analysis.reports.page import Page, Table
from cnnbench.errors import UserError, counted
from cnnbench.store.query import RunSummary, comparison_title, runs_named

RELOADS_EVERY = 30  # seconds
ENDED = ("completed", "failed")


def page_of_sweep(sweep: Path, is_running: bool = False) -> Page:
    """Return the page of a sweep, by its folder: how far it is, and its finished runs side by side.

    is_running: it says when it was written, and a browser loads it again until one is written that does not run.
    """
    words = [str(sweep)]
    runs, title = runs_named(words, with_planned=True), comparison_title(words)
    try:
        page = page_of(compare(runs), title)
    except UserError:
        if any(run.is_finished for run in runs):
            raise
        states = [{"run": run.path.name, "status": run.status, "epochs": run.epochs_done} for run in runs]
        page = Page(title, "No run is finished yet.", [Table("Runs", pd.DataFrame(states))])
    if is_running or any(run.status not in ENDED for run in runs):
        page = replace(page, summary=f"{_progress(runs, is_running)} {page.summary}")
    return replace(page, reloads_every=RELOADS_EVERY if is_running else 0)


def _progress(runs: list[RunSummary], is_running: bool) -> str:
    states = Counter(run.status for run in runs)
    others = ", ".join(f"{number} {status}" for status, number in states.items() if status != "completed")
    done = f"{states['completed']} of {counted(len(runs), 'run')} completed{f' ({others})' if others else ''}"
    written = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    again = f"; this page loads itself again every {RELOADS_EVERY} s" if is_running else ""
    return f"{done}. Written {written}{again}."
