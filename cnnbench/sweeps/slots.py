"""Carries out the jobs of a sweep, each in a process of its own.

A job is the same run, in the same folder, as the single command would be; typing the sweep again runs what is
missing. A job that fails, exits or is killed leaves the others running.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType
from typing import Any

from cnnbench.errors import ExitCode, NotWrittenError, Stopped, TrainingError, UserError, counted
from cnnbench.store.files import check_writable
from cnnbench.sweeps.expand import resolve_all
from cnnbench.sweeps.manifest import JobEnd, outcome, summarize, sweeps_dir, write_manifest
from cnnbench.training import console
from cnnbench.training.ending import WritePage
from cnnbench.training.plan import Plan, command_line, with_initial_weights
from cnnbench.training.signals import SIGNALS, StopRequests
from cnnbench.training.trainer import carry_out

Compare = Callable[[Path], tuple[Path, list[str]]]
"""Writes the page that compares the runs of a sweep, and returns its path and what to print of it."""
LOOKS_EVERY = 0.2  # seconds, for signals


def carry_out_all(
    plans: Sequence[Plan],
    stop: StopRequests,
    write_page: WritePage | None = None,
    compare: Compare | None = None,
    preload: Sequence[str] = (),
    command: str | None = None,
) -> ExitCode:
    """Run every plan, one after another, and return the exit code.

    stop: listens to signals. write_page, compare: write the page of a run and that of the sweep. preload: modules that
    the end of a job needs, imported once instead of by every job. command: what makes this sweep; None: the command
    line of the process.
    """
    before = set(sys.modules)
    jobs = resolve_all(plans)
    reports = any(plan.config.report for plan in jobs)
    needed = [name for name, module in sys.modules.items() if name not in before and module.__spec__]
    processes = _Processes([*needed, *(preload if reports else ())], write_page)
    try:
        check_writable(sweeps_dir())
    except NotWrittenError as error:
        raise UserError(f"nothing was started.\n{error}") from error
    console.say(counted(len(jobs), "run"))
    outcomes: list[str] = []
    stopped: ExitCode | None = None
    with stop.deferred():
        for index in range(len(jobs)):
            console.say(f"\n[{index + 1}/{len(jobs)}] {jobs[index].command}")
            try:
                jobs[index] = plan = with_initial_weights(jobs[index])  # an earlier job may have trained them
            except UserError as error:
                console.error(error)
                outcomes.append(f"not started: {str(error).splitlines()[-1].strip()}")
                continue
            end = processes.run(plan, stop)
            outcomes.append(outcome(plan, end))
            if stop.signal is not None:
                stopped = stop.exit_code
            elif end.code in (ExitCode.STOPPED, ExitCode.INTERRUPTED) and outcomes[-1] != "paused":
                stopped = ExitCode(end.code)  # what takes one process away takes all of them
            if stopped is not None:
                break
        outcomes += ["not started"] * (len(jobs) - len(outcomes))
        wants = compare is not None and reports and stopped is None
        compares = wants and outcomes.count("completed") > 1
        try:
            manifest = write_manifest(jobs, outcomes, command or command_line(sys.argv[1:]))
        finally:
            summarize(jobs, outcomes, is_brief=compares)
        if wants and outcomes.count("completed") == 1:
            same = f": all {len(plans)} jobs are the same run" if len(plans) > len(jobs) == 1 else ""
            console.say(f"  no comparison: only one run is completed{same}")
    if compare is not None and compares:
        with console.tolerating("the comparison"):
            page, lines = compare(manifest)
            console.say("\n".join(["", *lines, ""]))
            console.show_page(page, any(plan.config.open for plan in jobs))
    if stopped is not None:
        console.say("stopped; the same command again runs what is missing.")
        return stopped
    missing = [outcome for outcome in outcomes if outcome != "completed"]
    if not missing:
        return ExitCode.FINISHED
    return ExitCode.STOPPED if all(outcome == "paused" for outcome in missing) else ExitCode.FAILED


class _Processes:
    """Starts a process for each job: from a server that has imported everything once, and run nothing.

    So a job starts at once, with the code as it was when the sweep began, and shares no state with the others.
    """

    def __init__(self, imports: Sequence[str], write_page: WritePage | None) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            # The process that cleans up after others has to outlast signals to the whole group, as the server does.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                resource_tracker.ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._context.set_forkserver_preload(["cnnbench.sweeps.server", "cnnbench.sweeps.slots", *imports])
        self._write_page = write_page

    def run(self, plan: Plan, stop: StopRequests) -> JobEnd:
        """Return how the job ended. A signal is passed on to it, and it is waited for; a second Ctrl-C kills it."""
        saying, listening = (self._context.Pipe(duplex=False) for _ in range(2))
        arguments = (plan, self._write_page, console.progress_mode(), dict(os.environ), saying[1], listening[0])
        process = self._context.Process(target=_job, args=arguments)
        with _without_main():
            process.start()
        for end in (saying[1], listening[0]):  # so that each side notices when the other one is gone
            end.close()
        try:
            is_sent = False
            while not wait([process.sentinel], LOOKS_EVERY):
                if stop.signal is not None and not is_sent:
                    is_sent = True
                    with suppress(OSError):  # it has just ended
                        listening[1].send(stop.signal)
        except KeyboardInterrupt:
            process.kill()
        process.join()
        listening[1].close()
        try:
            reason = str(saying[0].recv()) if saying[0].poll() else ""
        except EOFError:  # it ended without a message
            reason = ""
        return JobEnd(int(process.exitcode or 0), reason, process.pid)


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
    plan: Plan,
    write_page: WritePage | None,
    mode: console.ProgressMode,
    environment: Mapping[str, str],
    saying: Connection,
    listening: Connection,
) -> None:
    os.environ.clear()  # the server has what was set when it began: for the first sweep of a notebook
    os.environ.update(environment)
    with StopRequests(gives_back=False) as stop:
        threading.Thread(target=_pass_on, args=(listening, stop), daemon=True).start()
        try:
            with console.showing(mode):
                code = carry_out(plan, write_page, stop)
        except (UserError, TrainingError) as error:
            console.error(error)
            saying.send(str(error).partition("\n")[0])
            code = ExitCode.FAILED if isinstance(error, TrainingError) else ExitCode.MISTAKE
        except Stopped as error:
            console.error(error)
            code = stop.exit_code
        except KeyboardInterrupt as error:
            console.error(error)
            code = ExitCode.INTERRUPTED
    sys.exit(code)


def _pass_on(listening: Connection, stop: StopRequests) -> None:
    """Stop this process by the signals that the sweep gets, and where the sweep is gone."""
    try:
        while True:
            stop.pass_on(listening.recv())
    except (EOFError, OSError):
        stop.pass_on(signal.SIGTERM)
