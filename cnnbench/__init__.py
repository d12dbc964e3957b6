"""Convolutional-network experiments, one command each."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnbench.analysis.run import Run, load_run, runs
    from cnnbench.api import sweep, train
    from cnnbench.registry import (
        register_augmentation,
        register_dataset,
        register_logger,
        register_model,
        register_optimizer,
        register_scheduler,
        register_task,
    )

__version__ = "0.1.0"
__all__ = [
    "Run",
    "load_run",
    "register_augmentation",
    "register_dataset",
    "register_logger",
    "register_model",
    "register_optimizer",
    "register_scheduler",
    "register_task",
    "runs",
    "sweep",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import what notebooks and plugins use when it is first used: the commands answer at once without it."""
    if name not in __all__:
        raise AttributeError(f"module 'cnnbench' has no attribute '{name}'")
    is_carried_out = name in ("sweep", "train")
    home = "registry" if name.startswith("register_") else "api" if is_carried_out else "analysis.run"
    return getattr(import_module(f"cnnbench.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
