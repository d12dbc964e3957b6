"""Convolutional-network experiments, one command each."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnbench.analysis.run import Run, load_run, runs, train

__version__ = "0.1.0"
__all__ = ["Run", "load_run", "runs", "train"]


def __getattr__(name: str) -> Any:
    """Import what notebooks use when it is first used: the commands answer at once without it."""
    if name not in __all__:
        raise AttributeError(f"module 'cnnbench' has no attribute '{name}'")
    from cnnbench.analysis import run

    return getattr(run, name)
