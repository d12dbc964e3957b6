"""A run that is killed, stopped or cut short anywhere, and gone on with, ends in the same bits as an unbroken one."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench import loop
from cnnbench.assemble import make_parts
from cnnbench.checkpoint import load_newest
from cnnbench.compose import open_composer
from cnnbench.errors import Stopped, UserError
from cnnbench.interrupt import StopRequests
from cnnbench.plan import Plan, plan_resume, plan_run
from cnnbench.preflight import preflight
from cnnbench.registry import register_everything
from cnnbench.rundir import RunFolder
from cnnbench.session import _Session, carry_out
from tests.conftest import TINY, only_run

# 72 images train: three epochs of five steps, the last batch smaller. Everything that has a state or draws is on.
WORDS = (
    *TINY, "data.num_train=80", "model=lenet_v2", "data.channels=3", "data.image_size=20", "data.crop=16",
    "augmentation=crop_flip_jitter", "regularization.dropout=0.3", "regularization.batchnorm=true",
    "regularization.early_stopping.patience=2",
)  # fmt: skip
PLAIN = (*TINY, "data.num_train=80", "model=lenet_v2", "scheduler=none")
STEPS = range(1, 16)
CHECKS = range(1, 19)  # after each of five steps, and in the one batch of validation, of three epochs


class Killed(BaseException):
    """Stands for a kill: nothing is saved when it comes."""


@lru_cache
def plan_of(*words: str) -> Plan:
    with open_composer() as composer:
        composer.add_missing_options()
        return plan_run(composer, words)


def go(*words: str) -> int:
    """Carry out a command, without the time that composing it takes every time."""
    return carry_out(plan_of(*words))


@pytest.fixture(autouse=True)
def _one_second_a_session(monkeypatch):
    """TensorBoard orders the files of a run by the second in which they were begun; these tests have many in one."""
    seconds = count(int(time.time()) + 1000)
    clock = SimpleNamespace(time=lambda: next(seconds), sleep=time.sleep)
    monkeypatch.setattr("tensorboard.summary.writer.event_file_writer.time", clock)


# What a run ended in --------------------------------------------------------------------------------------------------


def differences(one, other, where: str = "") -> list[str]:
    """Return the places in which nested values differ in any bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return [f"{where}: {list(one)} and {list(other)}"]
        return [found for key in one for found in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            found for index in range(len(one)) for found in differences(one[index], other[index], f"{where}/{index}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def rows_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def outcome_of(run: Path) -> dict:
    """Return everything that shall not depend on interruptions."""
    content = load_newest(run / "checkpoints", pytest.fail)
    content["progress"].pop("train_seconds")
    result = read(run / "result.json")
    for timed in ("seconds", "images_per_second"):
        result.pop(timed)
    return {"checkpoint": content, "rows": rows_of(run), "result": result, "scalars": scalars_of(run)}


def scalars_of(run: Path) -> dict[str, list[list[float]]]:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in sorted(events.Tags()["scalars"])
    }


def shown_by(rows: list[dict], result: dict) -> dict[str, list[list[float]]]:
    """Return what TensorBoard shall show of rows and result."""
    scalars: dict[str, list[list[float]]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in ("row", "epoch", "step"):
                tag = f"step/{key.removesuffix('/train')}" if row["row"] == "step" else key
                scalars.setdefault(tag, []).append([row["step"], float(np.float32(value))])
    for name in set(result["test"]) - {"samples"}:
        scalars[f"{name}/test"] = [[result["checkpoint"]["step"], float(np.float32(result["test"][name]))]]
    return dict(sorted(scalars.items()))


def finished(words, folder: Path) -> Path:
    """Return the folder of a run that nothing came in the way of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(folder))
        torch.set_num_threads(1)
        register_everything()
        assert go(*words) == 0
    return only_run(folder)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> dict:
    return outcome_of(finished(WORDS, tmp_path_factory.mktemp("unbroken")))


@pytest.fixture(scope="module")
def finished_elsewhere(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    finished(PLAIN, folder)
    return folder


@pytest.fixture
def parent(finished_elsewhere, outputs) -> Path:
    """Return a finished run of three epochs with a constant learning rate, in the outputs of this test."""
    shutil.copytree(finished_elsewhere, outputs)
    return only_run(outputs)


def child_of(parent: Path) -> Path:
    runs = [path.parent for path in parent.parents[2].glob("*/*/*/run.json")]
    (child,) = [run for run in runs if run != parent]
    return child


def assert_same(run: Path, unbroken: dict) -> None:
    outcome = outcome_of(run)
    assert differences(outcome, unbroken) == []
    assert outcome["scalars"] == shown_by(outcome["rows"], outcome["result"])
    assert read(run / "run.json")["status"] == "completed"
    assert not list(run.rglob("*.tmp"))


def test_an_unbroken_run_learns_something_and_tells_each_step_and_epoch_once(unbroken):
    rows = unbroken["rows"]
    assert [row["step"] for row in rows if row["row"] == "step"] == list(STEPS)
    assert [row["epoch"] for row in rows if row["row"] == "epoch"] == [1, 2, 3]
    assert unbroken["scalars"] == shown_by(rows, unbroken["result"])
    progress = unbroken["checkpoint"]["progress"]
    assert progress["samples_trained"] == 3 * 72
    assert progress["to_beat"] is not None


def test_weights_are_not_those_of_the_beginning(unbroken):
    config = plan_of(*WORDS).config
    initial = make_parts(config, preflight(config)).network.state_dict()
    trained = unbroken["checkpoint"]["network"]
    assert initial.keys() == trained.keys()
    assert not [name for name in initial if torch.equal(initial[name], trained[name])]


# Interrupted at every place, in this process --------------------------------------------------------------------------


def save_every(patch: pytest.MonkeyPatch, steps: int) -> None:
    patch.setattr(_Session, "save_is_due", lambda self: self.progress.step % steps == 0)


def stop(plan: Plan, at_check: int) -> None:
    """Carry out a plan until it asks for so manieth time whether to stop; it saves then."""
    calls = count(1)

    def check_stop(_) -> None:
        if next(calls) == at_check:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequests, "check", check_stop)
        assert carry_out(plan) == 0


def kill(plan: Plan, after_step: int, saves_every: int) -> None:
    """Carry out a plan until after a step; nothing is saved then, but was every so many steps before."""
    on_step = _Session.on_step

    def die(self, row, progress) -> None:
        on_step(self, row, progress)
        if row["step"] == after_step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        save_every(patch, saves_every)
        patch.setattr(_Session, "on_step", die)
        with pytest.raises(Killed):
            carry_out(plan)


@pytest.mark.parametrize("at_check", CHECKS)
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bits(outputs, unbroken, at_check):
    stop(plan_of(*WORDS), at_check)
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "paused"
    assert not (run / "result.json").exists()
    assert go(*WORDS) == 0
    assert_same(run, unbroken)


@pytest.mark.parametrize("after_step", STEPS)
def test_a_run_that_is_killed_after_any_step_goes_on_from_its_last_checkpoint_to_the_same_bits(
    outputs, unbroken, after_step
):
    kill(plan_of(*WORDS), after_step, saves_every=4)
    assert go(*WORDS) == 0
    run = only_run(outputs)
    assert read(run / "run.json")["sessions"][1]["step"] == (after_step - 1) // 4 * 4
    assert_same(run, unbroken)


def test_a_run_that_is_stopped_again_and_again_ends_in_the_same_bits(outputs, unbroken):
    stop(plan_of(*WORDS), at_check=3)
    run = only_run(outputs)
    while not (run / "result.json").exists():
        stop(plan_of(*WORDS), at_check=4)
    assert [session["step"] for session in read(run / "run.json")["sessions"]] == [0, 3, 6, 10, 13]
    assert_same(run, unbroken)


@pytest.mark.parametrize("workers", [(0, 2), (2, 0)], ids=["without, then with", "with, then without"])
def test_the_number_of_workers_may_change_in_between(outputs, unbroken, workers):
    stop(plan_of(*WORDS, f"num_workers={workers[0]}"), at_check=9)
    assert go(*WORDS, f"num_workers={workers[1]}") == 0
    assert_same(only_run(outputs), unbroken)


def test_counters_of_early_stopping_go_on(outputs):
    words = (*WORDS, "regularization.early_stopping.min_delta=0.9", "epochs=6")
    stop(plan_of(*words), at_check=14)  # in the third epoch; the second one was waited already
    run = only_run(outputs)
    assert load_newest(run / "checkpoints", pytest.fail)["progress"]["waited"] == 1
    assert go(*words) == 0
    result = read(run / "result.json")
    assert (result["epochs"], result["stopped_early"]) == (3, True)


def test_the_best_epoch_is_not_forgotten(outputs, monkeypatch):
    accuracies = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": 1.0, "accuracy": next(accuracies)})
    stop(plan_of(*PLAIN), at_check=8)  # in the second epoch
    run = only_run(outputs)
    best = load_newest(run / "checkpoints", pytest.fail)["best"]
    assert best["epoch"] == 1
    assert go(*PLAIN) == 0
    assert differences(load_newest(run / "checkpoints", pytest.fail)["best"], best) == []
    assert read(run / "result.json")["checkpoint"]["epoch"] == 1


def test_a_damaged_newest_checkpoint_costs_a_warning_and_no_bit(outputs, unbroken, capsys):
    kill(plan_of(*WORDS), after_step=9, saves_every=1)
    run = only_run(outputs)
    newest = max((run / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    assert go(*WORDS) == 0
    assert f"warning: {newest} is damaged" in (said := capsys.readouterr().out)
    assert "going on from the checkpoint before it" in said
    assert_same(run, unbroken)


CUTS = {
    "in its middle": b'{"row": "step", "epo',
    "to another row": b'{"row": "step", "epoch": 2}\n',
    "to nothing": b"\n\n",
    "to zeros": b"\0" * 100,
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_last_row_that_was_cut_is_repaired(outputs, unbroken, cut):
    stop(plan_of(*WORDS), at_check=9)
    run = only_run(outputs)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(cut)
    assert go(*WORDS) == 0
    assert_same(run, unbroken)


# Killed for good ------------------------------------------------------------------------------------------------------

KILLER = """
import json, os, signal, sys, time
from functools import lru_cache
import torch
from cnnbench import checkpoint, session
from cnnbench.compose import open_composer
from cnnbench.plan import plan_run
from cnnbench.registry import register_everything

register_everything()
torch.set_num_threads(1)
weight = torch.nn.Parameter(torch.zeros(1))  # what torch imports at the first step of an optimizer is imported once
weight.grad = torch.zeros(1)
torch.optim.SGD([weight], lr=0.1).step()

@lru_cache
def plan_of(*words):
    with open_composer() as composer:
        composer.add_missing_options()
        return plan_run(composer, words)

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

write = checkpoint.write_atomically
places = {
    "mid-epoch": lambda: before(session._Session, "on_step", lambda self, row, _: row["step"] == 8),
    "again": lambda: before(session._Session, "on_step", lambda self, row, _: row["step"] == 9),
    "epoch end": lambda: before(session._Session, "on_epoch", lambda self, row, *_: row["epoch"] == 2),
    "validation": lambda: before(session, "evaluate", lambda *_: True),
    "first step": lambda: before(session._Session, "on_step", lambda *_: True),
    "half a checkpoint": lambda: setattr(checkpoint, "write_atomically", half),
    "no manifest": lambda: before(checkpoint, "write_json", lambda path, _: path.name == "step-000000008.json"),
    "before the test": lambda: before(session._Session, "_test", lambda *_: True),
    "before the result": lambda: before(checkpoint, "write_json", lambda path, _: path.name == "result.json"),
}
for line in sys.stdin:
    place, outputs, words = json.loads(line)
    plan = plan_of(*words)
    if place == "again":
        time.sleep(1.1)  # TensorBoard orders the files of a run by the second
    child = os.fork()
    if child == 0:
        os.environ["CNNBENCH_OUTPUTS"] = outputs
        places[place]()
        sys.exit(session.carry_out(plan))
    print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
"""


@pytest.fixture(scope="module")
def kill_at(tmp_path_factory):
    """Return a command that runs in a process of its own, which kills itself at a place."""
    here = tmp_path_factory.mktemp("killer")
    with subprocess.Popen(
        [sys.executable, "-c", KILLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=here
    ) as process:

        def run(place: str, outputs: Path, words) -> int:
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


# Signals and limits ---------------------------------------------------------------------------------------------------


def send_after_step_6(patch: pytest.MonkeyPatch, *signals: signal.Signals) -> None:
    on_step = _Session.on_step

    def patched(self, row, progress) -> None:
        on_step(self, row, progress)
        if row["step"] == 6:
            for number in signals:
                signal.raise_signal(number)

    patch.setattr(_Session, "on_step", patched)


SIGNALS = {
    "SIGINT": (signal.SIGINT, 130, "paused"),
    "SIGTERM": (signal.SIGTERM, 143, "preempted"),
    "SIGUSR1": (signal.SIGUSR1, 138, "preempted"),
}


@pytest.mark.parametrize(("number", "code", "status"), SIGNALS.values(), ids=SIGNALS)
def test_a_signal_lets_the_step_finish_saves_and_says_how_to_go_on(cnnbench, outputs, unbroken, number, code, status):
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        send_after_step_6(patch, number)
        outcome = cnnbench(*WORDS)
    run = only_run(outputs)
    assert outcome.code == code
    assert f"{status} at step 6 of 15" in outcome.out
    assert f"to go on, type the same command again, or: cnnbench resume={run}" in outcome.out
    assert read(run / "run.json")["status"] == status
    assert signal.getsignal(number) is before
    assert go(*WORDS) == 0
    assert_same(run, unbroken)


def test_a_second_ctrl_c_ends_the_run_at_once(cnnbench, outputs, monkeypatch):
    save_every(monkeypatch, 5)
    send_after_step_6(monkeypatch, signal.SIGINT, signal.SIGINT)
    outcome = cnnbench(*WORDS)
    assert outcome.code == 130
    assert "stopped at once; the last checkpoint is kept" in outcome.err
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "paused"
    assert load_newest(run / "checkpoints", pytest.fail)["progress"]["step"] == 5


@pytest.mark.slow
def test_a_process_that_a_scheduler_ends_exits_with_143_and_can_be_gone_on_with(cnnbench, outputs, start):
    words = (*TINY, "epochs=100000")
    process = start(words)
    for line in process.stdout:
        if "epoch" in line and "/100000" in line:
            process.terminate()
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    run = only_run(outputs)
    record = read(run / "run.json")
    assert record["status"] == "preempted"
    assert f"preempted at step {record['step']} of" in out
    assert "Traceback" not in err
    assert load_newest(run / "checkpoints", pytest.fail)["progress"]["step"] == record["step"]
    outcome = cnnbench(*words, "max_minutes=1e-9")
    assert outcome.code == 0
    assert f"from step {record['step']} of" in outcome.out


def test_a_limit_of_time_pauses_the_run_with_exit_0(outputs, unbroken, capsys):
    assert go(*WORDS, "max_minutes=1e-6") == 0
    assert "paused at step 1 of 15" in capsys.readouterr().out
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "paused"
    assert go(*WORDS, "max_minutes=60") == 0
    assert_same(run, unbroken)


def test_a_run_that_another_process_works_on_is_left_to_it(outputs, unbroken):
    stop(plan_of(*WORDS), at_check=9)
    run = only_run(outputs)
    before = fingerprints(run)
    with RunFolder.open(run).lock():
        with pytest.raises(UserError, match=f"{run} is being worked on by process {os.getpid()} on .*; wait for it"):
            go(*WORDS)
        assert fingerprints(run) == before
    assert go(*WORDS) == 0  # what a process that has ended left behind does not block
    assert_same(run, unbroken)


# resume=FOLDER --------------------------------------------------------------------------------------------------------


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, but for locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("more", [[], ["num_workers=2"]], ids=["as it was", "with more workers"])
def test_resuming_a_folder_goes_on_in_it(cnnbench, outputs, unbroken, more):
    stop(plan_of(*WORDS), at_check=9)
    outcome = cnnbench(f"resume={only_run(outputs)}", *more)
    assert outcome.code == 0, outcome.err
    assert "from step 8 of 15" in outcome.out
    assert_same(only_run(outputs), unbroken)


def test_resuming_a_finished_run_shows_its_result(cnnbench, parent, monkeypatch):
    before = fingerprints(parent)
    monkeypatch.chdir(parent.parent)
    outcome = cnnbench(f"resume={parent.name}")  # as typed from beside it
    assert outcome.code == 0
    assert "finished" in outcome.out
    assert fingerprints(parent) == before


@pytest.mark.parametrize("at_check", [None, 3, 8], ids=["finished", "in its first epoch", "in its second epoch"])
def test_more_epochs_make_a_run_of_their_own_that_equals_a_direct_one(outputs, tmp_path, at_check):
    words = (*WORDS, "scheduler=none", "regularization.early_stopping.patience=null")
    if at_check is None:
        assert go(*words, "epochs=2") == 0
    else:
        stop(plan_of(*words, "epochs=2"), at_check)
    parent = only_run(outputs)
    before = fingerprints(parent)
    assert carry_out(plan_resume(str(parent), ["epochs=4"])) == 0
    assert fingerprints(parent) == before
    child = child_of(parent)
    record, parent_record = read(child / "run.json"), read(parent / "run.json")
    step = read(max((parent / "checkpoints").glob("*.json")))["step"]
    assert record["parent"] == {"folder": str(parent), "run": f"{parent_record['identity']}@{step}"}
    assert record["identity"] != parent_record["identity"]
    assert RunFolder.open(child).config()["parent"] == record["parent"]["run"]

    direct = outcome_of(finished((*words, "epochs=4"), tmp_path / "direct"))
    continued = outcome_of(child)
    for part in (direct["result"], continued["result"], direct["checkpoint"], continued["checkpoint"]):
        part.pop("identity")
    assert differences(continued["checkpoint"], direct["checkpoint"]) == []
    assert continued["rows"] == direct["rows"]
    assert differences(continued["result"], direct["result"]) == []


def test_a_continued_run_typed_again_is_shown_and_not_made_twice(cnnbench, parent, outputs):
    words = (f"resume={parent}", "epochs=4")
    assert cnnbench(*words).code == 0
    before = fingerprints(outputs)
    again = cnnbench(*words)
    assert again.code == 0
    assert "finished" in again.out
    assert fingerprints(outputs) == before


@pytest.mark.parametrize("by", ["the same command", "its folder"])
def test_a_continued_run_that_is_killed_before_its_first_checkpoint_goes_on_from_its_parent(parent, by):
    plan = plan_resume(str(parent), ["epochs=4"])
    kill(plan, after_step=17, saves_every=1000)
    child = child_of(parent)
    assert carry_out(plan if by == "the same command" else plan_resume(str(child), [])) == 0
    assert load_newest(child / "checkpoints", pytest.fail)["progress"]["samples_trained"] == 4 * 72
    assert rows_of(child)[: len(rows_of(parent))] == rows_of(parent)
    assert [row["epoch"] for row in rows_of(child) if row["row"] == "epoch"] == [1, 2, 3, 4]


def test_a_run_that_stopped_early_can_be_told_to_go_on_without_stopping(outputs):
    stopping = ("regularization.early_stopping.patience=1", "regularization.early_stopping.min_delta=0.9")
    assert go(*PLAIN, *stopping) == 0
    parent = only_run(outputs)
    assert read(parent / "result.json")["epochs"] == 2
    assert carry_out(plan_resume(str(parent), ["regularization.early_stopping.patience=null"])) == 0
    assert read(child_of(parent) / "result.json")["epochs"] == 3


def test_what_a_new_horizon_does_to_the_learning_rate_is_said(outputs, capsys):
    assert go(*TINY) == 0
    assert carry_out(plan_resume(str(only_run(outputs)), ["epochs=6"])) == 0
    said = "scheduler cosine is stretched from 3 to 6 epochs: the learning rate was 0 at the parent's last step"
    assert said in capsys.readouterr().out


REFUSALS = {
    "another optimizer": ("optimizer=adam", r"with the parts it has; set single keys, as in optimizer\.KEY=VALUE"),
    "another augmentation": ("augmentation=crop", "goes on with the parts it has"),
    "an experiment": ("experiment=cnn_lab/lenet_mnist", "goes on with the parts it has"),
    "another seed": ("seed=1", "cannot change in a run that goes on; start a run of its own without resume="),
    "another network": ("model.units=[10]", "cannot change in a run that goes on"),
    "other data": ("data.val_fraction=0.2", "cannot change in a run that goes on"),
    "other steps": ("batch_size=8", "cannot change in a run that goes on"),
    "several values": ("epochs=4,5", "is several values; resuming takes one"),
    "fewer epochs": ("epochs=2", "3 epochs are trained already; give more than that"),
    "an unknown key": ("epoch=4", "no such key; did you mean 'epochs'"),
    "batch norm": ("regularization.batchnorm=true", "regularization.batchnorm=true"),
    "dropout": ("regularization.dropout=0.5", "regularization.dropout=0.5"),
    "a parent typed by hand": ("parent=abc@3", "parent=abc@3"),
}  # fmt: skip


@pytest.mark.parametrize(("word", "problem"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_change_is_refused_and_nothing_is_made(cnnbench, parent, outputs, word, problem):
    before = fingerprints(outputs)
    words = [word] if word.startswith("epochs") else ["epochs=4", word]
    outcome = cnnbench(f"resume={parent}", *words)
    assert outcome.code == 2
    assert word in outcome.err
    assert re.search(problem, outcome.err)
    assert fingerprints(outputs) == before


def test_a_folder_that_is_no_run_is_refused(cnnbench, outputs, tmp_path):
    outcome = cnnbench(f"resume={tmp_path}")
    assert outcome.code == 2
    assert f"{tmp_path} is no run folder: it has no run.json and config.yaml" in outcome.err
    assert not outputs.exists()


def test_a_parent_cannot_be_typed_for_a_new_run(cnnbench, outputs):
    outcome = cnnbench(*TINY, "parent=abc@3")
    assert outcome.code == 2
    assert "parent=abc@3" in outcome.err
    assert not outputs.exists()
