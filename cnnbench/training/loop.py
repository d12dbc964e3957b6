"""The loop: reads top to bottom, and knows no task, no model and no data set."""

import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cnnbench.data.loader import Batch
from cnnbench.errors import DivergedError, Stopped, StoppedAtOnce
from cnnbench.training.divergence import images_of_step, origin
from cnnbench.training.setup import TrainingSetup
from cnnbench.training.step import evaluate, gradient_norm, has_finite_gradient, train_step

STEPS_IN_FLIGHT = 32  # on a GPU, so that reading a loss does not wait for each step; elsewhere every step is read


@dataclass
class Best:
    """The best evaluation so far, and the network as it was then."""

    epoch: int
    step: int
    metrics: dict[str, float]
    weights: dict[str, Tensor]


@dataclass
class Progress:
    """Where a training is: all that has to be kept besides the network and the optimizer."""

    step: int = 0
    epochs_done: int = 0  # trained, and validated where that was due
    evaluated: int = 0  # step at which validation, or what is only watched, was last measured
    scores: list[float] = field(default_factory=list)  # of all validations: the watched metric, the higher the better
    sums: list[float] = field(default_factory=list)  # of the train metrics, over the samples of the epoch under way
    samples: int = 0
    ranked: list[Best] = field(default_factory=list)  # as many of the best validations as are kept, the best first
    to_beat: float | None = None  # for early stopping
    waited: int = 0  # validations without improvement
    stopped_early: bool = False
    train_seconds: float = 0.0
    samples_trained: int = 0  # images, also where several of them are compared with each other

    @property
    def best(self) -> Best | None:
        """The best validation."""
        return self.ranked[0] if self.ranked else None

    def is_over(self, training: TrainingSetup) -> bool:
        """Tell whether there is nothing left to train."""
        return self.stopped_early or self.epochs_done >= training.horizon.epochs


class Observer(Protocol):
    """Receives what happens in a training; may raise Stopped from `check_stop`."""

    def on_step(self, row: dict[str, Any], progress: Progress) -> None:
        """Take the row of a step."""

    def on_validation(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        """Take the row of a validation in the midst of an epoch."""

    def on_epoch(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        """Take the row of an epoch."""

    def save_is_due(self) -> bool:
        """Tell whether it is time for a checkpoint."""

    def save(self) -> None:
        """Write a checkpoint."""

    def check_stop(self) -> None:
        """Raise Stopped if the training should end here."""

    def stopping_at_once(self) -> AbstractContextManager[None]:
        """Allow StoppedAtOnce anywhere in what takes long, and changes nothing that a checkpoint holds."""


def fit(training: TrainingSetup, progress: Progress, observer: Observer) -> None:
    """Train until the horizon or early stopping; go on from wherever `progress`, network and optimizer are.

    Writes a checkpoint before it raises Stopped. Raises DivergedError when a loss or a gradient is not finite.
    """
    try:
        while not progress.is_over(training):
            _train_epoch(training, progress, observer)
            if progress.step == (progress.epochs_done + 1) * training.horizon.steps_per_epoch:
                _end_epoch(training, progress, observer)
    except (Stopped, StoppedAtOnce):
        observer.save()
        raise


def _train_epoch(training: TrainingSetup, progress: Progress, observer: Observer) -> None:
    config, epoch = training.config, progress.epochs_done + 1
    first = progress.step - progress.epochs_done * training.horizon.steps_per_epoch
    buffer = _MetricBuffer(training, progress, observer, epoch)
    training.set_train_mode(epoch)
    for batch in training.train.epoch(training.order(epoch), config.batch_size, epoch, first, config.num_workers):
        if _is_due(training, progress):  # after the last step, but not while it is the last of an epoch
            buffer.finish()
            _measure_within(training, progress, observer)
            buffer.start_clock()
            if progress.stopped_early:
                return
        factor = training.schedule(progress.step, progress.scores)
        rate = float(config.optimizer.settings["lr"] * factor)
        train_step(training, batch, progress.step, factor, partial(buffer.add, rate, batch))
        progress.step += 1
        buffer.emit()
        if observer.save_is_due():
            buffer.finish()
            observer.save()
            buffer.start_clock()
        try:
            observer.check_stop()
        except Stopped:
            buffer.finish()
            raise
    buffer.finish()


def _is_due(training: TrainingSetup, progress: Progress) -> bool:
    """Tell whether there is something to be measured where the training is, and was not yet."""
    every, horizon, step = training.config.eval_every, training.horizon, progress.step
    if not training.measured or step == progress.evaluated:
        return False
    if training.config.eval_unit == "step":
        return step % every == 0 or step == horizon.num_steps
    epoch, within = divmod(step, horizon.steps_per_epoch)
    return within == 0 and (epoch % every == 0 or epoch == horizon.epochs)


def _measure_within(training: TrainingSetup, progress: Progress, observer: Observer) -> None:
    epoch = progress.epochs_done + 1
    metrics, is_best = _measure(training, progress, observer)
    row = {"row": "val", "epoch": epoch, "step": progress.step} | metrics
    observer.on_validation(row, progress, is_best)


def _end_epoch(training: TrainingSetup, progress: Progress, observer: Observer) -> None:
    epoch = progress.epochs_done + 1
    if training.average is not None:
        training.average.after_epoch(epoch)
    row: dict[str, Any] = {"row": "epoch", "epoch": epoch, "step": progress.step}
    for name, total in zip(training.task.train_metrics, progress.sums, strict=True):
        row[f"{name}/train"] = total / progress.samples
    metrics, is_best = _measure(training, progress, observer) if _is_due(training, progress) else ({}, False)
    progress.epochs_done, progress.sums, progress.samples = epoch, [], 0
    observer.on_epoch(row | metrics, progress, is_best)


def _measure(training: TrainingSetup, progress: Progress, observer: Observer) -> tuple[dict[str, float], bool]:
    """Measure every split that is, and return that part of a row, and whether validation is the best so far."""
    with observer.stopping_at_once():
        network = training.evaluated(progress.step)
        metrics = {
            split: evaluate(training, network, batches, observer.check_stop)
            for split, batches in training.measured.items()
        }
    progress.evaluated = progress.step
    is_best = "val" in metrics and _choose(training, progress, network, metrics["val"])
    return {f"{name}/{split}": value for split, values in metrics.items() for name, value in values.items()}, is_best


def _choose(training: TrainingSetup, progress: Progress, network: nn.Module, metrics: dict[str, float]) -> bool:
    """Keep the network where it is among the best on validation so far, and wait for a better one.

    Return whether it is the best.
    """
    watched, number = training.task.watched, training.config.checkpoint.num_best
    rank = sum(not is_better(metrics, one.metrics, watched) for one in progress.ranked)
    is_kept = rank < number and is_better(metrics, None, watched)
    if is_kept:
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in network.state_dict().items()}
        progress.ranked.insert(rank, Best(progress.epochs_done + 1, progress.step, metrics, weights))
        del progress.ranked[number:]
    name, higher = watched[0]
    progress.scores.append(metrics[name] if higher else -metrics[name])
    _wait_for_improvement(training, progress)
    return is_kept and rank == 0


def _wait_for_improvement(training: TrainingSetup, progress: Progress) -> None:
    stopping, score = training.config.regularization.early_stopping, progress.scores[-1]
    if stopping.patience is None:
        return
    if math.isfinite(score) and (progress.to_beat is None or score - progress.to_beat > stopping.min_delta):
        progress.to_beat, progress.waited = score, 0
    else:
        progress.waited += 1
        progress.stopped_early = progress.waited >= stopping.patience


def is_better(metrics: dict[str, float], best: dict[str, float] | None, watched: tuple[tuple[str, bool], ...]) -> bool:
    """Tell whether metrics beat the best so far: by the first watched one that differs.

    What is not finite beats nothing, not even that there is none.
    """
    if not metrics or not all(math.isfinite(metrics[name]) for name, _ in watched):
        return False
    if best is None:
        return True
    for name, higher in watched:
        if metrics[name] != best[name]:
            return (metrics[name] > best[name]) == higher
    return False


class _MetricBuffer:
    """Metrics of the steps of an epoch on their way from the device to the rows.

    A row is emitted after its step, but its loss is looked at as soon as it can be read: on a CPU before the weights
    are changed, and with it the gradient, so that what is not finite leaves them as they were. On a GPU a step waits
    for nothing: a gradient that is not finite is found by the loss of the next step, before anything is saved.
    """

    def __init__(self, training: TrainingSetup, progress: Progress, observer: Observer, epoch: int) -> None:
        self.training, self.progress, self.observer, self.epoch = training, progress, observer, epoch
        self.limit = STEPS_IN_FLIGHT if training.device.type == "cuda" else 1
        self.pending: list[tuple[int, float, int, int, Tensor]] = []
        self.rows: list[dict[str, Any]] = []
        self.start_clock()

    def start_clock(self) -> None:
        self.clock = time.perf_counter()

    def add(self, rate: float, batch: Batch, sums: Tensor) -> None:
        self.pending.append((self.progress.step + 1, rate, len(batch), len(batch.labels), sums))
        if len(self.pending) >= self.limit:
            self._read()
        if self.limit == 1 and not has_finite_gradient(self.training):
            norm, loss = gradient_norm(self.training), float(sums[0]) / len(batch)
            what = f"the gradient of step {self.progress.step + 1} (epoch {self.epoch}) is not finite"
            raise self._diverged(f"{what}, its norm {norm}, while the loss is {loss:.4g}", self.progress.step, rate)

    def emit(self) -> None:
        for row in self.rows:
            self.observer.on_step(row, self.progress)
        self.rows.clear()

    def finish(self) -> None:
        """Read and emit everything, and count the time since the clock was started as training."""
        self._read()
        self.emit()
        self.progress.train_seconds += time.perf_counter() - self.clock
        self.start_clock()

    def _read(self) -> None:
        if not self.pending:
            return
        read = [sums for *_, sums in self.pending]
        values = torch.stack(read).tolist() if self.limit > 1 else [read[0].tolist()]  # one copy from a GPU for all
        for (step, rate, samples, images, _), sums in zip(self.pending, values, strict=True):
            if not math.isfinite(sums[0]):
                norm = f", the norm of its gradient {gradient_norm(self.training)}" if self.limit == 1 else ""
                what = f"the loss of step {step} (epoch {self.epoch}) is {sums[0] / samples}{norm}"
                raise self._diverged(what, step - 1, rate)
            progress = self.progress
            progress.sums = [
                total + value for total, value in zip(progress.sums or [0.0] * len(sums), sums, strict=True)
            ]
            progress.samples += samples
            progress.samples_trained += images
            if step % self.training.config.log_every == 0:
                means = {f"{name}/train": value / samples for name, value in zip(self.names(), sums, strict=True)}
                self.rows.append({"row": "step", "epoch": self.epoch, "step": step, "lr": rate, **means})
        self.pending.clear()

    def _diverged(self, what: str, step: int, rate: float) -> DivergedError:
        """Return an error that says what a step came to, which images it saw, and what to do."""
        unchanged = " This step changed no weights." if self.limit == 1 else ""
        images, advice = images_of_step(self.training, self.epoch, step), "Try a smaller optimizer.lr."
        # On a GPU later steps have changed the weights by now.
        cause = origin(self.training, self.epoch, step) if self.limit == 1 else ""
        if step == 0:
            cause = cause or "look at the network, its loss and the images."
            advice = f"No learning rate has acted before the first step: {cause}"
        elif self.progress.sums and self.progress.sums[0] < 0:
            advice = "Its loss fell below zero before: one without a lower bound diverges at any learning rate."
        elif cause:
            advice = f"{cause[0].upper()}{cause[1:]} If nothing is wrong there, try a smaller optimizer.lr."
        return DivergedError(
            f"{what}, at a learning rate of {rate:g}: the training diverged.{unchanged}\n"
            f"Its batch: {images}, of the training part. {advice}"
        )

    def names(self) -> tuple[str, ...]:
        return self.training.task.train_metrics
