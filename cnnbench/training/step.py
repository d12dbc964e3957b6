"""One update of the weights: gradients of a batch, bounded, applied, averaged. And what all of that is made of."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cnnbench.config.schema import RunConfig
from cnnbench.data.loader import Batch, Batches
from cnnbench.optim.average import WeightAverage
from cnnbench.optim.freezing import FreezePlan
from cnnbench.optim.optimizers import penalty
from cnnbench.optim.schedules import Horizon, Schedule
from cnnbench.tasks.base import Task

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Parts:
    """What a training is made of.

    order: the rows of an epoch in the order in which they are trained on, int64 [N].
    scaler: of the losses of a training in fp16, whose gradients would vanish; else it does nothing.
    average: of the weights, where that is what is evaluated.
    """

    config: RunConfig
    task: Task
    network: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    schedule: Schedule
    horizon: Horizon
    train: Batches
    order: Callable[[int], Tensor]
    val: Batches | None
    device: torch.device
    penalized: list[nn.Parameter] = field(default_factory=list)  # weights that l1 and l2 shrink, while they are trained
    training: FreezePlan = field(default_factory=FreezePlan)

    def enter(self, epoch: int) -> None:
        """Put the network into training mode as it is in an epoch, counted from 1."""
        self.training.set_train_mode(self.network, epoch)

    def evaluated(self, step: int) -> nn.Module:
        """Return the network that is measured and kept: the trained one, or the average of what it has been."""
        if self.average is None or not self.average.has_begun:
            return self.network
        return self.average.network_at(step)


def set_rates(parts: Parts, factor: float) -> float:
    """Set the learning rate of every group for the next step, and return that of groups without a factor."""
    for group in parts.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return float(parts.config.optimizer.settings["lr"] * factor)


def compute_gradients(parts: Parts, batch: Batch) -> Tensor:
    """Put the gradient of the batch's loss into the weights, and return the sum of each train metric over its samples.

    Where `accumulate` splits the batch, every part counts by its samples: the gradient is that of the whole batch
    (batch norm alone sees the parts one by one).
    """
    parts.optimizer.zero_grad()
    sums: Tensor | None = None
    for part in batch.parts(parts.config.accumulate):
        with autocast(parts.config, parts.device):
            loss, part_sums = parts.task.train_step(parts.network, part)
        parts.scaler.scale(loss * (len(part) / len(batch))).backward()  # type: ignore[no-untyped-call]
        sums = part_sums if sums is None else sums + part_sums
    trained = [weight for weight in parts.penalized if weight.requires_grad]
    if trained:
        regularization = parts.config.regularization
        loss = penalty(trained, regularization.l1, regularization.l2)
        parts.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    assert sums is not None
    return sums


def apply_gradients(parts: Parts) -> None:
    """Change the weights by what their gradients say, bounded where that is configured."""
    clip = parts.config.regularization.clip
    if clip.norm is not None or clip.value is not None:
        parts.scaler.unscale_(parts.optimizer)
        trained = [weight for weight in parts.network.parameters() if weight.grad is not None]
        if clip.norm is not None:
            nn.utils.clip_grad_norm_(trained, clip.norm)
        if clip.value is not None:
            nn.utils.clip_grad_value_(trained, clip.value)
    parts.scaler.step(parts.optimizer)
    parts.scaler.update()
    if parts.average is not None:
        parts.average.after_step()


def autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Return the context of the configured precision."""
    dtype = AUTOCAST.get(config.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)
