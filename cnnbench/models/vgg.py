"""VGG: stacks of 3x3 convolutions, pooled five times."""

from collections import OrderedDict
from typing import Literal

from pydantic import PositiveInt
from torch import nn

from cnnbench.data.images import DataSpec
from cnnbench.models.alexnet import classifier
from cnnbench.models.plain import Dropout, PlainNetwork
from cnnbench.registry import MODELS

DEPTHS = {"A": (1, 1, 2, 2, 2), "B": (2, 2, 2, 2, 2), "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}


@MODELS.register("vgg")
def vgg(
    spec: DataSpec,
    *,
    variant: Literal["A", "B", "D", "E"],
    width: PositiveInt,
    units: list[PositiveInt],
    dropout: Dropout = 0.0,
    batchnorm: bool = False,
) -> PlainNetwork:
    """VGG with 11 (A), 13 (B), 16 (D) or 19 (E) layers; designed for 224x224, and works on 32x32.

    width: maps of the first stage; the next have twice, four and eight times as many. units: of the dense layers before
    the last. dropout: after them. batchnorm: after each convolution. Initialised as is common: He et al. 2015 for
    convolutions, standard deviation 0.01 for dense layers, biases 0. Source: Simonyan and Zisserman 2015,
    arXiv:1409.1556.
    """
    features: dict[str, nn.Module] = {}
    channels = spec.channels
    for stage, depth in enumerate(DEPTHS[variant], start=1):
        for number in range(1, depth + 1):
            maps = width * min(2 ** (stage - 1), 8)
            features[f"conv{stage}_{number}"] = nn.Conv2d(channels, maps, 3, padding=1)
            if batchnorm:
                features[f"norm{stage}_{number}"] = nn.BatchNorm2d(maps)
            features[f"relu{stage}_{number}"] = nn.ReLU()
            channels = maps
        features[f"pool{stage}"] = nn.MaxPool2d(2)
    network = classifier(spec, nn.Sequential(OrderedDict(features)), units, dropout)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)
    return network
