"""What is listed of runs, kept for the next list in `outputs/.index`: a cache, which may be deleted at any time.

What it has of a run counts while `run.json`, `config.yaml` and `result.json` have the times, sizes and numbers of then;
a run that goes on, or cannot be read, is not in it. To read these files takes milliseconds a run, to look whether they
changed microseconds.
"""

import gc
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cnnbench.config.values import TYPED
from cnnbench.errors import NotWrittenError
from cnnbench.store.files import file_system_time, write_atomically
from cnnbench.store.query import Known, RunSummary, by_start, read_run

FORMAT = b"2"
FILES = ("run.json", "config.yaml", "result.json")
RECORD = ("identity", "status", "command", "started", "ended", "error", "choices", "labels")
RESULT = ("train", "val", "test", "watched", "higher_is_better", "seconds")
LEAST = 50  # runs that had to be read; fewer are read again in less time than all are written
SETTLED = 2_000_000_000  # nanoseconds: what was changed at most so long ago may change once more without a later time

Stamp = list[int]
"""The times of change, sizes and numbers of the files of a run; 0 for one that is not there."""
Row = list[Any]
"""A run in the index: its stamp, the number of its keys, and those of its values."""


def listed(folders: Iterable[Path], home: Path) -> list[RunSummary]:
    """Return the runs in these folders, the oldest first, with the help of the index in `home`, which they are below.

    Of those that it knows, `record` and `result` have only what is listed.
    """
    begin = f"{home}{os.sep}"
    paths = {str(path).removeprefix(begin): path for path in folders}
    stamps = {name: _stamp_of(path) for name, path in paths.items()}
    with without_collection():
        index = _Index.read(home / ".index")
        runs = {name: index.run(name, paths[name]) for name, stamp in stamps.items() if index.has(name, stamp)}
    unknown = [name for name in stamps if name not in runs]
    now = 0
    if len(unknown) >= LEAST:
        with suppress(OSError):  # no index can be written there either
            now = file_system_time(home) - SETTLED
    new = {name: read_run(paths[name]) for name in unknown}
    settled = {
        name: run
        for name, run in new.items()
        if max(*stamps[name][0::4], *stamps[name][1::4]) < now  # by all times of change that the system knows
        and not run.problem
        and run.record.get("status") != "running"
    }
    if len(settled) >= LEAST:
        gone = {name for name in index.rows.keys() - stamps.keys() if not (home / name / FILES[0]).exists()}
        index.rows = {name: row for name, row in index.rows.items() if name not in gone}
        index.add(settled, stamps)
        index.write(home / ".index")
    return by_start([*runs.values(), *new.values()])


@contextmanager
def without_collection() -> Iterator[None]:
    """Let no garbage be collected: to look for it among a million values that stay takes longer than to read them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _stamp_of(path: Path) -> Stamp:
    stamp: Stamp = []
    for name in FILES:
        try:
            status = os.stat(f"{path}/{name}")
        except OSError:
            stamp += [0, 0, 0, 0]
        else:
            stamp += [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]
    return stamp


@dataclass
class _Index:
    """The content of the index: values and keys of runs, each once, and a row for each run, by its folder."""

    values: list[Any] = field(default_factory=list)
    keys: list[list[list[str]]] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "_Index":
        """Return the index in a file; an empty one where that is not whole, or of another version."""
        with suppress(OSError, ValueError):
            head, _, content = path.read_bytes().partition(b"\n")
            if head == _head(content):
                return cls(**json.loads(content))
        return cls()

    def write(self, path: Path) -> None:
        """Write the index to a file, if that is possible."""
        content = json.dumps(vars(self), separators=(",", ":")).encode()
        with suppress(NotWrittenError):
            write_atomically(path, _head(content) + b"\n" + content, outlasts_power=False)

    def has(self, name: str, stamp: Stamp) -> bool:
        """Tell whether a run is known, and as it was."""
        return name in self.rows and self.rows[name][0] == stamp

    def run(self, name: str, path: Path) -> RunSummary:
        """Return a run that is known."""
        row = self.rows[name]
        values = map(self.values.__getitem__, row[2])
        record, settings, result = (dict(zip(keys, values, strict=False)) for keys in self.keys[row[1]])
        return RunSummary(path, known=Known(record, settings, result))

    def add(self, runs: Mapping[str, RunSummary], stamps: Mapping[str, Stamp]) -> None:
        """Take up runs by their folders."""
        numbers = {json.dumps(value): number for number, value in enumerate(self.values)}
        shapes = {json.dumps(keys): number for number, keys in enumerate(self.keys)}
        for name, run in runs.items():
            typed = {key: origin for key, origin in run.record.get("origins", {}).items() if origin == TYPED}
            parts = [
                {key: run.record[key] for key in RECORD if key in run.record} | {"origins": typed},
                run.settings,
                {key: run.result[key] for key in RESULT if key in run.result},
            ]
            keys = json.dumps([list(part) for part in parts])
            values = [json.dumps(value) for part in parts for value in part.values()]
            self.rows[name] = [
                stamps[name],
                shapes.setdefault(keys, len(shapes)),
                [numbers.setdefault(value, len(numbers)) for value in values],
            ]
        self.values += map(json.loads, islice(numbers, len(self.values), None))
        self.keys += map(json.loads, islice(shapes, len(self.keys), None))


def _head(content: bytes) -> bytes:
    return FORMAT + b" " + hashlib.sha256(content).hexdigest().encode()
