"""The page of a sweep while it runs: written now and then, by a process of its own, so that no job waits for it."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic

from cnnbench.errors import ExitCode
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.slots import JobProcess, Processes
from cnnbench.training import console
from cnnbench.training.signals import StopRequests

FIRST = 10.0  # seconds after the start: what is shorter needs no page before its end
EVERY = 30.0  # seconds, at most so often
SHARE = 0.1  # of the time, at most: a page of hundreds of runs is written less often
LONGEST = 120.0  # seconds that one may take
LAST = 20.0  # seconds for that of a sweep that was stopped
NICE = 10  # so that it takes the time that jobs leave

WriteProgress = Callable[[Path, bool], Path]
"""Writes the page of a sweep, given by its folder, and whether it runs."""


class LivePage:
    """Writes the page of a running sweep, where jobs have ended since."""

    def __init__(self, sweep: SweepFolder, write: WriteProgress, processes: Processes) -> None:
        self._sweep, self._write, self._processes = sweep, write, processes
        self._process: JobProcess | None = None
        self._began = 0.0
        self._next = monotonic() + FIRST
        self._is_due = True
        self.was_written = False

    def changed(self) -> None:
        """Note that there is something new to show."""
        self._is_due = True

    def update(self) -> None:
        """Begin to write the page if it is due, and see whether that has ended; returns at once."""
        now = monotonic()
        if self._process is not None:
            if wait([self._process.sentinel], 0):
                self._end()
                self._next = max(self._began + EVERY, now + (now - self._began) / SHARE)
            elif now - self._began > LONGEST:
                self._process.kill()
        elif self._is_due and now >= self._next:
            self._begin(is_running=True)

    def close(self) -> None:
        """Stop writing, so that the last word is another's."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def finish(self) -> None:
        """Write the page of a sweep that does not go on, where there is one of when it ran."""
        if self.was_written:
            self._begin(is_running=False)
            if self._process is not None:
                wait([self._process.sentinel], LAST)
        self.close()

    def _begin(self, is_running: bool) -> None:
        task = partial(_write, self._sweep.path, self._write, is_running)
        self._began, self._is_due, self.was_written = monotonic(), False, True
        with suppress(OSError):  # there is no process left to be had
            self._process = self._processes.start(task, self._sweep.path / "logs" / "page.log")

    def _end(self) -> None:
        if self._process is not None:
            self._process.ended()
            self._process = None


def _write(sweep: Path, write: WriteProgress, is_running: bool, _stop: StopRequests) -> ExitCode:
    if is_running:
        with suppress(AttributeError, OSError):
            os.nice(NICE)
    with console.tolerating("the page of the sweep"):
        write(sweep, is_running)
    return ExitCode.FINISHED
