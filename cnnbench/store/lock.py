"""A lock that one process holds, and that its system releases however the process ends."""

import errno
import os
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cnnbench.errors import writing_to

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path) -> Iterator[str]:
    """Hold the lock of a file, which names the holder, and yield nothing; or who holds it already.

    Raises NotWrittenError.
    """
    if fcntl is None:  # nor could a folder be removed there with a file in it that is open
        yield ""
        return
    with writing_to(path):
        file = path.open("a+", encoding="utf-8")
    with file:
        with writing_to(path):
            is_taken = take(file)
        if not is_taken:
            file.seek(0)
            yield file.read().strip() or "another process"
            return
        with writing_to(path):
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield ""


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a file, without keeping one from taking it."""
    if fcntl is None or not path.exists():
        return False
    with path.open() as file:  # which is possible in a folder that is read-only
        return not _flock(file, fcntl.LOCK_SH)


def take(file: IO[str]) -> bool:
    """Lock a file for this process alone, and tell whether that was possible; where systems have no locks, it is.

    Asking shares the lock for a moment, and only holding it excludes others: so those who ask are waited for, without
    taking any of them for one who works.
    """
    if fcntl is None:
        return True
    while not _flock(file, fcntl.LOCK_EX):
        if not _flock(file, fcntl.LOCK_SH):
            return False
        fcntl.flock(file, fcntl.LOCK_UN)
        time.sleep(random.uniform(0, 0.002))
    return True


def _flock(file: IO[str], kind: int) -> bool:
    """Lock a file if that is possible at once, and tell whether it was."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # of a file system that has no locks
            raise
    return True
