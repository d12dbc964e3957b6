"""Augmentations that change pixel values in place: brightness, contrast, saturation, hue, blur and noise."""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn.functional import pad

from cnnbench.augmentation.base import (
    Augmentation,
    CropMargin,
    PositiveRange,
    Probability,
    RandomApply,
    uniform_integers,
)
from cnnbench.randomness import generator
from cnnbench.registry import AUGMENTATIONS

Strength = Annotated[float, Field(ge=0, le=1)]

INVISIBLE = 0.25  # sigma at which a neighbour weighs exp(-8): less than half a level of gray in 256
NUM_OFFSETS = 2**20  # of the noise bank


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError
    return size


@AUGMENTATIONS.register("jitter", order=30)
class Jitter(Augmentation):
    """Multiply brightness, contrast and saturation, in this order, with factors from 1 - strength to 1 + strength.

    hue: shifted last, by up to this share of the colour circle, either way.
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
        self.num_draws = 4 if hue else 3  # without hue, the same three draws as before it was added

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if not any(self.strengths) and not self.hue:
            return "all strengths are 0: it changes nothing; give one, or set augmentation.jitter=null"
        if margin.channels == 1 and not any(self.strengths[:2]):
            return "saturation changes nothing in gray images, nor does hue; give brightness or contrast"
        return None

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        adjustments = (adjust_brightness, adjust_contrast, adjust_saturation)
        for column, (strength, adjust) in enumerate(zip(self.strengths, adjustments, strict=True)):
            if strength:
                images = adjust(images, 1 + strength * (2 * draws[:, column] - 1))
        return adjust_hue(images, self.hue * (2 * draws[:, 3] - 1)) if self.hue else images


@AUGMENTATIONS.register("grayscale", order=32)
class Grayscale(RandomApply):
    """Remove the colours of an image with probability p; it keeps its three channels."""

    num_draws = 1

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        return "the images are gray already; set augmentation.grayscale=null" if margin.channels == 1 else None

    def change(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        return luminance(images).expand_as(images)


@AUGMENTATIONS.register("blur", order=34)
class Blur(RandomApply):
    """Blur an image with a Gaussian kernel with probability p.

    sigma: [lowest, highest] standard deviation in pixels. kernel_size: side in pixels, odd. The image is reflected at
    its border.
    """

    num_draws = 2

    def __init__(
        self,
        *,
        sigma: PositiveRange,
        kernel_size: Annotated[int, Field(ge=3, description="an odd whole number of at least 3"), AfterValidator(_odd)],
        p: Probability,
    ) -> None:
        super().__init__(p=p)
        self.sigma, self.radius = sigma, kernel_size // 2

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        if self.radius >= min(margin.height, margin.width):
            return f"kernel_size reaches beyond the reflection of {margin.height}x{margin.width} pixels; give less"
        if self.sigma[1] <= INVISIBLE:
            return f"a sigma up to {self.sigma[1]} is too little to be seen; give more than {INVISIBLE}"
        return None

    def change(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        sigma = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * draws
        distances = torch.arange(-self.radius, self.radius + 1, device=images.device)
        weights = (-0.5 * (distances / sigma).square()).exp()
        weights = weights / weights.sum(1, keepdim=True)
        padded = pad(images, [self.radius] * 4, mode="reflect")
        return _convolve(_convolve(padded, weights, 2), weights, 3)


def _convolve(images: Tensor, kernels: Tensor, axis: int) -> Tensor:
    """Convolve each image along an axis with its own kernel. kernels: float [B, K]."""
    size = images.shape[axis] - kernels.shape[1] + 1
    first, *others = (weight.view(-1, 1, 1, 1) for weight in kernels.unbind(1))
    total = images.narrow(axis, 0, size) * first
    for offset, weight in enumerate(others, 1):
        total.addcmul_(images.narrow(axis, offset, size), weight)
    return total


@AUGMENTATIONS.register("noise", order=36)
class Noise(RandomApply):
    """Add Gaussian noise to every value of an image with probability p.

    std: standard deviation; values range from 0 to 1, and are clipped to that.
    """

    num_draws = 2

    def __init__(self, *, std: Annotated[float, Field(ge=0, le=1)], p: Probability) -> None:
        super().__init__(p=p)
        self.std = std

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        return None if self.std else "std=0 adds nothing; give more, or set augmentation.noise=null"

    def change(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        return (images + self.std * normal_noise(draws[:, 0], images.shape)).clamp_(0, 1)


def normal_noise(draws: Tensor, shape: torch.Size) -> Tensor:
    """Return standard normal noise, float32 of a shape [B, C, H, W]. draws: float32 [B] in [0, 1).

    The noise of an image is cut out of a fixed bank, at an offset that its draw chooses: so it follows from the
    sample's draw alone, whatever batch the sample is in, and costs no more than a copy.
    """
    return _from_bank(torch.randn, draws, shape)


def uniform_noise(draws: Tensor, shape: torch.Size) -> Tensor:
    """Return uniform noise in [0, 1); otherwise as `normal_noise`."""
    return _from_bank(torch.rand, draws, shape)


def _from_bank(distribution: Callable[..., Tensor], draws: Tensor, shape: torch.Size) -> Tensor:
    length = shape[1:].numel()
    return (
        _bank(distribution, length, draws.device).unfold(0, length, 1)[uniform_integers(draws, NUM_OFFSETS)].view(shape)
    )


@lru_cache(maxsize=4)  # 4 MB and an image's size each
def _bank(distribution: Callable[..., Tensor], length: int, device: torch.device) -> Tensor:
    return distribution(NUM_OFFSETS + length - 1, generator=generator(0, "augmentation/noise bank")).to(device)


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


def adjust_hue(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift the hue of each image, keeping its lightest and darkest values; gray images stay as they are.

    shifts: float [B], of the colour circle: a third makes red green, green blue, and blue red.
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
    sixths = (sixths + 6 * shifts.view(-1, 1, 1)) % 6
    # How far each channel is from the lowest value to the highest: up for a third of the circle around its colour.
    shares = (sixths - 3).abs() - 1, 2 - (sixths - 2).abs(), 2 - (sixths - 4).abs()
    return torch.stack([lowest + spread * share.clamp_(0, 1) for share in shares], 1)


def luminance(images: Tensor) -> Tensor:
    """Return the luminance of each pixel, float [B, 1, H, W] (ITU-R BT.601; rounded as in torchvision and Pillow)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(1)


def _per_image(factors: Tensor) -> Tensor:
    return factors.view(-1, 1, 1, 1)
