"""Any of torchvision's networks for classification, fitted to the data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cnnbench.data.images import DataSpec
from cnnbench.errors import SettingError, UserError, did_you_mean
from cnnbench.models.weights import WeightSource, published_input
from cnnbench.registry import MODELS

WITH_AUXILIARY = ("googlenet", "inception_v3")  # their published weights are for pixels scaled to [-1, 1], too


def pretrained(settings: Mapping[str, Any]) -> WeightSource:
    """Return torchvision's default weights of an architecture; loading downloads them unless they are cached."""
    weights = _zoo(settings["architecture"]).get_model_weights(settings["architecture"]).DEFAULT
    place = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name

    def load() -> Mapping[str, Any]:
        try:
            state: Mapping[str, Any] = weights.get_state_dict(check_hash=True)
        except OSError as error:
            raise UserError(
                f"init.weights=imagenet: {weights.url} cannot be downloaded ({error}); put it at {place}"
            ) from error
        return state

    name = f"torchvision {type(weights).__name__}.{weights.name}"
    metrics = {f"ImageNet {metric}": value for metric, value in weights.meta["_metrics"]["ImageNet-1K"].items()}
    transforms = weights.transforms()
    recipe = published_input(transforms.mean, transforms.std, transforms.interpolation.value)
    recipe["model.transform_input"] = settings["architecture"] in WITH_AUXILIARY
    metadata = {"weights": name, "data": "ImageNet", "metrics": metrics}
    return WeightSource("init.weights=imagenet", name, name, load, metadata, recipe=recipe)


def published_network(architecture: str) -> nn.Module:
    """Return a network of torchvision as it is published, in evaluation mode. Raises UserError without its weights."""
    weights = pretrained({"architecture": architecture}).load()
    settings = {"transform_input": True, "init_weights": False} if architecture in WITH_AUXILIARY else {}
    network: nn.Module = _zoo(architecture).get_model(architecture, weights=None, **settings)
    network.load_state_dict(weights)
    return network.eval()


@MODELS.register("torchvision", pretrained=pretrained, aux_classifiers="auxiliary")
def torchvision(
    spec: DataSpec,
    *,
    architecture: str,
    stem: Literal["imagenet", "cifar"] = "imagenet",
    auxiliary: bool = False,
    transform_input: bool = False,
) -> nn.Module:
    """Build one of torchvision's classification networks, without published weights.

    architecture: resnet18, vgg16, … stem: cifar makes the first convolution 3x3 with stride 1 and leaves out the first
    pooling, so that small images keep their size. auxiliary: with auxiliary classifiers, whose outputs follow the main
    one in training. transform_input: images normalised by ImageNet's statistics are scaled to [-1, 1] first, as the
    published weights of googlenet and inception_v3 need it. Raises SettingError for an unknown architecture, and where
    it has no auxiliary classifiers, or no such scaling.
    """
    zoo = _zoo(architecture)
    if auxiliary and architecture not in WITH_AUXILIARY:
        problem = f"'{architecture}' has no auxiliary classifiers; {' and '.join(WITH_AUXILIARY)} have"
        raise SettingError("model.auxiliary=true", problem)
    if transform_input and (architecture not in WITH_AUXILIARY or spec.channels != 3):
        problem = f"is for {' and '.join(WITH_AUXILIARY)} on images with three channels"
        raise SettingError("model.transform_input=true", problem, {"model.transform_input": False})
    options: dict[str, Any] = {}
    if architecture in WITH_AUXILIARY:
        options = {"aux_logits": auxiliary, "init_weights": True, "transform_input": transform_input}
    network: nn.Module = zoo.get_model(architecture, weights=None, num_classes=spec.num_outputs, **options)
    if spec.channels != 3 or stem == "cifar":
        _replace_first(network, nn.Conv2d, lambda conv: _first_convolution(conv, spec.channels, stem))
    if stem == "cifar":
        _replace_first(network, nn.MaxPool2d, lambda _: nn.Identity())
    return network


def _zoo(architecture: str) -> Any:
    """Return torchvision's networks. Raises SettingError where the architecture is none of them."""
    import torchvision.models as zoo  # takes as long as a short training

    names = zoo.list_models(module=zoo)
    if architecture not in names:
        hint = did_you_mean(architecture, names) or f"; there are {', '.join(names)}"
        raise SettingError(
            f"model.architecture={architecture}", f"torchvision has no such classification network{hint}"
        )
    return zoo


def _first_convolution(conv: Any, channels: int, stem: str) -> nn.Conv2d:
    kernel, stride, padding = (3, 1, 1) if stem == "cifar" else (conv.kernel_size, conv.stride, conv.padding)
    return nn.Conv2d(channels, conv.out_channels, kernel, stride, padding, bias=conv.bias is not None)


def _replace_first(network: nn.Module, kind: type[nn.Module], replacement: Callable[[nn.Module], nn.Module]) -> None:
    for name, layer in network.named_modules():
        if isinstance(layer, kind):
            network.set_submodule(name, replacement(layer))
            return
