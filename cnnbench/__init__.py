"""Convolutional-network experiments, one command each; from Python with the names below.

train, sweep, plan: as the commands do. load_run, runs: what was trained; each is a Run. register_…: your own
components. UserError, TrainingError, Stopped: what these raise.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnbench.analysis.loading import load_run
    from cnnbench.analysis.run import Run
    from cnnbench.api import plan, runs, sweep, train
    from cnnbench.errors import Stopped, TrainingError, UserError
    from cnnbench.registry import (
        register_augmentation,
        register_dataset,
        register_engine,
        register_logger,
        register_metric,
        register_model,
        register_optimizer,
        register_scheduler,
        register_task,
    )

__version__ = "0.1.0"
__all__ = [
    "Run",
    "Stopped",
    "TrainingError",
    "UserError",
    "load_run",
    "plan",
    "register_augmentation",
    "register_dataset",
    "register_engine",
    "register_logger",
    "register_metric",
    "register_model",
    "register_optimizer",
    "register_scheduler",
    "register_task",
    "runs",
    "sweep",
    "train",
]

_HOMES = {
    "analysis.loading": ("load_run",),
    "analysis.run": ("Run",),
    "api": ("plan", "runs", "sweep", "train"),
    "errors": ("Stopped", "TrainingError", "UserError"),
    "registry": tuple(name for name in __all__ if name.startswith("register_")),
}


def __getattr__(name: str) -> Any:
    """Import what notebooks and plugins use when it is first used: the commands answer at once without it."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"cnnbench.{home}"), name)
    raise AttributeError(f"module 'cnnbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
