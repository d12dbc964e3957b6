"""`cnnbench report`: everything about a run on one page, or runs side by side."""

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cnnbench.cli.catalog import run_folders, sweeps
from cnnbench.cli.out import writing
from cnnbench.cli.parse import Argument, Verb, path, say

if TYPE_CHECKING:
    from cnnbench.analysis.reports.page import Page
    from cnnbench.store.query import RunSummary

ABOUT = """\
Writes a page about a run, or compares runs grouped over their seeds.

  cnnbench report outputs/RUN                     everything about a run
  cnnbench report outputs/sweeps/1a2b3c4d         the runs of a sweep
  cnnbench report outputs/mnist 'outputs/digits/lenet*'
                                                  all runs in these folders
  cnnbench report outputs/mnist --baseline model=lenet --metric loss
  cnnbench report outputs/mnist --out my_report

A comparison says what differs from the baseline by more than chance, which is
best on validation, which learns fastest and which overfits, with 95 % intervals
and differences paired by seed. Runs that differ in seed, fold, split_seed or
noise_seed alone are one row. It writes report.html, which needs no other file,
report.md, report.csv and report.tex. Runs that failed or are not finished are
counted in their row; those that cannot be read are listed and skipped. The
page of a sweep is in its folder, also while it runs.
"""
FILES = "report.html", "report.md", "report.csv", "report.tex"


def _run(flags: Namespace) -> None:
    from cnnbench.plugins import register_everything
    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.query import runs_named
    from cnnbench.store.sweep_files import with_folder
    from cnnbench.training.terminal import linked, opened_in_browser, width

    register_everything(flags.plugins)
    words = [with_folder(word, outputs_dir()) for word in flags.words]
    runs = runs_named(words, with_planned=True)
    if len(runs) == 1 and runs[0].folder.record_file.is_file() and not runs[0].problem:
        from cnnbench.analysis.reports.single import page_of

        page, folder, about = page_of(runs[0].folder), runs[0].path, str(runs[0].path.resolve())
    else:
        page, folder = _comparison_page(runs, words, flags.metric, flags.baseline)
        about = " ".join(words)
    folder, page = flags.out or folder, replace(page, about=about)
    with writing(folder, FILES if flags.out else (), about):
        written = page.write(folder)
    say(*page.terminal(width()), "", "  page: " + linked(written))
    if flags.open and (note := opened_in_browser(written)):
        say(f"  {note}")


def _comparison_page(
    runs: "Sequence[RunSummary]", words: Sequence[str], metric: str | None, baseline: str | None
) -> "tuple[Page, Path]":
    from cnnbench.analysis.reports.compared import page_of
    from cnnbench.analysis.reports.comparison import compare
    from cnnbench.store.folder import outputs_dir
    from cnnbench.store.sweep_files import comparison_title

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(Path(word.removesuffix(".json")).name for word in words))
    folder = outputs_dir() / "reports" / (name.strip("-")[:60] or "runs")
    if len(words) == 1 and (Path(words[0]) / "sweep.json").is_file():
        folder = Path(words[0])
    return page_of(compare(runs, metric, baseline), comparison_title(words)), folder


VERB = Verb(
    "report",
    ABOUT,
    (
        Argument(
            "words",
            nargs="+",
            metavar="RUN|SWEEP|FOLDER",
            complete=lambda: [*run_folders(), *sweeps()],
            help="runs, sweeps, folders of runs, and patterns",
        ),
        Argument("--baseline", metavar="KEY=VALUE,…", help="what to compare with; default: the first"),
        Argument("--metric", metavar="NAME", help="what to compare by; default: what chose the best epochs"),
        Argument("--open", action="store_true", help="open the page in the browser"),
        Argument(
            "--out",
            type=path,
            metavar="FOLDER",
            help="where to write; default: the folder of the run or sweep, else outputs/reports/NAME",
        ),
    ),
    _run,
)
