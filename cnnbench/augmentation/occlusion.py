"""Augmentations that hide a part of an image."""

from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from cnnbench.augmentation.base import (
    AreaRange,
    CropMargin,
    PositiveRange,
    Probability,
    RandomApply,
    uniform_integers,
)
from cnnbench.augmentation.color import uniform_noise
from cnnbench.augmentation.crop import BOX_DRAWS, first_fit, sample_sides
from cnnbench.registry import AUGMENTATIONS


@AUGMENTATIONS.register("erasing", order=40)
class Erasing(RandomApply):
    """Cover a box of random size and shape, anywhere in an image, with probability p.

    scale: share of the image's area. ratio: height / width. value: what covers it, from 0 (black) to 1, or `random` for
    noise. Boxes are drawn like torchvision's RandomErasing: where none of ten fits, the image stays as it is.
    Source: Zhong et al. 2020, arXiv:1708.04896.
    """

    num_draws = 2 + BOX_DRAWS

    def __init__(
        self,
        *,
        p: Probability,
        scale: AreaRange,
        ratio: PositiveRange,
        value: Annotated[float, Field(ge=0, le=1)] | Literal["random"],
    ) -> None:
        super().__init__(p=p)
        self.scale, self.ratio, self.value = scale, ratio, value

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        area, shape = margin.height * margin.width, margin.height / margin.width
        if area * self.scale[1] < 0.5:
            return f"scale up to {self.scale[1]} is less than a pixel of {margin.height}x{margin.width}; give more"
        ratio = min(max(shape, self.ratio[0]), self.ratio[1])  # the one that fits best
        sides = round((area * self.scale[0] * ratio) ** 0.5), round((area * self.scale[0] / ratio) ** 0.5)
        if sides[0] >= margin.height or sides[1] >= margin.width:
            return f"no box of this scale and ratio fits into {margin.height}x{margin.width} pixels; give less"
        return None

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        height, width = size = (images.shape[2], images.shape[3])
        heights, widths = sample_sides(draws[:, 4:], self.scale, self.ratio, size)
        fits = (heights < height) & (widths < width) & (draws[:, :1] < self.p)
        box = box_mask(*first_fit(draws[:, 2:4], heights, widths, fits, size, fallback=(0, 0)), size)
        if self.value == "random":
            return torch.where(box, uniform_noise(draws[:, 1], images.shape), images)
        return images.masked_fill_(box, self.value)


@AUGMENTATIONS.register("cutout", order=42)
class Cutout(RandomApply):
    """Cover a square with black with probability p; its centre is any pixel, so it may extend beyond the border.

    size: side in pixels. Source: DeVries and Taylor 2017, arXiv:1708.04552.
    """

    num_draws = 3

    def __init__(self, *, size: PositiveInt, p: Probability) -> None:
        super().__init__(p=p)
        self.size = size

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if self.size <= min(margin.height, margin.width):
            return None
        return f"size={self.size} is larger than the crop of {margin.height}x{margin.width} pixels; give less"

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        size = (images.shape[2], images.shape[3])
        top, left = (uniform_integers(draws[:, 1 + axis], size[axis]) - self.size // 2 for axis in (0, 1))
        sides = torch.where(draws[:, 0] < self.p, self.size, 0)
        return images.masked_fill_(box_mask(top, left, sides, sides, size), 0)


def box_mask(top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels lie in the boxes, bool [B, 1, *size]; boxes may extend beyond the image."""
    rows, columns = (torch.arange(side, device=top.device) for side in size)
    top, left, height, width = (side.view(-1, 1) for side in (top, left, height, width))
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    return (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)
