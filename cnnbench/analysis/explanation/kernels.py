"""What the first layer looks for: its weights, which have the form of images."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.explanation.activations import hooked
from cnnbench.analysis.explanation.subject import NotPossible, Subject


@dataclass(frozen=True)
class Kernels:
    """Weights of the first layer, float32 [N, C, h, w]. word: what each of the N is called."""

    layer: str
    weights: Tensor
    word: str

    @property
    def in_colour(self) -> bool:
        """Tell whether each is one picture in colour."""
        return self.weights.shape[1] == 3

    @property
    def size(self) -> str:
        """Return how many there are, of how many channels, and how large."""
        number, channels, height, width = self.weights.shape
        return f"{number} {self.word} of {channels}x{height}x{width}"


def first_kernels(subject: Subject) -> Kernels:
    """Return the kernels of the convolution that computes first, or the weights of the dense layer that sees pixels.

    Raises NotPossible where the network begins with neither.
    """
    image = subject.images[:1]
    first = first_layer(subject.network, image)
    if first is None:
        raise NotPossible("no layer of the network sees pixels by weights that have the form of images")
    weights: Any = subject.network.get_submodule(first).weight
    weights = weights.detach().float()
    if weights.ndim == 4:
        return Kernels(first, weights, "kernels")
    return Kernels(first, weights.view(-1, *image.shape[1:]), "units")


def first_layer(network: nn.Module, image: Tensor) -> str | None:
    """Return the first layer to compute that is a convolution, or dense with nothing but the image's pixels before."""
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, _output: Any) -> None:
            sees_all = isinstance(module, nn.Linear) and module.in_features == image.numel()
            if isinstance(module, nn.Conv2d) or (sees_all and torch.equal(inputs[0].flatten(), image.flatten())):
                found.append(name)

        return hook

    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    with hooked(network, layers, note):
        network(image)
    return found[0] if found else None
