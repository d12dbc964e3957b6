"""Augmentations that change the light: brightness, contrast, saturation."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, Room
from cnnbench.registry import AUGMENTATIONS

Strength = Annotated[float, Field(ge=0, le=1)]


@AUGMENTATIONS.register("jitter", order=30)
class Jitter(Augmentation):
    """Multiply brightness, contrast and saturation, in this order, with factors from 1 - strength to 1 + strength."""

    num_draws = 3
    paints = True

    def __init__(self, *, brightness: Strength = 0.0, contrast: Strength = 0.0, saturation: Strength = 0.0) -> None:
        self.strengths = (brightness, contrast, saturation)

    def problem(self, room: Room) -> str | None:  # noqa: D102
        if not any(self.strengths):
            return "all strengths are 0: it changes nothing; give one, or set augmentation.jitter=null"
        if room.channels == 1 and not any(self.strengths[:2]):
            return "saturation changes nothing in gray images; give brightness or contrast"
        return None

    def paint(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        blends = (adjust_brightness, adjust_contrast, adjust_saturation)
        for column, (strength, blend) in enumerate(zip(self.strengths, blends, strict=True)):
            if strength:
                images = blend(images, 1 + strength * (2 * draws[:, column] - 1))
        return images


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with black. images: float [B, C, H, W] in [0, 1]. factors: float [B]; 1 changes nothing."""
    return (images * _per_image(factors)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with the mean of its luminance. Shapes as in `adjust_brightness`."""
    mean = luminance(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _per_image(factors)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend each image with its own luminance; gray images stay as they are. Shapes as in `adjust_brightness`."""
    if images.shape[1] == 1:
        return images
    return torch.lerp(luminance(images).expand_as(images), images, _per_image(factors)).clamp_(0, 1)


def luminance(images: Tensor) -> Tensor:
    """Return the brightness of each pixel, float [B, 1, H, W] (ITU-R BT.601; rounded as in torchvision and Pillow)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _per_image(factors: Tensor) -> Tensor:
    return factors.view(-1, 1, 1, 1)
