"""A run that is stopped or killed anywhere, and continued, ends with the same bits as an unbroken one."""

import os

import pytest
import torch

from cnnbench.errors import UserError
from cnnbench.store.checkpoint import load_newest
from cnnbench.store.folder import RunFolder
from cnnbench.training import loop, trainer
from cnnbench.training.setup import setup
from cnnbench.training.trainer import carry_out
from tests.conftest import only_run
from tests.support.interruption import (
    PLAIN,
    WORDS,
    Killed,
    assert_same,
    differences,
    fingerprints,
    go,
    kill,
    read,
    rows_of,
    scalars_of,
    shown_by,
    stop,
)
from tests.support.selection import everyday
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("one_second_a_session")

STEPS = range(1, 16)
CHECKS = range(1, 19)  # after each of five steps, and in the one batch of validation, of three epochs


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
    initial = setup(config).network.state_dict()
    trained = unbroken["checkpoint"]["network"]
    assert initial.keys() == trained.keys()
    assert not [name for name in initial if torch.equal(initial[name], trained[name])]


@pytest.mark.parametrize("at_check", everyday(CHECKS, (1, 5, 6, 7, 18)))
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_bits(outputs, unbroken, at_check):
    stop(plan_of(*WORDS), at_check)
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "stopped"
    assert not (run / "result.json").exists()
    assert go(*WORDS) == 0
    assert_same(run, unbroken)


@pytest.mark.parametrize("after_step", everyday(STEPS, (1, 4, 5, 9, 15)))
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
    assert "continuing from the checkpoint before it" in said
    assert_same(run, unbroken)


def test_a_run_that_was_killed_after_its_test_shows_one_test_point_of_each_metric(outputs, monkeypatch):
    """The tested checkpoint is of an earlier step than the last: more than the last step has to be forgotten."""

    def die(path, values):
        raise Killed

    accuracies = iter([0.5, 0.9, 0.4])
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": 1.0, "accuracy": next(accuracies)})
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_sealed", die)
        with pytest.raises(Killed):
            carry_out(plan_of(*PLAIN))
    assert go(*PLAIN) == 0
    run = only_run(outputs)
    assert (read(run / "result.json")["checkpoint"]["step"], read(run / "run.json")["step"]) == (10, 15)
    assert scalars_of(run) == shown_by(rows_of(run), read(run / "result.json"))


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
