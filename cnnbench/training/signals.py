"""Stopping on request: Ctrl-C, a signal from a scheduler, a terminal that goes away, or a limit of time."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from cnnbench.errors import ExitCode, Stopped, StoppedAtOnce

SIGNALS = tuple(
    getattr(signal, f"SIG{name}")
    for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "XCPU")
    if hasattr(signal, f"SIG{name}")  # Windows has two of them
)
"""What asks a program to end, and would end it at once."""
Handler = Callable[[int, FrameType | None], None] | signal.Handlers


class StopRequests:
    """While open, a signal stops the program wherever it is, but waits while that is `deferred`.

    It does so by `StoppedAtOnce`, or by `Stopped` from `check`. Only the first signal counts, so that nothing comes in
    the way of what is saved then; a second Ctrl-C raises KeyboardInterrupt, wherever the program is.
    """

    def __init__(self, gives_back: bool = True) -> None:
        """gives_back: whether signals are handled as before at the end; else nothing but Ctrl-C disturbs what is left.

        That is for a process which ends then: a second SIGTERM would replace its exit code.
        """
        self.signal: int | None = None
        self._gives_back = gives_back
        self._deadline: float | None = None
        self._is_deferred = False
        self._interrupts = 0
        self._passed_on: int | None = None
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = handled(SIGNALS, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        given_back(self._before)
        if not self._gives_back:
            handled((number for number in self._before if number != signal.SIGINT), signal.SIG_IGN)
        if kind is StoppedAtOnce:
            raise Stopped(f"stopped by {self.cause}; the same again goes on.") from None

    def limit(self, minutes: float | None) -> None:
        """Let `check` stop the program when so much time has passed from now on; None: when it would anyhow."""
        if minutes is not None:
            self._deadline = time.monotonic() + 60 * minutes

    def pass_on(self, number: int) -> None:
        """Stop as by a signal that another process got. From any thread; never counts as a second Ctrl-C."""
        self._passed_on = number
        main = threading.main_thread().ident
        if hasattr(signal, "pthread_kill") and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)  # wakes it where it waits
        else:
            signal.raise_signal(signal.SIGTERM)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let signals wait for `check`, where stopping would leave something half done."""
        before, self._is_deferred = self._is_deferred, True
        try:
            yield
        finally:
            self._is_deferred = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Stop at once again, within what is deferred: for what takes long, and changes nothing that is saved."""
        before, self._is_deferred = self._is_deferred, False
        try:
            self.check_signal()
            yield
        finally:
            self._is_deferred = before

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # in a child that was forked, and that nobody asked to save anything
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
            return
        passed_on, self._passed_on = self._passed_on, None
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                raise KeyboardInterrupt
        if self.signal is None:
            self.signal = passed_on or number
            if not self._is_deferred:
                raise StoppedAtOnce

    def said_of(self, error: BaseException) -> str:
        """Return what to say of an error by which the program stops, or nothing where it is another one.

        pydantic, whose Rust rewords what is raised within, makes another one of a signal while models are built.
        """
        if isinstance(error, Stopped):
            return str(error)
        is_reworded = self.signal is not None and StoppedAtOnce.__name__ in str(error)
        return f"stopped by {self.cause}." if is_reworded or isinstance(error, StoppedAtOnce) else ""

    @property
    def cause(self) -> str:
        """Return what stopped the program, as one says it."""
        if self.signal is None:
            return "max_minutes"
        return "Ctrl-C" if self.signal == signal.SIGINT else signal.Signals(self.signal).name

    @property
    def exit_code(self) -> ExitCode:
        """Return the exit code of a command that was stopped."""
        return ExitCode.INTERRUPTED if self.signal == signal.SIGINT else ExitCode.STOPPED

    def check(self) -> None:
        """Raise Stopped if a signal has come, or the time is over."""
        self.check_signal()
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise Stopped(self.cause)

    def check_signal(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.signal is not None:
            raise Stopped(self.cause)


def handled(numbers: Iterable[int], handler: Handler) -> dict[int, Any]:
    """Let a function handle signals, or ignore them, and return what handled each before.

    Signals that are ignored stay so (`nohup` does that), and so do those that are handled by no Python code. Nothing is
    changed outside the main thread: Python delivers signals there, and allows no other to set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    kept = (signal.SIG_IGN, None)
    return {number: signal.signal(number, handler) for number in numbers if signal.getsignal(number) not in kept}


def given_back(before: dict[int, Any]) -> None:
    """Let signals be handled as they were."""
    for number, handler in before.items():
        signal.signal(number, handler)
