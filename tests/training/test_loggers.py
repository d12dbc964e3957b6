"""Loggers: what each is given, once each however often a run was interrupted; and what happens when one fails."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

from cnnbench import register_logger
from cnnbench.training.loggers import base
from cnnbench.training.loggers.base import Logger, chosen_settings
from cnnbench.training.loggers.tensorboard import TensorBoard
from tests.conftest import only_run
from tests.support.interruption import PLAIN, go, kill, read, rows_of, scalars_of, shown_by, stop
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("one_second_a_session", "undrawn")

# What is asked for ----------------------------------------------------------------------------------------------------


def test_tensorboard_is_the_default_and_nothing_at_all_can_be_asked_for(outputs):
    assert plan_of(*PLAIN).config.logger == ["tensorboard"]
    assert go(*PLAIN, "logger=[]") == 0
    assert not list(outputs.rglob("*tfevents*"))
    assert "loggers" not in read(only_run(outputs) / "run.json")


def test_one_name_is_a_list_of_one_and_no_part_of_the_identity_of_a_run():
    plan = plan_of("logger=mlflow")
    assert plan.config.logger == ["mlflow"]
    assert plan.config.identity() == plan_of().config.identity()
    assert plan.run_path() == plan_of().run_path()


def test_a_logger_that_does_not_exist_is_a_mistake_that_is_reported_before_anything_is_started(cnnbench, outputs):
    outcome = cnnbench(*PLAIN, "logger=[tensorboard,mlfow]")
    assert outcome.code == 2
    assert "no such logger as 'mlfow'; there are 'mlflow', 'tensorboard', 'wandb', or []" in outcome.err
    assert not outputs.exists()


@pytest.fixture
def without_packages(monkeypatch):
    monkeypatch.setattr(base, "find_spec", lambda _: None)


@pytest.mark.usefixtures("without_packages")
def test_a_missing_package_is_reported_before_training_which_continues_without_it(cnnbench, outputs):
    words = (*PLAIN, "logger=[mlflow,wandb,tensorboard]")
    said = cnnbench(*words).out
    for name in ("mlflow", "wandb"):
        line = f"logger '{name}' is disabled: {name} is not installed: pip install 'cnnbench[{name}]'\n"
        assert 0 < said.index(line) < said.index("epoch 1/3")
    assert said.count("warning") == 2
    assert scalars_of(only_run(outputs))
    said = cnnbench(*words, "seed=1", "dry_run=true").out
    assert "logger 'mlflow' will be disabled: mlflow is not installed: pip install 'cnnbench[mlflow]'" in said


# A logger of one's own ------------------------------------------------------------------------------------------------

PLUGIN = '''
from pathlib import Path
from cnnbench.registry import register_logger
from cnnbench.training.loggers.base import Logger

@register_logger("diary")
class Diary(Logger):
    """Writes a line a call."""
    def begin(self, run, known_as):
        self.file = (run.folder / "diary.txt").open("a")
        self.write("begin", run.step, known_as, len(run.history), run.chosen["seed"], ",".join(run.metrics))
        return "page 1"
    def scalars(self, values, step):
        self.write("scalars", step, *values)
    def flush(self):
        self.file.flush()
    def result(self, metrics, step):
        self.write("result", step, *metrics)
    def end(self, status, files):
        self.write("end", status, *(file.name for file in files))
        self.file.close()
    def write(self, *words):
        print(*words, file=self.file)
'''


def test_a_plugin_registers_a_logger_that_is_called_in_order(cnnbench, outputs, tmp_path):
    (tmp_path / "diary.py").write_text(PLUGIN)
    words = (*PLAIN, f"plugins={tmp_path / 'diary.py'}", "logger=diary")
    assert cnnbench(*words, "report=true").code == 0
    run = only_run(outputs)
    lines = (run / "diary.txt").read_text().splitlines()
    assert lines[0] == "begin 0 None 0 0 loss,accuracy"
    assert lines[1] == "scalars 1 step/lr step/loss step/accuracy"
    assert [line for line in lines if line.startswith("scalars 5 ")] == [
        "scalars 5 step/lr step/loss step/accuracy",
        "scalars 5 loss/train accuracy/train loss/val accuracy/val",
    ]
    assert lines[-2].startswith("result ")
    assert set(lines[-2].split()[2:]) == {"loss/test", "accuracy/test", "ece/test", "brier/test"}
    assert lines[-1] == "end completed result.json report.html"
    assert len(lines) == 1 + 15 + 3 + 2
    assert read(run / "run.json")["loggers"] == {"diary": "page 1"}
    assert not list(run.rglob("*tfevents*"))


def test_a_logger_that_lacks_a_method_is_refused_in_a_sentence(cnnbench, tmp_path):
    (tmp_path / "diary.py").write_text(PLUGIN.replace("def scalars", "def scalar"))
    ended = cnnbench(*PLAIN, f"plugins={tmp_path / 'diary.py'}", "logger=diary")
    assert ended.code == 2
    assert "diary.py:6: logger 'diary': lacks the methods that its base class leaves open: define 'sc" in ended.err


METHODS = "begin", "scalars", "image", "flush", "result", "end"


def test_a_logger_that_fails_anywhere_ends_no_training_and_is_reported_once(outputs, capsys):
    calls = []

    def fail(self: Logger, *_) -> None:
        calls.append(type(self).__name__)
        raise OSError("no space left")

    for method in METHODS:
        others = {name: lambda *_: None for name in METHODS}
        register_logger(f"no_{method}")(type(method, (Logger,), others | {method: fail}))
    loggers = [f"no_{method}" for method in METHODS]
    assert go(*PLAIN, f"logger=[{','.join(loggers)},tensorboard]", "report=true") == 0
    said, run = capsys.readouterr().out, only_run(outputs)
    assert [said.count(f"warning: logger '{name}' is disabled: OSError: no space left") for name in loggers] == [1] * 6
    assert sorted(calls) == sorted(METHODS)
    assert read(run / "run.json")["status"] == "completed"
    assert scalars_of(run) == shown_by(rows_of(run), read(run / "result.json"))


def test_tensorboard_may_fail_too(outputs, capsys, monkeypatch):
    monkeypatch.setattr(TensorBoard, "scalars", lambda *_: 1 / 0)
    assert go(*PLAIN) == 0
    assert "warning: logger 'tensorboard' is disabled: ZeroDivisionError" in capsys.readouterr().out
    assert len(rows_of(only_run(outputs))) == 15 + 3


# What runs are compared by --------------------------------------------------------------------------------------------


def chosen_by(*words: str) -> dict:
    plan = plan_of(*words)
    return chosen_settings(plan.config, {"choices": plan.choices, "origins": plan.origins}, tuple(plan.typed))


def test_the_settings_to_compare_by_are_those_typed_and_the_few_of_most_comparisons():
    chosen = chosen_by("regularization.dropout=0.5", "optimizer=adam", "seed=3", "num_workers=2", "model=lenet_v2")
    assert list(chosen)[:4] == ["regularization.dropout", "optimizer", "seed", "model"]
    assert set(chosen) == {*base.COMPARED, "regularization.dropout"}
    assert (chosen["regularization.dropout"], chosen["optimizer"], chosen["seed"]) == (0.5, "adam", 3)
    assert (chosen["model"], chosen["data"], chosen["epochs"]) == ("lenet_v2", "digits", 40)


def test_a_section_that_is_typed_as_a_whole_counts_by_its_settings():
    chosen = chosen_by("optimizer.lr_scale.head=10", "augmentation=flip", "data=cifar10")
    assert chosen["optimizer.lr_scale.head"] == 10
    assert chosen["augmentation"] == "flip"


def test_what_was_typed_in_an_earlier_session_counts_where_a_folder_is_resumed():
    plan = plan_of("regularization.dropout=0.5")
    record = {"choices": plan.choices, "origins": plan.origins}
    assert "regularization.dropout" in chosen_settings(plan.config, record, ())


# TensorBoard ----------------------------------------------------------------------------------------------------------


def hparams_of(run: Path) -> dict[str, HParamsPluginData]:
    metadata = EventAccumulator(str(run)).Reload().summary_metadata
    return {
        tag: HParamsPluginData.FromString(entry.plugin_data.content)
        for tag, entry in metadata.items()
        if entry.plugin_data.plugin_name == "hparams"
    }


def started(run: Path) -> SessionStartInfo:
    return hparams_of(run)["_hparams_/session_start_info"].session_start_info


def texts_of(run: Path) -> dict[str, list[str]]:
    events = EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)]
        for tag in ("command", "configuration")
    }


VARIED = (*PLAIN, "regularization.dropout=0.5", "regularization.batchnorm=true", "seed=2")


@pytest.mark.parametrize("way", ["stopped", "killed before the first checkpoint"])
def test_hparams_has_few_settings_and_leaves_to_tensorboard_which_differ(outputs, way):
    if way == "stopped":
        stop(plan_of(*VARIED), at_check=7)
    else:
        kill(plan_of(*VARIED), after_step=3, saves_every=100)
    assert go(*VARIED) == 0
    run = only_run(outputs)
    assert set(hparams_of(run)) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    settings = started(run).hparams
    typed = {word.partition("=")[0] for word in VARIED} - {"threads", "device", "report", "scheduler"}
    assert set(settings) == {*base.COMPARED, "scheduler", *typed}
    assert settings["regularization.dropout"].number_value == 0.5
    assert settings["regularization.batchnorm"].bool_value is True
    assert settings["scheduler"].string_value == "none"
    assert settings["seed"].string_value == "2"
    texts = texts_of(run)
    assert set(texts["command"]) == {f"    cnnbench {' '.join(VARIED)}"}
    assert len(texts["configuration"]) == (2 if "first" in way else 1)  # at step 0 again, where TensorBoard shows one
    assert "dropout: 0.5" in texts["configuration"][0]
    words, _, identity = run.name.rpartition("-")
    assert started(run).group_name == f"{identity} {words}"  # begins with what is its own


def test_a_logger_that_joins_later_shows_the_whole_run_train_and_validation_in_one_chart(outputs):
    stop(plan_of(*PLAIN, "logger=[]"), at_check=9)
    assert go(*PLAIN) == 0
    run = only_run(outputs)
    assert scalars_of(run) == shown_by(rows_of(run), read(run / "result.json"))
    assert texts_of(run)["command"]
    events = EventAccumulator(str(run)).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    assert {chart.title: list(chart.multiline.tag) for chart in category.chart} == {
        "loss": ["^loss/(train|val|test)$"], "accuracy": ["^accuracy/(train|val|test)$"],
    }  # fmt: skip
