"""Several launchers on one sweep: started, killed with what they started, and given again."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.interruption import differences, outcome_of, read

# A network whose file is edited in between.
NETWORK = '''
from torch import nn
from cnnbench import register_model

@register_model("edited")
def edited(spec, *, dropout: float = 0.0, batchnorm: bool = False) -> nn.Module:
    """A small network with a convolution."""
    norm = nn.BatchNorm2d(4) if batchnorm else nn.Identity()
    side = spec.height // 2 * (spec.width // 2)
    return nn.Sequential(
        nn.Conv2d(spec.channels, 4, 3, padding=1), norm, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Dropout(dropout), nn.Linear(4 * side, spec.num_outputs),
    )
'''
A_COMMENT = "# a comment\n"
CODE = "\ndef unused() -> int:\n    return 1\n"


class Launcher:
    """A command in a group of its own. What it prints goes to a file."""

    def __init__(self, words: Sequence[str], said: Path) -> None:
        self._said = said
        with said.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cnnbench", *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kill_all(self) -> None:
        """Kill it and everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def is_gone(self) -> bool:
        """Tell whether none of its processes is left."""
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def ended(self) -> int:
        return self.process.wait(timeout=280)

    def said(self) -> str:
        return self._said.read_text()


def wait_until(is_so: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"did not happen within {seconds} s"
        time.sleep(0.02)


def working(outputs: Path) -> list[int]:
    """Return the processes that hold a run at the moment."""
    found = (re.match(r"process (\d+) on", path.read_text()) for path in outputs.glob("*/*/*/.lock"))
    return [process for one in found if one and Path(f"/proc/{(process := int(one[1]))}").exists()]


def completed(outputs: Path) -> int:
    return sum(read(path)["status"] == "completed" for path in outputs.glob("*/*/*/run.json"))


def runs_by_identity(outputs: Path) -> dict[str, Path]:
    runs = {read(path)["identity"]: path.parent for path in outputs.glob("*/*/*/run.json")}
    assert len(runs) == len(list(outputs.glob("*/*/*/run.json"))), "a run was trained twice"
    return runs


def assert_same_sweep(outputs: Path, undisturbed: Path) -> None:
    """Compare every run of a sweep that was disturbed with that of one that was not."""
    runs, expected = runs_by_identity(outputs), runs_by_identity(undisturbed)
    assert runs.keys() == expected.keys()
    for identity, run in runs.items():
        one, other = outcome_of(run), outcome_of(expected[identity])
        for outcome in (one, other):
            outcome["result"].pop("test_measured")
        assert differences(one, other) == [], run.name
