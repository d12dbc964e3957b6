"""The augmentation interface that the batch loader calls, and the types of settings that augmentations share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, PositiveFloat
from torch import Tensor

from cnnbench.errors import described, try_out
from cnnbench.registry import AUGMENTATIONS


def _ascending(values: list[float]) -> list[float]:
    if values[0] > values[1]:
        raise ValueError
    return values


Probability = Annotated[float, Field(ge=0, le=1)]
AreaRange = Annotated[
    list[Annotated[float, Field(gt=0, le=1)]],
    Field(min_length=2, max_length=2, description="[lowest, highest] share of an image's area, above 0 and at most 1"),
    AfterValidator(_ascending),
]
PositiveRange = Annotated[
    list[PositiveFloat],
    Field(min_length=2, max_length=2, description="[lowest, highest], two numbers above 0"),
    AfterValidator(_ascending),
]


@dataclass(frozen=True)
class CropMargin:
    """By how many pixels the crop can move down and right in the padded image, and the shape of the crop.

    down, right: int64 [B] where images differ in size.
    """

    down: int | Tensor
    right: int | Tensor
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class CropPlacement:
    """Where in its image the crop of each sample lies, and how it is flipped.

    top, left: int64 [B]. hflipped, vflipped: bool [B], or None for no flip at all.
    """

    top: Tensor
    left: Tensor
    hflipped: Tensor | None = None
    vflipped: Tensor | None = None


class Augmentation:
    """One augmentation with its settings; subclasses override one of `sample_crop`, `resize`, `apply` and `mix`.

    num_draws: uniform random numbers needed per sample.
    padding: black pixels to add on every side of an image.
    moves: whether it chooses where the crop lies, which is centred otherwise.
    resizes: whether it makes the crop from the whole image.
    takes_box: whether it makes it from a box of the image, which `sample_box` chooses, and of which alone it depends.
    changes_pixels: whether it changes pixel values.
    mix_probability: of mixing a sample with another one of its batch; each sample is mixed at most once.
    p: probability of acting on a sample; 0 switches it off.
    """

    p = 1.0
    num_draws = 0
    padding = 0
    moves = False
    resizes = False
    takes_box = False
    changes_pixels = False
    mix_probability = 0.0

    def is_off(self) -> bool:
        """Return whether the settings switch it off on purpose."""
        return self.p == 0

    def problem(self, margin: CropMargin) -> str | None:
        """Return why it would change no image at all, or None where it does change some."""
        return None

    def sample_crop(self, placement: CropPlacement, draws: Tensor, margin: CropMargin) -> CropPlacement:
        """Return the crops moved or flipped. draws: float32 [B, num_draws] in [0, 1)."""
        return placement

    def resize(self, images: Tensor, draws: Tensor, size: tuple[int, int]) -> Tensor:
        """Return crops, float32 [B, C, *size] or larger, of whole images [B, C, H, W]; values in [0, 1]."""
        return images

    def sample_box(self, draws: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return top, left, height and width, int64 [B] each, of boxes in images of a size: all of it, by default."""
        zeros = draws.new_zeros(len(draws)).long()
        return zeros, zeros, zeros + height, zeros + width

    def resized_to(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that a box is resized to, at least those of the crop, `size`."""
        return size

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the images changed. images: float32 [B, C, H, W] in [0, 1]; the input may be overwritten."""
        return images

    def mix(self, images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Return images mixed with their partners (float32 [M, C, H, W], normalised), and their own share [M]."""
        return images, images.new_ones(len(images))


class RandomApply(Augmentation):
    """An augmentation that changes the pixels of each image with probability p; the first draw decides.

    Subclasses override `change`, or `apply` where changing nothing in the other images costs less.
    """

    changes_pixels = True

    def __init__(self, *, p: Probability) -> None:
        self.p = p

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        rows = (draws[:, 0] < self.p).nonzero()[:, 0]
        if len(rows):
            images[rows] = self.change(images[rows], draws[rows, 1:])
        return images

    def change(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return the selected images changed. draws: float32 [M, num_draws - 1]; images as in `apply`."""
        return images


def uniform_integers(draws: Tensor, number: int | Tensor) -> Tensor:
    """Return integers from 0 to number - 1, int64 [B], equally likely, from draws in [0, 1). number: one, or [B]."""
    last: Any = number - 1
    return (draws * number).long().clamp_(max=last)  # float32 can round up to the number itself


def check_augmentations(parts: Mapping[str, Augmentation], images: Tensor, margin: CropMargin) -> list[str]:
    """Let each augmentation of a plugin act on images, float32 [B, C, H, W] in [0, 1], as batches do.

    Return a note on each that returns another range of values, as one for pixels from 0 to 255 does.
    Raises UserError for one that fails, or returns another shape or type, or what is not finite.
    """
    notes: list[str] = []
    shape = (len(images), margin.channels, margin.height, margin.width)
    contract = f"It gets images, torch.float32 of shape {shape} in [0, 1], and has to return such images"
    for name, part in parts.items():
        if AUGMENTATIONS[name].is_from_plugin:
            given = contract + " and a share of each" * bool(part.mix_probability)
            with torch.random.fork_rng(devices=()):
                problems = _problems(name, part, images, margin, notes)
                try_out(AUGMENTATIONS[name], problems, given)
    return notes


def _problems(name: str, part: Augmentation, images: Tensor, margin: CropMargin, notes: list[str]) -> Iterator[str]:
    number, size = len(images), (margin.height, margin.width)
    draws = torch.rand(number, part.num_draws, generator=torch.Generator().manual_seed(0))
    draws[:1] = 0  # acts on the first at any probability
    part.sample_crop(CropPlacement(*torch.zeros(2, number).long()), draws, margin)
    crops = images[:, :, : size[0], : size[1]].contiguous(memory_format=torch.channels_last)
    returned: dict[str, Any] = {}
    if part.resizes:
        returned["resize"] = part.resize(images, draws, size)[:, :, : size[0], : size[1]]  # it may be larger
    elif part.changes_pixels:
        returned["apply"] = part.apply(crops.clone(), draws)
    if part.mix_probability:
        mixed: Any = part.mix(crops, crops.flip(0), draws)
        returned["mix"] = mixed[0] if isinstance(mixed, tuple) and len(mixed) == 2 else [mixed]
    for method, result in returned.items():
        if not isinstance(result, Tensor) or result.dtype != torch.float32 or result.shape != crops.shape:
            share = ", and a share of each" * (method == "mix")
            yield f"{method} returns {described(result)}, not torch.float32 of shape {tuple(crops.shape)}{share}"
        elif not result.isfinite().all():
            yield f"{method} returns numbers that are not finite"
        elif method != "mix" and _is_rescaled(crops, result):
            ranges = [f"{float(some.min()):.3g} to {float(some.max()):.3g}" for some in (crops, result)]
            notes.append(
                f"augmentation.{name}: {method} gets pixels from {ranges[0]}, and returns {ranges[1]}; the network "
                "expects [0, 1], which are normalised afterwards"
            )


def _is_rescaled(images: Tensor, returned: Tensor) -> bool:
    """Tell whether pixels have another range: that of bytes, divided by 255, normalised; noise alone does not."""
    lowest, highest = float(returned.min()), float(returned.max())
    return lowest < -1 or highest > 2 or 0 < highest < float(images.max()) / 50
