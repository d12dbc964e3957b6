"""What a logger is: it is given a run, its scalars and what came out, and shows them elsewhere."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cnnbench.config.run_config import RunConfig, has_no_effect_on_result
from cnnbench.config.values import TYPED, flat
from cnnbench.errors import UserError, listed
from cnnbench.registry import LOGGERS, Selection

if TYPE_CHECKING:
    import numpy as np

Scalars = Mapping[str, float]

COMPARED = ("model", "data", "optimizer", "optimizer.lr", "batch_size", "epochs", "seed")  # whoever chose them


@dataclass(frozen=True)
class LoggedRun:
    """A run that starts, or that continues after it was stopped.

    folder: its name is readable and unique. settings: all of them, by dotted key. chosen: the few to compare runs by.
    metrics: names of what is measured on train and val.
    step: from here on, earlier sessions may have shown steps that the run will repeat.
    history: scalars that are known already, with their steps.
    """

    folder: Path
    command: str
    settings: Mapping[str, Any]
    chosen: Mapping[str, Any]
    metrics: tuple[str, ...]
    step: int
    history: Sequence[tuple[Scalars, int]]

    @property
    def name(self) -> str:
        """Return the name of the run's folder."""
        return self.folder.name


class Logger(Protocol):
    """Base of all loggers, in the order in which it is called; what is not abstract may be left out.

    What it raises ends the logging, never the training. But for NotWrittenError: the disk of the run folder is full, or
    read-only.

    A run that was stopped calls `begin` again in another process, and repeats scalars of steps after its last
    checkpoint: a logger shows each once.
    """

    @abstractmethod
    def begin(self, run: LoggedRun, known_as: str | None) -> str | None:
        """Start to show a run, or continue; return what this logger knows it by.

        known_as: what the first call for this run returned; None: this is the first.
        """

    @abstractmethod
    def scalars(self, values: Scalars, step: int) -> None:
        """Show values of a step; called after every step of a training, so it must be fast."""

    def image(self, name: str, pixels: "np.ndarray[Any, Any]", step: int) -> None:
        """Show an image, uint8 [H, W, 3]."""

    def flush(self) -> None:
        """Put everything so far where it belongs; called before every checkpoint."""

    def result(self, metrics: Scalars, step: int) -> None:
        """Show the metrics on the test images, of the network as it was after a step."""

    def end(self, status: str, files: Sequence[Path]) -> None:
        """End, for now or for good. status: completed, stopped or failed. files: worth keeping."""


def make_logger(name: str) -> Logger:
    """Return a registered logger. Raises UserError where there is none, or its package is not installed."""
    if name not in LOGGERS:  # of a recorded run, whose plugin is missing
        raise UserError(f"there is none of this name; there are {listed(LOGGERS)}")
    if missing := missing_package(name):
        raise UserError(missing)
    logger: Logger = LOGGERS.build(Selection(name, {}))
    return logger


def missing_package(name: str) -> str:
    """Say how to install the package that a logger needs; nothing where it is installed, or there is no such logger."""
    if name not in LOGGERS:
        return ""
    package, install = (LOGGERS[name].facts[fact] for fact in ("package", "install"))
    is_missing = package and find_spec(package) is None
    return f"{package} is not installed: pip install {install or package}" if is_missing else ""


def chosen_settings(config: RunConfig, record: Mapping[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Return the settings to compare a run with others by: those typed first, then what most comparisons are about.

    record: of the run folder, for the options of groups, and for what was typed in an earlier session.
    """
    choices, origins = record["choices"], record.get("origins", {})
    values = {**flat(config.to_dict()), **choices}
    before = [key for key, origin in origins.items() if origin == TYPED]
    keys = [key for word in (*typed, *before) for key in ([word] if word in values else _below(word, values))]
    kept = [key for key in keys if not has_no_effect_on_result(key)]
    return {key: values[key] for key in (*kept, *COMPARED) if key in values}


def as_text(value: Any) -> str:
    """Return the value of a setting as it would be typed, for a logger that keeps text."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _below(section: str, values: Mapping[str, Any]) -> list[str]:
    return [key for key in values if key.startswith(f"{section}.")]
