"""MLflow and W&B: each has one run with everything once, however often the run was interrupted."""

import json
from pathlib import Path

import pytest

from cnnbench.training.loggers import base
from tests.conftest import only_run
from tests.support.interruption import PLAIN, go, kill, read, rows_of, shown_by, stop
from tests.support.loggers import Store, Wandb
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("one_second_a_session", "undrawn")


@pytest.fixture
def store(monkeypatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Store(monkeypatch)


MLFLOW = (*PLAIN, "logger=mlflow")


@pytest.mark.parametrize("way", ["stopped", "killed twice"])
def test_mlflow_has_one_run_with_every_point_once(outputs, store, way):
    if way == "stopped":
        stop(plan_of(*MLFLOW), at_check=9)
    else:
        kill(plan_of(*MLFLOW), after_step=9, saves_every=4)
        assert store.points("id0")["step/loss"][-1][0] == 9  # sent, and later than the last checkpoint
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


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_wandb_is_offline_and_has_one_run_with_every_row_once(outputs, wandb, way):
    if way == "stopped":
        stop(plan_of(*WANDB), at_check=9)
    else:
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
