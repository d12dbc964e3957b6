"""Remarks: what works, and is often not what was meant.

Each is one function below, on a training before its first step or on what came of it. All of them are printed, and
stand in `run.json`, in `result.json` and on the page.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.config.validate import as_word
from cnnbench.config.values import flat
from cnnbench.data.image_files import first_names
from cnnbench.data.images import counts_per_class
from cnnbench.data.loader import Batch
from cnnbench.data.prepare import PreparedData
from cnnbench.errors import counted
from cnnbench.registry import DATASETS, MODELS
from cnnbench.tasks.base import Task, first_batch
from cnnbench.tasks.intervals import wilson

NUM_IMAGES = 8  # that a network is tried on
USUAL_MOMENTUM = 0.9  # needs no remark
UPSIDE_DOWN = 90.0  # degrees: rotated further, an image is nearer to standing on its head
STRETCHED = 1024.0  # a power of two: multiplied and divided by it, weights are what they were
SPLITS = {"train": "training", "val": "validation", "test": "test"}
GROWN = 10.0  # times the first loss: no fluctuation


@dataclass(frozen=True)
class Remark:
    """about: the setting, or the part of a run, that it comes from. text: what it says."""

    about: str
    text: str

    def record(self) -> dict[str, str]:
        """Return what is kept of it in JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A training before its first step. network: a copy, on the processor; checks leave its weights as they are."""

    config: RunConfig
    task: Task
    data: PreparedData
    network: nn.Module

    @cached_property
    def batch(self) -> Batch:
        """The first training images."""
        return first_batch(self.data, torch.arange(min(NUM_IMAGES, len(self.data.train))))


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


BeforeTraining = Callable[[Trial], Iterator[Remark]]
AfterTraining = Callable[[Outcome], Iterator[Remark]]
_BEFORE: list[BeforeTraining] = []
_AFTER: list[AfterTraining] = []


def before_training(check: BeforeTraining) -> BeforeTraining:
    """Add a function to what is asked before a training."""
    _BEFORE.append(check)
    return check


def after_training(check: AfterTraining) -> AfterTraining:
    """Add a function to what is asked after a training."""
    _AFTER.append(check)
    return check


def remarks_before(trial: Trial) -> tuple[Remark, ...]:
    """Return what there is to say of a training before its first step."""
    with torch.random.fork_rng(devices=()), torch.no_grad():
        return tuple(remark for check in _BEFORE for remark in check(trial))


def remarks_after(outcome: Outcome) -> tuple[Remark, ...]:
    """Return what there is to say of what came of a training."""
    return tuple(remark for check in _AFTER for remark in check(outcome))


# Settings -------------------------------------------------------------------------------------------------------------


@before_training
def high_momentum(trial: Trial) -> Iterator[Remark]:
    """Yield the effective learning rate where momentum makes it much higher."""
    settings = trial.config.optimizer.settings
    momentum = settings.get("momentum", 0.0)
    if momentum > USUAL_MOMENTUM:
        rate = settings["lr"] / (1 - momentum)
        text = f"with momentum {momentum}, the effective learning rate is lr / (1 - momentum) = {rate:.3g}"
        yield Remark("optimizer.momentum", text)


@before_training
def frozen_at_random(trial: Trial) -> Iterator[Remark]:
    """Yield that layers are frozen which never learnt anything."""
    config = trial.config
    if config.freeze.what and config.source is None and config.init.experiment is None and config.parent is None:
        yield Remark("freeze.what", "frozen layers are randomly initialised: nothing is loaded; see init")


@before_training
def other_statistics(trial: Trial) -> Iterator[Remark]:
    """Yield that images are prepared otherwise than for the weights, or for weights that are not loaded."""
    config = trial.config
    begins_anywhere = config.source or config.init.experiment or config.parent
    if config.init.weights:
        published = MODELS[config.model.name].facts["pretrained"](config.model.settings).recipe
        values = flat(config.to_dict())
        other = " ".join(as_word(key, value) for key, value in published.items() if values.get(key) != value)
        if other:
            yield Remark("init.weights", f"the published weights were trained on other inputs: {other}")
    if config.data.statistics == "imagenet" and not begins_anywhere:
        text = (
            "images are normalised as for published weights, and none are loaded: data.statistics=own takes mean and "
            "deviation of the training images, init.weights=imagenet loads weights"
        )
        yield Remark("data.statistics", text)


@before_training
def classes_without_images(trial: Trial) -> Iterator[Remark]:
    """Yield the classes that cannot be learnt."""
    spec = trial.data.spec
    empty = [name for name, count in zip(spec.classes, spec.counts, strict=False) if not count]
    if not empty or not trial.task.is_classifier:
        return
    is_balanced = trial.config.task.settings.get("class_weights") == "balanced"
    weight = "; task.class_weights=balanced gives weights to the others" if is_balanced else ""
    named = f"class '{empty[0]}' has" if len(empty) == 1 else f"classes {first_names(map(repr, empty))} have"
    yield Remark("data", f"{named} no training image, and cannot be learnt{weight}")


@before_training
def balanced_twice(trial: Trial) -> Iterator[Remark]:
    """Yield that two settings make up for the same imbalance."""
    weights, sampling = trial.config.task.settings.get("class_weights", "none"), trial.config.data.sampling
    if weights != "none" and sampling != "natural":
        text = (
            "classes are weighted twice: images are drawn by data.sampling, and their losses multiplied by "
            "task.class_weights; one of them is enough"
        )
        yield Remark("task.class_weights", text)


@before_training
def rotated_upside_down(trial: Trial) -> Iterator[Remark]:
    """Yield that images are rotated until they can show another class."""
    data = trial.config.data.name
    if "vertical_flip" not in DATASETS[data].facts["breaks_labels"]:
        return
    for part in trial.config.augmentation:
        degrees = part.settings.get("degrees", 0.0)
        if degrees > UPSIDE_DOWN:
            text = (
                f"rotates images by up to {degrees:g} degrees: upside down, an image of '{data}' can show another "
                "class (a 6 becomes a 9), or what no test image shows"
            )
            yield Remark(f"augmentation.{part.name}", text)


# Networks -------------------------------------------------------------------------------------------------------------


@before_training
def dropout_before_norm(trial: Trial) -> Iterator[Remark]:
    """Yield that batch norm takes its statistics with dropout."""
    layers = [layer for layer in trial.network.modules() if not list(layer.children())]
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if any(isinstance(first, nn.Dropout) and isinstance(second, norms) for first, second in pairwise(layers)):
        text = (
            "dropout comes right before batch norm: its statistics are taken with dropout, and used without it "
            "(Li et al. 2018, arXiv:1801.05134)"
        )
        yield Remark("model", text)


@before_training
def probabilities_for_scores(trial: Trial) -> Iterator[Remark]:
    """Yield that a classifier returns probabilities, of which the loss takes the softmax or sigmoid once more."""
    if not trial.task.is_classifier:
        return
    last_layer = list(trial.network.parameters())[-2:]
    for weight in last_layer:  # scores grow with them, probabilities cannot
        weight.mul_(STRETCHED)
    outputs = trial.network.eval()(trial.batch.images)
    for weight in last_layer:
        weight.div_(STRETCHED)
    if not isinstance(outputs, Tensor) or not bool(((outputs >= 0) & (outputs <= 1)).all() & (outputs > 0).any()):
        return
    sums = outputs.sum(1)
    end = "softmax" if outputs.shape[1] > 1 and torch.allclose(sums, torch.ones_like(sums)) else "sigmoid"
    yield Remark("model", f"the network ends in a {end}; the loss applies its own: leave it out, or learning is slow")


@before_training
def random_in_evaluation(trial: Trial) -> Iterator[Remark]:
    """Yield that a network drops out in evaluation, or draws something else."""
    network = trial.network.eval()
    first, second = (trial.task.eval_step(network, trial.batch) for _ in range(2))
    if not torch.allclose(first, second, rtol=1e-4, atol=1e-6, equal_nan=True):
        text = (
            "in evaluation mode the network measures the same images differently each time, so every metric depends on "
            "chance; dropout has to end with training: functional.dropout(…, training=self.training), or nn.Dropout"
        )
        yield Remark("model", text)


# Results --------------------------------------------------------------------------------------------------------------


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
        text = f"{outcome.split} loss {loss:.4g} is above {chance:.4g}, that of the same probability for every class"
        yield Remark("result", text)


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
