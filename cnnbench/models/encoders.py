"""Networks that end in a code, and what makes images out of codes again.

B: batch, C: channels, H, W: height and width, D: numbers of a code.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.errors import UserError
from cnnbench.models.ending import Encoder
from cnnbench.models.plain import Conv, plain_network
from cnnbench.registry import MODELS


class DenseEncoder(Encoder):
    """Dense layers; its decoder has the same layers in the opposite order."""

    def __init__(self, spec: DataSpec, units: Sequence[int]) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.height, spec.width)
        self.units, self.dimensions = units, units[-1]
        self.dense = _dense([math.prod(self.shape), *units], ends_in_relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return codes, float [B, D], of images [B, C, H, W]."""
        codes: Tensor = self.dense(images.flatten(1))
        return codes

    def decoder(self) -> nn.Module:
        """Return a network from codes [B, D] to images [B, C, H, W]."""
        layers = _dense([*reversed(self.units), math.prod(self.shape)], ends_in_relu=False)
        layers.add_module("unflatten", nn.Unflatten(1, self.shape))
        return layers


class ConvEncoder(Encoder):
    """3x3 convolutions, averaged over 2x2 after each but the last; its decoder enlarges in place of averaging."""

    def __init__(self, spec: DataSpec, maps: Sequence[int]) -> None:
        super().__init__()
        self.maps = (spec.channels, *maps)
        sides = [(spec.height, spec.width)]
        for _ in maps[1:]:
            sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
        if min(sides[-1]) < 1:
            raise UserError(f"images of {spec.height}x{spec.width} are too small: nothing is left of them")
        self.sides = sides
        layers: dict[str, nn.Module] = {}
        for number, (given, made) in enumerate(zip(self.maps, maps, strict=False), start=1):
            layers[f"conv{number}"] = nn.Conv2d(given, made, 3, padding=1)
            layers |= {f"pool{number}": nn.AvgPool2d(2)} if number < len(maps) else {}
            layers[f"relu{number}"] = nn.ReLU()
        self.features = nn.Sequential(OrderedDict(layers))
        self.dimensions = maps[-1] * math.prod(sides[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return codes, float [B, D], of images [B, C, H, W]."""
        return self.features(images).flatten(1)  # type: ignore[no-any-return]

    def decoder(self) -> nn.Module:
        """Return a network from codes [B, D] to images [B, C, H, W]."""
        layers: dict[str, nn.Module] = {"unflatten": nn.Unflatten(1, (self.maps[-1], *self.sides[-1]))}
        back = list(reversed(self.maps))
        for number, (given, made) in enumerate(pairwise(back), start=1):
            layers[f"conv{number}"] = nn.Conv2d(given, made, 3, padding=1)
            if number < len(back) - 1:
                # Before it is enlarged: copies of pixels stay what they are, and a quarter of the work does.
                layers[f"relu{number}"] = nn.ReLU()
                layers[f"enlarge{number}"] = nn.Upsample(size=self.sides[-1 - number])
        return nn.Sequential(OrderedDict(layers))


def upsampling_decoder(dimensions: int, spec: DataSpec, maps: Sequence[int] = (32, 16)) -> nn.Module:
    """Return a decoder for any code: dense to a quarter of the side, then enlarged twice, with 3x3 convolutions.

    From codes [B, D] to images [B, C, H, W].
    """
    sides = [(max(1, spec.height // part), max(1, spec.width // part)) for part in (4, 2, 1)]
    first, second = maps
    return nn.Sequential(
        OrderedDict(
            linear=nn.Linear(dimensions, first * math.prod(sides[0])),
            relu=nn.ReLU(),
            unflatten=nn.Unflatten(1, (first, *sides[0])),
            enlarge1=nn.Upsample(size=sides[1]),
            conv1=nn.Conv2d(first, second, 3, padding=1),
            relu1=nn.ReLU(),
            enlarge2=nn.Upsample(size=sides[2]),
            conv2=nn.Conv2d(second, spec.channels, 3, padding=1),
        )
    )


def _dense(sizes: Sequence[int], ends_in_relu: bool) -> nn.Sequential:
    layers: dict[str, nn.Module] = {}
    for number, (given, made) in enumerate(pairwise(sizes), start=1):
        layers[f"linear{number}"] = nn.Linear(given, made)
        if ends_in_relu or number < len(sizes) - 1:
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(OrderedDict(layers))


@MODELS.register("mlp_encoder")
def mlp_encoder(spec: DataSpec, *, units: Annotated[list[PositiveInt], Field(min_length=1)]) -> Encoder:
    """Dense layers with ReLU; the last one is the code.

    Source: Furnari and Farinella 2021, course Machine Learning, laboratory on transfer and metric learning.
    """
    return DenseEncoder(spec, units)


@MODELS.register("conv_encoder")
def conv_encoder(spec: DataSpec, *, maps: Annotated[list[PositiveInt], Field(min_length=1)]) -> Encoder:
    """3x3 convolutions with ReLU, averaged over 2x2 after each but the last, whose maps are the code.

    Source: Furnari and Farinella 2021, course Machine Learning, laboratory on transfer and metric learning.
    """
    return ConvEncoder(spec, maps)


class EmbeddingNet(Encoder):
    """A plain network whose outputs are a code."""

    def __init__(self, spec: DataSpec, maps: Sequence[int], units: Sequence[int], dimensions: int, batchnorm: bool):
        super().__init__()
        convs = [Conv(number, kernel=5, padding=0, pool=True) for number in maps]
        plain = plain_network(
            replace(spec, outputs=dimensions), convs, units, "relu", "max", dropout=0.0, batchnorm=batchnorm
        )
        self.features, self.dense, self.code = plain.features, plain.dense, plain.head
        self.dimensions = dimensions

    def forward(self, images: Tensor) -> Tensor:
        """Return codes, float [B, D], of images [B, C, H, W]."""
        codes: Tensor = self.code(self.dense(self.features(images).flatten(1)))
        return codes


@MODELS.register("embedding_net")
def embedding_net(
    spec: DataSpec,
    *,
    maps: Annotated[list[PositiveInt], Field(min_length=1)],
    units: list[PositiveInt],
    dimensions: PositiveInt,
    batchnorm: bool,
) -> Encoder:
    """LeNet without its scores: 5x5 convolutions with pooling, dense layers, and a code of so many dimensions.

    Source: Furnari and Farinella 2021, course Machine Learning, laboratory on transfer and metric learning.
    """
    return EmbeddingNet(spec, maps, units, dimensions, batchnorm)
