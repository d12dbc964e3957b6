"""MLflow: a run in the store that MLFLOW_TRACKING_URI names, else in a database below `outputs`."""

import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.registry import LOGGERS
from cnnbench.store.folder import outputs_dir
from cnnbench.training.loggers.base import LoggedRun, Logger, Scalars, as_text

if TYPE_CHECKING:
    import numpy as np

STATUS = {"completed": "FINISHED", "failed": "FAILED"}  # any other: KILLED, which may continue
MAX_METRICS, MAX_PARAMS, LONGEST_PARAM = 1000, 100, 6000  # that MLflow takes at once


@LOGGERS.register("mlflow", package="mlflow", install="'cnnbench[mlflow]'")
class MLflow(Logger):
    """MLflow, without a network unless MLFLOW_TRACKING_URI names a server."""

    def begin(self, run: LoggedRun, known_as: str | None) -> str:
        """Create a run, or continue the one of this id if the store still has it."""
        # A server that cannot be reached should cost seconds, not the 20 minutes for which MLflow would try.
        for name, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "10")):
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        for library in ("alembic", "mlflow"):
            logging.getLogger(library).setLevel(logging.WARNING)  # the first run would report every table that it makes
        self._metric = Metric
        self._waiting: list[Any] = []
        self._last_steps: dict[str, int] = {}
        store = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(store or f"sqlite:///{outputs_dir() / 'mlflow.db'}")
        experiment = self._experiment(None if store else (outputs_dir() / "mlruns").as_uri())
        self._id = self._find(known_as)
        if not self._id:
            tags = {"folder": str(run.folder), "mlflow.note.content": f"`{run.command}`"}
            self._id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
            # The few settings that were chosen: MLflow lists parameters by name, and draws the first that differ.
            params = [Param(key, as_text(value)[:LONGEST_PARAM]) for key, value in run.chosen.items()]
            self._client.log_batch(self._id, params=params[:MAX_PARAMS])
            self._client.log_artifact(self._id, str(run.folder / "config.yaml"))
        for values, step in run.history:
            self.scalars(values, step)
        return self._id

    def scalars(self, values: Scalars, step: int) -> None:
        """Keep values until the next flush, except those that an earlier session has sent."""
        now = int(1000 * time.time())
        for name, value in values.items():
            key = re.sub(r"[^\w/. :-]", "_", name)  # recall@1
            if step > self._last_steps.get(key, -1):
                self._waiting.append(self._metric(key, value, now, step))

    def image(self, name: str, pixels: "np.ndarray[Any, Any]", step: int) -> None:
        """Save an image among the artifacts."""
        self._client.log_image(self._id, pixels, artifact_file=f"{name}.png")

    def flush(self) -> None:
        """Send what was kept."""
        for start in range(0, len(self._waiting), MAX_METRICS):
            self._client.log_batch(self._id, metrics=self._waiting[start : start + MAX_METRICS])
        self._waiting.clear()

    def result(self, metrics: Scalars, step: int) -> None:
        """Keep the metrics on the test images like any others."""
        self.scalars(metrics, step)

    def end(self, status: str, files: Sequence[Path]) -> None:
        """Send the rest, save the files and end the run; `begin` makes it run again."""
        self.flush()
        for file in files:
            self._client.log_artifact(self._id, str(file))
        self._client.set_terminated(self._id, STATUS.get(status, "KILLED"))

    def _experiment(self, artifacts: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "cnnbench")
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name, artifacts) if found is None else found.experiment_id)

    def _find(self, known_as: str | None) -> str:
        """Return the id of a run that continues, and note what it has; empty where there is none."""
        from mlflow.exceptions import MlflowException

        if known_as is None:
            return ""
        try:
            metrics = self._client.get_run(known_as).data.metrics
        except MlflowException:  # another store, or it was deleted
            return ""
        for key in metrics:
            self._last_steps[key] = max(metric.step for metric in self._client.get_metric_history(known_as, key))
        self._client.update_run(known_as, status="RUNNING")
        return known_as
