"""Commands as processes of their own, to be sent real signals, that start at once: forked from one that imported all.

What they print goes to a file, and is shown where a test fails.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORKER = """
import json, os, signal, sys
import torch
from cnnbench import api
from cnnbench.plugins import register_everything
from cnnbench.train import main
from cnnbench.training import trainer

register_everything()
torch.set_num_threads(1)
weight = torch.nn.Parameter(torch.zeros(1))  # what torch imports at the first step of an optimizer is imported once
weight.grad = torch.zeros(1)
torch.optim.SGD([weight], lr=0.1).step()
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        os.environ.update(asked["environment"])
        os.chdir(asked["folder"])
        out = os.open(asked["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        for number in asked["ignored"]:
            signal.signal(number, signal.SIG_IGN)
        sys.argv[1:] = asked["words"]
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass
class Command:
    """A command while it runs. pid: also of its group."""

    pid: int
    out: Path
    answers: Iterator[str]

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self) -> int:
        """Wait for its end, and return the exit code; negative for a signal that killed it."""
        return int(next(self.answers))

    def wait_until(self, is_so: Callable[[], object], seconds: float = 60) -> None:
        """Wait for something that it does, or that happens when it is gone."""
        until = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < until, f"did not happen within {seconds} s:\n{self.said()}"
            time.sleep(0.01)

    def said(self) -> str:
        return self.out.read_text() if self.out.exists() else ""


@contextmanager
def forked_commands(folder: Path) -> Iterator[Callable[..., Command]]:
    """Yield what starts a command, one at a time; `ignored` signals are so from the beginning, as `nohup` does it."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, answers = process.stdin, iter(process.stdout)

        def start(words: Sequence[str], ignored: Sequence[signal.Signals] = ()) -> Command:
            out = folder / "out.txt"
            out.unlink(missing_ok=True)
            here = {name: value for name, value in os.environ.items() if name.startswith("CNNBENCH_")}
            asked: dict[str, Any] = {"words": list(words), "folder": str(Path.cwd()), "out": str(out)}
            stdin.write(json.dumps(asked | {"environment": here, "ignored": [int(one) for one in ignored]}) + "\n")
            stdin.flush()
            return Command(int(next(answers)), out, answers)

        yield start
        stdin.close()
