"""A process that is killed for good, at any place, and continued, ends with the same bits as an unbroken one."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import only_run
from tests.support.interruption import WORDS, assert_same, go, read

pytestmark = pytest.mark.usefixtures("one_second_a_session")

KILLER = """
import json, os, signal, sys, time
from functools import lru_cache
import torch
from cnnbench.store import checkpoint
from cnnbench.training import trainer
from cnnbench.config.compose import Composer
from cnnbench.training.plan import plan_run
from cnnbench.plugins import register_everything

register_everything()
torch.set_num_threads(1)
weight = torch.nn.Parameter(torch.zeros(1))  # what torch imports at the first step of an optimizer is imported once
weight.grad = torch.zeros(1)
torch.optim.SGD([weight], lr=0.1).step()

@lru_cache
def plan_of(*words):
    return plan_run(Composer(), words)

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def before(owner, name, is_it):
    original = getattr(owner, name)
    def patched(*arguments, **more):
        if is_it(*arguments):
            die()
        return original(*arguments, **more)
    setattr(owner, name, patched)

def half(path, content):
    if path.name == "step-000000008.pt":
        path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(content[: len(content) // 2])
        die()
    write(path, content)

def at_call(number):
    calls = iter(range(1, 10 ** 9))
    for name in ("open", "fsync", "replace", "unlink"):
        before(os, name, lambda *_: next(calls) == number)

write = checkpoint.write_atomically
places = {
    "mid-epoch": lambda: before(trainer.Trainer, "on_step", lambda self, row, _: row["step"] == 8),
    "again": lambda: before(trainer.Trainer, "on_step", lambda self, row, _: row["step"] == 9),
    "epoch end": lambda: before(trainer.Trainer, "on_epoch", lambda self, row, *_: row["epoch"] == 2),
    "validation": lambda: before(trainer, "evaluate", lambda *_: True),
    "first step": lambda: before(trainer.Trainer, "on_step", lambda *_: True),
    "half a checkpoint": lambda: setattr(checkpoint, "write_atomically", half),
    "no manifest": lambda: before(checkpoint, "write_sealed", lambda path, _: path.name == "step-000000008.json"),
    "before the test": lambda: before(trainer.Trainer, "_test", lambda *_: True),
    "before the result": lambda: before(trainer, "write_sealed", lambda path, _: path.name == "result.json"),
}
for line in sys.stdin:
    place, outputs, words = json.loads(line)
    plan = plan_of(*words)
    if place == "again":
        time.sleep(1.1)  # TensorBoard orders the files of a run by the second
    child = os.fork()
    if child == 0:
        os.environ["CNNBENCH_OUTPUTS"] = outputs
        at_call(place) if isinstance(place, int) else places[place]()
        sys.exit(trainer.carry_out(plan))
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""


@pytest.fixture(scope="module")
def kill_at(tmp_path_factory):
    """Return a command that runs in a process of its own, which kills itself at a place."""
    here = tmp_path_factory.mktemp("killer")
    with subprocess.Popen(
        [sys.executable, "-c", KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=here
    ) as process:

        def run(place: str | int, outputs: Path, words) -> int:
            process.stdin.write(json.dumps([place, str(outputs), list(words)]) + "\n")
            process.stdin.flush()
            answers = (line for line in process.stdout if line.strip().lstrip("-").isdigit())
            return int(next(answers))

        yield run
        process.stdin.close()


PLACES = {
    "mid-epoch": ["mid-epoch"],
    "twice in the same epoch": ["mid-epoch", "again"],
    "epoch end": ["epoch end"],
    "first step": ["first step"],
    "half a checkpoint written": ["half a checkpoint"],
    "checkpoint without its manifest": ["no manifest"],
    "trained but not tested": ["before the test"],
}


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_a_process_that_is_killed_and_gone_on_with_ends_in_the_same_bits(outputs, unbroken, kill_at, places):
    for place in places:
        assert kill_at(place, outputs, (*WORDS, "checkpoint.every_seconds=0")) == -signal.SIGKILL
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "running"
    assert not (run / "result.json").exists()
    assert go(*WORDS) == 0
    assert_same(run, unbroken)


def test_a_test_part_that_was_measured_twice_is_counted_twice(outputs, kill_at):
    assert kill_at("before the result", outputs, WORDS) == -signal.SIGKILL
    assert go(*WORDS) == 0
    assert read(only_run(outputs) / "result.json")["test_measured"] == 2


def test_the_time_that_a_killed_process_spent_is_counted(outputs, kill_at):
    assert kill_at("before the test", outputs, WORDS) == -signal.SIGKILL
    assert go(*WORDS) == 0
    seconds = read(only_run(outputs) / "result.json")["seconds"]
    assert seconds["total"] > seconds["train"]
