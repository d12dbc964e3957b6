"""Augmentations of plugins, tried on a few images before anything is trained."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, CropMargin, CropPlacement
from cnnbench.errors import UserError, described, raised_at
from cnnbench.registry import AUGMENTATIONS


def check_augmentations(parts: Mapping[str, Augmentation], images: Tensor, margin: CropMargin) -> None:
    """Let each augmentation that a plugin registered act on images, float32 [B, C, H, W] in [0, 1], as batches do.

    Raises UserError, with file and line, for one that fails, or returns other shapes, types or no finite numbers.
    """
    for name, part in parts.items():
        component = AUGMENTATIONS[name]
        if component.is_from_plugin:
            try:
                with torch.random.fork_rng(devices=()):
                    problems = list(_problems(part, images, margin))
            except Exception as error:
                at = raised_at(error, component.file)
                raise UserError(
                    f"{component} fails on the first images: {at}{type(error).__name__}: {error}"
                ) from error
            if problems:
                raise UserError(f"{component}: {'; '.join(problems)}.")


def _problems(part: Augmentation, images: Tensor, margin: CropMargin) -> Iterator[str]:
    number, size = len(images), (margin.height, margin.width)
    draws = torch.rand(number, part.num_draws, generator=torch.Generator().manual_seed(0))
    draws[:1] = 0  # acts on the first at any probability
    placement = part.sample_crop(CropPlacement(*torch.zeros(2, number).long()), draws, margin)
    if not isinstance(placement, CropPlacement):
        yield f"sample_crop returns {described(placement)}, not a CropPlacement"
    crops = images[:, :, : size[0], : size[1]].contiguous(memory_format=torch.channels_last)
    if part.resizes:
        resized = part.resize(images, draws, size)
        is_image = isinstance(resized, Tensor) and resized.ndim == 4  # which may be larger
        yield from _wrong("resize", resized[:, :, : size[0], : size[1]] if is_image else resized, crops.shape)
    elif part.changes_pixels:
        yield from _wrong("apply", part.apply(crops.clone(), draws), crops.shape)
    if part.mix_probability:
        mixed = part.mix(crops, crops.flip(0), draws)
        if isinstance(mixed, tuple) and len(mixed) == 2:
            yield from _wrong("mix", mixed[0], crops.shape)
            yield from _wrong("mix", mixed[1], (number,))
        else:
            yield f"mix returns {described(mixed)}, not images and the share of each"


def _wrong(method: str, returned: Any, shape: tuple[int, ...]) -> Iterator[str]:
    """Yield what is wrong with what a method returned, which is to be float32 of a shape."""
    if not isinstance(returned, Tensor) or returned.dtype != torch.float32 or returned.shape != shape:
        yield f"{method} returns {described(returned)}, not torch.float32 of shape {tuple(shape)}"
    elif not returned.isfinite().all():
        yield f"{method} returns numbers that are not finite"
