"""One run: which checkpoint is tested, what is recorded, and what is said where there is no number."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml

from cnnbench.config.validate import validate
from cnnbench.plugins import register_everything
from cnnbench.store import provenance
from cnnbench.store.checkpoint import load_newest
from cnnbench.store.folder import RunFolder
from cnnbench.tasks.classification import Classification
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.training import loop, trainer
from cnnbench.training import result as result_of
from cnnbench.training.setup import setup
from cnnbench.training.step import evaluate
from tests.conftest import only_run
from tests.support.interruption import PLAIN, go, read, rows_of
from tests.support.training import plan_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """Return a finished run whose best epoch is the second of three; to be looked at only."""
    folder, accuracies = tmp_path_factory.mktemp("finished"), iter([0.25, 0.75, 0.5])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", lambda *_: {"loss": 1.0, "accuracy": next(accuracies)})
        patch.setenv("CNNBENCH_OUTPUTS", str(folder))
        torch.set_num_threads(1)
        register_everything()
        assert go(*PLAIN) == 0
    return only_run(folder)


# What came out --------------------------------------------------------------------------------------------------------


def test_the_checkpoint_that_is_best_on_validation_is_tested_once(finished):
    result = read(finished / "result.json")
    assert result["checkpoint"] == {
        "kind": "best",
        "chosen": "best on validation",
        "epoch": 2,
        "step": 10,
    }
    assert result["val"] == {"loss": 1.0, "accuracy": 0.75, "samples": 8}
    assert result["test_measured"] == read(finished / "run.json")["test_measured"] == 1

    config = plan_of(*PLAIN).config
    training = setup(config)
    measured = {}
    content = load_newest(finished / "checkpoints", pytest.fail)
    for name, weights in (("best", content["best"]["weights"]), ("last", content["network"])):
        training.network.load_state_dict(weights)
        measured[name] = evaluate(training, training.network, training.batches("test")) | {"samples": 20}
        if name == "best":
            assert result["train"] == evaluate(training, training.network, training.batches("train")) | {"samples": 72}
    test = {name: value for name, value in result["test"].items() if name not in ("ece", "brier")}
    assert test == measured["best"] != measured["last"]


def test_without_validation_the_last_checkpoint_is_tested_and_the_result_says_so(outputs, capsys):
    assert go(*PLAIN, "data.val_fraction=0") == 0
    run = only_run(outputs)
    result = read(run / "result.json")
    assert result["checkpoint"] == {
        "kind": "last",
        "chosen": "last, without validation",
        "epoch": 3,
        "step": 15,
    }
    assert "val" not in result
    note = "data.val_fraction=0: no validation, the last checkpoint was tested"
    assert result["notes"] == [note]
    assert note in capsys.readouterr().out
    assert not [key for row in rows_of(run) for key in row if key.endswith("/val")]


def test_the_result_says_how_much_was_trained(finished):
    result = read(finished / "result.json")
    assert result["epochs"] == 3
    assert result["stopped_early"] is False
    assert result["parameters"] == {"total": 15031, "trainable": 15031}
    assert 0 < result["seconds"]["train"] < result["seconds"]["total"]
    assert result["images_per_second"] == pytest.approx(3 * 72 / result["seconds"]["train"])


# What is recorded -----------------------------------------------------------------------------------------------------


def test_the_record_of_a_run_says_all_that_its_result_depends_on(finished):
    record = read(finished / "run.json")
    config = plan_of(*PLAIN).config
    training = setup(config)
    assert record["identity"] == config.identity()
    assert finished.name.endswith(config.identity()[:8])
    assert record["status"] == "completed"
    assert record["command"] == "cnnbench " + " ".join(PLAIN)
    assert record["choices"] | {"model": "lenet_v2", "data": "synthetic"} == record["choices"]
    assert record["origins"]["epochs"] == "command line"
    assert record["origins"]["optimizer.lr"] == "optimizer/sgd"
    assert record["parent"] is None
    assert record["plugins"] == []
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["versions"].keys() >= {"cnnbench", "python", "torch", "torchvision", "numpy", "hydra-core"}
    assert record["machine"]["device"] == "cpu"
    assert record["machine"].keys() >= {"name", "cores", "host", "system"}
    assert record.get("git") is None or record["git"].keys() >= {"commit", "dirty"}
    assert record["code"] == provenance.code_hashes()
    assert "cnnbench/data/loader.py" in record["code"]
    data = training.data
    assert record["data"]["fingerprint"] == data.fingerprint
    assert record["data"]["window"] == [1, 16, 16]
    assert record["data"]["classes"] == ["pattern 0", "pattern 1", "pattern 2"]
    assert (tuple(record["data"]["mean"]), tuple(record["data"]["std"])) == (data.mean, data.std)
    assert record["data"]["images"] == {"train": 72, "val": 8, "test": 20}
    assert record["split"] == data.split.hash()
    assert record["parameters"] == {"total": 15031, "trainable": 15031}
    assert record["threads"] == 1
    assert (record["step"], record["test_measured"]) == (15, 1)
    assert [entry["step"] for entry in record["sessions"]] == [0]
    times = [record["started"], record["sessions"][0]["time"], record["ended"]]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)


WORDS = {
    "the default run": (),
    "a model with a recipe": ("model=minialexnet_v4", "data=synthetic"),
    "everything on": (
        "data=synthetic", "data.crop=0.875", "augmentation=crop_flip_jitter", "regularization.dropout=0.3",
        "regularization.early_stopping.patience=3", "optimizer=adamw", "optimizer.eps=1e-12", "seed=0",
    ),
    "an augmentation that the data forbids": ("data=digits", "model=minialexnet_v4", "data.crop=28"),
    "a flip of digits that was typed": ("data=digits", "augmentation.flip.p=0.5"),
    "a crop in pixels": ("data=digits", "data.crop=28", "augmentation=crop"),
    "without schedule": ("scheduler=none", "data.val_fraction=0", "max_minutes=20", "threads=2"),
}  # fmt: skip


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_the_recorded_configuration_is_that_of_the_same_run(tmp_path, words):
    plan = plan_of(*words)
    folder = RunFolder(tmp_path / "run")
    folder.create(plan.config.to_dict(), plan.command, {})
    config, _ = validate(folder.config(), is_recorded=True)
    assert config == plan.config
    assert config.identity() == plan.config.identity()


def test_the_recorded_configuration_opens_with_the_command(finished):
    lines = (finished / "config.yaml").read_text().splitlines()
    assert lines[0] == "# cnnbench " + " ".join(PLAIN)
    assert yaml.safe_load("\n".join(lines))["optimizer"]["lr"] == 0.05


def test_a_run_that_cannot_be_set_up_is_recorded_as_failed(outputs, monkeypatch):
    monkeypatch.setattr(trainer, "set_up_torch", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(*PLAIN)
    record = read(only_run(outputs) / "run.json")
    assert (record["status"], record["error"]) == ("failed", "ZeroDivisionError: division by zero")


def test_a_place_that_cannot_hold_runs_is_a_clear_error(cnnbench, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(tmp_path / "file"))
    outcome = cnnbench(*PLAIN)
    assert outcome.code == 2
    assert "cannot be created" in outcome.err
    assert "CNNBENCH_OUTPUTS=FOLDER names another place" in outcome.err


# Numbers that are none ------------------------------------------------------------------------------------------------


def strict(path: Path) -> list:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{path} holds {constant}")

    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    return [json.loads(text, parse_constant=refuse) for text in texts]


@pytest.fixture
def nan_in_validation(outputs, monkeypatch) -> Path:
    """Return a run whose validation never gave a number."""
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": math.nan, "accuracy": math.inf})
    monkeypatch.setattr(result_of, "evaluate", lambda *_: {"loss": math.nan, "accuracy": -math.inf})
    monkeypatch.setattr(Classification, "evaluate", lambda *_: EvalReport({"loss": math.nan, "accuracy": math.inf}))
    assert go(*PLAIN) == 0
    return only_run(outputs)


def test_json_never_holds_what_is_no_number(nan_in_validation):
    files = [path for path in nan_in_validation.rglob("*") if path.suffix in (".json", ".jsonl")]
    assert len(files) >= 5
    for path in files:
        strict(path)
    (result,) = strict(nan_in_validation / "result.json")
    assert result["test"] == {"loss": None, "accuracy": None, "samples": 20}
    assert [row["loss/val"] for row in rows_of(nan_in_validation) if row["row"] == "epoch"] == [None] * 3
    assert go(*PLAIN) == 0


def test_where_validation_never_gave_a_number_the_result_does_not_say_that_there_was_none(nan_in_validation):
    result = read(nan_in_validation / "result.json")
    assert "without validation" not in result["checkpoint"]["chosen"]
    assert not [note for note in result["notes"] if "val_fraction=0" in note]
