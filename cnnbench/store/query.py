"""Runs on disk as plain values: looked up, read, pruned. Needs neither torch nor hydra."""

import os
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from glob import escape, glob
from pathlib import Path
from stat import S_ISREG
from typing import Any

from cnnbench.config.values import flat
from cnnbench.errors import UserError
from cnnbench.store.files import last_row
from cnnbench.store.folder import LABELS, RunFolder, outputs_dir, shown
from cnnbench.store.jobs import job_folder, read_sweep, sweep_file, sweep_folders
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Claim, FrozenPlan

PRINCIPAL = ("accuracy", "recall@1")  # metrics that say most, where there are any
LOWER_IS_BETTER = ("loss", "ece")  # of runs of before they recorded it


@dataclass(frozen=True)
class RunSummary:
    """What the files of a run say. problem: why they cannot be read, if they cannot."""

    folder: RunFolder
    problem: str = ""

    @property
    def path(self) -> Path:
        """Return the run folder."""
        return self.folder.path

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        return {} if self.problem else self.folder.record()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the content of `config.yaml`."""
        return {} if self.problem else self.folder.config()

    @cached_property
    def result(self) -> dict[str, Any]:
        """Return the content of `result.json`; empty until the run is finished."""
        return self.folder.result() if self.is_finished else {}

    @cached_property
    def status(self) -> str:
        """Return the recorded status; `interrupted` for a run recorded as running that no process holds."""
        if self.problem:
            return "unreadable"
        recorded = str(self.record.get("status"))
        return "interrupted" if recorded == "running" and not self.folder.is_held() else recorded

    @property
    def is_finished(self) -> bool:
        """Tell whether the run has its result."""
        return self.status == "completed" and self.folder.result_file.is_file()

    @property
    def checkpoint_tested(self) -> str:
        """Return which checkpoint the result is of: `best`, `average` or `last`."""
        checkpoint = self.result.get("checkpoint", {})
        # Runs from before the key `kind` only have the sentence for people: "best on validation", "last, without …".
        in_words = "last" if str(checkpoint.get("chosen", "")).startswith("last") else "best"
        return str(checkpoint.get("kind", in_words))

    @cached_property
    def values(self) -> dict[str, Any]:
        """Return everything to filter by: settings and results by dotted name; data, model, … as chosen; status."""
        if self.problem:
            return {"status": self.status}
        choices: dict[str, Any] = self.record.get("choices", {})
        return flat(self.config) | self.metrics | choices | self.labels | {"status": self.status}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Return what `result.json` measured: `accuracy/val` and so on, those on the test images as `accuracy` too."""
        splits = {split: self.result.get(split, {}) for split in ("train", "val", "test")}
        by_split = {f"{name}/{split}": value for split, values in splits.items() for name, value in values.items()}
        return {**by_split, **splits["test"]}

    @property
    def labels(self) -> dict[str, Any]:
        """Return what the user called the run, and noted about it: `name`, `notes`, `tags`."""
        given: dict[str, Any] = {key: self.config.get(key) for key in LABELS} | self.record.get("labels", {})
        return given

    @property
    def epochs_done(self) -> int:
        """Return the number of epochs that are trained, also while the run goes on."""
        row = last_row(self.folder.metrics_file)
        if row is None:
            return 0
        is_whole = row["row"] == "epoch"  # rows of its steps come before
        return int(row["epoch"] if is_whole else row["epoch"] - 1)

    @property
    def error(self) -> str:
        """Return in a line why the run failed, or cannot be read; empty for any other."""
        failed = str(self.record.get("error") or "no error was recorded") if self.status == "failed" else ""
        return " ".join(
            (self.problem or re.sub("^(TrainingError|DivergedError|NotWrittenError): ", "", failed)).split()
        )

    @cached_property
    def size(self) -> int:
        """Return the size of the folder in bytes."""
        return sum(_size(path) for path in self.path.rglob("*"))

    @property
    def test_metrics(self) -> dict[str, float]:
        """Return the metrics on the test images; empty until the run is finished."""
        test = self.result.get("test", {})
        return {name: value for name, value in test.items() if name != "samples" and value is not None}


@dataclass(frozen=True)
class PlannedRun(RunSummary):
    """A job of a sweep that has no run folder. reason: why it failed before it had one; empty: it did not begin."""

    plan: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return what `run.json` would say."""
        return {**self.plan, "status": "failed" if self.reason else "not started", "error": self.reason}

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return what `config.yaml` would hold."""
        return dict(self.plan["config"])


def higher_is_better(name: str, result: Mapping[str, Any]) -> bool:
    """Tell which way a metric is better: as the task says, if `result.json` has it."""
    directions: dict[str, bool] = dict(result.get("watched", ())) | result.get("higher_is_better", {})
    return directions.get(name, name not in LOWER_IS_BETTER)


def runs_below(folder: Path) -> list[RunSummary]:
    """Return the runs in a folder and below it, the oldest first; those that cannot be read have a `problem`."""
    records = [*folder.glob("run.json"), *folder.glob("*/**/run.json")]
    runs = [read_run(path.parent) for path in records]
    return sorted(runs, key=lambda run: (str(run.record.get("started", "")), str(run.path)))


def read_run(path: Path) -> RunSummary:
    """Return a run; where its files cannot be read, with the `problem`."""
    run = RunSummary(RunFolder(path))
    try:
        if "identity" not in run.record:
            return replace(run, problem=f"{path}: run.json has no identity")
        _ = run.config, run.result
    except UserError as error:
        return replace(run, problem=str(error))
    return run


def runs_named(words: Sequence[str], with_planned: bool = False) -> list[RunSummary]:
    """Return the runs named by folders, sweeps, folders above runs, patterns, `last` and parts of paths, each once.

    with_planned: also the jobs of sweeps that have no run folder. Raises UserError for a word that names none.
    """
    runs: dict[Path, RunSummary] = {}
    for word in words:
        paths = _matching(Path(word).expanduser())
        paths = paths or [RunFolder.named(word).path]
        for path in paths:
            if with_planned and (path / "sweep.json").is_file():
                runs |= {run.path.resolve(): run for run in _runs_of_jobs(path)}
                folders = []
            elif sweep := sweep_file(path):
                folders = sweep_folders(sweep)
            elif path.suffix == ".json" and path.is_file():
                # A pattern finds other files too, such as those of checkpoints.
                folders = sweep_folders(path) if len(paths) == 1 or path.parent.name == "sweeps" else []
            else:
                folders = [path] if path.is_dir() else []
            runs |= {run.path.resolve(): run for folder in folders for run in runs_below(folder)}
    if not runs:
        sweep = outputs_dir() / "sweeps" / Path(words[0]).name  # its page was named, not the sweep
        names = [path for path in (sweep, sweep.with_name(f"{sweep.name}.json")) if sweep_file(path)]
        way = f" The runs that it compares: {shown(names[0])}" if names else ""
        raise UserError(f"{' '.join(words)}: there are no runs.{way}")
    return list(runs.values())


def _matching(pattern: Path) -> list[Path]:
    """Return the files and folders that a pattern names; folders that are there may have brackets in their names."""
    there = next((above for above in (pattern, *pattern.parents) if above.exists()), Path())
    if there == pattern:
        return [pattern]
    within = pattern.relative_to(there)
    return [Path(path) for path in sorted(glob(os.path.join(escape(str(there)), within), recursive=True))]


def shortest_words(runs: Sequence[RunSummary], outputs: Path) -> dict[Path, str]:
    """Return for each run the shortest word that `RunFolder.named` takes for it, where `outputs` is $CNNBENCH_OUTPUTS.

    That is the hash at the end of its folder's name, or more of its path where a copy has the same hash. A run that is
    not looked for there has its whole path.
    """
    names = {path.parent: path.parent.relative_to(outputs).as_posix() for path in outputs.glob("*/*/*/run.json")}
    backwards = sorted(name[::-1] for name in names.values())
    shortest = {run.path: _shortest_end(names[run.path], backwards) for run in runs if run.path in names}
    return {run.path: shortest.get(run.path, shown(run.path)) for run in runs}


def _shortest_end(name: str, backwards: Sequence[str]) -> str:
    """Return the end of a run's name with which no other one ends, from a place where one begins to read.

    backwards: all names, each from its end, sorted: those that end alike are next to each other.
    """
    starts = [match.start() for match in re.finditer(r"(?<=-)[0-9a-f]{8}(-r\d+)?$|(?<=/)|^", name)]
    for end in (name[start:] for start in reversed(starts)):
        first = bisect_left(backwards, end[::-1])
        if sum(other.startswith(end[::-1]) for other in backwards[first : first + 2]) == 1:
            return end
    return name


def _runs_of_jobs(sweep: Path) -> Iterator[RunSummary]:
    """Yield the run of each job of a sweep. sweep: its folder."""
    outputs = sweep.resolve().parents[1]
    for job in read_sweep(sweep / "sweep.json")["jobs"]:
        folder = job_folder(outputs, sweep, job)
        if folder is not None:
            yield read_run(folder)
            continue
        planned = RunFolder(outputs / job["folder"])
        claims = sorted((sweep / "claims").glob(f"{job['identity']}.*"), key=lambda path: int(path.suffix[1:]))
        try:
            plan = read_json(sweep / "jobs" / f"{job['identity']}.json", FrozenPlan)
            claim = read_json(claims[-1], Claim) if claims else {}
        except UserError as error:
            yield RunSummary(planned, str(error))
            continue
        yield PlannedRun(planned, plan=plan, reason=claim["reason"] if claim.get("outcome") == "failed" else "")


def comparison_title(words: Sequence[str]) -> str:
    """Return the title of a comparison: the command of a sweep, or the words that name the runs."""
    path = Path(words[0])
    sweep = sweep_file(path) or (path if path.suffix == ".json" and path.is_file() else None)
    if len(words) == 1 and sweep is not None:
        return str(read_sweep(sweep).get("command") or words[0])
    return " ".join(words)


def _size(path: Path) -> int:
    try:
        status = path.lstat()  # what a link leads to is not in the folder
    except OSError:  # removed meanwhile, by a training
        return 0
    return status.st_size if S_ISREG(status.st_mode) else 0


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
