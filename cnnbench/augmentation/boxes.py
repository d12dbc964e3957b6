"""Rectangles in images: drawn by area and aspect ratio, and as masks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cnnbench.augmentation.placement import pick

TRIES = 10  # sides that are drawn for a rectangle until they fit, as in torchvision
BOX_DRAWS = 2 * TRIES + 2


def drawn_sides(
    draws: Tensor, areas: Sequence[float], ratios: Sequence[float], size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return sides of rectangles, int64 [B, TRIES] twice; the first side is the longer one for ratios above 1.

    draws: float32 [B, 2 * TRIES]. areas: [lowest, highest] share of the area of an image of this size, all as likely.
    ratios: [lowest, highest]; a ratio and its inverse are as likely.
    """
    area = size[0] * size[1] * _between(areas[0], areas[1], draws[:, :TRIES])
    ratio = _between(math.log(ratios[0]), math.log(ratios[1]), draws[:, TRIES:]).exp()
    return (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()


def first_fit(
    draws: Tensor, heights: Tensor, widths: Tensor, fits: Tensor, size: tuple[int, int], otherwise: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return top, left, height, width, int64 [B] each, of the first rectangle that fits, anywhere in its image.

    draws: float32 [B, 2]. heights, widths, fits: [B, TRIES]. otherwise: sides in the middle, where none fits.
    """
    first = fits.long().argmax(1, keepdim=True)
    some = fits.any(1)
    height, width = (
        torch.where(some, sides.gather(1, first)[:, 0], other)
        for sides, other in zip((heights, widths), otherwise, strict=True)
    )
    top, left = (
        torch.where(some, pick(draws[:, axis], size[axis] - side + 1), (size[axis] - side) // 2)
        for axis, side in enumerate((height, width))
    )
    return top, left, height, width


def covered(top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels lie in the rectangles, bool [B, 1, *size]; what sticks out of the image is cut off."""
    rows, columns = (torch.arange(side, device=top.device) for side in size)
    top, left, height, width = (side.view(-1, 1) for side in (top, left, height, width))
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    return (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)


def _between(low: float, high: float, draws: Tensor) -> Tensor:
    return low + (high - low) * draws
