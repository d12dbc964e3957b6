"""Rotation and affine augmentation: every pixel is sampled from another place, black from outside the image."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import grid_sample

from cnnbench.augmentation.base import Augmentation, CropMargin, PositiveRange, Probability
from cnnbench.registry import AUGMENTATIONS

Angle = Annotated[float, Field(ge=0, le=180)]
UNSCALED = [1.0, 1.0]


@AUGMENTATIONS.register("rotation", order=24)
class Rotation(Augmentation):
    """Rotate an image about its centre by an angle from -degrees to degrees, bilinear; corners become black."""

    num_draws = 1
    changes_pixels = True

    def __init__(self, *, degrees: Angle) -> None:
        self.degrees = degrees

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        return None if self.degrees else "rotates nothing; give degrees above 0, or set augmentation.rotation=null"

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        zeros = torch.zeros_like(draws[:, 0])
        angles = torch.deg2rad(-self.degrees * (2 * draws[:, 0] - 1))  # counter-clockwise if positive
        return warp(images, inverse_affine(angles, zeros, zeros, zeros + 1, zeros), "bilinear")


@AUGMENTATIONS.register("affine", order=26)
class Affine(Augmentation):
    """Shear an image along x, scale, rotate and translate it, bilinear, black from outside.

    degrees, shear: angles from -x to x. translate: whole pixels, up to this share of width and of height, either way.
    scale: [lowest, highest] factor. Drawn like torchvision's RandomAffine.
    """

    num_draws = 5
    changes_pixels = True

    def __init__(
        self,
        *,
        degrees: Angle = 0.0,
        translate: Probability = 0.0,
        scale: PositiveRange = UNSCALED,
        shear: Annotated[float, Field(ge=0, lt=90)] = 0.0,
    ) -> None:
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if self.degrees or self.shear or self.scale != UNSCALED:
            return None
        if self.translate:
            reach = self.translate * max(margin.height, margin.width)
            return None if reach > 0.5 else f"translate={self.translate} is less than half a pixel: it moves nothing"
        return "no setting changes anything; give one of them, or set augmentation.affine=null"

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        height, width = images.shape[2:]
        angle, right, down, _, shear = (2 * draws - 1).unbind(1)
        matrices = inverse_affine(
            torch.deg2rad(self.degrees * angle),
            (self.translate * width * right).round(),
            (self.translate * height * down).round(),
            self.scale[0] + (self.scale[1] - self.scale[0]) * draws[:, 3],
            torch.deg2rad(self.shear * shear),
        )
        return warp(images, matrices, "bilinear")


def inverse_affine(angle: Tensor, right: Tensor, down: Tensor, scale: Tensor, shear: Tensor) -> Tensor:
    """Return matrices for `warp`, float32 [B, 2, 3], that shear, scale and rotate about the centre, then translate.

    angle (clockwise), shear (along x): radians. right, down: pixels. All float32 [B].
    """
    cos, sin, slope = angle.cos(), angle.sin(), shear.tan()
    forward_x, forward_y = (cos, -cos * slope - sin), (sin, -sin * slope + cos)  # of determinant 1, without the scale
    xx, xy, yx, yy = forward_y[1] / scale, -forward_x[1] / scale, -forward_y[0] / scale, forward_x[0] / scale
    rows = (xx, xy, -(xx * right + xy * down)), (yx, yy, -(yx * right + yy * down))
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def warp(images: Tensor, matrices: Tensor, mode: str) -> Tensor:
    """Return images with every pixel sampled from another place, black from outside.

    images: float32 [B, C, H, W]. mode: bilinear or nearest.
    matrices: float32 [B, 2, 3], from a pixel's place (x, y, 1) to where it is sampled; in pixels, from the centre.
    """
    height, width = images.shape[2:]
    x, y = (torch.arange(side, device=images.device) - (side - 1) / 2 for side in (width, height))
    # Products, not a matrix product, which a GPU may compute in TF32: places would be off by hundredths of a pixel.
    from_x, from_y = (
        row[:, 0].view(-1, 1, 1) * x + (row[:, 1].view(-1, 1, 1) * y.view(-1, 1) + row[:, 2].view(-1, 1, 1))
        for row in matrices.unbind(1)
    )
    grid = torch.stack([from_x * (2 / width), from_y * (2 / height)], 3)
    return grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)
