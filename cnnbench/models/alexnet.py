"""AlexNet, with the local response normalisation of 2012 or with batch norm."""

from collections import OrderedDict
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pad

from cnnbench.data.images import DataSpec
from cnnbench.models.plain import Dropout, PlainNetwork, num_features
from cnnbench.registry import MODELS

Maps = Annotated[list[PositiveInt], Field(min_length=5, max_length=5)]
KERNELS, STRIDES, PADDINGS = (11, 5, 3, 3, 3), (4, 1, 1, 1, 1), (0, 2, 1, 1, 1)
POOLED = (True, True, False, False, True)


class NormWithinChannels(nn.Module):
    """Divide by (1 + alpha x mean of squares over size x size pixels of the same channel) ^ beta."""

    def __init__(self, size: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta
        self.average = nn.AvgPool2d(size, stride=1, padding=size // 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        mean: Tensor = self.average(images.square())
        return images / (1 + self.alpha * mean).pow(self.beta)


class NormAcrossChannels(nn.LocalResponseNorm):
    """torch's local response normalisation, with gradients that have the same bits every time on a GPU as well."""

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, C, H, W]."""
        return self.summed(images) if images.is_cuda else super().forward(images)

    def summed(self, images: Tensor) -> Tensor:
        """Return the same by sums of neighbouring channels: torch takes `avg_pool3d`, which adds up in any order."""
        around = pad(images.square(), (0, 0, 0, 0, self.size // 2, (self.size - 1) // 2))
        channels = images.shape[1]
        total = torch.stack([around[:, start : start + channels] for start in range(self.size)]).sum(0)
        return images / (self.k + self.alpha * total / self.size).pow(self.beta)


@MODELS.register("alexnet_lrn")
def alexnet_lrn(
    spec: DataSpec,
    *,
    maps: Maps,
    units: list[PositiveInt],
    norm: Literal["across", "within"],
    dropout: Dropout = 0.0,
) -> PlainNetwork:
    """AlexNet of 2012: local response normalisation after the first two pools, the second convolution in two groups.

    norm: over five neighbouring channels, or over 5x5 pixels of the same one (alpha 1e-4, beta 0.75, k 1). dropout:
    after the dense layers except the last. Designed for 3x227x227. Source: Krizhevsky, Sutskever, Hinton 2012.
    """
    features: dict[str, nn.Module] = {}
    channels = spec.channels
    for number, size in enumerate(maps, start=1):
        features |= _convolution(number, channels, size, groups=2 if number == 2 else 1)
        if POOLED[number - 1]:
            features[f"pool{number}"] = nn.MaxPool2d(3, stride=2)
        if number <= 2:
            across = NormAcrossChannels(5, alpha=1e-4, beta=0.75, k=1.0)
            features[f"norm{number}"] = across if norm == "across" else NormWithinChannels(5, 1e-4, 0.75)
        channels = size
    return classifier(spec, nn.Sequential(OrderedDict(features)), units, dropout)


@MODELS.register("alexnet_bn")
def alexnet_bn(spec: DataSpec, *, maps: Maps, units: list[PositiveInt], dropout: Dropout = 0.0) -> PlainNetwork:
    """AlexNet with batch norm after each convolution's ReLU.

    dropout: after the dense layers except the last. Designed for 227x227. Source: lecture notes on deep learning with
    Keras, section on AlexNet, whose batch norm has a momentum of 0.99 and an epsilon of 0.001.
    """
    features: dict[str, nn.Module] = {}
    channels = spec.channels
    for number, size in enumerate(maps, start=1):
        features |= _convolution(number, channels, size)
        features[f"norm{number}"] = nn.BatchNorm2d(size, eps=1e-3, momentum=0.01)  # 1 - momentum in Keras
        if POOLED[number - 1]:
            features[f"pool{number}"] = nn.MaxPool2d(3, stride=2)
        channels = size
    return classifier(spec, nn.Sequential(OrderedDict(features)), units, dropout)


def classifier(spec: DataSpec, features: nn.Sequential, units: list[int], dropout: float) -> PlainNetwork:
    """Return a network of these features, dense layers, each followed by ReLU and dropout, and a linear head."""
    dense: dict[str, nn.Module] = {}
    size = num_features(features, spec)
    for number, num_units in enumerate(units, start=1):
        dense |= {f"linear{number}": nn.Linear(size, num_units), f"relu{number}": nn.ReLU()}
        if dropout:
            dense[f"dropout{number}"] = nn.Dropout(dropout)
        size = num_units
    head = nn.Sequential(OrderedDict(linear=nn.Linear(size, spec.num_outputs)))
    return PlainNetwork(features, nn.Sequential(OrderedDict(dense)), head)


def _convolution(number: int, channels: int, maps: int, groups: int = 1) -> dict[str, nn.Module]:
    kernel, stride, padding = KERNELS[number - 1], STRIDES[number - 1], PADDINGS[number - 1]
    convolution = nn.Conv2d(channels, maps, kernel, stride, padding, groups=groups)
    return {f"conv{number}": convolution, f"relu{number}": nn.ReLU()}
