"""Which runs belong to a sweep, and how each job ended: `outputs/sweeps/NAME.json`."""

import hashlib
import signal
from collections.abc import Sequence
from pathlib import Path

from cnnbench.store.files import write_json
from cnnbench.store.folder import find_runs, now, outputs_dir, shown
from cnnbench.training import console
from cnnbench.training.plan import Plan


def outcome(plan: Plan, code: int, reason: str) -> str:
    """Say how a job ended, by what its folder holds rather than by what its process said."""
    runs = find_runs(outputs_dir(), plan.config.identity())
    if code == 0 and runs and runs[-1].is_completed:
        return "completed"
    record = runs[-1].record() if runs else {}
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code == 0 or code > 128:
        return str(record.get("status", "stopped"))
    if code == 2:  # a mistake: nothing was computed, and nothing written
        return f"not {'continued' if runs else 'started'}: {reason}"
    return f"failed: {reason or record.get('error') or f'exit code {code}'}"


def write_manifest(plans: Sequence[Plan], outcomes: Sequence[str], command: str) -> Path:
    """Write down which runs belong together, for the reports, and return where."""
    identities = [plan.config.identity() for plan in plans]
    folder = outputs_dir() / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
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
    path = folder / f"{name}.json"
    write_json(path, {"command": command, "ended": now(), "jobs": jobs})
    return path


def summarize(plans: Sequence[Plan], outcomes: Sequence[str]) -> None:
    """Print a line a job: how it ended, its test metrics, its folder."""
    console.say()
    for plan, outcome in zip(plans, outcomes, strict=True):
        runs = find_runs(outputs_dir(), plan.config.identity())
        metrics = ""
        if outcome == "completed":
            result = runs[-1].result()
            test = {name: value for name, value in result["test"].items() if name != "samples" and value is not None}
            words = [*(f"{name} {value:.4f}" for name, value in test.items()), console.reached(result)]
            metrics = "  ".join(filter(None, words))
        where = runs[-1].shown_path if runs else shown(outputs_dir() / plan.run_path())
        console.say(f"  {outcome:<12}  {metrics:<40}  {where}")
    done = sum(outcome == "completed" for outcome in outcomes)
    console.say(f"  {done} of {len(plans)} runs completed")
