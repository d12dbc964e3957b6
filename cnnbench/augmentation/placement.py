"""Augmentations that only choose which pixels of an image are seen: random windows, and mirror images."""

from dataclasses import replace
from typing import Any

from pydantic import NonNegativeInt
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, CropMargin, CropPlacement
from cnnbench.augmentation.settings import Probability
from cnnbench.registry import AUGMENTATIONS


@AUGMENTATIONS.register("crop", order=10)
class Crop(Augmentation):
    """Put the window of `data.crop` anywhere in the image, after padding each side with black pixels."""

    num_draws = 2
    moves = True

    def __init__(self, *, padding: NonNegativeInt = 0) -> None:
        self.padding = padding

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if margin.down or margin.right:
            return None
        return "the window is the whole image, it cannot move; set data.crop or augmentation.crop.padding"

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:  # noqa: D102
        return replace(placement, top=pick(draws[:, 0], margin.down + 1), left=pick(draws[:, 1], margin.right + 1))


@AUGMENTATIONS.register("flip", order=20)
class Flip(Augmentation):
    """Mirror an image, left to right, with probability p."""

    num_draws = 1

    def __init__(self, *, p: Probability) -> None:
        self.p = p

    def is_off(self) -> bool:  # noqa: D102
        return self.p == 0

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:  # noqa: D102
        return replace(placement, mirrored=draws[:, 0] < self.p)


@AUGMENTATIONS.register("vertical_flip", order=22)
class VerticalFlip(Flip):
    """Mirror an image, top to bottom, with probability p."""

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:  # noqa: D102
        return replace(placement, vflipped=draws[:, 0] < self.p)


def pick(draws: Tensor, number: int | Tensor) -> Tensor:
    """Return whole numbers from 0 to number - 1, all as likely, from draws in [0, 1); number: for all, or each's."""
    last: Any = number - 1
    return (draws * number).long().clamp_(max=last)  # float32 can round up to the number itself
