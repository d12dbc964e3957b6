"""Loggers: what each is given, once each however often a run was interrupted; and what happens when one fails."""

import json
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
from tests.support.loggers import Store, Wandb
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("one_second_a_session")


# What is asked for ----------------------------------------------------------------------------------------------------


def test_tensorboard_is_the_default_and_nothing_at_all_can_be_asked_for(outputs):
    assert plan_of(*PLAIN).config.logger == ["tensorboard"]
    assert go(*PLAIN, "logger=[]") == 0
    assert not list(outputs.rglob("*tfevents*"))
    assert "loggers" not in read(only_run(outputs) / "run.json")


def test_one_name_is_a_list_of_one():
    assert plan_of("logger=mlflow").config.logger == ["mlflow"]


def test_a_logger_is_no_part_of_the_identity_of_a_run():
    plan = plan_of("logger=[mlflow,wandb]")
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
@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_reported_before_training_which_continues_without_it(outputs, capsys, name):
    assert go(*PLAIN, f"logger=[{name},tensorboard]") == 0
    said = capsys.readouterr().out
    line = f"logger '{name}' is disabled: {name} is not installed: pip install 'cnnbench[{name}]'\n"
    assert 0 < said.index(line) < said.index("epoch 1/3")
    assert said.count("warning") == 1
    assert scalars_of(only_run(outputs))


@pytest.mark.usefixtures("without_packages")
def test_a_dry_run_tells_of_a_missing_package(cnnbench):
    said = cnnbench(*PLAIN, "logger=mlflow", "dry_run=true").out
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


class Broken(Logger):
    """Fails in one of its methods, and counts how often it was called after that."""

    method = ""
    calls = 0

    def __getattribute__(self, name):
        if name in ("begin", "scalars", "image", "flush", "result", "end") and Broken.method:
            if name == Broken.method:
                Broken.calls += 1
                raise OSError("no space left")
            return lambda *_: None
        return super().__getattribute__(name)


@pytest.mark.parametrize("method", ["begin", "scalars", "image", "flush", "result", "end"])
def test_a_logger_that_fails_anywhere_ends_no_training_and_is_reported_once(outputs, capsys, monkeypatch, method):
    register_logger("broken")(Broken)
    monkeypatch.setattr(Broken, "method", method)
    monkeypatch.setattr(Broken, "calls", 0)
    assert go(*PLAIN, "logger=[broken,tensorboard]", "report=true") == 0
    run = only_run(outputs)
    assert capsys.readouterr().out.count("warning: logger 'broken' is disabled: OSError: no space left") == 1
    assert Broken.calls == 1
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


@pytest.mark.parametrize("way", ["unbroken", "stopped", "killed before the first checkpoint"])
def test_hparams_has_few_settings_and_leaves_to_tensorboard_which_differ(outputs, way):
    if way == "stopped":
        stop(plan_of(*VARIED), at_check=7)
    elif way == "killed before the first checkpoint":
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


def test_the_name_of_a_trial_is_that_of_its_folder_and_begins_with_what_is_its_own(outputs):
    assert go(*VARIED) == 0
    run = only_run(outputs)
    words, _, identity = run.name.rpartition("-")
    assert started(run).group_name == f"{identity} {words}"


def test_train_and_validation_of_a_metric_are_in_one_chart(outputs):
    assert go(*PLAIN) == 0
    events = EventAccumulator(str(only_run(outputs))).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    assert {chart.title: list(chart.multiline.tag) for chart in category.chart} == {
        "loss": ["^loss/(train|val|test)$"], "accuracy": ["^accuracy/(train|val|test)$"],
    }  # fmt: skip


def test_a_logger_that_joins_later_shows_the_whole_run(outputs):
    stop(plan_of(*PLAIN, "logger=[]"), at_check=9)
    assert go(*PLAIN) == 0
    run = only_run(outputs)
    assert scalars_of(run) == shown_by(rows_of(run), read(run / "result.json"))
    assert texts_of(run)["command"]


# MLflow ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(monkeypatch)


MLFLOW = (*PLAIN, "logger=mlflow")


@pytest.mark.parametrize("way", ["unbroken", "stopped", "killed", "killed twice"])
def test_mlflow_has_one_run_with_every_point_once(outputs, store, way):
    if way == "stopped":
        stop(plan_of(*MLFLOW), at_check=9)
    elif way != "unbroken":
        kill(plan_of(*MLFLOW), after_step=9, saves_every=4)
        assert store.points("id0")["step/loss"][-1][0] == 9  # sent, and later than the last checkpoint
    if way == "killed twice":
        kill(plan_of(*MLFLOW), after_step=10, saves_every=4)
    assert go(*MLFLOW) == 0
    run = only_run(outputs)
    ((run_id, logged),) = store.runs.items()
    steps = {
        key: [step for step, _ in points] for key, points in shown_by(rows_of(run), read(run / "result.json")).items()
    }
    assert {key: [step for step, _ in points] for key, points in store.points(run_id).items()} == steps
    assert read(run / "run.json")["loggers"] == {"mlflow": run_id}
    assert logged.name == run.name
    assert logged.params["optimizer.lr"] == "0.05"
    assert len(logged.params) < 20
    assert logged.artifacts == ["config.yaml", "result.json"]
    assert logged.status[-1] == "FINISHED"
    if way == "stopped":
        assert logged.status == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]


def test_mlflow_is_a_database_beside_the_runs_unless_something_else_is_named(outputs, store, monkeypatch):
    assert go(*MLFLOW) == 0
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert go(*MLFLOW, "seed=1") == 0
    assert store.uris == [f"sqlite:///{outputs / 'mlflow.db'}", "http://tracking:5000"]


def test_an_mlflow_run_that_is_gone_is_made_again_with_all_that_was(outputs, store):
    stop(plan_of(*MLFLOW), at_check=9)
    del store.runs["id0"]
    store.runs["other"] = None
    assert go(*MLFLOW) == 0
    assert [step for step, _ in store.points("id1")["step/loss"]] == list(range(1, 16))
    assert read(only_run(outputs) / "run.json")["loggers"] == {"mlflow": "id1"}


def test_an_mlflow_server_that_does_not_answer_costs_a_warning_and_the_next_session_sends_all(outputs, store, capsys):
    store.offline = True
    stop(plan_of(*MLFLOW), at_check=9)
    assert "warning: logger 'mlflow' is disabled: ConnectionError: nobody answers" in capsys.readouterr().out
    store.offline = False
    assert go(*MLFLOW) == 0
    assert [step for step, _ in store.points("id0")["step/loss"]] == list(range(1, 16))


def test_a_metric_whose_name_mlflow_does_not_take_has_another_one_there(store, tmp_path):
    from cnnbench.training.loggers.mlflow import MLflow

    logger = MLflow()
    logger.begin(logged_run(tmp_path), None)
    logger.scalars({"recall@1/val": 0.5, "accuracy/val": 0.5}, 1)
    logger.flush()
    assert set(store.points("id0")) == {"recall_1/val", "accuracy/val"}


def logged_run(folder: Path) -> base.LoggedRun:
    (folder / "config.yaml").write_text("epochs: 3")
    return base.LoggedRun(folder, "cnnbench", {"epochs": 3}, {"epochs": 3}, ("loss",), 0, [])


# W&B ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wandb(monkeypatch) -> Wandb:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return Wandb(monkeypatch)


WANDB = (*PLAIN, "logger=wandb")


@pytest.mark.parametrize("way", ["unbroken", "stopped", "killed"])
def test_wandb_is_offline_and_has_one_run_with_every_row_once(outputs, wandb, way):
    if way == "stopped":
        stop(plan_of(*WANDB), at_check=9)
    elif way == "killed":
        kill(plan_of(*WANDB), after_step=9, saves_every=4)
    wandb.steps = 1  # folders of two sessions have two names
    assert go(*WANDB) == 0
    run, last = only_run(outputs), wandb.begun[-1]
    assert {begun.id for begun in wandb.begun} == {"w1"} == set(read(run / "run.json")["loggers"].values())
    assert last.mode == "offline"
    assert list(last.history) == list(range(1, 16))
    assert set(last.history[5]) == {
        "step/lr", "step/loss", "step/accuracy", "loss/train", "accuracy/train", "loss/val", "accuracy/val",
    }  # fmt: skip
    assert {"loss/test", "accuracy/test"} < set(last.summary)
    assert last.saved == ["cnnbench/result.json"]
    assert last.exit_code == 0
    assert [path.name for path in (run / "wandb").iterdir()] == [last.folder.name]  # the earlier one would count twice
    assert last.given["config"]["optimizer.lr"] == 0.05
    assert last.given["name"] == run.name


def test_a_wandb_server_is_sent_what_it_does_not_have(outputs, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    kill(plan_of(*WANDB), after_step=9, saves_every=4)
    wandb.steps = 10  # it has steps 1 to 9
    assert go(*WANDB) == 0
    last = wandb.begun[-1]
    assert (last.id, last.mode, last.given["resume"]) == ("w1", "online", "allow")
    assert list(last.history) == list(range(10, 16))


# The packages themselves, where they are installed --------------------------------------------------------------------


def real(name: str) -> None:
    pytest.importorskip(name, exc_type=ImportError)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_mlflow_has_every_point_once_after_a_kill(outputs, monkeypatch):
    real("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    kill(plan_of(*MLFLOW), after_step=9, saves_every=4)
    assert go(*MLFLOW) == 0
    from mlflow import MlflowClient

    run = only_run(outputs)
    client, run_id = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}"), read(run / "run.json")["loggers"]["mlflow"]
    for key, points in shown_by(rows_of(run), read(run / "result.json")).items():
        assert [metric.step for metric in client.get_metric_history(run_id, key)] == [step for step, _ in points], key
    assert client.get_run(run_id).info.status == "FINISHED"
    assert {file.path for file in client.list_artifacts(run_id)} == {"config.yaml", "result.json"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb_writes_one_run_offline_after_a_kill(outputs, monkeypatch):
    real("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    stop(plan_of(*WANDB), at_check=9)
    assert go(*WANDB) == 0
    run = only_run(outputs)
    (folder,) = (run / "wandb").glob("offline-run-*")
    assert folder.name.endswith(read(run / "run.json")["loggers"]["wandb"])
    assert (folder / "files" / "cnnbench" / "result.json").is_file()
    assert json.loads((folder / "files" / "cnnbench" / "result.json").read_text())["epochs"] == 3
