"""Runs on disk as plain values: looked up, read, pruned. Needs neither torch nor hydra."""

import os
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from glob import escape, glob
from pathlib import Path
from typing import Any

from cnnbench.config.run_config import that_count
from cnnbench.config.values import flat
from cnnbench.errors import UserError
from cnnbench.store.files import last_row
from cnnbench.store.folder import LABELS, RunFolder, names_by_hash, outputs_dir, run_names, shown
from cnnbench.store.lookup import run_named
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Claim, FrozenPlan
from cnnbench.store.sweep_files import MISSING, job_folder, read_sweep, sweep_file, sweep_folders, with_folder

PRINCIPAL = ("accuracy", "recall@1")  # metrics that say most, where there are any
LOWER_IS_BETTER = ("loss", "ece")  # of runs of before they recorded it


@dataclass(frozen=True)
class Known:
    """What is listed of a run that has ended: entries of `run.json`, settings by dotted key, entries of its result."""

    record: dict[str, Any]
    settings: dict[str, Any]
    result: dict[str, Any]


@dataclass(frozen=True)
class RunSummary:
    """What the files of a run say. problem: why they cannot be read, if they cannot.

    known: what the index has of an ended run: its settings, and of `run.json` and `result.json` what is listed.
    """

    path: Path
    problem: str = ""
    known: Known | None = field(default=None, compare=False)

    @cached_property
    def folder(self) -> RunFolder:
        """Return the run folder."""
        return RunFolder(self.path)

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return the content of `run.json`."""
        if self.known is not None:
            return self.known.record
        return {} if self.problem else self.folder.record()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return the content of `config.yaml`."""
        return {} if self.problem else self.folder.config(None if self.known else self.record)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Return the content of `config.yaml` by dotted key."""
        return flat(self.config) if self.known is None else self.known.settings

    @cached_property
    def result(self) -> dict[str, Any]:
        """Return the content of `result.json`; empty until the run is finished."""
        if self.known is not None:
            return self.known.result
        return self.folder.result(self.record) if self.is_finished else {}

    @cached_property
    def status(self) -> str:
        """Return the recorded status; `stopped` for a run recorded as running that no process holds."""
        if self.problem:
            return "unreadable"
        recorded = str(self.record.get("status"))
        return "stopped" if recorded == "running" and not self.folder.is_held() else recorded

    @cached_property
    def is_finished(self) -> bool:
        """Tell whether the run has its result."""
        if self.known is not None:
            return bool(self.known.result)
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
        return that_count(self.settings) | self.metrics | choices | self.labels | {"status": self.status}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Return what `result.json` measured: `accuracy/val` and so on, those on the test images as `accuracy` too."""
        splits = {split: self.result.get(split, {}) for split in ("train", "val", "test")}
        by_split = {f"{name}/{split}": value for split, values in splits.items() for name, value in values.items()}
        return {**by_split, **splits["test"]}

    @property
    def labels(self) -> dict[str, Any]:
        """Return what the user called the run, and noted about it: `name`, `notes`, `tags`."""
        given: dict[str, Any] = {key: self.settings.get(key) for key in LABELS} | self.record.get("labels", {})
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
        if self.status not in ("failed", "missing", "unreadable"):
            return ""
        failed = str(self.record.get("error") or "no error was recorded")
        return " ".join(
            (self.problem or re.sub("^(TrainingError|DivergedError|NotWrittenError): ", "", failed)).split()
        )

    @cached_property
    def size(self) -> int:
        """Return the size of the folder in bytes, without what links lead to."""
        total, waiting = 0, [str(self.path)]
        while waiting:
            with suppress(OSError), os.scandir(waiting.pop()) as entries:  # removed meanwhile, by a training
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        return total

    @cached_property
    def test_metrics(self) -> dict[str, float]:
        """Return the metrics on the test images; empty until the run is finished."""
        test = self.result.get("test", {})
        return {name: value for name, value in test.items() if name != "samples" and value is not None}


@dataclass(frozen=True)
class PlannedRun(RunSummary):
    """A job of a sweep whose run is not there, or cannot be read.

    reason: why it failed before it had a folder, or MISSING; empty: none.
    """

    plan: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return what `run.json` would say."""
        states = {"": "not started", MISSING: "missing"}
        status = "unreadable" if self.problem else states.get(self.reason, "failed")
        return {**self.plan, "status": status, "error": self.reason}

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
    return by_start(read_run(path) for path in folders_below(folder))


def by_start(runs: Iterable[RunSummary]) -> list[RunSummary]:
    """Return runs in the order in which they began."""
    return sorted(runs, key=lambda run: (str(run.record.get("started", "")), str(run.path)))


def folders_below(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs in a folder and below it, but for those inside the folder of another run.

    Links are followed in the folder itself only.
    """
    if (folder / "run.json").exists():
        yield folder
    waiting = list(_folders_in(folder, follows=True))
    while waiting:
        path = waiting.pop()
        is_run = os.path.exists(f"{path}/run.json")
        if is_run:
            yield Path(path)
        if not is_run or not os.path.exists(f"{path}/config.yaml"):  # a record that was copied hides nothing below it
            waiting += _folders_in(path, follows=False)


def _folders_in(path: str | Path, follows: bool) -> Iterator[str]:
    with suppress(OSError), os.scandir(path) as entries:
        yield from (entry.path for entry in entries if entry.is_dir(follow_symlinks=follows))


def read_run(path: Path) -> RunSummary:
    """Return a run; where its files cannot be read, with the `problem`."""
    run = RunSummary(path)
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
        paths = _matching(Path(with_folder(word, outputs_dir())).expanduser())
        paths = paths or [run_named(word).path]
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
    """Return for each run the shortest word that `run_named` takes for it, where `outputs` is $CNNBENCH_OUTPUTS.

    That is the hash at the end of its folder's name, or more of its path where a copy has the same hash. A run that is
    not looked for there has its whole path.
    """
    names = {outputs / name: name for name in run_names(outputs)}
    backwards = sorted(name[::-1] for name in names.values())
    shortest = {run.path: _shortest_end(names[run.path], backwards) for run in runs if run.path in names}
    return {run.path: shortest.get(run.path, shown(run.path)) for run in runs}


def _shortest_end(name: str, backwards: Sequence[str]) -> str:
    """Return the end of a run's name with which no other one ends, from a place where one begins to read.

    backwards: all names, each from its end, sorted: those that end alike are next to each other.
    """
    hash_of_name = re.search(r"-([0-9a-f]{8}(-r\d+)?)$", name)
    parts = name.split("/")
    ends = ["/".join(parts[place:]) for place in reversed(range(len(parts)))]
    for end in ends if hash_of_name is None else [hash_of_name[1], *ends]:
        first = bisect_left(backwards, end[::-1])
        if sum(other.startswith(end[::-1]) for other in backwards[first : first + 2]) == 1:
            return end
    return name


def _runs_of_jobs(sweep: Path) -> Iterator[RunSummary]:
    """Yield the run of each job of a sweep. sweep: its folder."""
    outputs = sweep.resolve().parents[1]
    names = names_by_hash(outputs)
    for job in read_sweep(sweep / "sweep.json")["jobs"]:
        folder = job_folder(outputs, sweep, job, names)
        run = RunSummary(outputs / job["folder"]) if folder is None else read_run(folder)
        if folder is not None and not run.problem:
            yield run
            continue
        claims = sorted((sweep / "claims").glob(f"{job['identity']}.*"), key=lambda path: int(path.suffix[1:]))
        try:
            plan = read_json(sweep / "jobs" / f"{job['identity']}.json", FrozenPlan)
            claim = read_json(claims[-1], Claim) if claims and folder is None else {}
        except UserError as error:
            yield replace(run, problem=run.problem or str(error))
            continue
        with suppress(UserError):
            plan = plan | {"code": run.folder.record()["code"]}  # which it was made with, where that is known
        reasons = {"failed": claim.get("reason", ""), "completed": MISSING}
        yield PlannedRun(run.path, run.problem, plan=plan, reason=reasons.get(claim.get("outcome", ""), ""))
