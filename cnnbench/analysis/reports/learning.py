"""How a training went: how soon a network learnt, where validation stopped improving, whether it overfits."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cnnbench.errors import counted, grouped
from cnnbench.store.files import read_rows
from cnnbench.store.query import PRINCIPAL, RunSummary, higher_is_better
from cnnbench.tasks.intervals import is_chance

RISEN = 1.1  # times its lowest value: more than a loss fluctuates from epoch to epoch
LAST = 10  # the last tenth of the epochs is the end: a single one may be an outlier
ERRORS = "brier", "mae", "mse", "rmse"  # never negative, by what their names mean
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
    def grows_with_images(self) -> bool:
        """Return whether it is higher among more images, so that splits of other sizes are not comparable."""
        return self.name.startswith("recall@")

    @property
    def bounds(self) -> tuple[float, float]:
        """Return between which numbers it is; infinite where it has no end, or none that is known."""
        if self.is_share or self.name in ("ece", "mAP", "R-precision"):
            return 0.0, 1.0
        return (0.0 if self.name in ERRORS else -math.inf), math.inf

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
    """Return the main metric measured during training: the first its task watches, else accuracy, recall, or loss."""
    during_training = {str(column).partition("/")[0] for column in epochs}
    watched = (name for name, _ in result.get("watched", ())[:1])
    return next((name for name in (*watched, *PRINCIPAL) if name in names and name in during_training), "loss")


@dataclass(frozen=True)
class Fitted:
    """A metric on training and validation images, their numbers (0: unknown), what guessing gives (NaN: unknown)."""

    metric: Metric
    train: float
    val: float
    images: tuple[int, int] = (0, 0)
    guessing: float = math.nan

    @property
    def has_gap(self) -> bool:
        """Return whether training images are fitted better, by more than chance where that can be computed."""
        if not self.metric.higher_is_better:
            return self.val > RISEN * self.train
        is_counted = all(self.images) and self.val >= 0 and self.train < 1  # memorised is no matter of chance
        is_chance_alone = is_counted and is_chance(self.train, self.images[0], self.val, self.images[1])
        return self.train > self.val and not is_chance_alone

    @property
    def verdict(self) -> str:
        """Return what both values say, where the validation loss does not rise."""
        train = f"{self.metric.name} is {self.train:.4f} on training"
        if self.has_gap:
            return f"; {train} and {self.val:.4f} on validation images: a gap of {abs(self.train - self.val):.4f}"
        if self.train < (1 + self.guessing) / 2:  # less than half of what guessing misses
            said = f"{train} images, where guessing gives {self.guessing:.4f}: it underfits"
            return f"; {said}; more epochs or a larger network might help"
        return ": no sign of overfitting"


@dataclass(frozen=True)
class Course:
    """How one training went. Epochs count from 1; 0 and NaN: there was no validation, or no such metric.

    best, best_epoch: of the metric on validation. lead: of a share, over the next best epoch. lowest_epoch: of the
    validation loss. rise: that loss at the end, relative to its lowest value. train_loss: in the epoch of that value,
    and at the end. is_worse: whether the metric on validation got worse as well, by more than chance where it is
    counted. no_verdict: why nothing can be said of overfitting; empty: it can.
    """

    epochs: int
    best: float
    best_epoch: int
    lead: float
    lowest_epoch: int
    rise: float
    train_loss: tuple[float, float]
    is_worse: bool
    no_verdict: str

    @property
    def overfits(self) -> bool:
        """Return whether the validation loss rose while the training loss kept falling."""
        return self.rise >= RISEN and self.train_loss[1] < self.train_loss[0]

    def remarks(self, metric: str, measured: Fitted | None = None) -> list[str]:
        """Return the course in sentences. measured: the metric of the tested weights, if it is known."""
        if not self.best_epoch:
            return ["no validation: nothing was chosen, neither an epoch nor when to stop"]
        best = f"best validation {metric}: {self.best:.4f}, in epoch {self.best_epoch} of {self.epochs}"
        images = measured.images[1] if measured else 0
        if ahead := round(self.lead * images):
            best += f", {grouped(ahead)} of {counted(images, 'image')} ahead of the next best epoch"
        if self.best_epoch > STILL_RISING * self.epochs and not self.overfits:
            best += "; more epochs might have helped"
        if self.no_verdict:
            return [best, f"{self.no_verdict}: nothing is said of overfitting"]
        if not self.lowest_epoch:
            return [best]
        if not self.overfits:
            times = f"{self.rise:.2f} times " * (f"{self.rise:.2f}" != "1.00")
            return [best, f"the validation loss ends at {times}its lowest value{measured.verdict if measured else ''}"]
        kept = f"but {metric} does not get worse{': overconfident, not less accurate' * (metric == 'accuracy')}"
        return [
            best,
            f"the validation loss is lowest in epoch {self.lowest_epoch} and ends at {self.rise:.2f} times that value, "
            f"while the training loss falls from {self.train_loss[0]:.4f} to {self.train_loss[1]:.4f}"
            + (": it overfits" if self.is_worse else f", {kept}"),
        ]


def course(epochs: pd.DataFrame, metric: Metric, images: int = 0) -> Course:
    """Return how a training went, from its epoch rows. images: of validation, of which the metric is a share."""
    last = int(epochs["epoch"].max()) if len(epochs) else 0
    names = f"{metric.name}/val", "loss/train", "loss/val"
    values, train_losses, val_losses = (_by_epoch(epochs, name) for name in names)
    best, best_epoch = _best(values, val_losses, metric.higher_is_better)
    lead = abs(float(np.diff(values.nlargest(2)).sum())) if metric.is_share else 0.0
    lowest, lowest_epoch = _best(val_losses, val_losses, higher_is_better=False)
    end, reached = (float(one.iloc[-max(1, len(one) // LAST) :].mean()) for one in (val_losses, values))
    rise = end / lowest if lowest_epoch and lowest > 0 else math.nan
    before = values.get(lowest_epoch, math.nan)
    is_same = bool(images) and math.isfinite(before) and is_chance(before, images, reached, images)
    is_worse = not (metric.sign * reached >= metric.sign * before or is_same)
    until = train_losses[train_losses.index <= lowest_epoch]
    train_loss = (float(until.iloc[-1]), float(train_losses.iloc[-1])) if len(until) else (math.nan, math.nan)
    no_verdict = _no_verdict(epochs, val_losses, train_losses)
    return Course(last, best, best_epoch, lead, lowest_epoch, rise, train_loss, is_worse, no_verdict)


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
    """Return the best value and its epoch, of several that of the lowest validation loss; NaN and 0: there is none."""
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
    values = pd.Series(epochs[column].to_numpy(), epochs["epoch"].to_numpy(), dtype=float).dropna()
    return values[~values.index.duplicated(keep="last")]
