"""Runs by what they are of: all of them by identity, those of an experiment."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cnnbench.errors import UserError
from cnnbench.store.folder import BEGINNING, RunFolder, run_names

HASH = re.compile(r"-(?!(?:19|20)\d{6})(?=([0-9a-f]{8}))")  # as a name has it; what looks like a date is none


def _beginnings(outputs: Path, name: str) -> list[str]:
    """Return the beginnings of identities in the name of a run, or that of its record where it was renamed."""
    if found := HASH.findall(name.rpartition("/")[2]):
        return found
    record = outputs / name / "run.json"
    with suppress(UserError):
        return [str(RunFolder(record.parent).record().get("identity"))[:BEGINNING]] if record.is_file() else []
    return []


def find_runs(outputs: Path, identity: str, names: Mapping[str, Sequence[str]] | None = None) -> list[RunFolder]:
    """Return all runs of one identity, the first first: the original, then -r2, -r3, …

    names: those of all runs by hash, where several are looked up.
    """
    begin = identity[:BEGINNING]
    names = names_by_hash(outputs) if names is None else names
    folders = [RunFolder(outputs / name) for name in names.get(begin, ())]
    runs = [one for one in folders if one.record_file.is_file() and one.record().get("identity") == identity]
    return sorted(runs, key=lambda folder: (folder.number, folder.path))


def names_by_hash(outputs: Path) -> dict[str, list[str]]:
    """Return the names of all runs by the beginning of their identities, as `find_runs` takes them."""
    names: dict[str, list[str]] = {}
    for name in run_names(outputs):
        for begin in _beginnings(outputs, name):
            names.setdefault(begin, []).append(name)
    return names


def finished_runs_of(outputs: Path, experiment: str) -> list[RunFolder]:
    """Return all finished runs of an experiment, also those that deviate from it, the newest last."""
    found = []
    for name in run_names(outputs):
        folder = RunFolder(outputs / name)
        with suppress(OSError, UserError):  # of a run that cannot be read, whichever it is of
            if json.dumps(experiment).encode() not in folder.record_file.read_bytes():
                continue  # that is seen in a tenth of the time that it takes to read what it says
            record = folder.record()
            if record.get("choices", {}).get("experiment") == experiment and folder.is_completed:
                written = folder.result_file.stat().st_mtime_ns  # of several that ended in the same second
                found.append((str(record.get("ended")), written, folder))
    return [folder for *_, folder in sorted(found, key=lambda one: one[:2])]
