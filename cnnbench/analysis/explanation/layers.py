"""What the layers of a network compute for an image, and the weights of the first one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.training.step import evaluating

MAX_LAYERS = 8  # whose maps are drawn unless a layer is named
LISTED = 20  # names in a message

Hook = Callable[[str, nn.Module, Any, Any], None]


class NotPossible(UserError):  # noqa: N818 - not an error, unless the user asked for it by name
    """What this network, task or run does not have; the message says why."""


def run_with_hook(network: nn.Module, images: Tensor, names: Iterable[str], hook: Hook) -> None:
    """Evaluate a network on images, and call a hook after each named module: with name, module, inputs and output."""
    handles = [network.get_submodule(name).register_forward_hook(partial(hook, name)) for name in names]
    try:
        with evaluating(network):
            network(images)
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Maps:
    """The output of a layer for one image, float32 [C, H, W]. uses: how often it ran; the last output is kept."""

    layer: str
    values: Tensor
    uses: int = 1

    @property
    def size(self) -> str:
        """Return number and size of the maps, for a title."""
        number, height, width = self.values.shape
        return f"{number} map{'' if number == 1 else 's'} of {height}x{width}"


def maps_of(network: nn.Module, image: Tensor, layers: Iterable[str]) -> list[Maps]:
    """Return the maps of layers for an image, float32 [1, C, H, W]; layers whose output is not maps are left out."""
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def hook(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if _is_maps(output):
            outputs[name].append(output.float().clone())  # the next layer may compute in place

    run_with_hook(network, image, outputs, hook)
    return [Maps(name, values[-1][0], len(values)) for name, values in outputs.items() if values]


def layers_with_maps(network: nn.Module, image: Tensor) -> dict[str, tuple[int, int]]:
    """Return height and width of the maps of layers and of blocks of them, in the order in which they end.

    They begin with the first convolution. Raises NotPossible if there is none. image: float32 [1, C, H, W].
    """
    sizes: dict[str, tuple[int, int]] = {}

    def hook(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        if _is_maps(output) and (sizes or isinstance(module, nn.Conv2d)):
            sizes.pop(name, None)  # one that runs again ends later
            sizes[name] = (output.shape[2], output.shape[3])

    run_with_hook(network, image, [name for name, _ in network.named_modules() if name], hook)
    if not sizes:
        raise NotPossible("the network has no convolutions, and so no maps")
    return sizes


def convolutions(network: nn.Module, image: Tensor) -> list[str]:
    """Return the convolutional layers in the order in which they compute. Raises NotPossible if there is none."""
    names = layers_with_maps(network, image)
    return [name for name in names if isinstance(network.get_submodule(name), nn.Conv2d)]


def spread(names: list[str]) -> list[str]:
    """Return at most eight of the names, evenly spread, the first and the last among them."""
    if len(names) <= MAX_LAYERS:
        return names
    return [names[place] for place in torch.linspace(0, len(names) - 1, MAX_LAYERS).round().long().tolist()]


def maps_of_layer(network: nn.Module, image: Tensor, name: str) -> Maps:
    """Return the maps of one layer. Raises UserError if there is no such layer, or its output is not maps."""
    names = list(layers_with_maps(network, image))
    available = listed(names[:LISTED]) + (" …" if len(names) > LISTED else "")
    if name not in dict(network.named_modules()):
        by_last_part = {module.rpartition(".")[2]: module for module in names}
        hint = did_you_mean(name, by_last_part | {module: module for module in names})
        raise UserError(f"--layer {name}: no such layer{hint}; those with maps are {available}.")
    if name not in names:
        raise UserError(f"--layer {name}: has no maps; those with maps are {available}.")
    return maps_of(network, image, [name])[0]


def _is_maps(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4


@dataclass(frozen=True)
class Kernels:
    """Weights of the first layer, float32 [N, C, h, w]. word: what each of the N is called."""

    layer: str
    weights: Tensor
    word: str

    @property
    def is_colour(self) -> bool:
        """Return whether each kernel can be drawn as one picture in colour."""
        return self.weights.shape[1] == 3

    @property
    def size(self) -> str:
        """Return number, channels and size of the kernels, for a title."""
        number, channels, height, width = self.weights.shape
        return f"{number} {self.word} of {channels}x{height}x{width}"


def first_kernels(network: nn.Module, image: Tensor) -> Kernels:
    """Return the kernels of the first convolution, or the weights of the dense layer that takes the pixels.

    Raises NotPossible if the network begins with neither. image: float32 [1, C, H, W].
    """
    first: list[str] = []

    def hook(name: str, module: nn.Module, inputs: Any, _output: Any) -> None:
        takes_all = isinstance(module, nn.Linear) and module.in_features == image.numel()
        if isinstance(module, nn.Conv2d) or (takes_all and torch.equal(inputs[0].flatten(), image.flatten())):
            first.append(name)

    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    run_with_hook(network, image, layers, hook)
    if not first:
        raise NotPossible("no layer takes the pixels with weights in the shape of images")
    weights: Any = network.get_submodule(first[0]).weight
    weights = weights.detach().float()
    if weights.ndim == 4:
        return Kernels(first[0], weights, "kernels")
    return Kernels(first[0], weights.view(-1, *image.shape[1:]), "units")
