"""Encoders, networks that end in an embedding, and decoders, which turn embeddings back into images.

B: batch, C: channels, H, W: height and width, D: dimensions of an embedding.
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
from cnnbench.models.build import Encoder
from cnnbench.models.plain import Conv, plain_network
from cnnbench.registry import MODELS

Sizes = Annotated[list[PositiveInt], Field(min_length=1)]


@MODELS.register("mlp_encoder")
class DenseEncoder(Encoder):
    """Dense layers with ReLU; the last one gives the embedding.

    The decoder has the same layers in reverse order. Source: Furnari and Farinella 2021, course Machine Learning,
    laboratory on transfer and metric learning.
    """

    def __init__(self, spec: DataSpec, *, units: Sizes) -> None:
        super().__init__()
        self.shape = (spec.channels, spec.height, spec.width)
        self.units, self.dimensions = units, units[-1]
        self.dense = _dense([math.prod(self.shape), *units], ends_in_relu=True)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings, float [B, D], of images [B, C, H, W]."""
        embeddings: Tensor = self.dense(images.flatten(1))
        return embeddings

    def decoder(self) -> nn.Module:
        """Return a network from embeddings [B, D] to images [B, C, H, W]."""
        layers = _dense([*reversed(self.units), math.prod(self.shape)], ends_in_relu=False)
        layers.add_module("unflatten", nn.Unflatten(1, self.shape))
        return layers


@MODELS.register("conv_encoder")
class ConvEncoder(Encoder):
    """3x3 convolutions with ReLU and 2x2 average pooling; the maps of the last, which is not pooled, are the embedding.

    The decoder upsamples where this pools. Source: Furnari and Farinella 2021, course Machine Learning, laboratory on
    transfer and metric learning.
    """

    def __init__(self, spec: DataSpec, *, maps: Sizes) -> None:
        super().__init__()
        self.maps = (spec.channels, *maps)
        sides = [(spec.height, spec.width)]
        for _ in maps[1:]:
            sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
        if min(sides[-1]) < 1:
            raise UserError(f"images of {spec.height}x{spec.width} are too small: nothing is left after pooling")
        self.sides = sides
        layers: dict[str, nn.Module] = {}
        for number, (channels, size) in enumerate(pairwise(self.maps), start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, size, 3, padding=1)
            layers |= {f"pool{number}": nn.AvgPool2d(2)} if number < len(maps) else {}
            layers[f"relu{number}"] = nn.ReLU()
        self.features = nn.Sequential(OrderedDict(layers))
        self.dimensions = maps[-1] * math.prod(sides[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings, float [B, D], of images [B, C, H, W]."""
        maps: Tensor = self.features(images)
        return maps.flatten(1)

    def decoder(self) -> nn.Module:
        """Return a network from embeddings [B, D] to images [B, C, H, W]."""
        layers: dict[str, nn.Module] = {"unflatten": nn.Unflatten(1, (self.maps[-1], *self.sides[-1]))}
        back = list(reversed(self.maps))
        for number, (channels, size) in enumerate(pairwise(back), start=1):
            layers[f"conv{number}"] = nn.Conv2d(channels, size, 3, padding=1)
            if number < len(back) - 1:
                # ReLU before upsampling: the result is the same for a quarter of the work.
                layers[f"relu{number}"] = nn.ReLU()
                layers[f"enlarge{number}"] = nn.Upsample(size=self.sides[-1 - number])
        return nn.Sequential(OrderedDict(layers))


@MODELS.register("embedding_net")
class EmbeddingNet(Encoder):
    """LeNet with an embedding instead of scores: 5x5 convolutions with pooling, dense layers, a linear layer.

    Source: Furnari and Farinella 2021, course Machine Learning, laboratory on transfer and metric learning.
    """

    def __init__(
        self, spec: DataSpec, *, maps: Sizes, units: list[PositiveInt], dimensions: PositiveInt, batchnorm: bool
    ) -> None:
        super().__init__()
        convs = [Conv(number, kernel=5, padding=0, pool=True) for number in maps]
        plain = plain_network(
            replace(spec, outputs=dimensions), convs, units, "relu", "max", dropout=0.0, batchnorm=batchnorm
        )
        self.features, self.dense, self.code = plain.features, plain.dense, plain.head  # keys of checkpoints
        self.dimensions = dimensions

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings, float [B, D], of images [B, C, H, W]."""
        embeddings: Tensor = self.code(self.dense(self.features(images).flatten(1)))
        return embeddings


def upsampling_decoder(dimensions: int, spec: DataSpec) -> nn.Module:
    """Return a decoder for any embedding: dense to a quarter of the side, then two upsamplings with 3x3 convolutions.

    From embeddings [B, D] to images [B, C, H, W].
    """
    sides = [(max(1, spec.height // part), max(1, spec.width // part)) for part in (4, 2, 1)]
    first, second = 32, 16  # maps
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
    for number, (num_inputs, num_outputs) in enumerate(pairwise(sizes), start=1):
        layers[f"linear{number}"] = nn.Linear(num_inputs, num_outputs)
        if ends_in_relu or number < len(sizes) - 1:
            layers[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(OrderedDict(layers))
