"""Experiments that begin with the weights of another one: shown before that is trained, and trained as a chain."""

import shutil
from pathlib import Path

import pytest
import yaml

from cnnbench import api
from cnnbench.store.folder import find_runs
from cnnbench.training.plan import plan_words
from tests.conftest import Outcome
from tests.optim.test_freezing import weights_of
from tests.support.interruption import differences, read

pytestmark = pytest.mark.usefixtures("undrawn")

FIRST = """# @package _global_
defaults:
  - override /model: lenet_v2
  - override /data: synthetic
  - override /scheduler: none
epochs: 1
batch_size: 16
threads: 1
device: cpu
report: false
data:
  num_train: 48
  num_test: 12
  num_classes: 3
  image_size: 16
  channels: 1
  val_fraction: 0.0
"""
SECOND = FIRST.replace("num_classes: 3", "num_classes: 4").replace("val_fraction: 0.0", "val_fraction: 0.25")
MISSING = "init.experiment=first  has no finished run in"


@pytest.fixture
def command(tmp_path, cnnbench):
    """Return the command, with two experiments of its own, the second of which begins with the first."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "first.yaml").write_text(FIRST)
    (folder / "second.yaml").write_text(SECOND + "init:\n  experiment: first\n")

    def run(*words: str) -> Outcome:
        return cnnbench("--config-dir", str(folder.parent), *words)

    return run


def runs_of(outputs: Path, experiment: str) -> list[Path]:
    paths = [path.parent for path in outputs.glob("*/*/*/run.json")]
    return [path for path in paths if read(path / "run.json")["choices"].get("experiment") == experiment]


# Before its parent is trained -----------------------------------------------------------------------------------------


def test_the_configuration_of_a_chain_is_shown_before_its_parent_is_trained(command, outputs):
    shown = command("experiment=second", "--cfg", "job")
    assert shown.code == 0, shown.err
    assert yaml.safe_load(shown.out)["init"]["experiment"] == "first"
    assert "source" not in yaml.safe_load(shown.out)
    assert not outputs.exists()


def test_a_dry_run_tries_random_weights_and_says_so(command, outputs):
    tried = command("experiment=second", "dry_run=true", "freeze.what=features")
    assert tried.code == 0, tried.err
    assert f"note: {MISSING.replace('  ', ' ')}" in tried.out
    assert "Random weights are tried here" in tried.out
    assert "nothing is loaded" not in tried.out
    assert not list(outputs.rglob("run.json"))


@pytest.mark.parametrize("words", [(), ("lr_find=true",), ("-m", "seed=0,1")])
def test_nothing_is_trained_before_its_parent(words, command, outputs):
    refused = command("experiment=second", *words)
    assert refused.code == 2
    assert MISSING in refused.err
    assert not list(outputs.rglob("run.json"))


def test_the_experiments_of_the_package_are_shown_as_chains(cnnbench):
    for name in ("transfer_lab/exercise2", "transfer_lab/exercise3", "cnn_lab/minialexnet_v4_cifar10_tuned"):
        shown = cnnbench(f"experiment={name}", "--cfg", "job")
        assert shown.code == 0, shown.err
        assert yaml.safe_load(shown.out)["init"]["experiment"] is not None


# Trained --------------------------------------------------------------------------------------------------------------


def test_a_parent_that_was_never_validated_gives_its_last_weights(command, outputs):
    assert command("experiment=first").code == 0
    (first,) = runs_of(outputs, "first")
    ended = command("experiment=second")
    assert ended.code == 0, ended.err
    assert "initial weights: the last checkpoint (epoch 1, as there was no validation) of" in ended.out
    (second,) = runs_of(outputs, "second")
    init = yaml.safe_load((second / "config.yaml").read_text())["init"]
    assert (init["run"], init["checkpoint"], init["experiment"]) == (str(first), "last", None)
    refused = command("experiment=second", "init.checkpoint=best")
    assert (refused.code, "was never validated; init.checkpoint=last takes" in refused.err) == (2, True)
    again = command(f"resume={second}", "epochs=2")
    assert again.code == 0, again.err


def test_weights_of_a_parent_without_validation_are_the_same_by_its_folder(command, outputs):
    assert command("experiment=first").code == 0
    (first,) = runs_of(outputs, "first")
    assert command("experiment=second").code == 0
    shown = command("experiment=second", f"init.run={first}")
    assert "rerun=true trains it again" in shown.out, "it is the same run"


def test_the_newest_run_of_the_experiment_is_taken_and_what_deviates_said(command, outputs):
    assert command("experiment=first").code == 0
    assert "deviates" not in command("experiment=second").out
    assert command("experiment=first", "data.num_train=32", "seed=3").code == 0
    shortened = next(path for path in runs_of(outputs, "first") if read(path / "run.json")["departures"])
    ended = command("experiment=second")
    assert ended.code == 0, ended.err
    assert (
        f"note: init.experiment=first: its newest run, {shortened}, deviates from it in data.num_train=32" in ended.out
    )
    newest = max(runs_of(outputs, "second"), key=lambda path: path.stat().st_mtime)
    assert read(newest / "run.json")["init"]["run"] == str(shortened)
    (shortened / "run.json").write_text("{")
    assert "deviates" not in command("experiment=second").out, "a damaged run is passed over"


# In a sweep -----------------------------------------------------------------------------------------------------------


def test_a_sweep_trains_a_chain_link_by_link_and_shows_it_when_typed_again(command, outputs):
    swept = command("-m", "experiment=first,second", "epochs=2")
    assert swept.code == 0, swept.err
    (first,), (second,) = (runs_of(outputs, name) for name in ("first", "second"))
    assert read(second / "run.json")["init"]["run"] == str(first)
    assert "2 of 2 runs completed" in swept.out
    before = weights_of(second)
    again = command("-m", "experiment=first,second", "epochs=2")
    assert (again.code, "2 of 2 runs completed" in again.out) == (0, True)
    assert differences(before, weights_of(second)) == []
    assert len(runs_of(outputs, "second")) == 1


def test_a_link_begins_with_the_run_of_its_sweep_and_not_with_an_older_one(command, outputs):
    assert command("experiment=first", "seed=1").code == 0
    swept = command("-m", "experiment=first,second", "seed=5")
    assert swept.code == 0, swept.err
    (second,) = runs_of(outputs, "second")
    begun_with = Path(read(second / "run.json")["init"]["run"])
    assert read(begun_with / "run.json")["config"]["seed"] == 5


def test_a_link_before_its_parent_is_refused_before_anything_is_trained(command, outputs):
    refused = command("-m", "experiment=second,first")
    assert refused.code == 2
    assert MISSING in refused.err
    assert not list(outputs.rglob("run.json"))


def test_a_link_is_not_started_where_its_parent_fails(command, outputs):
    swept = command("-m", "experiment=first,second", "optimizer.lr=1e30", "optimizer.momentum=0")
    assert swept.code == 1
    assert "not started: it begins with the run of: cnnbench" in swept.out
    assert runs_of(outputs, "second") == []


def test_a_link_is_not_started_where_its_parent_cannot_be_read(command, outputs):
    assert command("-m", "experiment=first,second").code == 0
    (parent,), (link,) = runs_of(outputs, "first"), runs_of(outputs, "second")
    (parent / "result.json").write_text("nonsense")
    shutil.rmtree(link)
    swept = command("-m", "experiment=first,second", "fail_fast=true")
    assert swept.code == 1
    assert f"note: experiment=first is unreadable: {parent / 'result.json'} cannot be read" in swept.out
    assert "which cannot be read" in swept.out
    assert not link.exists()


def test_a_sweep_from_python_returns_the_runs_of_the_whole_chain(command, outputs, tmp_path):
    table = api.sweep(experiment=["first", "second"], config_dir=tmp_path / "conf", progress="quiet")
    records = [read(Path(path) / "run.json") for path in table["path"]]
    assert [record["choices"]["experiment"] for record in records] == ["first", "second"]


def test_each_link_begins_with_the_run_that_is_most_like_it(command, outputs):
    swept = command("-m", "experiment=first,second", "seed=0,1", "jobs=2")
    assert swept.code == 0, swept.err
    for second in runs_of(outputs, "second"):
        record = read(second / "run.json")
        parent = read(Path(record["init"]["run"]) / "run.json")
        assert parent["config"]["seed"] == record["config"]["seed"]


# What is typed --------------------------------------------------------------------------------------------------------


def test_weights_that_are_typed_take_the_place_of_those_of_a_preset(command, outputs, tmp_path):
    assert command("experiment=first", "seed=1").code == 0
    (first,) = runs_of(outputs, "first")
    ended = command("experiment=second", f"init.run={first}")
    assert ended.code == 0, ended.err
    assert (
        "note: init.experiment=first and init.run exclude each other; give one: init.experiment=null is used"
        in ended.out
    )
    both = command("experiment=second", f"init.run={first}", "init.experiment=first")
    assert (both.code, "exclude each other" in both.err) == (2, True)
    words = ["experiment=second", "init.run=null"]
    config = plan_words(words, str(tmp_path / "conf")).config
    assert (config.init.experiment, config.source) == (None, None)
    assert find_runs(outputs, config.identity()) == []
