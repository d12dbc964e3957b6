"""What the layers of a network give for an image: maps."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.explanation.subject import LISTED, NotPossible, Subject
from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.training.step import evaluating

MOST_LAYERS = 8  # of which maps are shown where no layer is named


@dataclass(frozen=True)
class Maps:
    """What a layer gives for one image, float32 [C, H, W]; the last time, where it is used several times."""

    layer: str
    values: Tensor
    uses: int = 1

    @property
    def size(self) -> str:
        """Return how many maps there are, and how large."""
        number, height, width = self.values.shape
        return f"{number} map{'' if number == 1 else 's'} of {height}x{width}"


@contextmanager
def hooked(network: nn.Module, names: Iterable[str], hook_of: Callable[[str], Any]) -> Iterator[None]:
    """Let hooks, each made for a name, look at what modules give, while the network is evaluated without gradients."""
    handles = [network.get_submodule(name).register_forward_hook(hook_of(name)) for name in names]
    try:
        with evaluating(network):
            yield
    finally:
        for handle in handles:
            handle.remove()


def maps_of(network: nn.Module, image: Tensor, layers: Iterable[str]) -> list[Maps]:
    """Return what layers give for an image, float32 [1, C, H, W]; nothing of those that give no maps."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                seen[name].append(output.float().clone())  # what comes next may compute in place

        return hook

    with hooked(network, seen, note):
        network(image)
    return [Maps(name, outputs[-1][0], len(outputs)) for name, outputs in seen.items() if outputs]


def layers_with_maps(subject: Subject) -> dict[str, tuple[int, int]]:
    """Return height and width of the maps that layers give, and modules of several, in the order in which they end.

    From the first convolution on: before it, maps are but the image. Raises NotPossible where there is none.
    """
    ended: dict[str, tuple[int, int]] = {}
    network, image = subject.network, subject.images[:1]  # not for the first time without gradients

    def note(name: str) -> Any:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and (ended or isinstance(module, nn.Conv2d)):
                ended.pop(name, None)
                ended[name] = (output.shape[2], output.shape[3])

        return hook

    with hooked(network, [name for name, _ in network.named_modules() if name], note):
        network(image)
    if not ended:
        raise NotPossible("the network has no convolutions, and so no maps")
    return ended


def convolutions(subject: Subject) -> list[str]:
    """Return the convolutional layers in the order in which they compute. Raises NotPossible where there is none."""
    names = layers_with_maps(subject)
    return [name for name in names if isinstance(subject.network.get_submodule(name), nn.Conv2d)]


def spread(names: list[str]) -> list[str]:
    """Return eight of the names at most, from the first to the last."""
    if len(names) <= MOST_LAYERS:
        return names
    return [names[place] for place in torch.linspace(0, len(names) - 1, MOST_LAYERS).round().long().tolist()]


def maps_of_layer(subject: Subject, name: str, image: int = 0) -> Maps:
    """Return the maps of one layer. Raises UserError where there is no such layer, or it gives none."""
    with_maps = list(layers_with_maps(subject))
    there = listed(with_maps[:LISTED]) + (" …" if len(with_maps) > LISTED else "")
    if name not in dict(subject.network.named_modules()):
        meant = {module.rpartition(".")[2]: module for module in with_maps} | {module: module for module in with_maps}
        raise UserError(f"--layer {name}: no such layer{did_you_mean(name, meant)}; those with maps are {there}.")
    if name not in with_maps:
        raise UserError(f"--layer {name}: gives no maps; those that do are {there}.")
    return maps_of(subject.network, subject.images[image : image + 1], [name])[0]
