"""Sweeps on disk as plain values: the files that describe them, and the runs of their jobs."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnnbench.errors import UserError
from cnnbench.store.folder import find_runs, names_by_hash, readable, shown
from cnnbench.store.reading import read_json
from cnnbench.store.schema import FrozenPlan, Sweep

MISSING = "it was completed, but its run is no longer there: it would be trained again"


def sweep_file(path: Path) -> Path | None:
    """Return the file that describes a sweep, of its folder or of itself; None where there is no sweep."""
    if (path / "sweep.json").is_file():
        return path / "sweep.json"
    return path if path.suffix == ".json" and path.parent.name == "sweeps" and path.is_file() else None


def sweep_folders(path: Path) -> list[Path]:
    """Return the folders of the runs of a sweep that were begun. Raises UserError if the file describes no sweep."""
    outputs = outputs_of(path)
    jobs, names = read_sweep(path)["jobs"], names_by_hash(outputs)
    return [folder for job in jobs if (folder := job_folder(outputs, path.parent, job, names)) is not None]


def sweep_named(word: str, outputs: Path) -> Path | None:
    """Return the file of the sweep that a word means: its folder, or the name of that in `outputs/sweeps`."""
    return sweep_file(Path(with_folder(word, outputs)).expanduser())


def with_folder(word: str, outputs: Path) -> str:
    """Return the path of a sweep for its folder's name, or the name or hash in it, and any other word as it is.

    Of several with that name, it is the one that has the jobs of all: seeds were added to it. Raises UserError where
    there is none such.
    """
    typed = Path(word).expanduser()
    if typed.parent.name == "sweeps" and not typed.exists():
        named = with_folder(typed.name, typed.parent.parent)
        return word if named == typed.name else named
    if "/" in word or word == "last" or typed.exists():
        return word
    if sweep_file(path := outputs / "sweeps" / word) is not None:
        return shown(path)
    parts = {path: re.fullmatch(r"(.+)-([0-9a-f]{8})", path.name) for path in _sweep_paths(outputs)}
    found = [path for path, part in parts.items() if part and readable(word)[:80] in part.groups() and sweep_file(path)]
    if not found:
        return word
    jobs = {
        path: {job.get("identity") for job in read_sweep(file)["jobs"]} for path in found if (file := sweep_file(path))
    }
    whole = [path for path in found if all(jobs[path] >= others for others in jobs.values())]
    if len(whole) != 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{word}: several sweeps have this name: {names}; type the hash of one of them")
    return shown(whole[0])


def sweep_files(outputs: Path) -> list[Path]:
    """Return the files that describe sweeps; earlier versions wrote one of them, not a folder."""
    return [file for path in _sweep_paths(outputs) if (file := sweep_file(path)) is not None]


def _sweep_paths(outputs: Path) -> list[Path]:
    return sorted((outputs / "sweeps").glob("*"))


def outputs_of(sweep: Path) -> Path:
    """Return the folder of the runs of a sweep, by the file that describes it."""
    return sweep.resolve().parents[2 if sweep.name == "sweep.json" else 1]


def link_file(sweep: Path, job: Mapping[str, Any]) -> Path:
    """Return the file of the plan of a job that begins with the run of another, once that is known."""
    return sweep / "jobs" / f"{job['identity']}-begun.json"


def job_folder(
    outputs: Path, sweep: Path, job: Mapping[str, Any], names: Mapping[str, Sequence[str]] | None = None
) -> Path | None:
    """Return the folder of the run of a job; None where it was not begun. sweep: its folder; names: as in find_runs."""
    if job.get("after"):  # its run has another identity, which the weights are part of that it begins with
        file = link_file(sweep, job)
        if not file.is_file():
            return None
        job = {**job, "identity": read_json(file, FrozenPlan)["identity"], "folder": None}
    if job["folder"] is not None and (outputs / job["folder"] / "run.json").is_file():
        return Path(outputs / job["folder"])
    # The same run may have been typed in other words.
    runs = find_runs(outputs, job["identity"], names) if "identity" in job else []
    return runs[-1].path if runs and runs[-1].number >= job.get("number", 1) else None


def read_sweep(path: Path) -> dict[str, Any]:
    """Return what the file of a sweep says. Raises UserError if it describes none."""
    try:
        return read_json(path, Sweep)
    except UserError as error:
        raise UserError(f"{path} is not a sweep: {error}") from error


def comparison_title(words: Sequence[str]) -> str:
    """Return the title of a comparison: the command of a sweep, or the words that name the runs."""
    path = Path(words[0])
    sweep = sweep_file(path) or (path if path.suffix == ".json" and path.is_file() else None)
    if len(words) == 1 and sweep is not None:
        return str(read_sweep(sweep).get("command") or words[0])
    return " ".join(words)
