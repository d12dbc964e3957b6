"""Remarks on what came of a training: chance, numbers that are none, or what is not what it seems."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cnnbench.data.images import counts_per_class
from cnnbench.data.prepare import PreparedData
from cnnbench.errors import counted
from cnnbench.tasks.base import Task
from cnnbench.tasks.intervals import wilson
from cnnbench.training.remarks import Remark

SPLITS = {"train": "training", "val": "validation", "test": "test"}
GROWN = 10.0  # times the first loss: no fluctuation


@dataclass(frozen=True)
class Outcome:
    """What came of a training. metrics: of the split held out. checkpoint: the one tested. rows: of metrics.jsonl."""

    task: Task
    data: PreparedData
    metrics: Mapping[str, Any]
    checkpoint: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]
    held_out: str = "test"

    @property
    def split(self) -> str:
        """The split held out, in a word."""
        return SPLITS[self.held_out]

    def series(self, name: str, kinds: Iterable[str] = ("epoch", "val")) -> list[tuple[int, float]]:
        """Return the epoch and the value of each row of these kinds that has a metric."""
        rows = (row for row in self.rows if row["row"] in kinds and row.get(name) is not None)
        return [(row["epoch"], row[name]) for row in rows]


AfterTraining = Callable[[Outcome], Iterator[Remark]]
_AFTER: list[AfterTraining] = []


def after_training(check: AfterTraining) -> AfterTraining:
    """Add a function to what is asked after a training."""
    _AFTER.append(check)
    return check


def remarks_after(outcome: Outcome) -> tuple[Remark, ...]:
    """Return what there is to say of what came of a training."""
    return tuple(remark for check in _AFTER for remark in check(outcome))


@after_training
def no_better_than_guessing(outcome: Outcome) -> Iterator[Remark]:
    """Yield that a classifier is not better than one that always answers the most frequent class."""
    accuracy, classes = outcome.metrics.get("accuracy"), outcome.data.spec.classes
    if accuracy is None or not math.isfinite(accuracy) or not outcome.task.is_classifier:
        return
    counts = counts_per_class(getattr(outcome.data, outcome.held_out).labels, len(classes))
    most, images = max(counts), sum(counts)
    low, high = wilson(round(accuracy * images), images)
    if low <= most / images:
        is_more, is_below = round(accuracy * images) > most, high < 1 / len(classes)
        finding = f"may be chance, {counted(images, 'image')} cannot show more" if is_more else "is at chance level"
        finding = f"is below chance, {1 / len(classes):.4f}" if is_below else finding
        constant = f"always answering '{classes[counts.index(most)]}' gives {most / images:.4f}"
        text = f"{outcome.split} accuracy {accuracy:.4f} {finding}: {constant}"
        yield Remark("result", text)


@after_training
def loss_above_guessing(outcome: Outcome) -> Iterator[Remark]:
    """Yield that probabilities are worse than none at all."""
    loss, chance = outcome.metrics.get("loss"), outcome.task.chance_loss
    if loss is not None and chance is not None and loss > chance:
        where = f"above {chance:.4f}, that" if f"{loss:.4f}" != f"{chance:.4f}" else "that"
        text = f"{outcome.split} loss {loss:.4f} is {where} of the same probability for every class"
        yield Remark("result", text)


@after_training
def not_a_number(outcome: Outcome) -> Iterator[Remark]:
    """Yield the metrics that have been no finite number up to the end, by the epoch in which that began."""
    since: dict[str, int] = {}
    for row in outcome.rows:
        for key in row if row["row"] in ("epoch", "val") else ():
            if row[key] is None:
                since.setdefault(key, row["epoch"])
            else:
                since.pop(key, None)
    together: dict[tuple[str, int], list[str]] = {}
    for key, epoch in since.items():
        name, _, split = key.rpartition("/")
        together.setdefault((split, epoch), []).append(name)
    for (split, epoch), names in together.items():
        decides = split == "val" and outcome.task.watched[0][0] in names
        effect = "no epoch since then can be the best" if decides else "nothing was chosen by it"
        one = f"{SPLITS[split]} {' and '.join(names)} {'is' if len(names) == 1 else 'are'} no finite number"
        yield Remark("result", f"{one} since epoch {epoch}: {effect}; look at what computes it, as for a division by 0")


@after_training
def diverged_without_end(outcome: Outcome) -> Iterator[Remark]:
    """Yield that the loss grew, to a number that is finite still."""
    first = next(iter(outcome.series("loss/train", ("step", "epoch"))), (0, 0.0))[1]
    last = outcome.series("loss/train")[-1:]
    reached = {"training": last[0][1] if last else 0.0, outcome.split: outcome.metrics.get("loss") or 0.0}
    for split, loss in reached.items():
        if loss > GROWN * first > 0:
            ended = f"the {split} loss ended at {loss:.4g}, and began at {first:.4g}"
            yield Remark("optimizer.lr", f"{ended}: the training diverged; try a smaller optimizer.lr")
            return


@after_training
def loss_below_zero(outcome: Outcome) -> Iterator[Remark]:
    """Yield that a loss is not bounded by zero, as a cross entropy or an error is."""
    epochs = [*outcome.series("loss/train"), *outcome.series("loss/val")]
    measured = outcome.metrics.get("loss")
    losses = [*epochs, *([] if measured is None else [(outcome.checkpoint["epoch"], measured)])]
    if losses and (lowest := min(losses, key=lambda one: one[1]))[1] < 0:
        text = (
            f"the loss falls below zero, to {lowest[1]:.4g} in epoch {lowest[0]}: no cross entropy and no error does; "
            "nothing is said of overfitting"
        )
        yield Remark("task", text)


@after_training
def tied_checkpoint(outcome: Outcome) -> Iterator[Remark]:
    """Yield that several evaluations were equally good, and what decided between them."""
    name, higher = outcome.task.watched[0]
    measured = [row for row in outcome.rows if row.get(f"{name}/val") is not None]
    if outcome.checkpoint.get("kind") != "best" or not measured:
        return
    best = (max if higher else min)(row[f"{name}/val"] for row in measured)
    tied = [row for row in measured if row[f"{name}/val"] == best]
    if len(tied) < 2:
        return
    others = [other for other, _ in outcome.task.watched[1:]]
    decisive = next((other for other in others if len({row.get(f"{other}/val") for row in tied}) > 1), None)
    reason = "the first was taken"
    if decisive is not None:
        reason = f"the {decisive} decided for epoch {outcome.checkpoint['epoch']}"
    text = f"{len(tied)} evaluations have {name} {best:.4f}; {reason}"
    yield Remark("tested", text)
