"""Inside of a process that is to be killed: at which of its calls that change files; and an end without Python's own.

Imported once, before the process is forked. Nothing here imports pytest.
"""

import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")


def end_at_once() -> None:
    """Let `sys.exit` end the process: Python takes a second for its own end, in which nothing of ours happens."""

    def leave(code: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    sys.exit = leave  # type: ignore[assignment]


def at_call(number: int, roots: list[str], counted: str) -> None:
    """Kill this process before so manieth call that changes a file below one of the roots.

    Where it makes fewer, how many there were is written to a file.
    """
    calls, number_of_calls = count(1), 0

    def call() -> None:
        nonlocal number_of_calls
        number_of_calls = next(calls)
        if number_of_calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        if (event == "open" or event in CHANGES) and _is_below(arguments[0], roots):
            call()

    fsync, leave = os.fsync, sys.exit

    def flush(handle: int) -> None:
        call()
        fsync(handle)

    def leave_counted(code: int) -> None:
        made = number_of_calls
        Path(counted).write_text(str(made))
        leave(code)

    sys.addaudithook(watch)
    os.fsync = flush
    sys.exit = leave_counted  # type: ignore[assignment]


def _is_below(path: object, roots: list[str]) -> bool:
    return isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(tuple(roots))
