"""Which runs belong to a sweep, and how each job ended: `outputs/sweeps/NAME.json`."""

import hashlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnbench.errors import ExitCode
from cnnbench.store.files import make_folder, write_json
from cnnbench.store.folder import find_runs, now, outputs_dir, shown
from cnnbench.training import console
from cnnbench.training.plan import Plan


@dataclass(frozen=True)
class JobEnd:
    """How the process of a job ended. code: negative for a signal. reason: why it failed, where it could say so."""

    code: int
    reason: str
    process: int


def sweeps_dir() -> Path:
    """Return the folder of manifests."""
    return outputs_dir() / "sweeps"


def outcome(plan: Plan, end: JobEnd) -> str:
    """Say how a job ended, by what its folder holds rather than by what its process said.

    Records that in the run, where its process could not.
    """
    runs = find_runs(outputs_dir(), plan.config.identity())
    record = runs[-1].record() if runs else {}
    if end.code in (ExitCode.FINISHED, ExitCode.STOPPED, ExitCode.INTERRUPTED) and runs and runs[-1].is_completed:
        return "completed"
    if end.code in (ExitCode.STOPPED, ExitCode.INTERRUPTED):
        return status if (status := record.get("status")) in ("paused", "preempted") else "stopped"
    if end.code == ExitCode.MISTAKE:  # nothing was computed, and nothing written
        return f"not {'continued' if runs else 'started'}: {end.reason}"
    vanished = _vanished(end.code)
    sessions = record.get("sessions", [])  # none of a run that was killed before it began to train
    if record.get("status") == "running" and (not sessions or sessions[-1]["process"] == end.process):
        runs[-1].end("interrupted" if end.code < 0 else "failed", error=vanished)
    if end.code < 0:
        return vanished
    return f"failed: {end.reason or record.get('error') or vanished}"


def _vanished(code: int) -> str:
    """Say how a process ended that could not say it itself."""
    if code == ExitCode.FINISHED:
        return "its process ended with exit code 0, without a result"
    if code > 0:
        return f"its process ended with exit code {code}"
    why = ": it was out of memory, or somebody's kill -9" if code == -signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{why}"


def write_manifest(plans: Sequence[Plan], outcomes: Sequence[str], command: str) -> Path:
    """Write the manifest that says which runs belong together, and return its path."""
    identities = [plan.config.identity() for plan in plans]
    make_folder(sweeps_dir())
    name = hashlib.sha256("".join(sorted(identities)).encode()).hexdigest()[:8]
    runs = [find_runs(outputs_dir(), identity) for identity in identities]
    jobs = [
        {
            "command": plan.command,
            "identity": identity,
            "outcome": outcome,
            "folder": str(of_job[-1].path.relative_to(outputs_dir())) if of_job else None,
        }
        for plan, identity, outcome, of_job in zip(plans, identities, outcomes, runs, strict=True)
    ]
    path = sweeps_dir() / f"{name}.json"
    write_json(path, {"command": command, "ended": now(), "jobs": jobs})
    return path


def summarize(plans: Sequence[Plan], outcomes: Sequence[str], is_brief: bool = False) -> None:
    """Print a line per job: how it ended, its test metrics, its folder. is_brief: only of jobs without a result."""
    console.say()
    for plan, outcome in zip(plans, outcomes, strict=True):
        if is_brief and outcome == "completed":
            continue
        runs = find_runs(outputs_dir(), plan.config.identity())
        metrics = ""
        if outcome == "completed":
            result = runs[-1].result()
            split, measured = next((one, result[one]) for one in ("test", "val", "train") if result.get(one))
            found = {name: value for name, value in measured.items() if name != "samples" and value is not None}
            of = "" if split == "test" else f"/{split}"
            words = [*(f"{name}{of} {value:.4f}" for name, value in found.items()), console.reached(result)]
            metrics = "  ".join(filter(None, words))
        where = runs[-1].shown_path if runs else shown(outputs_dir() / plan.run_path())
        console.say(f"  {outcome:<12}  {metrics:<40}  {where}")
    done = sum(outcome == "completed" for outcome in outcomes)
    console.say(f"  {done} of {len(plans)} runs completed")
