"""Who works on which job of a sweep: claims that several launchers make, on one machine or on several.

`claims/IDENTITY.1`, `.2`, …: each is created by one process alone, and never removed. The newest one counts. Its time
of change is a heartbeat. Whoever finds that its holder is gone makes the next one; of two who find it, one can.
"""

import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnbench.errors import NotWrittenError, UserError
from cnnbench.store.files import create_whole, file_system_time, json_bytes, make_folder, write_atomically
from cnnbench.store.folder import now
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Claim

HEARTBEAT = 5.0  # seconds
SILENT = 30.0  # seconds without one that are worth waiting for what comes then
STALE = 90.0  # seconds without one, of a holder on another machine; network file systems show changes a minute later


@dataclass
class Held:
    """A claim that this process made. is_lost: another one took over, since it saw no heartbeat for so long."""

    path: Path
    values: dict[str, Any]
    is_lost: bool = field(default=False, compare=False)

    @property
    def next_path(self) -> Path:
        """Return the claim that would take this one over."""
        return self.path.with_suffix(f".{int(self.path.suffix[1:]) + 1}")


class Claims:
    """The claims of one sweep, and the heartbeat of those that this process holds."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self._folder = folder
        self._numbers: dict[str, int] = {}  # of the newest claim known, by identity
        self._ended: set[str] = set()
        self._held: list[Held] = []
        self._lock = threading.Lock()

    def number(self, identity: str) -> int:
        """Return how often a job has been claimed."""
        number = self._numbers.get(identity, 0)
        while (self._folder / f"{identity}.{number + 1}").exists():
            number += 1
        self._numbers[identity] = number
        return number

    def said(self, identity: str, number: int) -> dict[str, Any]:
        """Return what a claim of a job says; empty where there is none, or where it cannot be read."""
        try:
            return read_json(self._folder / f"{identity}.{number}", Claim) if number else {}
        except UserError:
            return {}

    def ended_since(self, seen: Mapping[str, int]) -> set[str]:
        """Return the jobs that were completed or failed by claims newer than those of these numbers, whoever's."""
        for name in os.listdir(self._folder):
            identity, _, number = name.rpartition(".")
            is_new = (
                identity in seen and identity not in self._ended and number.isdigit() and int(number) > seen[identity]
            )
            if is_new and self.said(identity, int(number)).get("outcome") in ("completed", "failed"):
                self._ended.add(identity)
        return self._ended

    def holder(self, identity: str, number: int) -> str:
        """Return who holds a job by this claim, as one says it; empty: nobody."""
        if not number or self._is_free(self._folder / f"{identity}.{number}"):
            return ""
        claim = self.said(identity, number)
        return f"process {claim['process']} on {claim['host']}" if claim else "another process"

    def is_silent(self, identity: str, number: int) -> bool:
        """Tell whether nothing was heard for a while of who holds a job by this claim: its machine may be gone."""
        if not self.holder(identity, number):
            return False
        heard = (self._folder / f"{identity}.{number}").stat().st_mtime_ns
        return file_system_time(self._folder) - heard > SILENT * 1e9

    def take(self, identity: str, number: int) -> Held | None:
        """Claim a job that nobody holds by its claim of this number, the newest; None where another was first."""
        here = {"host": platform.node(), "process": os.getpid(), "birth": birth(os.getpid())}
        held = Held(self._folder / f"{identity}.{number + 1}", {**here, "began": now()})
        if not create_whole(held.path, json_bytes(held.values)):
            return None
        with self._lock:
            self._held.append(held)
        return held

    def release(self, held: Held, outcome: str = "", reason: str = "") -> None:
        """Say that work on a job has ended, and how."""
        with self._lock:
            self._held.remove(held)
        ended = {**held.values, "ended": now(), "outcome": outcome, "reason": reason}
        with suppress(NotWrittenError):  # it is free when this process ends, as after a power cut
            write_atomically(held.path, json_bytes(ended), outlasts_power=False)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Let what is held be known as such, as long as this context lasts."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended,), daemon=True, name="heartbeat")
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT):
            with self._lock:
                for held in self._held:
                    with suppress(OSError):
                        os.utime(held.path)
                        held.is_lost = held.is_lost or held.next_path.exists()

    def _is_free(self, path: Path) -> bool:
        with path.open("rb") as file:  # which asks the server of a network file system, as looking alone does not
            changed = os.fstat(file.fileno()).st_mtime_ns
        try:
            claim = read_json(path, Claim)
        except UserError:  # its process was killed as it wrote it
            claim = {}
        if claim.get("ended"):
            return True
        if claim and claim["host"] == platform.node() and not is_alive(claim["process"], claim["birth"]):
            return True
        try:
            now_there = file_system_time(self._folder)
        except OSError:  # it is read-only for who looks how a sweep stands
            now_there = time.time_ns()
        return now_there - changed > STALE * 1e9


def birth(process: int) -> str:
    """Return when a process of this machine began, which tells it from a later one of its number; empty: unknown."""
    try:
        state, *facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "ended" if state == "Z" else facts[18]


def is_alive(process: int, born: str = "") -> bool:
    """Tell whether a process of this machine is there. born: when it began, where that is known."""
    if os.name == "nt":
        return True  # signal 0 is Ctrl-C there; what a process held that is gone is taken over once it is stale
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return not born or birth(process) in (born, "")
