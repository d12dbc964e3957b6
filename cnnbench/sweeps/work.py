"""What any launcher, node or engine works on a sweep by: it takes jobs until none is left.

What is finished is not started; what another launcher works on is looked at again at the end.
"""

import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait

from cnnbench.errors import ExitCode, NotWrittenError, UserError
from cnnbench.store.folder import LABELS, RunFolder
from cnnbench.store.query import RunSummary, read_run
from cnnbench.sweeps.claims import Claims, Held
from cnnbench.sweeps.display import Display
from cnnbench.sweeps.folder import Job, SweepFolder
from cnnbench.sweeps.outcome import (
    COMPLETED,
    ENDED,
    NOT_STARTED,
    STOPPED,
    Outcome,
    Worked,
    elsewhere,
    failed,
    failed_before,
    outcome_of,
    outcome_on_disk,
)
from cnnbench.sweeps.slots import JobProcess, Processes, Slot, train_job
from cnnbench.training import console
from cnnbench.training.ending import WritePage
from cnnbench.training.existing import record_labels, restore_config
from cnnbench.training.plan import Plan
from cnnbench.training.signals import StopRequests

LOOKS_EVERY = 0.2  # seconds, for signals
LOOKS_ELSEWHERE_EVERY = 1.0
WAITS_FOR_ORPHANS = 30.0  # seconds: a job whose launcher was killed notices that, saves, and ends


@dataclass(frozen=True)
class Options:
    """Options of a launcher. jobs: at a time; None: what fits the machine. fail_fast: stop at the first failure.

    retry_failed: also what diverged with the same code. accept_stale: continue although code or data changed.
    """

    jobs: int | None = 1
    fail_fast: bool = False
    retry_failed: bool = False
    accept_stale: bool = False


@dataclass
class _Running:
    job: Job
    plan: Plan
    held: Held
    process: JobProcess
    began: float = field(default_factory=time.monotonic)
    is_stopping: bool = False


@dataclass
class Worker:
    """Works on a sweep in slots of this machine.

    stop: listens to signals; each is passed on to the jobs, which save. write_page: of runs whose loggers want it.
    """

    sweep: SweepFolder
    stop: StopRequests
    free: list[Slot]
    options: Options
    processes: Processes
    display: Display
    write_page: WritePage | None = None
    running: dict[int, tuple[Slot, _Running]] = field(default_factory=dict)  # by the sentinel of the process
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)  # the number of claims of a job when this launcher began
    ended_by: ExitCode | None = None
    looked: float = 0.0

    def __post_init__(self) -> None:
        self.claims = Claims(self.sweep.path / "claims")
        minutes = self.sweep.max_minutes
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def work(self) -> Worked:
        """Work until no job is left that could be begun, and return how all of them stand."""
        with self.stop.deferred(), self.claims.beating():
            return self._work()

    def _work(self) -> Worked:
        runs = self.sweep.read_runs()
        waiting = [job for job in self.sweep.jobs if not self._is_over(job, runs[job.identity])]
        self.seen = {job.identity: self.claims.number(job.identity) for job in waiting}
        claims = [(job, self.claims.said(job.identity, self.seen[job.identity])) for job in waiting]
        missing = [job for job, one in claims if one.get("outcome") == "completed" and runs[job.identity] is None]
        unreadable = {job: now.reason for job in self.sweep.jobs if (now := self._before(job)).kind == "unreadable"}
        self.display.begin(len(waiting), self._num_done, missing, unreadable)
        patience = time.monotonic() + WAITS_FOR_ORPHANS
        try:
            while True:
                waiting = self._fill(waiting)
                if not self.running and (not waiting or self._is_ending() or not self._waits(waiting, patience)):
                    break
                patience = time.monotonic() + WAITS_FOR_ORPHANS if self.running else patience
                self._watch()
        except KeyboardInterrupt:  # a second Ctrl-C
            self.ended_by = ExitCode.INTERRUPTED
            for _, one in self.running.values():
                one.process.kill()
            for sentinel in list(self.running):
                self._finish(sentinel, STOPPED)
        finally:
            self.display.close()
            for _, one in self.running.values():  # after an error of ours: nothing is left behind
                one.process.kill()
                self.claims.release(one.held)
        return Worked({job.identity: self._outcome_now(job) for job in self.sweep.jobs}, self.ended_by)

    def _num_done(self) -> int:
        """Return how many jobs have ended, here or in another launcher."""
        here = {identity for identity, one in self.outcomes.items() if one.kind in ENDED}
        return len(here | self.claims.ended_since(self.seen))

    def _outcome_now(self, job: Job) -> Outcome:
        """Return how a job stands at the end: what others worked on may have ended since, or been left."""
        before = self._before(job)
        if before.kind not in ("elsewhere", "not started"):
            return before
        run = self.sweep.run_of(job)
        if (now := self._stands(job, self.claims.number(job.identity), run)) is not None:
            return now
        return NOT_STARTED if run is None else STOPPED

    def _before(self, job: Job) -> Outcome:
        return self.outcomes.get(job.identity, NOT_STARTED)

    def _is_over(self, job: Job, run: RunSummary | None) -> bool:
        """Note how a job stands whose run is completed or cannot be read, and tell whether it is one of these."""
        if run is not None and run.problem:
            if run.folder.is_held():
                return False
            with suppress(UserError, NotWrittenError):  # its problem is said
                restore_config(run.folder, self.sweep.plan(job))
                run = read_run(run.path)
        outcome = outcome_on_disk(run)
        if run is None or outcome is None:
            return False
        self.outcomes[job.identity] = outcome
        # To read the plans of all jobs would take long.
        if outcome is COMPLETED and re.search(rf"\b({'|'.join(LABELS)})=", job.command):
            with console.tolerating(f"name, notes and tags of {run.folder.shown_path}"):
                record_labels(run.folder, self.sweep.plan(job))
        return True

    def _is_ending(self) -> bool:
        is_late = self.deadline is not None and time.monotonic() > self.deadline
        return is_late or self.ended_by is not None

    def _has_room(self) -> bool:
        return bool(self.free) and not self._is_ending()

    def _fill(self, waiting: list[Job]) -> list[Job]:
        """Begin jobs in the slots that are free, and return those that are left; one held elsewhere comes last.

        What has ended elsewhere is noted also where no slot is free.
        """
        left, later = [], []
        is_time = time.monotonic() - self.looked > LOOKS_ELSEWHERE_EVERY
        over = self.claims.ended_since(self.seen) if is_time else ()
        for job in waiting:
            was_left = job.identity in self.outcomes
            if job.identity not in over and (not self._has_room() or (was_left and not is_time)):
                left.append(job)
            elif (outcome := self._begin(job)) is not None:
                self.outcomes[job.identity] = outcome
                if outcome.kind in ("elsewhere", "not started"):
                    later.append(job)
                else:
                    self.display.ended(job, outcome, None)
                    self._after(outcome)
        if is_time:
            self.looked = time.monotonic()
        return [*left, *later]

    def _begin(self, job: Job) -> Outcome | None:
        """Begin a job, and return None; or return how it stands where it cannot be begun."""
        number = self.claims.number(job.identity)
        if job.after and (outcome := self._link(job)) is not None:
            return outcome
        run = self.sweep.run_of(job)
        if (outcome := self._stands(job, number, run)) is not None or not self._has_room():
            return outcome or NOT_STARTED
        try:
            plan = self._plan(job, run)
        except UserError as error:
            return failed("not started", str(error))
        if not self.options.retry_failed and (before := failed_before(run, plan)) is not None:
            return before
        held = self.claims.take(job.identity, number)
        if held is None:
            return elsewhere("another process")
        slot = self.free.pop(0)
        page = self.write_page if set(plan.config.logger) - {"tensorboard"} and plan.config.report else None
        minutes = None if self.deadline is None else (self.deadline - time.monotonic()) / 60
        process = self.processes.start(partial(train_job, plan, page, minutes), self.sweep.log(job), slot.device)
        self.running[process.sentinel] = slot, _Running(job, plan, held, process)
        self.outcomes.pop(job.identity, None)
        self.display.started(job, plan, slot)
        return None

    def _link(self, job: Job) -> Outcome | None:
        """Let a job begin with the run of another one, and return None; or how it stands where that is not finished."""
        parent = next(other for other in self.sweep.jobs if other.identity == job.after)
        run = self.sweep.run_of(parent)
        if run is not None and read_run(run.path).is_finished:
            try:
                self.sweep.link(job, run)
            except UserError as error:
                return failed("not started", str(error))
            return None
        before = self._before(parent)
        if before.kind in ("failed", "unreadable"):
            how = "failed" if before.kind == "failed" else "cannot be read"
            return failed("not started", f"it begins with the run of: {parent.command}, which {how}", before.is_known)
        return before if before.kind == "elsewhere" else NOT_STARTED

    def _stands(self, job: Job, number: int, run: RunFolder | None) -> Outcome | None:
        """Return how a job stands that is not to be begun; None for any other. number: of its newest claim."""
        if holder := self.claims.holder(job.identity, number):
            return elsewhere(holder)
        if (outcome := outcome_on_disk(None if run is None else read_run(run.path))) is not None:
            return outcome
        if number > self.seen[job.identity]:  # another launcher tried it meanwhile
            said = self.claims.said(job.identity, number)
            if said.get("outcome") == "failed":
                return failed("failed", said["reason"])
        if run is not None and run.is_held():
            return elsewhere("a process whose launcher is gone, and that saves")
        return None

    def _plan(self, job: Job, run: RunFolder | None) -> Plan:
        """Return the plan of a job, with the threads that it began with, or those of the sweep."""
        plan = self.sweep.plan(job)
        threads = plan.config.threads
        if "threads" not in plan.typed:
            threads = None if run is not None and run.record().get("threads") else threads or self.sweep.threads
        config = plan.config.model_copy(update={"threads": threads, "max_minutes": None})
        # What is to be trained again and was begun is continued.
        rerun = plan.rerun and run is None
        return replace(plan, config=config, rerun=rerun, accept_stale=self.options.accept_stale)

    def _waits(self, waiting: Sequence[Job], patience: float) -> bool:
        """Tell whether a job is worth waiting for: left alone by its launcher, it saves; or its machine may be gone."""
        claims = [(job.identity, self.claims.number(job.identity)) for job in waiting]
        if any(self.claims.is_silent(*claim) for claim in claims):
            return True
        return time.monotonic() <= patience and any(not self.claims.holder(*claim) for claim in claims)

    def _watch(self) -> None:
        """Wait for a moment: for the end of jobs, and for signals, which are passed on."""
        ready = wait(list(self.running), LOOKS_EVERY)
        for sentinel in ready:
            assert isinstance(sentinel, int)
            self._finish(sentinel)
        if self.stop.signal is not None and self.ended_by is None:
            self._stop_all(self.stop.signal, self.stop.exit_code)
        for _, one in self.running.values():
            if one.held.is_lost and not one.is_stopping:
                one.is_stopping = True
                one.process.stop(signal.SIGTERM)
        self.display.update([one.job for _, one in self.running.values()])

    def _finish(self, sentinel: int, killed: Outcome | None = None) -> None:
        slot, one = self.running.pop(sentinel)
        end = one.process.ended()
        outcome = outcome_of(self.sweep.run_of(one.job), end)
        if killed is not None and outcome.kind == "failed":
            outcome = killed
        if one.held.is_lost and outcome.kind != "completed":
            outcome = elsewhere("another launcher, which saw no heartbeat of this one")
        self.claims.release(one.held, outcome.kind, outcome.reason or outcome.text)
        self.outcomes[one.job.identity] = outcome
        self.free.append(slot)
        self.display.ended(one.job, outcome, time.monotonic() - one.began)
        is_asked = one.is_stopping or self._is_ending()
        if end.code == ExitCode.STOPPED and not is_asked:
            self._stop_all(signal.SIGTERM, ExitCode.STOPPED)  # what takes one process away takes all of them
        self._after(outcome)

    def _after(self, outcome: Outcome) -> None:
        is_new = outcome.kind == "failed" and not outcome.is_known  # else the same command would never get past it
        if self.options.fail_fast and is_new and self.ended_by is None:
            self._stop_all(signal.SIGTERM, ExitCode.FAILED)

    def _stop_all(self, number: int, code: ExitCode) -> None:
        self.ended_by = code
        for _, one in self.running.values():
            one.is_stopping = True
            one.process.stop(number)
