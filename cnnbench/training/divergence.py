"""Where numbers that are not finite came from, looked for only after a training has ended with them."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.randomness import seed_layers
from cnnbench.training.setup import TrainingSetup
from cnnbench.training.step import autocast

SHOWN_IMAGES = 8  # of the batch that a training diverged with


def images_of_step(training: TrainingSetup, epoch: int, step: int) -> str:
    """Return the first images of the batch of a step, by file or row. epoch: from 1; step: of all, from 0."""
    first, size = step - (epoch - 1) * training.horizon.steps_per_epoch, training.config.batch_size
    rows = training.order(epoch)[first * size : (first + 1) * size].flatten()
    shown, files = rows[:SHOWN_IMAGES].tolist(), training.data.train.files()
    names = [str(number) for number in training.data.split.train[shown].tolist()]
    images = f"rows {', '.join(names)}" if files is None else ", ".join(files[row] for row in shown)
    return images + (f" and {len(rows) - len(shown)} more" if len(rows) > len(shown) else "")


def origin(training: TrainingSetup, epoch: int, step: int) -> str:
    """Return in a sentence where a step first came to a number that is not finite; empty: that cannot be repeated.

    The batch passes through the network once more; weights and gradient are those of the step. epoch, step: as above.
    """
    size, first = training.config.batch_size, step - (epoch - 1) * training.horizon.steps_per_epoch
    seed_layers(training.config.seed, "layers", step, training.device)
    found: list[str] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not found and not _is_finite(output):
            layer = f"'{name}' ({type(module).__name__})" if name else "the network"
            before = "" if all(map(_is_finite, inputs)) else ", whose input is none either; look before it in `forward`"
            found.append(f"the first output that is no finite number is that of {layer}{before}.")

    modules = training.network.named_modules()
    hooks = [module.register_forward_hook(partial(note, name)) for name, module in modules]
    batch = next(training.train.epoch(training.order(epoch), size, epoch, first))
    try:
        with torch.no_grad(), autocast(training.config, training.device):
            loss, _ = training.task.train_step(training.network, batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not _is_finite(batch.images):
        return "its images are not finite when they reach the network; look at the augmentations."
    if found:
        return found[0]
    if not _is_finite(loss):
        return f"the outputs of the network are finite, so it is the loss of task={training.config.task.name}."
    of = [name for name, weight in training.network.named_parameters() if not _is_finite(weight.grad)]
    if of:
        return f"the loss is finite, and the gradient of {of[-1]} is not, as that of a root or a norm at 0."
    return ""


def _is_finite(values: Any) -> bool:
    return not isinstance(values, Tensor) or bool(values.isfinite().all())
