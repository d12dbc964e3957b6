"""Runs on disk as plain values: looked up, filtered, pruned. Needs neither torch nor hydra."""

import json
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from glob import glob
from pathlib import Path
from stat import S_ISREG
from typing import Any

from cnnbench.config.values import flat
from cnnbench.errors import UserError, did_you_mean
from cnnbench.store.folder import RunFolder
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Sweep

ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


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
        """Return which checkpoint the result is of: `best` or `last`."""
        checkpoint = self.result.get("checkpoint", {})
        # Runs of before the key `kind` only have the sentence for people: "best on validation", "last, without …".
        in_words = "last" if str(checkpoint.get("chosen", "")).startswith("last") else "best"
        return str(checkpoint.get("kind", in_words))

    @cached_property
    def values(self) -> dict[str, Any]:
        """Return everything to filter by: settings and results by dotted name; data, model, … as chosen; status."""
        if self.problem:
            return {"status": self.status}
        test = self.result.get("test", {})
        values: dict[str, Any] = flat(self.config) | {f"{name}/test": value for name, value in test.items()} | test
        values |= self.record.get("choices", {}) | self.record.get("labels", {})
        return values | {"status": self.status}

    @cached_property
    def size(self) -> int:
        """Return the size of the folder in bytes."""
        return sum(_size(path) for path in self.path.rglob("*"))

    @property
    def test_metrics(self) -> dict[str, float]:
        """Return the metrics on the test images; empty until the run is finished."""
        test = self.result.get("test", {})
        return {name: value for name, value in test.items() if name != "samples" and value is not None}


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


def runs_named(words: Sequence[str]) -> list[RunSummary]:
    """Return the runs named by folders, sweeps, folders above runs, patterns, `last` and parts of paths, each once.

    Raises UserError for a word that names none.
    """
    runs: dict[Path, RunSummary] = {}
    for word in words:
        paths = [Path(path) for path in sorted(glob(str(Path(word).expanduser()), recursive=True))]
        paths = paths or [RunFolder.named(word).path]
        for path in paths:
            if path.suffix == ".json" and path.is_file():
                folders = sweep_folders(path)
            else:
                folders = [path] if path.is_dir() else []
            runs |= {run.path.resolve(): run for folder in folders for run in runs_below(folder)}
    if not runs:
        raise UserError(f"{' '.join(words)}: there are no runs.")
    return list(runs.values())


def sweep_folders(path: Path) -> list[Path]:
    """Return the folders of the runs of a sweep. Raises UserError if the file does not describe a sweep."""
    outputs = path.resolve().parents[1]
    return [outputs / job["folder"] for job in _read_sweep(path)["jobs"] if job["folder"] is not None]


def comparison_title(words: Sequence[str]) -> str:
    """Return the title of a comparison: the command of a sweep, or the words that name the runs."""
    path = Path(words[0])
    if len(words) == 1 and path.suffix == ".json" and path.is_file():
        return str(_read_sweep(path).get("command") or words[0])
    return " ".join(words)


def _read_sweep(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, Sweep)
    except UserError as error:
        raise UserError(f"{path} is not a sweep: {error}") from error


def runs_matching(runs: Iterable[RunSummary], conditions: Sequence[str]) -> list[RunSummary]:
    """Return the runs that meet all conditions: data=mnist, model=lenet*, accuracy>0.98, optimizer.lr<=0.1.

    Raises UserError for a malformed condition, and for a key that no run has.
    """
    runs = list(runs)
    keys = {key for run in runs for key in run.values} if conditions else set()
    tests = []
    for condition in conditions:
        key, test = _parse_condition(condition)
        if runs and key not in keys:
            raise UserError(f"{condition}: no run has '{key}'{did_you_mean(key, keys)}")
        tests.append(test)
    return [run for run in runs if all(test(run.values) for test in tests)]


def _parse_condition(condition: str) -> tuple[str, Callable[[dict[str, Any]], bool]]:
    match = re.fullmatch(r"([\w./@-]+?)(>=|<=|!=|>|<|=)([^=<>].*|)", condition)
    if match is None:
        raise UserError(f"{condition}: conditions are like data=mnist, model=lenet*, accuracy>0.98.")
    key, sign, operand = match.groups()
    key = re.sub(r"^dataset\b", "data", key)  # as good a name, here as on the command line
    if sign in ORDERINGS and _number(operand) is None:
        raise UserError(f"{condition}: '{operand}' is not a number.")

    def holds(values: dict[str, Any]) -> bool:
        if key not in values:
            return False
        value, number = values[key], _number(values[key])
        if isinstance(value, list) and sign in ("=", "!="):  # tags=wide: one of them
            return any(fnmatchcase(str(item), operand) for item in (value, *value)) == (sign == "=")
        if sign not in ORDERINGS:
            shown = json.dumps(value) if isinstance(value, bool) or value is None else str(value)
            is_equal = not isinstance(value, bool) and number is not None and number == _number(operand)
            return (fnmatchcase(shown, operand) or is_equal) == (sign == "=")
        return number is not None and ORDERINGS[sign](number, _number(operand))

    return key, holds


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


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
