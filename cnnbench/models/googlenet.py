"""GoogLeNet: Inception blocks, with branches of several kernel sizes."""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.models.plain import Dropout, PlainNetwork
from cnnbench.registry import MODELS

# 1x1; 3x3 reduced, 3x3; 5x5 reduced, 5x5; pooled
BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


class Inception(nn.Module):
    """Four branches over one input, their maps concatenated."""

    def __init__(self, channels: int, sizes: tuple[int, int, int, int, int, int], wide_kernel: int) -> None:
        super().__init__()
        one, reduced3, three, reduced5, five, pooled = sizes
        self.one = _convolution(channels, one, 1)
        self.three = nn.Sequential(_convolution(channels, reduced3, 1), _convolution(reduced3, three, 3))
        self.five = nn.Sequential(_convolution(channels, reduced5, 1), _convolution(reduced5, five, wide_kernel))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), _convolution(channels, pooled, 1))
        self.channels = one + three + five + pooled

    def forward(self, images: Tensor) -> Tensor:
        """Return [B, self.channels, H, W] of [B, C, H, W]."""
        return torch.cat([self.one(images), self.three(images), self.five(images), self.pooled(images)], dim=1)


@MODELS.register("googlenet_v1")
def googlenet_v1(
    spec: DataSpec, *, stem: Literal["imagenet", "cifar"], wide_kernel: Literal[3, 5], dropout: Dropout = 0.0
) -> PlainNetwork:
    """GoogLeNet without auxiliary classifiers and without normalisation.

    stem: imagenet, for 224x224, reduces the side to an eighth; cifar: 3x3 convolutions that keep it. wide_kernel: of
    the branch called 5x5; many implementations have 3, as do the notes that this follows. dropout: before the head.
    Source: Szegedy et al. 2015, arXiv:1409.4842.
    """
    features: dict[str, nn.Module] = {"stem": _stem(spec.channels, stem)}
    channels = 192
    for name, sizes in BLOCKS.items():
        if name in ("4a", "5a"):
            features[f"pool{int(name[0]) - 1}"] = nn.MaxPool2d(3, stride=2, padding=1)
        block = Inception(channels, sizes, wide_kernel)
        features[f"inception{name}"], channels = block, block.channels
    features["pool"] = nn.AdaptiveAvgPool2d(1)
    dense = nn.Sequential(nn.Dropout(dropout)) if dropout else nn.Sequential()
    head = nn.Sequential(OrderedDict(linear=nn.Linear(channels, spec.num_outputs)))
    return PlainNetwork(nn.Sequential(OrderedDict(features)), dense, head)


def _stem(channels: int, kind: str) -> nn.Sequential:
    if kind == "cifar":
        return nn.Sequential(_convolution(channels, 64, 3), _convolution(64, 192, 3))
    return nn.Sequential(
        nn.Conv2d(channels, 64, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1),
        _convolution(64, 192, 1), _convolution(192, 192, 3), nn.MaxPool2d(3, stride=2, padding=1),
    )  # fmt: skip


def _convolution(channels: int, maps: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, maps, kernel, padding=kernel // 2), nn.ReLU())
