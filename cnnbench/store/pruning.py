"""What can be removed to save space: runs, and the checkpoints of finished ones; nothing that a process works on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnbench.errors import writing_to
from cnnbench.store.folder import RunFolder, now
from cnnbench.store.query import RunSummary, higher_is_better
from cnnbench.store.sweep_files import read_sweep, sweep_files


def is_within(path: Path, folder: Path) -> bool:
    """Tell whether a path below a folder leads nowhere else: no part of it is a link."""
    return path.is_relative_to(folder) and path.resolve() == folder.resolve() / path.relative_to(folder)


def prunable(runs: Sequence[RunSummary], outputs: Path, with_failed: bool = False) -> list[tuple[RunSummary, str]]:
    """Return the runs that can be removed, each with the reason: stopped ones, and those superseded by a rerun.

    with_failed: also failed ones, which say why they failed. Never a run that a process holds, never one that cannot be
    read, and never one that a link leads to.
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
        elif not run.is_finished and (with_failed or run.status != "failed"):
            reasons.append((run, f"{run.status}, not finished"))
    return reasons


@dataclass(frozen=True)
class Ranked:
    """A finished run among those of the same data, by the metric on validation that its training chose by.

    place: from 1. begun: how many runs begin with its weights, or are to.
    """

    run: RunSummary
    metric: str
    place: int
    of: int
    begun: int


def ranked_on_validation(runs: Sequence[RunSummary], begun: Mapping[str, int]) -> list[Ranked]:
    """Return the finished runs that have a validation, the best first. begun: see `runs_begun_with`."""
    groups: dict[tuple[str, str], list[tuple[float, RunSummary]]] = {}
    for run in runs:
        metric = str(next(iter(run.result.get("watched", ())), ("loss",))[0])
        value = (run.result.get("val") or {}).get(metric)
        if value is not None:
            sign = -1 if higher_is_better(metric, run.result) else 1
            data = str(run.record.get("choices", {}).get("data"))
            groups.setdefault((data, metric), []).append((sign * value, run))
    return [
        Ranked(run, metric, place, len(group), begun.get(run.record["identity"], 0))
        for (_, metric), group in groups.items()
        for place, (_, run) in enumerate(sorted(group, key=lambda one: one[0]), 1)
    ]


def runs_begun_with(runs: Sequence[RunSummary], outputs: Path) -> Counter[str]:
    """Return how many runs begin with the weights of another one, or continue it, by the identity of that.

    runs: all of them. Jobs of sweeps that wait for it count too.
    """
    sources = (run.settings.get(key) for run in runs if not run.problem for key in ("source", "parent"))
    jobs = (job for file in sweep_files(outputs) for job in read_sweep(file)["jobs"])
    awaited = (job.get("after") for job in jobs)
    return Counter([*(str(source).partition("@")[0] for source in sources if source), *filter(None, awaited)])


def size_of_checkpoints(run: RunSummary) -> int:
    """Return their size in bytes."""
    return sum(path.lstat().st_size for path in run.folder.checkpoints.glob("*"))


def remove_checkpoints(folder: RunFolder) -> None:
    """Remove the checkpoints of a run, if it is finished, and record that. Raises RunHeldError, NotWrittenError."""
    with folder.lock(), writing_to(folder.checkpoints):
        if not folder.is_completed:
            return
        folder.update(checkpoints_removed=now())
        # Manifests first: without them, nothing counts of what a kill leaves.
        for path in sorted(folder.checkpoints.glob("*"), key=lambda path: path.suffix != ".json"):
            path.unlink()
