"""`resume=FOLDER`: a run continues in its folder, or for longer in a new one; nothing else can change."""

import re
import shutil
from pathlib import Path

import pytest

from cnnbench.store.checkpoint import load_newest
from cnnbench.store.folder import RunFolder
from cnnbench.training.plan import plan_resume
from cnnbench.training.trainer import carry_out
from tests.conftest import TINY, only_run
from tests.support.interruption import (
    PLAIN,
    WORDS,
    assert_same,
    child_of,
    differences,
    fingerprints,
    finished,
    go,
    kill,
    outcome_of,
    read,
    rows_of,
    stop,
)
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("one_second_a_session")


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
    outcome = cnnbench(f"resume={parent.name}")  # as typed from the folder above it
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
    assert continued["scalars"] == direct["scalars"]
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


def test_a_run_that_stopped_early_can_be_resumed_without_early_stopping(outputs):
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


def test_a_longer_run_that_keeps_the_name_of_its_parent_is_said_to_share_it(outputs):
    assert go(*TINY, "name=base") == 0
    parent = str(only_run(outputs))
    (note,) = plan_resume(parent, ["epochs=6"]).notes
    assert note == "two runs are named base now, this one and its parent; name=NAME tells them apart"
    assert plan_resume(parent, ["epochs=6", "name=longer"]).notes == plan_resume(parent, ["notes=seen"]).notes == ()


REFUSALS = {
    "another optimizer": ("optimizer=adam", r"keeps its parts; set single keys, as in optimizer\.KEY=VALUE"),
    "another augmentation": ("augmentation=crop", "a resumed run keeps its parts"),
    "an experiment": ("experiment=cnn_lab/lenet_mnist", "a resumed run keeps its parts"),
    "another seed": ("seed=1", "cannot change in a resumed run; start a new one without resume="),
    "another network": ("model.units=[10]", "cannot change in a resumed run"),
    "other data": ("data.val_fraction=0.2", "cannot change in a resumed run"),
    "other steps": ("batch_size=8", "cannot change in a resumed run"),
    "several values": ("epochs=4,5", "has several values; resuming takes one"),
    "fewer epochs": ("epochs=2", "is finished at epoch 3: add epochs=N above 3 to train it longer"),
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


def test_another_setting_of_a_finished_run_is_answered_with_what_trains_it_longer(cnnbench, parent):
    outcome = cnnbench("resume", str(parent), "optimizer.lr=0.1")
    assert outcome.code == 2
    way = "is finished at epoch 3: add epochs=N above 3 to train it longer, or start a new run"
    assert f"  optimizer.lr=0.1  {parent} {way}\n" in outcome.err


def test_a_folder_that_is_no_run_is_refused(cnnbench, outputs, tmp_path):
    outcome = cnnbench(f"resume={tmp_path}")
    assert outcome.code == 2
    assert f"{tmp_path} is no run folder: it has no run.json" in outcome.err
    assert not outputs.exists()


def test_a_parent_cannot_be_typed_for_a_new_run(cnnbench, outputs):
    outcome = cnnbench(*TINY, "parent=abc@3")
    assert outcome.code == 2
    assert "parent=abc@3" in outcome.err
    assert not outputs.exists()
