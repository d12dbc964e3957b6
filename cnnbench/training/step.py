"""One step: an update of the weights by a batch, or the outputs of a network for the images of a split."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.data.loader import Batch, Batches
from cnnbench.errors import UserError, described
from cnnbench.optim.optimizers import penalty
from cnnbench.randomness import seed_layers
from cnnbench.training.setup import TrainingSetup

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train_step(
    training: TrainingSetup,
    batch: Batch,
    step: int,
    factor: float,
    before_update: Callable[[Tensor], None] = lambda _: None,
) -> Tensor:
    """Update the weights by a batch, and return the sum of each train metric over its samples.

    step: of the whole training, from 0. factor: on the learning rate of every parameter group. before_update: is given
    the sums before the weights change, and may raise to leave them as they are.
    """
    seed_layers(training.config.seed, "layers", step, training.device)
    set_learning_rates(training, factor)
    sums = compute_gradients(training, batch)
    before_update(sums)
    apply_gradients(training)
    return sums


def set_learning_rates(training: TrainingSetup, factor: float) -> None:
    """Set the learning rate of every parameter group for the next step."""
    for group in training.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def compute_gradients(training: TrainingSetup, batch: Batch) -> Tensor:
    """Compute the gradient of the batch's loss, and return the sum of each train metric over its samples.

    Where `accumulate` splits the batch, every part counts by its samples: the gradient is that of the whole batch
    (batch norm alone sees the parts one by one).
    """
    training.optimizer.zero_grad()
    sums: Tensor | None = None
    parts = batch.parts(training.config.accumulate)
    is_whole = len(batch) == training.config.batch_size  # a smaller last one is not worth compiling for
    network = training.compiled if training.compiled is not None and is_whole else training.network
    for part in parts:
        with autocast(training.config, training.device):
            loss, part_sums = training.task.train_step(network, part)
        loss = loss * (len(part) / len(batch)) if len(parts) > 1 else loss
        training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        sums = part_sums if sums is None else sums + part_sums
    trained = [weight for weight in training.penalized if weight.requires_grad]
    if trained:
        regularization = training.config.regularization
        loss = penalty(trained, regularization.l1, regularization.l2)
        training.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    assert sums is not None
    return sums


def has_finite_gradient(training: TrainingSetup) -> bool:
    """Tell whether the gradient is finite, on a processor in 0.1 ms for LeNet: in every step, that is what matters."""
    # A sum is not finite where a value is not. Where values are, it may be too large all the same.
    return all(math.isfinite(part.sum().item()) or bool(part.isfinite().all()) for part in _gradients(training))


def gradient_norm(training: TrainingSetup) -> float:
    """Return the norm of the gradient of all that is trained."""
    return math.sqrt(sum(float(part.double().square().sum()) for part in _gradients(training)))


def _gradients(training: TrainingSetup) -> Iterator[Tensor]:
    weights = (weight for group in training.optimizer.param_groups for weight in group["params"])
    return (weight.grad for weight in weights if weight.grad is not None)


def apply_gradients(training: TrainingSetup) -> None:
    """Change the weights by their gradients, clipped where that is configured."""
    clip = training.config.regularization.clip
    if clip.norm is not None or clip.value is not None:
        training.scaler.unscale_(training.optimizer)
        trained = [weight for weight in training.network.parameters() if weight.grad is not None]
        if clip.norm is not None:
            nn.utils.clip_grad_norm_(trained, clip.norm)
        if clip.value is not None:
            nn.utils.clip_grad_value_(trained, clip.value)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    if training.average is not None:
        training.average.after_step()


def autocast(config: RunConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of the configured precision."""
    dtype = AUTOCAST.get(config.precision)
    return torch.autocast(device.type, dtype=dtype) if dtype is not None else nullcontext()


def evaluate(
    training: TrainingSetup, network: nn.Module, batches: Batches, check_stop: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Return each eval metric of the task over all images of a split."""
    rows = map_images(network, batches, training.task.eval_step, training.config, check_stop)
    return training.task.compute_metrics(rows, batches.labels.cpu())


def map_images(
    network: nn.Module,
    batches: Batches,
    step: Callable[[nn.Module, Batch], Tensor],
    config: RunConfig,
    check_stop: Callable[[], None] = lambda: None,
) -> Tensor:
    """Return what a step gives for all images of a split, a row each, in the order of the data, on the processor.

    The network's mode and statistics are left as they were.
    """
    rows, number = torch.empty(0), 0
    with evaluating(network):
        for batch in batches.epoch(torch.arange(len(batches)), config.batch_size):
            with autocast(config, batches.device):
                values = step(network, batch)
            if not isinstance(values, Tensor) or values.shape[:1] != (len(batch),):
                raise UserError(f"a step returns one tensor with a row per image, and not {described(values)}.")
            values = values.float()
            if not number:  # at once: small pieces that are kept hold on to the memory of the batches between them
                rows = values.new_empty(len(batches), *values.shape[1:])
            rows[number : number + len(values)] = values
            number += len(values)
            check_stop()
    assert number == len(batches), (number, len(batches))
    return rows.clone().cpu()  # no tensor of inference mode


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put every layer into evaluation mode, without gradients, and back into its own mode afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
