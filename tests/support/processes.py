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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORKER = """
import gc, json, os, signal, sys
import torch
from cnnbench import api
from cnnbench.plugins import register_everything
from cnnbench.train import main
from cnnbench.training import trainer
from cnnbench.training.signals import SIGNALS

register_everything()
torch.set_num_threads(1)
weight = torch.nn.Parameter(torch.zeros(1))  # what torch imports at the first step of an optimizer is imported once
weight.grad = torch.zeros(1)
torch.optim.SGD([weight], lr=0.1).step()
PREPARE
gc.freeze()  # what is there now is garbage of no command
print("ready", flush=True)
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
        for number in SIGNALS:  # whoever started the tests may ignore some, as a shell does in the background
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        for number in asked["ignored"]:
            signal.signal(number, signal.SIG_IGN)
        sys.argv[1:] = asked["words"]
        exec(asked["first"])
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

    def killed_after(self, seconds: float) -> bool:
        """Kill it for good after so long, and tell whether that came before its end."""
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        return self.ended() == -signal.SIGKILL

    def is_running(self) -> bool:
        return _is_there(os.kill, self.pid)

    def has_group(self) -> bool:
        """Tell whether it runs yet, or a process that it started."""
        return _is_there(os.killpg, self.pid)

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


def _is_there(send: Callable[[int, int], None], number: int) -> bool:
    try:
        send(number, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def forked_commands(folder: Path, prepare: str = "") -> Iterator[Callable[..., Command]]:
    """Yield what starts a command, one at a time; `ignored` signals are so from the beginning, as `nohup` does it.

    prepare: code that is run once, before any command; `first`: before this one, in its process.
    """
    with subprocess.Popen(
        [sys.executable, "-c", FORKER.replace("PREPARE", prepare)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, answers = process.stdin, iter(process.stdout)
        assert next(answers) == "ready\n"

        def start(words: Sequence[str], ignored: Sequence[signal.Signals] = (), first: str = "") -> Command:
            out = folder / "out.txt"
            out.unlink(missing_ok=True)
            here = {name: value for name, value in os.environ.items() if name.startswith("CNNBENCH_")}
            asked: dict[str, Any] = {"words": list(words), "folder": str(Path.cwd()), "out": str(out), "first": first}
            stdin.write(json.dumps(asked | {"environment": here, "ignored": [int(one) for one in ignored]}) + "\n")
            stdin.flush()
            return Command(int(next(answers)), out, answers)

        yield start
        process.kill()  # it would wait for a command that hangs
