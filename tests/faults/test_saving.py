"""A save that fails or is killed anywhere: what was saved before still counts, or what is saved now; never nothing."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from cnnbench.errors import TrainingError
from cnnbench.store import checkpoint
from cnnbench.store.checkpoint import load_newest, save, steps_in
from tests.store.test_checkpoint import content_of, equal, no_warning, save_steps
from tests.support.interruption import Killed

CALLS = ("open", "fsync", "replace", "unlink")  # what a save asks of the system, besides writing into an open file
SAVES = {"after the same step": (5, 5), "after another step": (5, 6)}
KEEPS = (1, 2)


def later(step: int) -> dict:
    """Return what is saved again after the same step: the epoch has ended since."""
    return content_of(step) | {"progress": {"step": step, "epochs_done": 1}}


def before_each_call(patch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something before each call to the system from now on."""

    def wrapped(real):
        def call(*arguments, **more):
            act()
            return real(*arguments, **more)

        return call

    for name in CALLS:
        patch.setattr(os, name, wrapped(getattr(os, name)))


def fail_at(patch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """Let one call to the system fail, of all from now on."""
    calls = count(1)

    def fail() -> None:
        if next(calls) == number:
            raise error

    before_each_call(patch, fail)


def calls_of_a_save(folder: Path, step: int, keep: int) -> int:
    """Return how many calls to the system a save makes."""
    made: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        before_each_call(patch, lambda: made.append(None))
        save(folder, step, later(step), {"epoch": 1}, keep)
    return len(made)


@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize(("before", "step"), SAVES.values(), ids=SAVES)
@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, "No space left")], ids=["broken off", "disk full"])
def test_a_save_that_fails_at_any_call_costs_no_checkpoint(tmp_path, before, step, keep, error):
    save_steps(tmp_path / "counted", before)
    number_of_calls = calls_of_a_save(tmp_path / "counted", step, keep)
    assert number_of_calls >= 6
    for number in range(1, number_of_calls + 1):
        folder = tmp_path / str(number)
        save_steps(folder, before)
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, number, error)
            with suppress(Killed, TrainingError):
                save(folder, step, later(step), {"epoch": 1}, keep)
        found = load_newest(folder, no_warning)
        assert equal(found, content_of(before)) or equal(found, later(step)), number
        save(folder, step, later(step), {"epoch": 1}, keep)  # as the run that goes on does
        assert equal(load_newest(folder, no_warning), later(step))
        kept = steps_in(folder)
        assert kept == sorted({before, step})[-keep:]
        assert len([path for path in folder.iterdir() if path.suffix != ".tmp"]) == 2 * len(kept), number


KILLER = """
import json, os, signal, sys
from itertools import count
from pathlib import Path
import torch
from cnnbench.store import checkpoint
from tests.faults.test_saving import CALLS, later
torch.set_num_threads(1)
for line in sys.stdin:
    folder, step, keep, number = json.loads(line)
    child = os.fork()
    if child == 0:
        calls = count(1)
        def before(real):
            def call(*arguments, **more):
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **more)
            return call
        for name in CALLS:
            setattr(os, name, before(getattr(os, name)))
        checkpoint.save(Path(folder), step, later(step), {"epoch": 1}, keep)
        os._exit(0)
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""


@pytest.mark.faults  # every run has the next one: a save that fails at any call
@pytest.mark.parametrize("keep", [1, 2])
def test_a_process_that_is_killed_at_any_call_of_a_save_costs_no_checkpoint(tmp_path, keep):
    with subprocess.Popen(
        [sys.executable, "-c", KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        for before, step in SAVES.values():
            ended, number = -signal.SIGKILL, 0
            while ended == -signal.SIGKILL:
                number += 1
                folder = tmp_path / f"{step}-{number}"
                save_steps(folder, before)
                process.stdin.write(json.dumps([str(folder), step, keep, number]) + "\n")
                process.stdin.flush()
                ended = json.loads(process.stdout.readline())
                found = load_newest(folder, no_warning)
                assert equal(found, content_of(before)) or equal(found, later(step)), (step, number)
                assert ended == -signal.SIGKILL or equal(found, later(step))
            assert ended == 0
            assert number >= 6
        process.stdin.close()


def test_what_is_saved_again_after_the_same_step_takes_another_name_in_turn(tmp_path):
    names = []
    for _ in range(3):
        save(tmp_path, 5, later(5), {"epoch": 1}, 1)
        names += [path.name for path in tmp_path.glob("*.pt")]
    assert names == ["step-000000005.pt", "step-000000005-2.pt", "step-000000005.pt"]


def test_an_old_checkpoint_that_cannot_be_removed_does_not_end_a_training(tmp_path, monkeypatch):
    save_steps(tmp_path, 4)

    def refuse(*_arguments, **_more):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    save_steps(tmp_path, 5, keep=1)
    assert steps_in(tmp_path) == [4, 5]
    monkeypatch.undo()
    save_steps(tmp_path, 6, keep=1)
    assert steps_in(tmp_path) == [6]


def test_a_content_file_elsewhere_is_not_read(tmp_path):
    save_steps(tmp_path / "other", 5)
    save_steps(tmp_path / "own", 5)
    manifest = checkpoint.manifest(tmp_path / "own", 5)
    checkpoint.write_sealed(tmp_path / "own" / "step-000000005.json", manifest | {"file": "../other/step-000000005.pt"})
    (tmp_path / "own" / "step-000000005.pt").unlink()
    assert steps_in(tmp_path / "own") == [5]
    with pytest.raises(checkpoint.DamagedError, match=r"own/step-000000005\.pt cannot be read"):
        checkpoint.load(tmp_path / "own", 5)
