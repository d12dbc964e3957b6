"""The jobs of a sweep on disk, by its file: where it is, and the run folder of each job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnnbench.errors import UserError
from cnnbench.store.folder import find_runs
from cnnbench.store.reading import read_json
from cnnbench.store.schema import FrozenPlan, Sweep


def sweep_file(path: Path) -> Path | None:
    """Return the file that describes a sweep, of its folder or of itself; None where there is no sweep."""
    if (path / "sweep.json").is_file():
        return path / "sweep.json"
    return path if path.suffix == ".json" and path.parent.name == "sweeps" and path.is_file() else None


def sweep_folders(path: Path) -> list[Path]:
    """Return the folders of the runs of a sweep that were begun. Raises UserError if the file describes no sweep."""
    outputs = path.resolve().parents[2 if path.name == "sweep.json" else 1]
    jobs = read_sweep(path)["jobs"]
    return [folder for job in jobs if (folder := job_folder(outputs, path.parent, job)) is not None]


def read_sweep(path: Path) -> dict[str, Any]:
    """Return what the file of a sweep says. Raises UserError if it describes none."""
    try:
        return read_json(path, Sweep)
    except UserError as error:
        raise UserError(f"{path} is not a sweep: {error}") from error


def link_file(sweep: Path, job: Mapping[str, Any]) -> Path:
    """Return the file of the plan of a job that begins with the run of another, once that is known."""
    return sweep / "jobs" / f"{job['identity']}-begun.json"


def job_folder(outputs: Path, sweep: Path, job: Mapping[str, Any]) -> Path | None:
    """Return the folder of the run of a job; None where it was not begun. sweep: its folder."""
    if job.get("after"):  # its run has another identity, which the weights are part of that it begins with
        file = link_file(sweep, job)
        if not file.is_file():
            return None
        job = {**job, "identity": read_json(file, FrozenPlan)["identity"], "folder": None}
    if job["folder"] is not None and (outputs / job["folder"] / "run.json").is_file():
        return Path(outputs / job["folder"])
    # The same run may have been typed in other words.
    runs = find_runs(outputs, job["identity"]) if "identity" in job else []
    return runs[-1].path if runs and runs[-1].number >= job.get("number", 1) else None
