"""Carries out the jobs of a sweep, each in a process of its own.

A job is the same run, in the same folder, as the single command would be; typing the sweep again runs what is
missing. A job that fails, exits or is killed leaves the others running.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from cnnbench.errors import TrainingError, UserError, counted
from cnnbench.sweeps.expand import resolve_all
from cnnbench.sweeps.manifest import outcome, summarize, write_manifest
from cnnbench.training import console
from cnnbench.training.plan import Plan, command_line
from cnnbench.training.signals import handled
from cnnbench.training.trainer import WritePage, carry_out

Compare = Callable[[Path], Path]
"""Writes the page that compares the runs of a sweep, and returns its path."""


def carry_out_all(
    plans: Sequence[Plan],
    write_page: WritePage | None = None,
    compare: Compare | None = None,
    preload: Sequence[str] = (),
    command: str | None = None,
) -> int:
    """Run every plan, one after another, and return 0 if all have their result.

    write_page, compare: write the page of a run and that of the sweep. preload: modules that the end of a job needs,
    imported once instead of by every job. command: what makes this sweep; None: the command line of the process.
    """
    before = set(sys.modules)
    plans = resolve_all(plans)
    reports = any(plan.config.report for plan in plans)
    needed = [name for name, module in sys.modules.items() if name not in before and module.__spec__]
    console.say(counted(len(plans), "run"))
    outcomes: list[str] = []
    with _Processes([*needed, *(preload if reports else ())], write_page) as processes:
        for number, plan in enumerate(plans, start=1):
            console.say(f"\n[{number}/{len(plans)}] {plan.command}")
            outcomes.append(outcome(plan, *processes.run(plan)))
            if processes.stopped_by:
                break
    outcomes += ["not started"] * (len(plans) - len(outcomes))
    manifest = write_manifest(plans, outcomes, command or command_line(sys.argv[1:]))
    summarize(plans, outcomes)
    if compare is not None and reports and outcomes.count("completed") > 1:
        with console.tolerating("the comparison"):
            console.show_page(compare(manifest), any(plan.config.open for plan in plans))
    if processes.stopped_by:
        console.say("stopped; the same command again runs what is missing.")
        return 128 + processes.stopped_by
    return 0 if all(outcome == "completed" for outcome in outcomes) else 1


class _Processes:
    """Starts a process for each job: from a server that has imported everything once, and run nothing.

    So a job starts at once, with the code as it was when the sweep began, and shares no state with the others.
    """

    def __init__(self, imports: Sequence[str], write_page: WritePage | None) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["cnnbench.sweeps.slots", *imports])
        self._write_page = write_page
        self._process: Any = None
        self.stopped_by: int | None = None

    def __enter__(self) -> "_Processes":
        self._before = handled((signal.SIGINT, signal.SIGTERM), self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, plan: Plan) -> tuple[int, str]:
        """Return the exit code of the job, and why it failed, where it could say so itself."""
        receiving, sending = self._context.Pipe(duplex=False)
        self._process = self._context.Process(
            target=_job, args=(plan, self._write_page, console.progress_mode(), dict(os.environ), sending)
        )
        with _without_main():
            self._process.start()
        sending.close()
        self._process.join()
        try:
            reason = str(receiving.recv()) if receiving.poll() else ""
        except EOFError:  # it ended without a message
            reason = ""
        return int(self._process.exitcode or 0), reason

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Let the job finish its step and save; a second signal ends it at once."""
        if self._process is not None and self._process.is_alive():
            if self.stopped_by:
                self._process.kill()
            elif number == signal.SIGTERM or not sys.stdin.isatty():  # Ctrl-C reaches the whole group by itself
                self._process.terminate()
        self.stopped_by = number


@contextmanager
def _without_main() -> Iterator[None]:
    """Let a new process not import the script that asks for it: that would start the sweep again if it has no guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _job(
    plan: Plan, write_page: WritePage | None, mode: console.ProgressMode, environment: Mapping[str, str], sending: Any
) -> None:
    os.environ.clear()  # the server has what was set when it began: for the first sweep of a notebook
    os.environ.update(environment)
    try:
        with console.showing(mode):
            sys.exit(carry_out(plan, write_page))
    except (UserError, TrainingError) as error:
        console.error(error)
        sending.send(str(error).partition("\n")[0])
        sys.exit(1 if isinstance(error, TrainingError) else 2)
