"""Where the jobs of a sweep run: slots of this machine, each with a device, and a process for each job.

A process that fails, exits or is killed leaves the others running.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from cnnbench.errors import ExitCode, Stopped, StoppedAtOnce, TrainingError, UserError, writing_to
from cnnbench.store.folder import RunFolder, RunHeldError, now
from cnnbench.store.provenance import of_linux
from cnnbench.training import console
from cnnbench.training.ending import WritePage
from cnnbench.training.plan import Plan
from cnnbench.training.setup import DEFAULT_THREADS
from cnnbench.training.signals import SIGNALS, StopRequests, handled
from cnnbench.training.trainer import carry_out

MEMORY = 2**30  # bytes that a job needs at least, for `jobs=auto`
LONGEST = 20_000  # characters of a reason
# What a training imports when it begins to log, and at its end: half a second, once instead of for every job.
NEEDED = ("scipy.special", "tensorboard.summary.v1", "torch.utils.tensorboard")
# Windows knows no fork, and on macOS Apple's libraries may crash after one: Python's own choice for both is `spawn`.
METHOD = "spawn" if sys.platform in ("win32", "darwin") else "forkserver"

Task = Callable[[StopRequests], ExitCode]
"""What a process does; it can be sent to it."""


@dataclass(frozen=True)
class Slot:
    """Room for one job at a time. device: for $CUDA_VISIBLE_DEVICES; None: as it is."""

    number: int
    device: str | None = None


def slots_of_machine(jobs: int | None, plan: Plan) -> list[Slot]:
    """Return slots for jobs like this one, which take turns on several GPUs. jobs: how many; None: what fits."""
    devices: list[str] = []
    if plan.config.device in ("auto", "cuda") and torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if jobs is None:
        jobs = len(devices) or max(1, min(DEFAULT_THREADS, _free_memory() // MEMORY))
    shared = devices if len(devices) > 1 else [None]
    return [Slot(number, shared[number % len(shared)]) for number in range(jobs)]


def _free_memory() -> int:
    """Return the bytes of memory that are free; a lot where the system cannot be asked."""
    kilobytes = of_linux("/proc/meminfo", r"^MemAvailable: +(\d+)")
    return int(kilobytes) * 1024 if kilobytes else 2**60


@dataclass(frozen=True)
class JobEnd:
    """How the process of a job ended. code: negative for a signal. reason: why it failed, where it could say so.

    is_held: it found that another process works on the run.
    """

    code: int
    reason: str
    process: int
    is_held: bool = False


class JobProcess:
    """A process while it works on a job."""

    def __init__(self, process: Any, saying: Connection, listening: Connection) -> None:
        self._process, self._saying, self._listening = process, saying, listening
        self.sentinel: int = process.sentinel

    def stop(self, number: int) -> None:
        """Let it stop as by a signal."""
        with suppress(OSError):  # it has just ended
            self._listening.send(number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def ended(self) -> JobEnd:
        """Wait for its end, and return how that was."""
        self._process.join()
        self._listening.close()
        try:
            is_held, reason = self._saying.recv() if self._saying.poll() else (False, "")
        except (EOFError, OSError):  # it ended without a message, or was killed in the middle of it
            is_held, reason = False, ""
        self._saying.close()
        return JobEnd(int(self._process.exitcode or 0), str(reason), self._process.pid, is_held)


class Processes:
    """Starts a process for each job: from a server that has imported everything once, and run nothing.

    So a job starts at once, with the code as it was when the sweep began, and shares no state with the others.
    """

    def __init__(self, imports: Sequence[str] = ()) -> None:
        self._context: Any = multiprocessing.get_context(METHOD)
        self._has_server, self._imports = METHOD == "forkserver", imports

    def warm_up(self) -> None:
        """Let the server import, while something else is done here."""
        self._prepare()

    def start(self, task: Task, log: Path, device: str | None = None) -> JobProcess:
        """Start a process that does something, and what it prints goes to a file."""
        saying, listening = (self._context.Pipe(duplex=False) for _ in range(2))
        environment = {**os.environ, **({} if device is None else {"CUDA_VISIBLE_DEVICES": device})}
        arguments = (task, log, environment, saying[1], listening[0])
        for is_last in (False, False, True):
            self._prepare()
            process = self._context.Process(target=_work_in_process, args=arguments)
            try:
                with _without_main():
                    process.start()
                break
            except (EOFError, ConnectionError):  # the server has been killed; the next one begins once it is gone
                if is_last:
                    raise
                time.sleep(0.2)
        for end in (saying[1], listening[0]):  # so that each side notices when the other one is gone
            end.close()
        return JobProcess(process, saying[0], listening[1])

    def _prepare(self) -> None:
        if not self._has_server:
            return
        ours = sorted(name for name in sys.modules if name.startswith("cnnbench."))  # registers parts, not plugins
        self._context.set_forkserver_preload(["cnnbench.sweeps.server", *ours, *NEEDED, *self._imports])
        # Both outlast signals to the whole group, also while they import: the server lets them through when it can.
        for ensure_running in (resource_tracker.ensure_running, forkserver.ensure_running):
            before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                ensure_running()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main() -> Iterator[None]:
    """Let a new process not import the script that asks for it: that would start the sweep again if it has no guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def train_job(plan: Plan, write_page: WritePage | None, minutes: float | None, stop: StopRequests) -> ExitCode:
    """Carry out the plan of a job, for at most so long."""
    console.say(f"--- {now()}  {plan.command}")
    stop.limit(minutes)
    return carry_out(plan, write_page, stop)


def page_job(folder: RunFolder, write_page: WritePage, _stop: StopRequests) -> ExitCode:
    """Write the page of a finished run."""
    with console.tolerating(f"the page of {folder.shown_path}"), folder.lock():
        write_page(folder)
    return ExitCode.FINISHED


def _work_in_process(
    task: Task, log: Path, environment: Mapping[str, str], saying: Connection, listening: Connection
) -> None:
    os.environ.clear()  # the server has what was set when it began: for the first sweep of a notebook
    os.environ.update(environment)
    handled([signal.SIGINT], signal.default_int_handler)  # the server outlasts it
    stop = StopRequests(gives_back=False)
    try:
        with stop:
            _print_to(log)
            threading.Thread(target=_pass_on, args=(listening, stop), daemon=True).start()  # it may stop this at once
            with console.showing("lines"):
                code = task(stop)
    except (UserError, TrainingError) as error:
        console.error(error)
        saying.send((isinstance(error, RunHeldError), str(error)[:LONGEST]))
        code = ExitCode.FAILED if isinstance(error, TrainingError) else ExitCode.MISTAKE
    except (Stopped, StoppedAtOnce) as error:
        console.error(error)
        code = stop.exit_code
    except KeyboardInterrupt as error:
        console.error(error)
        code = ExitCode.INTERRUPTED
    sys.exit(code)


def _print_to(log: Path) -> None:
    with writing_to(log):
        sys.stdout = sys.stderr = log.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    for stream in (1, 2):  # what libraries print
        os.dup2(sys.stdout.fileno(), stream)


def _pass_on(listening: Connection, stop: StopRequests) -> None:
    """Stop this process by the signals that the sweep gets, and where the sweep is gone."""
    try:
        while True:
            stop.pass_on(listening.recv())
    except (EOFError, OSError):
        stop.pass_on(signal.SIGTERM)
