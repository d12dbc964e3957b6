"""Random crops and flips: which part of an image the network sees."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor

from cnnbench.augmentation.base import (
    AreaRange,
    Augmentation,
    CropMargin,
    CropPlacement,
    PositiveRange,
    Probability,
    uniform_integers,
)
from cnnbench.registry import AUGMENTATIONS

TRIES = 10  # boxes drawn per image until one fits, as in torchvision
BOX_DRAWS = 2 * TRIES + 2


@AUGMENTATIONS.register("crop", order=10)
class Crop(Augmentation):
    """Place the crop of `data.crop` anywhere in the image, after padding each side with black pixels."""

    num_draws = 2
    moves = True

    def __init__(self, *, padding: NonNegativeInt = 0) -> None:
        self.padding = padding

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if margin.down or margin.right:
            return None
        return "the crop is the whole image, it cannot move; set data.crop or augmentation.crop.padding"

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:  # noqa: D102
        top, left = uniform_integers(draws[:, 0], margin.down + 1), uniform_integers(draws[:, 1], margin.right + 1)
        return replace(placement, top=top, left=left)


@AUGMENTATIONS.register("flip", order=20)
class Flip(Augmentation):
    """Flip an image horizontally with probability p."""

    num_draws = 1

    def __init__(self, *, p: Probability) -> None:
        self.p = p

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:  # noqa: D102
        return replace(placement, hflipped=draws[:, 0] < self.p)


@AUGMENTATIONS.register("vertical_flip", order=22)
class VerticalFlip(Flip):
    """Flip an image vertically with probability p."""

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:  # noqa: D102
        return replace(placement, vflipped=draws[:, 0] < self.p)


@AUGMENTATIONS.register("resized_crop", order=12, excludes=("crop",))
class ResizedCrop(Augmentation):
    """Cut a box of random size and shape out of the image and resize it to the crop.

    scale: share of the image's area. ratio: width / height. side: resize to this larger square first, whose centre is
    the crop, so that augmentations after it (a rotation, say) have a margin; None: resize to the crop. Bilinear,
    antialiased. Boxes are drawn like torchvision's RandomResizedCrop: where none of ten fits, the largest centred one
    is taken. Source: Szegedy et al. 2015, arXiv:1409.4842.
    """

    num_draws = BOX_DRAWS
    resizes = True
    takes_box = True

    def __init__(self, *, scale: AreaRange, ratio: PositiveRange, side: PositiveInt | None = None) -> None:
        self.scale, self.ratio, self.side = scale, ratio, side

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if self.side is not None and self.side < max(margin.height, margin.width):
            return f"side={self.side} is smaller than the crop, which is {margin.height}x{margin.width}"
        return "always takes the whole image; let scale begin below 1" if self.scale[0] == 1 else None

    def sample_box(self, draws: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # noqa: D102
        widths, heights = sample_sides(draws[:, 2:], self.scale, self.ratio, (height, width))
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        largest = min(height, round(width / self.ratio[0])) or 1, min(width, round(height * self.ratio[1])) or 1
        return first_fit(draws[:, :2], heights, widths, fits, (height, width), largest)

    def resized_to(self, size: tuple[int, int]) -> tuple[int, int]:  # noqa: D102
        return size if self.side is None else (self.side, self.side)

    def resize(self, images: Tensor, draws: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: D102
        new_height, new_width = self.resized_to(size)
        number, channels, height, width = images.shape
        top, left, tall, wide = self.sample_box(draws, height, width)
        by_row, by_column = (
            resize_matrices(top, tall, height, new_height),
            resize_matrices(left, wide, width, new_width),
        )
        # Channels last, so that each image is one matrix and not one per channel: two large products for many small.
        rows = by_row @ images.permute(0, 2, 3, 1).reshape(number, height, width * channels)
        rows = (
            rows.view(number, new_height, width, channels).transpose(1, 2).reshape(number, width, new_height * channels)
        )
        return (by_column @ rows).view(number, new_width, new_height, channels).permute(0, 3, 2, 1)


def resize_matrices(start: Tensor, length: Tensor, size: int, new_size: int) -> Tensor:
    """Return matrices, float32 [B, new_size, size], that resize `length` of `size` pixels, from `start` on.

    start, length: int64 [B]. A new pixel is the mean of the pixels near it, weighted by a triangle that reaches as far
    as the next pixel on either side, old or new, whichever is farther.
    """
    step = (length / new_size).view(-1, 1, 1)
    pixels = torch.arange(size, device=start.device)
    centres = start.view(-1, 1, 1) + (torch.arange(new_size, device=start.device).view(-1, 1) + 0.5) * step
    weights = (1 - (pixels + 0.5 - centres).abs() / step.clamp(min=1)).clamp(min=0)
    outside = (pixels < start.view(-1, 1, 1)) | (pixels >= (start + length).view(-1, 1, 1))
    weights = weights.masked_fill(outside, 0)
    return weights / weights.sum(2, keepdim=True)


def sample_sides(
    draws: Tensor, areas: Sequence[float], ratios: Sequence[float], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the sides of boxes, int64 [B, TRIES] twice; the first side is the longer one for ratios above 1.

    draws: float32 [B, 2 * TRIES]. areas: [lowest, highest] share of the area of an image of `size`, uniform.
    ratios: [lowest, highest], log-uniform, so that a ratio and its inverse are equally likely.
    """
    area = size[0] * size[1] * _between(areas[0], areas[1], draws[:, :TRIES])
    ratio = _between(math.log(ratios[0]), math.log(ratios[1]), draws[:, TRIES:]).exp()
    return (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()


def first_fit(
    draws: Tensor, heights: Tensor, widths: Tensor, fits: Tensor, size: tuple[int, int], fallback: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return top, left, height and width, int64 [B] each, of the first box that fits, placed uniformly.

    draws: float32 [B, 2]. heights, widths, fits: [B, TRIES]. fallback: sides of a centred box, where none fits.
    """
    first = fits.long().argmax(1, keepdim=True)
    any_fits = fits.any(1)
    height, width = (
        torch.where(any_fits, sides.gather(1, first)[:, 0], other)
        for sides, other in zip((heights, widths), fallback, strict=True)
    )
    top, left = (
        torch.where(any_fits, uniform_integers(draws[:, axis], size[axis] - side + 1), (size[axis] - side) // 2)
        for axis, side in enumerate((height, width))
    )
    return top, left, height, width


def _between(low: float, high: float, draws: Tensor) -> Tensor:
    return low + (high - low) * draws
