"""The loop: reads top to bottom, and knows no task, no model and no data set."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cnnbench.config import RunConfig
from cnnbench.data.batches import Batches
from cnnbench.errors import Stopped, TrainingError
from cnnbench.optim.penalties import penalized, penalty
from cnnbench.optim.schedules import Horizon, Schedule
from cnnbench.randomness import generator, seed_layers
from cnnbench.tasks.base import Task

STEPS_IN_FLIGHT = 32  # on a GPU, so that reading a loss does not wait for each step; elsewhere every step is read


@dataclass
class Best:
    """The best epoch so far, and the network as it was then."""

    epoch: int
    step: int
    metrics: dict[str, float]
    weights: dict[str, Tensor]


@dataclass
class Progress:
    """Where a training is: all that has to be kept besides the network and the optimizer."""

    step: int = 0
    epochs_done: int = 0  # trained and validated
    sums: list[float] = field(default_factory=list)  # of the train metrics, over the samples of the epoch under way
    samples: int = 0
    best: Best | None = None
    to_beat: float | None = None  # for early stopping
    epochs_waited: int = 0
    stopped_early: bool = False
    train_seconds: float = 0.0
    samples_trained: int = 0


@dataclass(frozen=True)
class Parts:
    """What a training is made of."""

    config: RunConfig
    task: Task
    network: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    horizon: Horizon
    train: Batches
    val: Batches | None
    device: torch.device


class Observer(Protocol):
    """Who is told what happens; may raise Stopped from `check_stop`."""

    def on_step(self, row: dict[str, Any], progress: Progress) -> None:
        """Take the row of a step."""

    def on_epoch(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        """Take the row of an epoch."""

    def save_is_due(self) -> bool:
        """Tell whether it is time for a checkpoint."""

    def save(self) -> None:
        """Write a checkpoint."""

    def check_stop(self) -> None:
        """Raise Stopped if the training shall end here."""


def fit(parts: Parts, progress: Progress, observer: Observer) -> None:
    """Train until the horizon or early stopping; go on from wherever `progress`, network and optimizer are.

    Writes a checkpoint before it raises Stopped. Raises TrainingError when a loss is not finite.
    """
    try:
        while progress.epochs_done < parts.horizon.epochs and not progress.stopped_early:
            _train_epoch(parts, progress, observer)
            metrics = {} if parts.val is None else evaluate(parts, parts.val, observer.check_stop)
            _end_epoch(parts, progress, metrics, observer)
    except Stopped:
        observer.save()
        raise


def _train_epoch(parts: Parts, progress: Progress, observer: Observer) -> None:
    config, task, network, optimizer = parts.config, parts.task, parts.network, parts.optimizer
    epoch = progress.epochs_done + 1
    first = progress.step - progress.epochs_done * parts.horizon.steps_per_epoch
    order = task.order(parts.train.labels.cpu(), generator(config.seed, "order", epoch))
    l1, l2 = config.regularization.l1, config.regularization.l2
    weights = penalized(network.parameters()) if l1 or l2 else []
    base_rates = [group["initial_lr"] for group in optimizer.param_groups]
    readings = _Readings(parts, progress, observer, epoch)
    network.train()
    for batch in parts.train.epoch(order, config.batch_size, epoch, first, config.num_workers):
        seed_layers(config.seed, "layers", progress.step, parts.device)
        factor = parts.schedule(progress.step)
        for group, base_rate in zip(optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base_rate * factor
        with autocast(config, parts.device):
            loss, sums = task.train_step(network, batch)
        readings.add(base_rates[0] * factor, len(batch), sums)
        if weights:
            loss = loss + penalty(weights, l1, l2)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        progress.step += 1
        readings.tell()
        if observer.save_is_due():
            readings.finish()
            observer.save()
        try:
            observer.check_stop()
        except Stopped:
            readings.finish()
            raise
    readings.finish()


def _end_epoch(parts: Parts, progress: Progress, metrics: dict[str, float], observer: Observer) -> None:
    epoch = progress.epochs_done + 1
    row: dict[str, Any] = {"row": "epoch", "epoch": epoch, "step": progress.step}
    for name, total in zip(parts.task.train_metrics, progress.sums, strict=True):
        row[f"{name}/train"] = total / progress.samples
    row |= {f"{name}/val": value for name, value in metrics.items()}
    is_best = is_better(metrics, None if progress.best is None else progress.best.metrics, parts.task.watched)
    if is_best:
        weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in parts.network.state_dict().items()}
        progress.best = Best(epoch, progress.step, metrics, weights)
    _wait_for_improvement(parts, progress, metrics)
    progress.epochs_done, progress.sums, progress.samples = epoch, [], 0
    observer.on_epoch(row, progress, is_best)


def _wait_for_improvement(parts: Parts, progress: Progress, metrics: dict[str, float]) -> None:
    stopping = parts.config.regularization.early_stopping
    if stopping.patience is None:
        return
    name, higher = parts.task.watched[0]
    is_first = progress.to_beat is None and not math.isnan(metrics[name])
    gain = math.nan if progress.to_beat is None else (metrics[name] - progress.to_beat) * (1 if higher else -1)
    if is_first or gain > stopping.min_delta:  # never true of NaN
        progress.to_beat, progress.epochs_waited = metrics[name], 0
    else:
        progress.epochs_waited += 1
        progress.stopped_early = progress.epochs_waited >= stopping.patience


def is_better(metrics: dict[str, float], best: dict[str, float] | None, watched: tuple[tuple[str, bool], ...]) -> bool:
    """Tell whether metrics beat the best so far: by the first watched one that differs. NaN beats nothing."""
    if not metrics or any(math.isnan(metrics[name]) for name, _ in watched):
        return False
    if best is None:
        return True
    for name, higher in watched:
        if metrics[name] != best[name]:
            return (metrics[name] > best[name]) == higher
    return False


class _Readings:
    """Metrics of the steps of an epoch on their way from the device to the rows.

    A row is told after its step, but its loss is looked at as soon as it can be read: on a CPU before the weights
    are changed, so that a loss that is not finite leaves them as they were.
    """

    def __init__(self, parts: Parts, progress: Progress, observer: Observer, epoch: int) -> None:
        self.parts, self.progress, self.observer, self.epoch = parts, progress, observer, epoch
        self.limit = STEPS_IN_FLIGHT if parts.device.type == "cuda" else 1
        self.pending: list[tuple[int, float, int, Tensor]] = []
        self.rows: list[dict[str, Any]] = []
        self.clock = time.perf_counter()

    def add(self, rate: float, samples: int, sums: Tensor) -> None:
        self.pending.append((self.progress.step + 1, rate, samples, sums))
        if len(self.pending) >= self.limit:
            self._read()

    def tell(self) -> None:
        for row in self.rows:
            self.observer.on_step(row, self.progress)
        self.rows.clear()

    def finish(self) -> None:
        """Read and tell everything, and count the time since the last call as training; saving is not counted."""
        self._read()
        self.tell()
        now = time.perf_counter()
        self.progress.train_seconds += now - self.clock
        self.clock = now

    def _read(self) -> None:
        if not self.pending:
            return
        values = torch.stack([sums for *_, sums in self.pending]).tolist()
        for (step, rate, samples, _), sums in zip(self.pending, values, strict=True):
            if not math.isfinite(sums[0]):
                raise TrainingError(
                    f"the loss of step {step} (epoch {self.epoch}) is {sums[0] / samples}, at a learning rate of "
                    f"{rate:g}: the training diverged. Try a smaller optimizer.lr; the last checkpoint is kept."
                )
            progress = self.progress
            progress.sums = [
                total + value for total, value in zip(progress.sums or [0.0] * len(sums), sums, strict=True)
            ]
            progress.samples += samples
            progress.samples_trained += samples
            if step % self.parts.config.log_every == 0:
                means = {f"{name}/train": value / samples for name, value in zip(self.names(), sums, strict=True)}
                self.rows.append({"row": "step", "epoch": self.epoch, "step": step, "lr": rate, **means})
        self.pending.clear()

    def names(self) -> tuple[str, ...]:
        return self.parts.task.train_metrics


def evaluate(parts: Parts, batches: Batches, check_stop: Callable[[], None] = lambda: None) -> dict[str, float]:
    """Return each eval metric of the task as its mean over all samples, in the order of the data.

    The network's mode and statistics are left as they were.
    """
    task, sums, samples = parts.task, [0.0] * len(parts.task.eval_metrics), 0
    with evaluating(parts.network):
        for batch in batches.epoch(torch.arange(len(batches)), parts.config.batch_size):
            with autocast(parts.config, parts.device):
                values = task.eval_step(parts.network, batch).tolist()
            sums = [total + value for total, value in zip(sums, values, strict=True)]
            samples += len(batch)
            check_stop()
    assert samples == len(batches), (samples, len(batches))
    return {name: total / samples for name, total in zip(task.eval_metrics, sums, strict=True)}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put every layer into evaluation mode, without gradients, and back into the mode it was in, whatever happens."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Return the context of the configured precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")
