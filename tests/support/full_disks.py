"""Disks that are full or read-only: pretended from a call to the system on, or small ones of their own."""

import errno
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

CALLS = ("open", "write", "fsync", "replace", "rename", "mkdir")
"""What writing asks of the system; and Python's own `open`."""


def _concerns(folder: Path, name: str, arguments: tuple) -> bool:
    """Tell whether a call to the system writes below a folder."""
    if name == "io.open":
        mode = arguments[1] if len(arguments) > 1 else "r"
        return bool(set("wxa+") & set(mode)) and not isinstance(arguments[0], int) and _is_below(folder, arguments[0])
    if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    what = arguments[1] if name in ("replace", "rename") else arguments[0]
    return _is_below(folder, os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what)


def _is_below(folder: Path, path: str | Path) -> bool:
    return os.path.abspath(path).startswith(f"{folder}/")


def at_each_write(patch: pytest.MonkeyPatch, folder: Path, act: Callable[[], None]) -> None:
    """Do something before each call to the system that writes below a folder, from now on."""

    def wrapped(name: str, real: Callable):
        def call(*arguments, **more):
            if _concerns(folder, name, arguments):
                act()
            return real(*arguments, **more)

        return call

    for name in CALLS:
        patch.setattr(os, name, wrapped(name, getattr(os, name)))
    patch.setattr(io, "open", wrapped("io.open", io.open))


@contextmanager
def full(folder: Path, first: int, last: int | None = None, number: int = errno.ENOSPC) -> Iterator[list[int]]:
    """Let what is written below a folder fail, from one call to the system on; yield the numbers of the calls made."""
    calls, made = count(1), []

    def fail() -> None:
        made.append(next(calls))
        if first <= made[-1] <= (last or made[-1]):
            raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch:
        at_each_write(patch, folder, fail)
        yield made


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[str], None]]:
    """Yield what remounts a disk of so many kB at a folder: with `size=9m`, or `ro`. Skips where nobody may do so."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")

    def remount(option: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
