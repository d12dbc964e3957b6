"""Runs by what they are of: all of them by identity, those of an experiment."""

import json
from contextlib import suppress
from pathlib import Path

from cnnbench.errors import UserError
from cnnbench.store.folder import RunFolder, beginnings, run_names


def names_by_hash(outputs: Path) -> dict[str, list[str]]:
    """Return the names of all runs by the beginning of their identities, as `find_runs` takes them."""
    names: dict[str, list[str]] = {}
    for name in run_names(outputs):
        for begin in beginnings(outputs, name):
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
