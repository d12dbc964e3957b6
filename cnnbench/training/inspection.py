"""What a network is made of, and what in a training is often not what was meant."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.data.loader import Batches
from cnnbench.training.loop import evaluating
from cnnbench.training.step import Parts

USUAL_MOMENTUM = 0.9  # worth no remark


@dataclass(frozen=True)
class Layer:
    """A layer of a network that does something itself."""

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    trainable: int


def layers_of(network: nn.Module, images: torch.Tensor) -> list[Layer]:
    """Return the layers in the order in which they compute; a layer that is used twice is there twice."""
    found: list[Layer] = []
    handles = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            sizes = [(weight.numel(), weight.requires_grad) for weight in module.parameters(recurse=False)]
            shape = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()
            trainable = sum(size for size, trains in sizes if trains)
            found.append(Layer(name, type(module).__name__, shape, sum(size for size, _ in sizes), trainable))

        return hook

    for name, module in network.named_modules():
        if not list(module.children()):
            handles.append(module.register_forward_hook(note(name)))
    try:
        with evaluating(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


def operations_per_image(network: nn.Module, images: Tensor) -> float:
    """Return the floating-point operations of a forward pass, per image (a multiplication and an addition are two)."""
    from torch.utils.flop_counter import FlopCounterMode  # 0.15 s, which a training need not wait for

    counter = FlopCounterMode(display=False)
    with evaluating(network), counter:
        network(images)
    return counter.get_total_flops() / len(images)


def remarks(parts: Parts) -> list[str]:
    """Return remarks on combinations that work, and are often not what was meant."""
    found = []
    layers = [layer for layer in parts.network.modules() if not list(layer.children())]
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if any(isinstance(first, nn.Dropout) and isinstance(second, norms) for first, second in pairwise(layers)):
        found.append(
            "dropout comes right before batch norm: the statistics of training, with dropout, are used without it "
            "(Li et al. 2018, arXiv:1801.05134)"
        )
    config = parts.config
    if config.freeze.what and config.source is None and config.parent is None:
        found.append("what is frozen stays as chance made it: nothing is loaded; see init")
    if config.init.weights and config.data.statistics == "own":
        found.append("published weights learnt with other figures for normalising; see data.statistics")
    settings = config.optimizer.settings
    momentum = settings.get("momentum", 0.0)
    if momentum > USUAL_MOMENTUM:
        rate = settings["lr"] / (1 - momentum)
        found.append(f"with momentum {momentum}, each gradient counts lr / (1 - momentum) = {rate:.3g} in the long run")
    return found


def a_few_images(batches: Batches) -> Tensor:
    """Return two images as a network sees them, float32 [2, C, H, W]; one where there are no more."""
    images: Tensor = next(iter(batches.epoch(torch.arange(min(2, len(batches))), 2))).images
    return images
