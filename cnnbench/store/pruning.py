"""Which runs could be removed."""

from collections.abc import Sequence
from pathlib import Path

from cnnbench.store.query import RunSummary


def is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path below a folder leads nowhere else: no part of it is a link."""
    return path.is_relative_to(folder) and path.resolve() == folder.resolve() / path.relative_to(folder)


def prunable(runs: Sequence[RunSummary], outputs: Path) -> list[tuple[RunSummary, str]]:
    """Return the runs that can be removed, each with the reason: interrupted ones, and those superseded by a rerun.

    Never a run that a process holds, never one that cannot be read, and never one that a link leads to.
    """
    runs = [run for run in runs if is_within(run.path, outputs)]
    newest: dict[str, int] = {}
    for run in runs:
        if run.is_finished:
            identity = run.record["identity"]
            newest[identity] = max(newest.get(identity, 0), run.folder.number)
    reasons = []
    for run in runs:
        if run.problem or run.folder.is_held():
            continue
        if run.folder.number < newest.get(run.record["identity"], 0):
            reasons.append((run, "superseded by a rerun"))
        elif not run.is_finished:
            reasons.append((run, f"{run.status}, not finished"))
    return reasons
