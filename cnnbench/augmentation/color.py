"""Augmentations that change the light: brightness, contrast, saturation, hue, and colour itself."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, CropMargin, Sometimes
from cnnbench.augmentation.settings import Probability
from cnnbench.registry import AUGMENTATIONS

Strength = Annotated[float, Field(ge=0, le=1)]


@AUGMENTATIONS.register("jitter", order=30)
class Jitter(Augmentation):
    """Multiply brightness, contrast and saturation, in this order, with factors from 1 - strength to 1 + strength.

    hue: last, colours turn by up to this share of the circle of colours, either way.
    """

    changes_pixels = True

    def __init__(
        self,
        *,
        brightness: Strength = 0.0,
        contrast: Strength = 0.0,
        saturation: Strength = 0.0,
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
    ) -> None:
        self.strengths = (brightness, contrast, saturation)
        self.hue = hue
        self.num_draws = 4 if hue else 3  # three stay the three that they were before there was a hue

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if not any(self.strengths) and not self.hue:
            return "all strengths are 0: it changes nothing; give one, or set augmentation.jitter=null"
        if margin.channels == 1 and not any(self.strengths[:2]):
            return "saturation changes nothing in gray images, nor does hue; give brightness or contrast"
        return None

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        blends = (adjust_brightness, adjust_contrast, adjust_saturation)
        for column, (strength, blend) in enumerate(zip(self.strengths, blends, strict=True)):
            if strength:
                images = blend(images, 1 + strength * (2 * draws[:, column] - 1))
        return turn_hue(images, self.hue * (2 * draws[:, 3] - 1)) if self.hue else images


@AUGMENTATIONS.register("grayscale", order=32)
class Grayscale(Sometimes):
    """Take the colours out of an image with probability p; it keeps its three channels."""

    num_draws = 1

    def __init__(self, *, p: Probability) -> None:
        super().__init__(p)

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        return "the images are gray already; set augmentation.grayscale=null" if margin.channels == 1 else None

    def change(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        return luminance(images).expand_as(images)


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


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the colours of each image, its lightest and darkest values kept; gray images stay as they are.

    turns: float [B], of the circle of colours: a third makes red green, green blue, and blue red.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    highest, lowest = images.amax(1), images.amin(1)
    spread = highest - lowest
    divisor = torch.where(spread == 0, 1, spread)
    of_green, of_blue = 2 + (blue - red) / divisor, 4 + (red - green) / divisor
    sixths = torch.where(highest == green, of_green, of_blue)
    sixths = torch.where(highest == red, (green - blue) / divisor, sixths)
    sixths = (sixths + 6 * turns.view(-1, 1, 1)) % 6
    # How far each channel is from the lowest value to the highest: up for a third of the circle around its colour.
    shares = (sixths - 3).abs() - 1, 2 - (sixths - 2).abs(), 2 - (sixths - 4).abs()
    return torch.stack([lowest + spread * share.clamp_(0, 1) for share in shares], 1)


def luminance(images: Tensor) -> Tensor:
    """Return the brightness of each pixel, float [B, 1, H, W] (ITU-R BT.601; rounded as in torchvision and Pillow)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _per_image(factors: Tensor) -> Tensor:
    return factors.view(-1, 1, 1, 1)
