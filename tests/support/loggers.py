"""MLflow and W&B without their packages: modules of their names that keep in memory what they are given."""

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


def install(patch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    """Make a module importable that has this content."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(content)
    patch.setitem(sys.modules, name, module)


class MlflowException(Exception):
    """What MLflow raises."""


class Store:
    """What every client of MLflow sees: runs with what was logged to them; `offline` makes each call fail."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.runs: dict[str, SimpleNamespace] = {}
        self.uris: list[str] = []
        self.offline = False
        install(patch, "mlflow", MlflowClient=self.client)
        install(patch, "mlflow.exceptions", MlflowException=MlflowException)
        install(
            patch, "mlflow.entities",
            Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
            Param=lambda key, value: (key, value),
        )  # fmt: skip

    def client(self, uri: str) -> "Store":
        self.uris.append(uri)
        return self

    def points(self, run_id: str) -> dict[str, list[list[float]]]:
        points: dict[str, list[list[float]]] = {}
        for metric in self.runs[run_id].metrics:
            points.setdefault(metric.key, []).append([metric.step, metric.value])
        return points

    # As MlflowClient has it -------------------------------------------------------------------------------------------

    def get_experiment_by_name(self, name: str) -> None:
        if self.offline:
            raise ConnectionError("nobody answers")

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        return "1"

    def create_run(self, experiment: str, run_name: str, tags: Mapping[str, str]) -> SimpleNamespace:
        info = SimpleNamespace(run_id=f"id{len(self.runs)}")
        made = SimpleNamespace(name=run_name, tags=tags, metrics=[], params={}, artifacts=[], status=["RUNNING"])
        self.runs[info.run_id] = made
        return SimpleNamespace(info=info)

    def get_run(self, run_id: str) -> SimpleNamespace:
        if run_id not in self.runs:
            raise MlflowException(run_id)
        return SimpleNamespace(data=SimpleNamespace(metrics=self.points(run_id)))

    def get_metric_history(self, run_id: str, key: str) -> list[SimpleNamespace]:
        return [metric for metric in self.runs[run_id].metrics if metric.key == key]

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        if self.offline:
            raise ConnectionError("nobody answers")
        assert len(metrics) <= 1000
        self.runs[run_id].metrics += metrics
        self.runs[run_id].params |= dict(params)

    def log_artifact(self, run_id: str, path: str) -> None:
        assert Path(path).is_file()
        self.runs[run_id].artifacts.append(Path(path).name)

    def log_image(self, run_id: str, pixels: Any, artifact_file: str) -> None:
        self.runs[run_id].artifacts.append(artifact_file)

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id].status.append(status)

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[run_id].status.append(status)


class WandbRun:
    """A run of W&B: its history, a row a step, and its summary."""

    def __init__(self, id: str | None, dir: Path, mode: str, step: int, **given: Any) -> None:
        self.id, self.mode, self.step, self.given = id or "w1", mode, step, given
        self.folder = Path(dir) / "wandb" / f"offline-run-20260101_{step:06}-{self.id}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.dir = str(self.folder)
        self.history: dict[int, dict[str, float]] = {}
        self.summary: dict[str, float] = {}
        self.saved: list[str] = []
        self.exit_code: int | None = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        assert step >= max(self.history, default=0), "W&B drops what comes late"
        self.history.setdefault(step, {}).update(values)

    def save(self, path: str, base_path: str, policy: str) -> None:
        self.saved.append(str(Path(path).relative_to(base_path)))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


class Wandb:
    """The module, with every run that was begun; steps: how far a server has each of them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.begun: list[WandbRun] = []
        self.steps = 0
        install(patch, "wandb", init=self.init, Settings=dict, Image=lambda pixels: pixels.shape)

    def init(self, **given: Any) -> WandbRun:
        self.begun.append(WandbRun(step=self.steps, **given))
        return self.begun[-1]
