"""Plain networks: convolutions, then dense layers; multilayer perceptrons have dense layers only.

B: batch, C: channels, H, W: height and width, D: features, K: classes.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.errors import UserError
from cnnbench.registry import MODELS

Dropout = Annotated[float, Field(ge=0, lt=1)]
Activation = Literal["relu", "tanh", "sigmoid"]
Pool = Literal["max", "average"]

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
POOLS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


@dataclass(frozen=True)
class Conv:
    """One convolution of a plain network, stride 1; pool: with 2x2 pooling, before or after the activation."""

    maps: int
    kernel: int
    padding: int
    pool: bool

    def side_after(self, side: int) -> int:
        """Return the side of the output for a square image of this side; 0 or less: too small."""
        side = side + 2 * self.padding - self.kernel + 1
        return side // 2 if self.pool else side


class PlainNetwork(nn.Module):
    """Features, dense layers and head in sequence."""

    def __init__(self, features: nn.Sequential, dense: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.dense = dense
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores, float [B, K], of images [B, C, H, W]."""
        features = self.features(images).flatten(1)  # [B, C, H, W] -> [B, D]
        scores: Tensor = self.head(self.dense(features))
        return scores


def plain_network(
    spec: DataSpec,
    convs: Sequence[Conv],
    units: Sequence[int],
    activation: Activation,
    pool: Pool,
    dropout: float,
    batchnorm: bool,
    feature_activation: Activation | None = None,
    pools_last: bool = False,
    hidden_only: bool = False,
    pool_to: int | None = None,
) -> PlainNetwork:
    """Build a network: each convolution is followed by pooling, then activation; dense layers by activation.

    feature_activation: of the convolutions, where it is not that of the dense layers. pools_last: pooling comes after
    activation. dropout: before the dense layers except the last. batchnorm: before every layer except the first. Where
    both meet, dropout comes first, as in the original of this family. hidden_only: neither of them before the first
    dense layer, nor before the last. pool_to: side that the last maps are averaged to.
    Raises UserError for images too small to leave anything after the convolutions.
    """
    after_conv = feature_activation or activation
    features: dict[str, nn.Module] = {}  # numbered by layer, so that weights fit with and without batch norm
    channels, height, width = spec.channels, spec.height, spec.width
    for number, conv in enumerate(convs, start=1):
        if batchnorm and number > 1:
            features[f"norm{number}"] = nn.BatchNorm2d(channels)
        features[f"conv{number}"] = nn.Conv2d(channels, conv.maps, conv.kernel, padding=conv.padding)
        after = {f"{after_conv}{number}": ACTIVATIONS[after_conv]()}
        pooling: dict[str, nn.Module] = {f"pool{number}": POOLS[pool](2)} if conv.pool else {}
        features |= after | pooling if pools_last else pooling | after
        channels, height, width = conv.maps, conv.side_after(height), conv.side_after(width)
        if min(height, width) < 1:
            given = f"{spec.height}x{spec.width}"
            raise UserError(f"images of {given} are too small: nothing is left after convolution {number}")
    if pool_to is not None:
        features["pool"] = nn.AdaptiveAvgPool2d(pool_to)
        height = width = pool_to
    dense: dict[str, nn.Module] = {}
    num_features = channels * height * width
    for number, size in enumerate(units, start=len(convs) + 1):
        follows_hidden = number > len(convs) + 1 or not hidden_only
        if dropout and follows_hidden:
            dense[f"dropout{number}"] = nn.Dropout(dropout)
        if batchnorm and number > 1 and follows_hidden:
            dense[f"norm{number}"] = nn.BatchNorm1d(num_features)
        dense[f"linear{number}"] = nn.Linear(num_features, size)
        dense[f"{activation}{number}"] = ACTIVATIONS[activation]()
        num_features = size
    head: dict[str, nn.Module] = {}
    if batchnorm and (convs or units) and not hidden_only:
        head["norm"] = nn.BatchNorm1d(num_features)
    head["linear"] = nn.Linear(num_features, spec.num_outputs)
    return PlainNetwork(*(nn.Sequential(OrderedDict(layers)) for layers in (features, dense, head)))


def num_features(features: nn.Module, spec: DataSpec) -> int:
    """Return the number of features that convolutions give for one image."""
    with torch.no_grad():
        output = features.eval()(torch.zeros(1, spec.channels, spec.height, spec.width))
    features.train()
    return int(output.numel())


@MODELS.register("mlp")
def mlp(
    spec: DataSpec,
    *,
    units: list[PositiveInt],
    activation: Activation,
    dropout: Dropout = 0.0,
    batchnorm: bool = False,
    hidden_only: bool = False,
) -> PlainNetwork:
    """Multilayer perceptron: the pixels of an image as a vector, then dense layers.

    units: of the dense layers before the last; none: linear classification. hidden_only: dropout and batch norm between
    these only, neither before the first nor before the last layer.
    Source: Rumelhart, Hinton, Williams 1986, Learning representations by back-propagating errors; 300 and 100 units are
    a baseline of LeCun et al. 1998.
    """
    return plain_network(spec, [], units, activation, "max", dropout, batchnorm, hidden_only=hidden_only)


@MODELS.register("lenet")
def lenet(
    spec: DataSpec,
    *,
    maps: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)],
    units: list[PositiveInt],
    activation: Activation,
    pool: Pool,
    dropout: Dropout = 0.0,
    batchnorm: bool = False,
) -> PlainNetwork:
    """LeNet: two 5x5 convolutions with pooling, then dense layers.

    Source: LeCun et al. 1998, Gradient-based learning applied to document recognition; simplified as is common today
    (pooling without weights, full connections between maps, a linear head).
    """
    convs = [Conv(number, kernel=5, padding=0, pool=True) for number in maps]
    return plain_network(spec, convs, units, activation, pool, dropout, batchnorm)


@MODELS.register("lenet_same")
def lenet_same(
    spec: DataSpec,
    *,
    maps: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)],
    units: list[PositiveInt],
    activation: Activation,
    dropout: Dropout = 0.0,
    batchnorm: bool = False,
) -> PlainNetwork:
    """LeNet whose first convolution keeps the size: ReLU, then average pooling, after each convolution.

    activation: of the dense layers. Source: lecture notes on deep learning with Keras, section on LeNet, which pad
    28x28 pixels to the 32x32 of the original.
    """
    convs = [Conv(maps[0], kernel=5, padding=2, pool=True), Conv(maps[1], kernel=5, padding=0, pool=True)]
    return plain_network(spec, convs, units, activation, "average", dropout, batchnorm, "relu", pools_last=True)


@MODELS.register("minialexnet")
def minialexnet(
    spec: DataSpec,
    *,
    maps: Annotated[list[PositiveInt], Field(min_length=5, max_length=5)],
    units: list[PositiveInt],
    dropout: Dropout = 0.0,
    batchnorm: bool = False,
    pool_to: PositiveInt | None = None,
) -> PlainNetwork:
    """MiniAlexNet: five convolutions (5x5 twice, then 3x3), pooled after the first, second and last; dense layers.

    pool_to: side that the last maps are averaged to, so that the dense layers do not grow with the images.
    Source: Furnari and Farinella 2021, course Machine Learning, laboratory on convolutional networks; the order of
    layers is that of Krizhevsky et al. 2012.
    """
    kernels, pooled = (5, 5, 3, 3, 3), (True, True, False, False, True)
    convs = [
        Conv(number, kernel, padding=kernel // 2, pool=pool)
        for number, kernel, pool in zip(maps, kernels, pooled, strict=True)
    ]
    return plain_network(spec, convs, units, "relu", "max", dropout, batchnorm, pool_to=pool_to)
