"""One run: which checkpoint is tested, what is recorded, and what becomes of it when the command is typed again."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from cnnbench import loop, provenance, session
from cnnbench.assemble import make_parts, plain_batches
from cnnbench.check import check
from cnnbench.checkpoint import load_newest
from cnnbench.compose import open_composer
from cnnbench.errors import UserError
from cnnbench.loop import evaluate
from cnnbench.plan import plan_run
from cnnbench.preflight import preflight
from cnnbench.registry import register_everything
from cnnbench.rundir import RunFolder
from cnnbench.session import carry_out
from tests.conftest import TINY, only_run
from tests.interruption import PLAIN, differences, fingerprints, go, read, rows_of, stop
from tests.training import plan_of


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
    assert result["checkpoint"] == {"chosen": "best on validation", "epoch": 2, "step": 10}
    assert result["val"] == {"loss": 1.0, "accuracy": 0.75, "samples": 8}
    assert result["test_measured"] == read(finished / "run.json")["test_measured"] == 1

    config = plan_of(*PLAIN).config
    ready = preflight(config)
    parts = make_parts(config, ready)
    measured = {}
    content = load_newest(finished / "checkpoints", pytest.fail)
    for name, weights in (("best", content["best"]["weights"]), ("last", content["network"])):
        parts.network.load_state_dict(weights)
        measured[name] = evaluate(parts, parts.network, plain_batches(ready, "test")) | {"samples": 20}
        if name == "best":
            assert result["train"] == evaluate(parts, parts.network, plain_batches(ready, "train")) | {"samples": 72}
    assert result["test"] == measured["best"] != measured["last"]


def test_without_validation_the_last_checkpoint_is_tested_and_the_result_says_so(outputs, capsys):
    assert go(*PLAIN, "data.val_fraction=0") == 0
    run = only_run(outputs)
    result = read(run / "result.json")
    assert result["checkpoint"] == {"chosen": "last, without validation", "epoch": 3, "step": 15}
    assert "val" not in result
    note = "data.val_fraction=0: there was no validation, the last checkpoint was tested"
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


# The same command again -----------------------------------------------------------------------------------------------

STATES = {"finished": lambda: go(*PLAIN), "began": lambda: stop(plan_of(*PLAIN), at_check=4)}


def change_sources(monkeypatch) -> str:
    sources = provenance.sources()
    changed = sources | {"cnnbench/loop.py": "0", "my_net.py": "1"}
    del changed["cnnbench/errors.py"]
    monkeypatch.setattr(provenance, "sources", lambda outside=(): changed)
    return "sources: cnnbench/errors.py, cnnbench/loop.py, my_net.py"


def change_data(monkeypatch) -> str:
    prepare = session.preflight

    def changed(config):
        ready = prepare(config)
        object.__setattr__(ready.data, "fingerprint", "0")
        return ready

    monkeypatch.setattr(session, "preflight", changed)
    return "data: the content of 'synthetic' is another one"


CHANGES: dict[str, Callable] = {"sources": change_sources, "data": change_data}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("state", STATES)
def test_a_run_of_other_code_or_data_is_not_shown_or_gone_on_with_unasked(outputs, monkeypatch, state, change):
    STATES[state]()
    run = only_run(outputs)
    before = fingerprints(outputs)
    said = change(monkeypatch)
    with pytest.raises(UserError) as refused:
        go(*PLAIN)
    lines = str(refused.value).splitlines()
    assert lines[:2] == [f"{run} {state} with other code or data than there is now:", f"  {said}"]
    assert [line.split()[0] for line in lines[3:]] == ["rerun=true", "accept_stale=true"]
    assert fingerprints(outputs) == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("state", STATES)
def test_what_changed_can_be_accepted(outputs, monkeypatch, capsys, state, change):
    STATES[state]()
    said = change(monkeypatch)
    capsys.readouterr()
    assert carry_out(replace(plan_of(*PLAIN), accept_stale=True)) == 0
    assert ("finished" in capsys.readouterr().out) is (state == "finished")
    record = read(only_run(outputs) / "run.json")
    assert record["status"] == "completed"
    assert record.get("accepted") == (None if state == "finished" else [said])


def test_a_stale_run_is_exit_2_and_accept_stale_exit_0(outputs, cnnbench, monkeypatch):
    STATES["finished"]()
    change_sources(monkeypatch)
    assert cnnbench(*PLAIN).code == 2
    assert cnnbench(*PLAIN, "accept_stale=true").code == 0


def test_rerunning_trains_beside_and_overwrites_nothing(outputs, capsys):
    assert go(*PLAIN) == 0
    original = only_run(outputs)
    before = fingerprints(original)
    for number in (2, 3):
        assert carry_out(replace(plan_of(*PLAIN), rerun=True)) == 0
        assert fingerprints(original) == before
        again = original.with_name(f"{original.name}-r{number}")
        assert read(again / "result.json")["identity"] == read(original / "result.json")["identity"]
        contents = [load_newest(run / "checkpoints", pytest.fail) for run in (original, again)]
        for content in contents:
            content["progress"].pop("train_seconds")
        assert differences(*contents) == []
        assert rows_of(again) == rows_of(original)
    assert len(list(outputs.glob("*/*/*/run.json"))) == 3
    capsys.readouterr()
    assert go(*PLAIN) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert f"{original.name}-r3" in shown


def test_a_rerun_that_was_interrupted_is_what_the_command_goes_on_with(cnnbench, outputs):
    assert go(*PLAIN) == 0
    original = only_run(outputs)
    assert cnnbench(*PLAIN, "rerun=true", "max_minutes=1e-9").code == 0
    assert not (original.with_name(f"{original.name}-r2") / "result.json").exists()
    assert go(*PLAIN) == 0
    assert (original.with_name(f"{original.name}-r2") / "result.json").exists()
    assert len(list(outputs.glob("*/*/*/run.json"))) == 2


@pytest.mark.parametrize("word", ["rerun=yes", "accept_stale=1", "rerun="])
def test_what_to_do_with_a_run_is_true_or_false(cnnbench, outputs, word):
    outcome = cnnbench(*PLAIN, word)
    assert outcome.code == 2
    assert re.search(rf"{word} +must be true or false", outcome.err)
    assert not outputs.exists()


def test_a_run_that_failed_is_tried_again_and_its_old_error_is_not_told(outputs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(session, "fit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go(*PLAIN)
    run = only_run(outputs)
    record = read(run / "run.json")
    assert (record["status"], record["error"]) == ("failed", "ZeroDivisionError: division by zero")
    assert go(*PLAIN) == 0
    record = read(run / "run.json")
    assert record["status"] == "completed"
    assert "error" not in record


def test_a_run_that_cannot_be_set_up_is_recorded_as_failed(outputs, monkeypatch):
    monkeypatch.setattr(session, "make_parts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        go(*PLAIN)
    record = read(only_run(outputs) / "run.json")
    assert (record["status"], record["error"]) == ("failed", "ZeroDivisionError: division by zero")


def test_a_place_that_cannot_hold_runs_is_a_clear_error(cnnbench, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(tmp_path / "file"))
    outcome = cnnbench(*PLAIN)
    assert outcome.code == 2
    assert "cannot be made" in outcome.err
    assert "CNNBENCH_OUTPUTS=FOLDER names another place" in outcome.err


# What is recorded -----------------------------------------------------------------------------------------------------


def test_the_record_of_a_run_says_all_that_its_result_depends_on(finished):
    record = read(finished / "run.json")
    config = plan_of(*PLAIN).config
    ready = preflight(config)
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
    assert record["git"] is None or record["git"].keys() == {"commit", "dirty"}
    assert record["sources"] == provenance.sources()
    assert "cnnbench/data/batches.py" in record["sources"]
    data = ready.data
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
    "an augmentation that the data forbids": ("data=digits", "augmentation=crop_flip", "data.crop=28"),
    "a flip of digits that was typed": ("data=digits", "augmentation.flip.p=0.5"),
    "a crop in pixels": ("data=digits", "data.crop=28", "augmentation=crop"),
    "without schedule": ("scheduler=none", "data.val_fraction=0", "max_minutes=20", "threads=2"),
}  # fmt: skip


@pytest.mark.parametrize("words", WORDS.values(), ids=WORDS)
def test_the_recorded_configuration_is_that_of_the_same_run(tmp_path, words):
    with open_composer() as composer:
        composer.add_missing_options()
        plan = plan_run(composer, words)
    folder = RunFolder(tmp_path / "run")
    folder.create(plan.config.to_dict(), plan.command, {})
    config, _ = check(folder.config(), is_recorded=True)
    assert config == plan.config
    assert config.identity() == plan.config.identity()


def test_the_recorded_configuration_opens_with_the_command(finished):
    lines = (finished / "config.yaml").read_text().splitlines()
    assert lines[0] == "# cnnbench " + " ".join(PLAIN)
    assert yaml.safe_load("\n".join(lines))["optimizer"]["lr"] == 0.05


def test_the_number_of_threads_is_kept_when_a_run_goes_on(outputs, capsys, monkeypatch):
    words = [word for word in PLAIN if not word.startswith("threads")]
    used: list[int] = []
    monkeypatch.setattr(session, "fit", lambda *_: used.append(torch.get_num_threads()))
    for more in (["threads=2"], [], ["threads=1"]):
        assert go(*words, *more) == 0
        (only_run(outputs) / "result.json").unlink()
    assert used == [2, 2, 1]
    assert "note: 2 threads before, 1 now: the last bits may differ" in capsys.readouterr().out
    torch.set_num_threads(1)


def test_tensorboard_has_the_settings_with_the_final_metrics_and_no_second_run(finished):
    assert [path.name for path in finished.iterdir() if path.is_dir()] == ["checkpoints"]
    (events,) = finished.rglob("*tfevents*")
    metadata = EventAccumulator(str(events)).Reload().summary_metadata
    plugin_data = {tag: HParamsPluginData.FromString(entry.plugin_data.content) for tag, entry in metadata.items()
                   if tag.startswith("_hparams_/")}  # fmt: skip
    started = plugin_data["_hparams_/session_start_info"].session_start_info.hparams
    assert started["optimizer.lr"].number_value == 0.05
    assert started["model.pool"].string_value == "max"
    assert started["optimizer.nesterov"].bool_value is False
    metrics = [info.name.tag for info in plugin_data["_hparams_/experiment"].experiment.metric_infos]
    assert sorted(metrics) == ["accuracy/test", "loss/test"]


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
    monkeypatch.setattr(session, "evaluate", lambda *_: {"loss": math.nan, "accuracy": -math.inf})
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


def test_a_damaged_record_is_a_clear_error(cnnbench, outputs):
    stop(plan_of(*PLAIN), at_check=4)
    record = only_run(outputs) / "run.json"
    record.write_text(record.read_text()[:100])
    outcome = cnnbench(*PLAIN)
    assert outcome.code == 2
    assert f"{record} cannot be read" in outcome.err


def test_a_plugin_that_is_not_there_is_a_clear_error(cnnbench, outputs):
    outcome = cnnbench(*TINY, "plugins=nowhere.py")
    assert outcome.code == 2
    assert "nowhere.py: no such Python file" in outcome.err
    assert not outputs.exists()


def test_the_header_shows_what_counts_and_where_it_came_from(cnnbench):
    window = ("augmentation=crop", "data.crop=16", "data.image_size=20")
    shown = cnnbench(*TINY, *window, "regularization=dropout", "optimizer.momentum=0", "epochs=1").out
    rows = [re.split(r"\s{2,}", line.strip()) for line in shown.splitlines()]
    told = {row[0]: tuple(row[1:]) for row in rows if len(row) == 3}
    assert told["augmentation.crop.padding"] == ("0", "augmentation/crop")
    assert told["regularization.dropout"] == ("0.5", "regularization/dropout")
    assert told["optimizer.momentum"] == ("0.0", "command line")
    assert told["optimizer.lr"] == ("0.05", "optimizer/sgd")
    assert not {key for key in told if key.startswith(("regularization.l1", "regularization.average", "checkpoint."))}
