"""Stopping on request: Ctrl-C, a signal from a scheduler, or a limit of time."""

import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, Self

from cnnbench.errors import Stopped


class StopRequests:
    """While open, signals only raise a flag; `check` turns it into `Stopped` where that is safe.

    A second Ctrl-C stops at once, wherever the program is.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))

    def __init__(self, max_minutes: float | None = None) -> None:
        self.signal: int | None = None
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = handled(self.SIGNALS, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    @property
    def status(self) -> str:
        """Return what to call the run that was stopped: paused by its user, or preempted from outside."""
        return "paused" if self.signal in (None, signal.SIGINT) else "preempted"

    @property
    def exit_code(self) -> int:
        """Return 0 for a limit of time, and what shells expect for a signal."""
        return 0 if self.signal is None else 128 + self.signal

    def check(self) -> None:
        """Raise Stopped if a signal has come, or the time is over."""
        if self.signal is not None:
            raise Stopped(signal.Signals(self.signal).name)
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise Stopped("max_minutes")


def handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Let a function handle signals, and return what handled each before.

    Nothing is changed outside the main thread: Python delivers signals there, and allows no other to set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in numbers}
