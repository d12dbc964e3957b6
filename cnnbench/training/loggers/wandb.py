"""Weights & Biases: offline, in the run folder, unless WANDB_MODE=online."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.registry import LOGGERS
from cnnbench.training.loggers.base import LoggedRun, Logger, Scalars

if TYPE_CHECKING:
    import numpy as np


@LOGGERS.register("wandb", package="wandb", install="'cnnbench[wandb]'")
class WandB(Logger):
    """Weights & Biases; what was written offline is uploaded by `wandb sync outputs/…/wandb/offline-run-*`."""

    def begin(self, run: LoggedRun, known_as: str | None) -> str:
        """Start a run, or continue the one of this id."""
        import wandb

        mode = os.environ.get("WANDB_MODE", "offline")
        is_online = mode in ("online", "shared")
        if not is_online and known_as is not None:  # nobody can add to what was written offline: it is written again
            for folder in (run.folder / "wandb").glob(f"offline-run-*-{known_as}"):
                shutil.rmtree(folder)
        self._image = wandb.Image
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "cnnbench"), name=run.name, id=known_as, mode=mode,
            resume="allow" if is_online else None, dir=run.folder, notes=run.command, tags=_tags(run),
            config={**run.settings, **run.chosen}, settings=wandb.Settings(console="off", silent=True, init_timeout=30),
        )  # fmt: skip
        self._next = self._run.step if is_online else 0
        for values, step in run.history:
            self.scalars(values, step)
        return str(self._run.id)

    def scalars(self, values: Scalars, step: int) -> None:
        """Add values to the history, which only grows: what an earlier session has sent is not sent again."""
        if step >= self._next:
            self._run.log(dict(values), step=step)
            self._next = step

    def image(self, name: str, pixels: "np.ndarray[Any, Any]", step: int) -> None:
        """Show an image, at the end of the history: it is of a step that may have passed."""
        self._run.log({name: self._image(pixels)}, step=self._next)

    def result(self, metrics: Scalars, step: int) -> None:
        """Put the metrics on the test images into the summary of the run."""
        self._run.summary.update({**metrics, "tested step": step})

    def end(self, status: str, files: Sequence[Path]) -> None:
        """Save the files, and end the run."""
        kept = Path(self._run.dir) / "cnnbench"
        kept.mkdir(exist_ok=True)
        for file in files:
            self._run.save(shutil.copy(file, kept), base_path=self._run.dir, policy="now")
        self._run.finish(exit_code=int(status == "failed"))


def _tags(run: LoggedRun) -> list[str]:
    return [str(run.chosen[key])[:64] for key in ("data", "model", "experiment") if key in run.chosen]
