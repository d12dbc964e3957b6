"""What lies in a folder of runs: what each is, what came of it, and what nobody will ask for again."""

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from glob import glob
from pathlib import Path
from typing import Any

from cnnbench.config.values import flat
from cnnbench.errors import UserError, did_you_mean
from cnnbench.store.folder import RunFolder

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip


@dataclass(frozen=True)
class RunSummary:
    """A run among others. problem: why it cannot be read, where it cannot."""

    folder: RunFolder
    problem: str = ""

    @cached_property
    def record(self) -> dict[str, Any]:
        """Return what `run.json` says."""
        return {} if self.problem else self.folder.record()

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return what `config.yaml` says."""
        return {} if self.problem else self.folder.config()

    @cached_property
    def result(self) -> dict[str, Any]:
        """Return what `result.json` says of a finished run."""
        return self.folder.result()

    @property
    def status(self) -> str:
        """Return how the run stands; one that says that it is running, and is not worked on, was interrupted."""
        if self.problem:
            return "unreadable"
        said = str(self.record.get("status"))
        return "interrupted" if said == "running" and not self.folder.is_held() else said

    @property
    def is_finished(self) -> bool:
        """Tell whether the run has its result."""
        return self.status == "completed" and self.folder.result_file.is_file()

    @cached_property
    def values(self) -> dict[str, Any]:
        """Return everything to choose by: settings and results by dotted name, and data, model, status as typed."""
        if self.problem:
            return {"status": self.status}
        values = flat(self.config)
        if self.is_finished:
            test = self.result.get("test", {})
            values |= {f"{name}/test": value for name, value in test.items()} | test
        choices: dict[str, Any] = self.record.get("choices", {})
        return values | choices | {"status": self.status}

    @cached_property
    def size(self) -> int:
        """Return the bytes that the folder holds."""
        return sum(path.stat().st_size for path in self.folder.path.rglob("*") if path.is_file())

    def measured(self) -> dict[str, float]:
        """Return the test metrics of a finished run."""
        if not self.is_finished:
            return {}
        test = self.result.get("test", {})
        return {name: value for name, value in test.items() if name != "samples" and value is not None}


def entries(outputs: Path) -> list[RunSummary]:
    """Return the runs below a folder, the oldest first; what cannot be read is among them, and says why."""
    found = [_entry(path.parent) for path in _records(outputs)]
    return sorted(found, key=lambda entry: (str(entry.record.get("started", "")), str(entry.folder.path)))


def _records(outputs: Path) -> Iterator[Path]:
    yield from outputs.glob("run.json")
    yield from outputs.glob("*/**/run.json")


def _entry(path: Path) -> RunSummary:
    entry = RunSummary(RunFolder(path))
    try:
        if "identity" not in entry.record:
            return replace(entry, problem=f"{path}: run.json says no identity")
        _ = entry.config, entry.is_finished and entry.result
    except UserError as error:
        return replace(entry, problem=str(error))
    return entry


def found(words: Sequence[str]) -> list[RunSummary]:
    """Return the runs that words name, each once. Raises UserError for a word that names none."""
    runs: dict[Path, RunSummary] = {}
    for word in words:
        paths = [Path(path) for path in sorted(glob(str(Path(word).expanduser()), recursive=True))]
        if not paths:
            raise UserError(f"{word}: there is no such run, sweep or folder.")
        for path in paths:
            if path.suffix == ".json" and path.is_file():
                folders = folders_of_sweep(path)
            elif path.is_dir():
                folders = [path]
            else:
                continue
            runs |= {entry.folder.path.resolve(): entry for folder in folders for entry in entries(folder)}
    if not runs:
        raise UserError(f"{' '.join(words)}: there are no runs.")
    return list(runs.values())


def folders_of_sweep(path: Path) -> list[Path]:
    """Return the folders of the runs of a sweep. Raises UserError where the file is none."""
    outputs = path.resolve().parents[1]
    return [outputs / job["folder"] for job in _sweep(path)["jobs"] if job["folder"] is not None]


def title(words: Sequence[str]) -> str:
    """Return what a comparison is called: the command that made the runs, where that is one, else the words."""
    path = Path(words[0])
    if len(words) == 1 and path.suffix == ".json" and path.is_file():
        return str(_sweep(path).get("command") or words[0])
    return " ".join(words)


def _sweep(path: Path) -> dict[str, Any]:
    try:
        sweep: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all("folder" in job for job in sweep["jobs"]):
            raise ValueError("its jobs have no folders")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no sweep: {error}") from error
    return sweep


def chosen(found: Iterable[RunSummary], conditions: Sequence[str]) -> list[RunSummary]:
    """Return the runs for which all conditions hold: data=mnist, model=lenet*, accuracy>0.98, optimizer.lr<=0.1.

    Raises UserError for a condition that is none, and for a key that no run has.
    """
    entries = list(found)
    keys = {key for entry in entries for key in entry.values} if conditions else set()
    tests = []
    for word in conditions:
        key, test = _condition(word)
        if entries and key not in keys:
            raise UserError(f"{word}: no run has '{key}'{did_you_mean(key, keys)}")
        tests.append(test)
    return [entry for entry in entries if all(test(entry.values) for test in tests)]


def _condition(word: str) -> tuple[str, Callable[[dict[str, Any]], bool]]:
    match = re.fullmatch(r"([\w./@-]+?)(>=|<=|!=|>|<|=)([^=<>].*|)", word)
    if match is None:
        raise UserError(f"{word}: conditions are like data=mnist, model=lenet*, accuracy>0.98.")
    key, sign, given = match.groups()

    def holds(values: dict[str, Any]) -> bool:
        if key not in values:
            return False
        value = values[key]
        if sign in ("=", "!="):
            shown = json.dumps(value) if isinstance(value, bool) or value is None else str(value)
            return (fnmatchcase(shown, given) or _equal(value, given)) == (sign == "=")
        try:
            return COMPARISONS[sign](float(value), float(given))
        except (TypeError, ValueError):
            return False

    if sign in (">=", "<=", ">", "<"):
        try:
            float(given)
        except ValueError as error:
            raise UserError(f"{word}: '{given}' is no number.") from error
    return key, holds


def _equal(value: Any, given: str) -> bool:
    try:
        return not isinstance(value, bool) and float(value) == float(given)
    except (TypeError, ValueError):
        return False


def prunable(found: Sequence[RunSummary]) -> list[tuple[RunSummary, str]]:
    """Return the runs that nobody will go on with or read again, each with the reason.

    Those that were interrupted, and those of the same identity before a newer finished one; never one that a process
    works on, and never one that cannot be read.
    """
    newest: dict[str, int] = {}
    for entry in found:
        if entry.is_finished:
            identity = entry.record["identity"]
            newest[identity] = max(newest.get(identity, 0), entry.folder.number)
    reasons = []
    for entry in found:
        if entry.problem or entry.folder.is_held():
            continue
        if entry.folder.number < newest.get(entry.record["identity"], 0):
            reasons.append((entry, "trained anew since"))
        elif not entry.is_finished:
            reasons.append((entry, f"{entry.status}, not finished"))
    return reasons
