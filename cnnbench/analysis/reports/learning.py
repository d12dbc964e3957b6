"""How training went: how soon a network learnt, where it stopped learning, and what it knows by heart."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

PRINCIPAL = ("accuracy", "recall@1")
LOWER_IS_BETTER = ("loss", "ece")
RISEN = 1.1  # of a loss, against its lowest value: more than its unrest from epoch to epoch
LAST = 10  # the last tenth of the epochs is the end
STILL_RISING = 0.9  # of all epochs: a best one after so many says that more of them might have helped


@dataclass(frozen=True)
class Course:
    """What the epochs of a training say. Epochs count from 1; 0 and NaN: there was no validation, or no such metric.

    best, best_epoch: of the metric on validation. lowest_epoch, rise: where the loss of validation was lowest, and how
    many times that it is at the end. fell: what the loss of training was then, and is at the end.
    """

    epochs: int
    best: float
    best_epoch: int
    lowest_epoch: int
    rise: float
    fell: tuple[float, float]

    @property
    def overfits(self) -> bool:
        """Tell whether validation got worse while training went on getting better."""
        return self.rise >= RISEN and self.fell[1] < self.fell[0]

    def remarks(self, metric: str) -> list[str]:
        """Return what the course says, in sentences."""
        if not self.best_epoch:
            return ["there was no validation: nothing is known of the way there but training"]
        first = f"in epoch {self.best_epoch} of {self.epochs}"
        best = f"{metric} on validation comes to its best, {self.best:.4f}, {first}"
        if self.best_epoch > STILL_RISING * self.epochs and not self.overfits:
            best += "; more epochs might have helped"
        if not self.lowest_epoch:
            return [best]
        if self.overfits:
            before, after = self.fell
            said = (
                f"the loss of validation is lowest in epoch {self.lowest_epoch} and {self.rise:.2f} times that at the "
                f"end, while the loss of training falls from {before:.4f} to {after:.4f}: it overfits"
            )
        else:
            said = f"the loss of validation is {self.rise:.2f} times its lowest at the end: it does not overfit"
        return [best, said]


def course(epochs: pd.DataFrame, metric: str, higher: bool) -> Course:
    """Return what the rows of the epochs of one training say; of a metric that is better higher, or lower."""
    last = int(epochs["epoch"].max()) if len(epochs) else 0
    best, best_epoch = _extreme(epochs, f"{metric}/val", higher)
    lowest, lowest_epoch = _extreme(epochs, "loss/val", higher=False)
    losses, trained = _measured(epochs, "loss/val"), _measured(epochs, "loss/train")
    end = losses.iloc[-max(1, len(losses) // LAST) :].mean()  # one epoch alone may be an unlucky one
    rise = float(end) / lowest if lowest_epoch and lowest > 0 else math.nan
    then = trained[trained.index <= lowest_epoch]
    fell = (float(then.iloc[-1]), float(trained.iloc[-1])) if len(then) else (math.nan, math.nan)
    return Course(last, best, best_epoch, lowest_epoch, rise, fell)


@dataclass(frozen=True)
class Metric:
    """What trainings are judged by. higher: whether it is better so."""

    name: str
    higher: bool

    @classmethod
    def of(cls, name: str, result: Mapping[str, Any]) -> "Metric":
        """Return a metric, with what the task says of it in `result.json`, where it does."""
        return cls(name, dict(result.get("watched", ())).get(name, name not in LOWER_IS_BETTER))


LOSS = Metric("loss", higher=False)


def principal(names: Sequence[str], epochs: pd.DataFrame, result: Mapping[str, Any]) -> str:
    """Return the metric that tells most of a training, of those that were measured on the way.

    Accuracy or recall, else what its task watches first, else its loss.
    """
    told = {str(column).partition("/")[0] for column in epochs}
    watched = (name for name, _ in result.get("watched", ()))
    measured = [name for name in (*PRINCIPAL, *watched) if name in names and name in told]
    return measured[0] if measured else "loss"


def first_at(epochs: pd.DataFrame, column: str, level: float, higher: bool) -> float:
    """Return the first epoch in which a column came to a level; NaN where it never did."""
    values = _measured(epochs, column)
    there = values[values >= level] if higher else values[values <= level]
    return float(there.index[0]) if len(there) else math.nan


def _extreme(epochs: pd.DataFrame, column: str, higher: bool) -> tuple[float, int]:
    values = _measured(epochs, column)
    if not len(values):
        return math.nan, 0
    place = int(values.argmax() if higher else values.argmin())
    return float(values.iloc[place]), int(values.index[place])


def _measured(epochs: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Return the values of a column by epoch; the last one where an epoch has several."""
    if column not in epochs:
        return pd.Series(dtype=float)
    values = epochs.set_index("epoch")[column].dropna()
    return values[~values.index.duplicated(keep="last")]
