"""Grain in images: the noise of an image is cut out of a fixed bank, at a place that a draw chooses.

So it follows from the sample's draws alone, whatever batch the sample is in, and costs no more than a copy.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from cnnbench.augmentation.base import CropMargin, Sometimes
from cnnbench.augmentation.placement import pick
from cnnbench.augmentation.settings import Probability
from cnnbench.randomness import generator
from cnnbench.registry import AUGMENTATIONS

PLACES = 2**20  # where noise can be cut out


@AUGMENTATIONS.register("noise", order=36)
class Noise(Sometimes):
    """Add Gaussian noise to every value of an image with probability p.

    std: standard deviation; values reach from 0 to 1, and stay in there.
    """

    num_draws = 2

    def __init__(self, *, std: Annotated[float, Field(ge=0, le=1)], p: Probability) -> None:
        super().__init__(p)
        self.std = std

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        return None if self.std else "std=0 adds nothing; give more, or set augmentation.noise=null"

    def change(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        return (images + self.std * normal_noise(draws[:, 0], images.shape)).clamp_(0, 1)


def normal_noise(draws: Tensor, shape: torch.Size) -> Tensor:
    """Return normal numbers (mean 0, deviation 1), float32 of a shape [B, C, H, W]. draws: float32 [B] in [0, 1)."""
    return _cut(_bank(torch.randn, shape[1:].numel(), draws.device), draws, shape)


def uniform_noise(draws: Tensor, shape: torch.Size) -> Tensor:
    """Return numbers in [0, 1), all as likely; otherwise as `normal_noise`."""
    return _cut(_bank(torch.rand, shape[1:].numel(), draws.device), draws, shape)


def _cut(bank: Tensor, draws: Tensor, shape: torch.Size) -> Tensor:
    return bank.unfold(0, shape[1:].numel(), 1)[pick(draws, PLACES)].view(shape)


@lru_cache(maxsize=4)  # 4 MB and an image's size each
def _bank(kind: Callable[..., Tensor], length: int, device: torch.device) -> Tensor:
    return kind(PLACES + length - 1, generator=generator(0, "augmentation/noise bank")).to(device)
