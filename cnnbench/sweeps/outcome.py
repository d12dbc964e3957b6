"""How the jobs of a sweep stand, and how each ended: by what its run folder holds, not by what its process said."""

import signal
from dataclasses import dataclass
from typing import Literal

from cnnbench.errors import ExitCode
from cnnbench.store.folder import RunFolder
from cnnbench.store.provenance import changed_names
from cnnbench.store.query import RunSummary, read_run
from cnnbench.sweeps.slots import JobEnd
from cnnbench.training.plan import Plan

Kind = Literal["completed", "stopped", "failed", "unreadable", "elsewhere", "not started"]
ENDED = ("completed", "failed", "unreadable")  # kinds that nothing more is done about
TESTED_AGAIN = "the training diverged, and would with the same code again; retry_failed=true tries"


@dataclass(frozen=True)
class Outcome:
    """How a job stands. text: that in a word or two; for one that failed `failed: …`. reason: in full, or empty.

    is_known: it failed in an earlier launch, and was not tried in this one.
    """

    kind: Kind
    text: str
    reason: str = ""
    is_known: bool = False


@dataclass
class Worked:
    """What a launcher came to: how each job stands, in their order, and how it was stopped, if it was."""

    outcomes: dict[str, Outcome]
    stopped: ExitCode | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Return how the command ends."""
        kinds = {outcome.kind for outcome in self.outcomes.values()}
        if self.stopped is not None:
            return self.stopped
        if kinds & {"failed", "unreadable"}:
            return ExitCode.FAILED
        return ExitCode.STOPPED if kinds & {"stopped", "not started"} else ExitCode.FINISHED


COMPLETED = Outcome("completed", "completed")
STOPPED = Outcome("stopped", "stopped")
NOT_STARTED = Outcome("not started", "not started")


def elsewhere(holder: str) -> Outcome:
    """Return that another launcher works on a job."""
    return Outcome("elsewhere", "elsewhere", holder)


def failed(text: str, reason: str = "", is_known: bool = False) -> Outcome:
    """Return that a job failed. text: what happened to it; reason: in full."""
    return Outcome("failed", text, reason, is_known)


def outcome_on_disk(run: RunSummary | None) -> Outcome | None:
    """Return how a run stands that is not to be trained, since it is completed or cannot be read; None for others."""
    if run is None or not (run.problem or run.is_finished):
        return None
    return Outcome("unreadable", "unreadable", run.problem, is_known=True) if run.problem else COMPLETED


def outcome_of(run: RunFolder | None, end: JobEnd) -> Outcome:
    """Return how a job ended whose process ended; record it in the run, where its process could not."""
    found = None if run is None else read_run(run.path)
    done = outcome_on_disk(found)
    if end.code in (ExitCode.FINISHED, ExitCode.STOPPED, ExitCode.INTERRUPTED) and done is not None:
        return done
    record = {} if found is None else found.record
    if end.code in (ExitCode.STOPPED, ExitCode.INTERRUPTED):
        return STOPPED
    if end.is_held:
        return elsewhere(end.reason)
    if end.code == ExitCode.MISTAKE:  # nothing was computed, and nothing written
        return failed("not continued" if record else "not started", end.reason)
    vanished = _vanished(end.code)
    sessions = record.get("sessions", [])  # none of a run that was killed before it began to train
    is_of_process = not sessions or sessions[-1]["process"] == end.process
    if run is not None and record.get("status") == "running" and is_of_process:
        run.end("stopped" if end.code < 0 else "failed", error=vanished)
    if end.code < 0:
        return failed(vanished)
    return failed("failed", end.reason or record.get("error") or vanished)


def failed_before(run: RunFolder | None, plan: Plan) -> Outcome | None:
    """Return how a run ended that would end the same way again: it diverged, and its code is as it was; else None."""
    record = run.record() if run is not None else {}
    error = str(record.get("error") or "")
    if record.get("status") != "failed" or not error.startswith("DivergedError: "):
        return None
    if plan.rerun or changed_names(record.get("code", {}), plan.code):
        return None
    return failed("failed", f"{error.removeprefix('DivergedError: ')}\n{TESTED_AGAIN}", is_known=True)


def _vanished(code: int) -> str:
    """Say how a process ended that could not say it itself."""
    if code == ExitCode.FINISHED:
        return "its process ended with exit code 0, without a result"
    if code > 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"killed by {name}" + (": it was out of memory, or somebody's kill -9" if name == "SIGKILL" else "")
