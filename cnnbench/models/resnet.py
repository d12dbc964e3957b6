"""ResNet: residual blocks."""

from collections import OrderedDict
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.models.plain import Dropout, PlainNetwork, num_features
from cnnbench.registry import MODELS


class StochasticDepth(nn.Module):
    """Drop the residual of a block, per sample with probability p, in training.

    Source: Huang et al. 2016, arXiv:1603.09382.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, residual: Tensor) -> Tensor:
        """Return [B, C, H, W]; what is kept is scaled up, so that the mean does not change."""
        if not self.training or self.p == 0:
            return residual
        kept = residual.new_empty(len(residual), 1, 1, 1).bernoulli_(1 - self.p)
        return residual * kept / (1 - self.p)


class Block(nn.Module):
    """Two 3x3 convolutions, or, as a bottleneck, 1x1, 3x3 and 1x1, the last with four times as many maps."""

    def __init__(self, channels: int, maps: int, stride: int, bottleneck: bool, drop: float) -> None:
        super().__init__()
        self.channels = 4 * maps if bottleneck else maps
        if bottleneck:
            steps = [(channels, maps, 1, 1), (maps, maps, 3, stride), (maps, self.channels, 1, 1)]
        else:
            steps = [(channels, maps, 3, stride), (maps, maps, 3, 1)]
        layers: list[nn.Module] = []
        for source, target, kernel, step in steps:
            layers += [*_convolution(source, target, kernel, step), nn.ReLU()]
        self.residual = nn.Sequential(*layers[:-1])
        self.drop = StochasticDepth(drop)
        is_same = channels == self.channels and stride == 1
        self.shortcut = nn.Sequential() if is_same else nn.Sequential(*_convolution(channels, self.channels, 1, stride))
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, self.channels, H', W'] of [B, C, H, W]."""
        outputs: Tensor = self.relu(self.shortcut(images) + self.drop(self.residual(images)))
        return outputs


@MODELS.register("resnet")
def resnet(
    spec: DataSpec,
    *,
    blocks: Annotated[list[PositiveInt], Field(min_length=1, max_length=6)],
    bottleneck: bool,
    width: PositiveInt,
    stem: Literal["imagenet", "cifar"],
    stem_bias: bool = False,
    pool: Literal["global", "none"] = "global",
    dropout: Dropout = 0.0,
    stochastic_depth: Dropout = 0.0,
) -> PlainNetwork:
    """ResNet of any depth.

    blocks: of each stage; every stage except the first halves the side and doubles the maps. width: maps of the first.
    stem: imagenet, 7x7 and pooled, reduces the side to a quarter; cifar, 3x3, keeps it. pool: `none` gives the head
    every pixel of the last maps. dropout: before the head. stochastic_depth: probability of dropping the residual of
    the last block; it increases linearly from block to block. Source: He et al. 2016, arXiv:1512.03385.
    """
    kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
    features: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(spec.channels, width, kernel, stride, kernel // 2, bias=stem_bias),
        "norm1": nn.BatchNorm2d(width),
        "relu1": nn.ReLU(),
    }
    if stem == "imagenet":
        features["pool1"] = nn.MaxPool2d(3, stride=2, padding=1)
    channels, done = width, 0
    for stage, depth in enumerate(blocks):
        for number in range(depth):
            done += 1
            drop = stochastic_depth * done / sum(blocks)
            first = 2 if stage and number == 0 else 1
            block = Block(channels, width * 2**stage, first, bottleneck, drop)
            features[f"block{stage + 2}_{number + 1}"], channels = block, block.channels
    if pool == "global":
        features["pool"] = nn.AdaptiveAvgPool2d(1)
    body = nn.Sequential(OrderedDict(features))
    dense = nn.Sequential(nn.Dropout(dropout)) if dropout else nn.Sequential()
    size = channels if pool == "global" else num_features(body, spec)
    return PlainNetwork(body, dense, nn.Sequential(OrderedDict(linear=nn.Linear(size, spec.num_outputs))))


def _convolution(channels: int, maps: int, kernel: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, maps, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(maps)]
