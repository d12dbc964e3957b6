"""Runs by what is said of them: by a word that a user types, those of an experiment."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from cnnbench.config.hints import closest_path
from cnnbench.errors import UserError
from cnnbench.store.folder import RunFolder, outputs_dir, run_names


def word_of(run: str | os.PathLike[str]) -> str:
    """Return the word for a run: of one that was opened, and of anything else that has a path, that path."""
    return os.fspath(run) if isinstance(run, os.PathLike) else str(run)


def run_named(word: str) -> RunFolder:
    """Return the run that a word means: a folder; `last`, the run trained last; its `name=`; a part of its path.

    Of several runs with that part, the one whose path ends in it. Raises UserError for none, and for several.
    """
    if Path(word).expanduser().exists():
        return RunFolder.open(Path(word))
    outputs = outputs_dir()
    part = word.replace(os.sep, "/").strip("/")
    names = run_names(outputs) if word == "last" else [name for name in run_names(outputs) if part and part in name]
    runs = {name: file for name in names if (file := outputs / name / "run.json").is_file()}
    if word == "last":
        if not runs:
            raise UserError(f"{word}: there are no runs in {outputs} yet.")
        return RunFolder(max(runs.values(), key=_trained).parent)
    found = [name for name in runs if name.endswith(part)] or list(runs)
    if len(found) != 1:
        found = [name for name in run_names(outputs) if _is_called(RunFolder(outputs / name), word)] or found
    if len(found) > 1:
        first = "".join(f"\n  {name}{_state(RunFolder(outputs / name))}" for name in sorted(found)[:8])
        more = f"\n  and {len(found) - 8} more" if len(found) > 8 else ""
        raise UserError(
            f"{word}: {len(found)} runs have this name or path; type more of the path of one of them:{first}{more}"
        )
    if not found:
        meant = closest_path(word, *_names_like(word, outputs))
        hint = f"; did you mean '{meant}'?" if meant else "."
        raise UserError(f"{word}: there is no such folder, and no run below {outputs} has this name or path{hint}")
    return RunFolder.open(outputs / found[0])


def _names_like(word: str, outputs: Path) -> list[str]:
    """Return what may be meant in a place: the names of sweeps, which end in a hash, `last`, parts of names of runs."""
    sweeps = [re.sub("-[0-9a-f]{8}$", "", path.name) for path in (outputs / "sweeps").glob("*")]
    if "/" in word:
        return sweeps * (Path(word).parent.name == "sweeps")
    return ["last", *sweeps, *(part for name in run_names(outputs) for part in name.split("/"))]


def _trained(record: Path) -> tuple[bytes, int]:
    """Return when a run was trained last, as its `run.json` says, which evaluating and restoring change as well."""
    with suppress(OSError):
        times = re.findall(rb'"(?:started|time|ended)": "([^"]*)', record.read_bytes())  # ten times as fast as parsing
        return max(times, default=b""), record.stat().st_mtime_ns  # of several in the same second
    return b"", 0


def _state(run: RunFolder) -> str:
    """Return what tells runs of one name apart: how far each is, and since when; "" for one that cannot be read."""
    with suppress(OSError, UserError):
        record = run.record()
        return f"  ({record.get('status')}, {record.get('ended') or record.get('started')})"
    return ""


def _is_called(run: RunFolder, name: str) -> bool:
    """Tell whether a user gave the run this name; of one that cannot be read, that is not known."""
    with suppress(OSError, UserError):
        if json.dumps(name).encode() in run.record_file.read_bytes():  # a tenth of the time that reading takes
            record = run.record()
            return bool({"name": None, **record.get("config", {}), **record.get("labels", {})}["name"] == name)
    return False


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
