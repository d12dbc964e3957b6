"""TrivialAugment: one of fourteen changes per image, with a strength drawn at random."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from cnnbench.augmentation.base import Augmentation, uniform_integers
from cnnbench.augmentation.color import adjust_brightness, adjust_contrast, adjust_saturation
from cnnbench.augmentation.geometry import warp
from cnnbench.registry import AUGMENTATIONS

LEVELS = 31  # strengths of a change, from none to the strongest
GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")  # done together by one `warp`
CHANGES = (
    "identity", *GEOMETRIC, "brightness", "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast",
    "equalize",
)  # fmt: skip


@AUGMENTATIONS.register("trivial", order=28)
class Trivial(Augmentation):
    """Apply one of fourteen changes to every image, all equally likely, with one of 31 strengths.

    Shear up to 0.99, translation up to 32 pixels, rotation up to 135 degrees (nearest pixel, black from outside),
    brightness, colour, contrast and sharpness up to 0.99 either way, posterize down to 2 bits, solarize, autocontrast,
    equalize, or nothing. Source: Mueller and Hutter 2021, arXiv:2103.10158, the "wide" space, as in torchvision.
    """

    num_draws = 3
    changes_pixels = True

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        change = uniform_integers(draws[:, 0], len(CHANGES))
        level = uniform_integers(draws[:, 1], LEVELS) / (LEVELS - 1)
        level = torch.where(draws[:, 2] < 0.5, -level, level)  # changes without a sign use its absolute value
        rows = ((change >= 1) & (change <= len(GEOMETRIC))).nonzero()[:, 0]
        if len(rows):
            matrices = inverse_matrices(change[rows], level[rows], images.shape[2], images.shape[3])
            images[rows] = warp(images[rows], matrices, "nearest")
        for name, change_pixels in PIXEL_CHANGES.items():
            rows = (change == CHANGES.index(name)).nonzero()[:, 0]
            if len(rows):
                images[rows] = change_pixels(images[rows], level[rows])
        return images


def inverse_matrices(change: Tensor, level: Tensor, height: int, width: int) -> Tensor:
    """Return matrices for `warp`, float32 [B, 2, 3], of geometric changes, given by their index in CHANGES, int64 [B].

    level: float32 [B] in [-1, 1]. Shears leave the upper or the left border where it is.
    """
    strongest = {"shear_x": 0.99, "shear_y": 0.99, "translate_x": 32.0, "translate_y": 32.0, "rotate": -135.0}
    shear_x, shear_y, right, down, angle = (
        torch.where(change == CHANGES.index(name), strongest[name] * level, 0) for name in GEOMETRIC
    )
    angle = torch.deg2rad(angle)
    row_x = angle.cos(), angle.sin() + shear_x, shear_x * (height / 2) - right.trunc()
    row_y = shear_y - angle.sin(), angle.cos(), shear_y * (width / 2) - down.trunc()
    return torch.stack([torch.stack(row_x, 1), torch.stack(row_y, 1)], 1)


def sharpen(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with itself smoothed over 3x3 pixels, its border as it is. factors: float [B]; 1: no change."""
    if min(images.shape[2:]) <= 2:
        return images
    kernel = torch.ones(images.shape[1], 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = conv2d(images, kernel / 13, groups=images.shape[1])
    return torch.lerp(smooth, images, factors.view(-1, 1, 1, 1)).clamp_(0, 1)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest bits of each value, of 8. bits: int64 [B]."""
    step = torch.pow(2, 8 - bits).view(-1, 1, 1, 1)
    return (_as_bytes(images) // step * step) / 255


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Invert values from a threshold on. thresholds: float [B], 0 to 255."""
    return torch.where(_as_bytes(images) >= thresholds.view(-1, 1, 1, 1), 1 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel of each image to the range from 0 to 1; a channel of a single value stays as it is."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / torch.where(high > low, high - low, 1), images)


def equalize(images: Tensor) -> Tensor:
    """Equalize the histogram, of 256 values, of every channel of each image."""
    values = _as_bytes(images).reshape(-1, images.shape[2] * images.shape[3])  # [B * C, H * W]
    number, pixels = values.shape
    offsets = 256 * torch.arange(number, device=values.device).unsqueeze(1)
    histogram = torch.bincount((values + offsets).reshape(-1), minlength=256 * number).view(number, 256)
    count_of_highest = histogram.gather(1, values.amax(1, keepdim=True))
    step = (pixels - count_of_highest) // 255
    below = histogram.cumsum(1) - histogram
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    equalized = torch.where(step == 0, values, table.gather(1, values))
    return (equalized / 255).reshape(images.shape)


def _as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().long()


PIXEL_CHANGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda images, level: adjust_brightness(images, 1 + 0.99 * level),
    "color": lambda images, level: adjust_saturation(images, 1 + 0.99 * level),
    "contrast": lambda images, level: adjust_contrast(images, 1 + 0.99 * level),
    "sharpness": lambda images, level: sharpen(images, 1 + 0.99 * level),
    "posterize": lambda images, level: posterize(images, 8 - (6 * level.abs()).round().long()),
    "solarize": lambda images, level: solarize(images, 255 * (1 - level.abs())),
    "autocontrast": lambda images, level: autocontrast(images),
    "equalize": lambda images, level: equalize(images),
}
