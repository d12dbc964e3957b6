"""Any of torchvision's networks for classification, fitted to the data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError, Mistake, UserError, did_you_mean
from cnnbench.models.weights import WeightSource
from cnnbench.registry import MODELS

WITH_AUXILIARY = ("googlenet", "inception_v3")


def pretrained(settings: Mapping[str, Any]) -> WeightSource:
    """Return torchvision's default weights of an architecture; loading downloads them unless they are there."""
    weights = _zoo(settings["architecture"]).get_model_weights(settings["architecture"]).DEFAULT
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name

    def load() -> Mapping[str, Any]:
        try:
            state: Mapping[str, Any] = weights.get_state_dict(check_hash=True)
        except OSError as error:  # no network, no file, no room
            raise UserError(
                f"init.weights=imagenet: {weights.url} cannot be fetched ({error}); fetch it, and put it at {place}"
            ) from error
        return state

    name = f"torchvision {type(weights).__name__}.{weights.name}"
    metrics = {f"ImageNet {metric}": value for metric, value in weights.meta["_metrics"]["ImageNet-1K"].items()}
    return WeightSource(
        "init.weights=imagenet", name, name, load, {"weights": name, "data": "ImageNet", "metrics": metrics}
    )


@MODELS.register("torchvision", pretrained=pretrained)
def torchvision(
    spec: DataSpec, *, architecture: str, stem: Literal["imagenet", "cifar"] = "imagenet", auxiliary: bool = False
) -> nn.Module:
    """Build one of torchvision's classification networks, without weights of its own.

    architecture: resnet18, vgg16, … stem: cifar makes the first convolution 3x3 with stride 1 and leaves out the first
    pooling, so that small images keep their size. auxiliary: the classifiers half-way up, of those that have them; in
    training they are part of the output.
    Raises ConfigError for an architecture that there is not, and for auxiliary classifiers that it does not have.
    """
    zoo = _zoo(architecture)
    if auxiliary and architecture not in WITH_AUXILIARY:
        having = " and ".join(WITH_AUXILIARY)
        problem = f"'{architecture}' has no auxiliary classifiers; {having} have"
        raise ConfigError([Mistake("model.auxiliary=true", problem)])
    more: dict[str, Any] = {}
    if architecture in WITH_AUXILIARY:
        more = {"aux_logits": auxiliary, "init_weights": True}
    network: nn.Module = zoo.get_model(architecture, weights=None, num_classes=spec.num_outputs, **more)
    if spec.channels != 3 or stem == "cifar":
        _replace_first(network, nn.Conv2d, lambda conv: _first_convolution(conv, spec.channels, stem))
    if stem == "cifar":
        _replace_first(network, nn.MaxPool2d, lambda _: nn.Identity())
    return network


def _zoo(architecture: str) -> Any:
    """Return torchvision's networks. Raises ConfigError where the architecture is none of them."""
    import torchvision.models as zoo  # takes as long as a short training

    names = zoo.list_models(module=zoo)
    if architecture not in names:
        hint = did_you_mean(architecture, names) or f"; there are {', '.join(names)}"
        problem = f"torchvision has no such classification network{hint}"
        raise ConfigError([Mistake(f"model.architecture={architecture}", problem)])
    return zoo


def _first_convolution(conv: Any, channels: int, stem: str) -> nn.Conv2d:
    kernel, stride, padding = (3, 1, 1) if stem == "cifar" else (conv.kernel_size, conv.stride, conv.padding)
    return nn.Conv2d(channels, conv.out_channels, kernel, stride, padding, bias=conv.bias is not None)


def _replace_first(network: nn.Module, kind: type[nn.Module], made_of: Callable[[nn.Module], nn.Module]) -> None:
    """Put another layer in the place of the first one of a kind; nothing where there is none."""
    for name, layer in network.named_modules():
        if isinstance(layer, kind):
            above, _, own = name.rpartition(".")
            setattr(network.get_submodule(above), own, made_of(layer))
            return
