"""How a training went: how soon a network learnt, where validation stopped improving, whether it overfits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnnbench.store.files import read_rows
from cnnbench.store.query import PRINCIPAL, RunSummary, higher_is_better
from cnnbench.tasks.intervals import is_chance

RISEN = 1.1  # times its lowest value: more than a loss fluctuates from epoch to epoch
LAST = 10  # the last tenth of the epochs is the end
STILL_RISING = 0.9  # of all epochs: where the best one comes later, more of them might help


def epoch_rows(run: RunSummary) -> pd.DataFrame:
    """Return what a run measured by epoch, validations within an epoch included."""
    return pd.DataFrame([row for row in read_rows(run.folder.metrics_file) if row["row"] in ("epoch", "val")])


@dataclass(frozen=True)
class Metric:
    """What runs are compared by."""

    name: str
    higher_is_better: bool

    @property
    def is_share(self) -> bool:
        """Return whether it is a share of images: those that are correct."""
        return self.name in ("accuracy", "top5", "5-nn") or self.name.startswith("recall@")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Return between which numbers it is; None where that is not known."""
        return (0.0, 1.0) if self.is_share or self.name in ("ece", "mAP", "R-precision") else None

    @classmethod
    def of(cls, name: str, result: Mapping[str, Any]) -> "Metric":
        """Return a metric; its direction is the task's, if `result.json` has it."""
        return cls(name, higher_is_better(name, result))

    @property
    def sign(self) -> int:
        """Return 1 if higher is better, else -1."""
        return 1 if self.higher_is_better else -1


LOSS = Metric("loss", higher_is_better=False)


def principal(names: Sequence[str], epochs: pd.DataFrame, result: Mapping[str, Any]) -> str:
    """Return the main one of the metrics that were measured during training.

    Accuracy or recall, else what its task watches first, else its loss.
    """
    during_training = {str(column).partition("/")[0] for column in epochs}
    watched = (name for name, _ in result.get("watched", ()))
    return next((name for name in (*PRINCIPAL, *watched) if name in names and name in during_training), "loss")


@dataclass(frozen=True)
class Fitted:
    """A metric on training and on validation images. images: how many of each; 0: unknown."""

    train: float
    val: float
    higher_is_better: bool = True
    images: tuple[int, int] = (0, 0)

    @property
    def has_gap(self) -> bool:
        """Return whether training images are fitted better, by more than chance where that can be computed."""
        if not self.higher_is_better:
            return self.val > RISEN * self.train
        is_counted = all(self.images) and self.val >= 0 and self.train < 1  # memorised is no matter of chance
        is_chance_alone = is_counted and is_chance(self.train, self.images[0], self.val, self.images[1])
        return self.train > self.val and not is_chance_alone

    def gap(self, metric: str) -> str:
        """Return both values and their difference in words."""
        difference = abs(self.train - self.val)
        values = f"{self.train:.4f} on training and {self.val:.4f} on validation images"
        return f"{metric} is {values}: a gap of {difference:.4f}"


NOT_FITTED = Fitted(math.nan, math.nan)


@dataclass(frozen=True)
class Course:
    """How one training went. Epochs count from 1; 0 and NaN: there was no validation, or no such metric.

    best, best_epoch: of the metric on validation. lowest_epoch: of the validation loss. rise: the validation loss at
    the end, relative to its lowest value. train_loss: in the epoch of that lowest value, and at the end.
    no_verdict: why nothing can be said of overfitting; empty: it can. fitted: of the last epoch; of training it has the
    running mean.
    """

    epochs: int
    best: float
    best_epoch: int
    lowest_epoch: int
    rise: float
    train_loss: tuple[float, float]
    no_verdict: str = ""
    fitted: Fitted = NOT_FITTED

    @property
    def overfits(self) -> bool:
        """Return whether the validation loss rose while the training loss kept falling."""
        return self.rise >= RISEN and self.train_loss[1] < self.train_loss[0]

    def remarks(self, metric: str, measured: Fitted | None = None) -> list[str]:
        """Return the course in sentences. measured: the metric of the tested weights, else that of the last epoch."""
        if not self.best_epoch:
            return ["no validation: nothing was chosen, neither an epoch nor when to stop"]
        best = f"best validation {metric}: {self.best:.4f}, in epoch {self.best_epoch} of {self.epochs}"
        if self.best_epoch > STILL_RISING * self.epochs and not self.overfits:
            best += "; more epochs might have helped"
        if self.no_verdict:
            return [best, f"{self.no_verdict}: nothing is said of overfitting"]
        if not self.lowest_epoch:
            return [best]
        if not self.overfits:
            fitted = measured or self.fitted
            ends = f"the validation loss ends at {self.rise:.2f} times its lowest value"
            return [best, f"{ends}, but {fitted.gap(metric)}" if fitted.has_gap else f"{ends}: it does not overfit"]
        before, after = self.train_loss
        return [
            best,
            f"the validation loss is lowest in epoch {self.lowest_epoch} and ends at {self.rise:.2f} times that value, "
            f"while the training loss falls from {before:.4f} to {after:.4f}: it overfits",
        ]


def course(epochs: pd.DataFrame, metric: Metric) -> Course:
    """Return how a training went, from its epoch rows."""
    last = int(epochs["epoch"].max()) if len(epochs) else 0
    train_values, values = (_by_epoch(epochs, f"{metric.name}/{split}") for split in ("train", "val"))
    train_losses, val_losses = (_by_epoch(epochs, f"loss/{split}") for split in ("train", "val"))
    best, best_epoch = _best(values, val_losses, metric.higher_is_better)
    lowest, lowest_epoch = _best(val_losses, val_losses, higher_is_better=False)
    end = val_losses.iloc[-max(1, len(val_losses) // LAST) :].mean()  # a single epoch may be an outlier
    rise = float(end) / lowest if lowest_epoch and lowest > 0 else math.nan
    until = train_losses[train_losses.index <= lowest_epoch]
    train_loss = (float(until.iloc[-1]), float(train_losses.iloc[-1])) if len(until) else (math.nan, math.nan)
    both = train_values.index.intersection(values.index)
    train, val = (float(one[both[-1]]) if len(both) else math.nan for one in (train_values, values))
    fitted = Fitted(train, val, metric.higher_is_better)
    no_verdict = _no_verdict(epochs, val_losses, train_losses)
    return Course(last, best, best_epoch, lowest_epoch, rise, train_loss, no_verdict, fitted)


def _no_verdict(epochs: pd.DataFrame, val_losses: "pd.Series[float]", train_losses: "pd.Series[float]") -> str:
    """Return why the losses say nothing of overfitting; empty: they do."""
    if "loss/val" in epochs:
        others = [str(name) for name in epochs if str(name).endswith("/val") and name != "loss/val"]
        if epochs.loc[epochs["loss/val"].isna(), others].notna().to_numpy().any():
            return "the validation loss was not a number"
    if min(val_losses.min(), train_losses.min()) < 0:
        return "the loss falls below zero"
    has_risen = len(train_losses) > 1 and train_losses.iloc[-1] >= train_losses.iloc[0]
    return "the training loss did not fall" if has_risen else ""


def first_epoch_at(epochs: pd.DataFrame, column: str, level: float, higher_is_better: bool) -> float:
    """Return the first epoch in which a column reached a level; NaN if it never did."""
    values = _by_epoch(epochs, column)
    reached = values[values >= level] if higher_is_better else values[values <= level]
    return float(reached.index[0]) if len(reached) else math.nan


def _best(values: "pd.Series[float]", val_losses: "pd.Series[float]", higher_is_better: bool) -> tuple[float, int]:
    """Return the best value by epoch and its epoch; NaN and 0 if there is none.

    Of several the one of the lowest validation loss, then the first: as a training chooses its checkpoint.
    """
    if not len(values):
        return math.nan, 0
    best = float(values.max() if higher_is_better else values.min())
    among = values.index[values.to_numpy() == best]
    losses = val_losses.reindex(among).dropna() if len(among) > 1 else val_losses[:0]
    return best, int(among[0]) if losses.empty else int(losses.index[int(losses.argmin())])


def _by_epoch(epochs: pd.DataFrame, column: str) -> "pd.Series[float]":
    """Return the values of a column by epoch; the last one if an epoch has several."""
    if column not in epochs:
        return pd.Series(dtype=float)
    values = pd.Series(epochs[column].to_numpy(), epochs["epoch"].to_numpy()).dropna()
    return values[~values.index.duplicated(keep="last")]
