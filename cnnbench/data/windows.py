"""What batches see of photographs: windows of pictures that differ in size, each read alone."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnnbench.augmentation.base import Augmentation, CropMargin, CropPlacement
from cnnbench.data.images import Images, Pictures, Stream


class Windows:
    """Crops, or boxes that are resized, out of whole pictures or of their squares.

    size: height and width of what is cut. margin: of the largest picture.
    """

    def __init__(
        self, pictures: Pictures, rows: Tensor, augmentations: Mapping[str, Augmentation], crop: tuple[int, int]
    ) -> None:
        self._pictures, self._rows, self._augmentations, self._crop = pictures, rows, augmentations, crop
        parts = augmentations.values()
        self._box = next(((name, part) for name, part in augmentations.items() if part.takes_box), None)
        self._moves = any(part.moves for part in parts)
        self._padding = max((part.padding for part in parts), default=0)
        is_random = self._moves or self._box is not None
        self._areas = pictures.areas(pictures.fit == "whole" and is_random)[rows]
        self.size = crop if self._box is None else self._box[1].resized_to(crop)
        room = self._room(self._areas)
        down, right = room.amax(0).tolist() if self._moves and len(rows) else (0, 0)
        self.margin = CropMargin(down, right, pictures.channels, *crop)

    def cut(self, rows: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, CropPlacement]:
        """Return what is cut out, uint8 [B, h, w*C], and how it is to be flipped; all of it on the CPU. rows: [B]."""
        areas = self._areas[rows]
        room = self._room(areas)
        free, start = (room, torch.zeros_like(room)) if self._moves else (torch.zeros_like(room), room // 2)
        margin = CropMargin(free[:, 0], free[:, 1], self._pictures.channels, *self._crop)
        placement = CropPlacement(start[:, 0], start[:, 1])
        for name, part in self._augmentations.items():
            placement = part.sample_crop(placement, draws[name], margin)
        if self._box is None:
            corners = torch.stack([placement.top, placement.left], 1) - self._padding
            places = torch.cat([corners, torch.tensor(self._crop).expand(len(rows), 2)], 1)
        else:
            name, part = self._box
            sizes = zip(torch.split(draws[name], 1), areas[:, 2:].tolist(), strict=True)
            places = torch.cat([torch.stack(part.sample_box(draw, *size), 1) for draw, size in sizes])
        pixels = torch.empty(len(rows), *self.size, self._pictures.channels, dtype=torch.uint8)
        numbers = self._rows[rows].tolist(), areas.tolist(), places.tolist()
        for target, row, area, place in zip(pixels.numpy(), *numbers, strict=True):
            window = _resized(self._pictures.window(row, area, place), self.size)
            np.copyto(target, window.numpy())  # a quarter of the time that torch takes for lines of a wider image
        return pixels.flatten(2), placement

    def _room(self, areas: Tensor) -> Tensor:
        """Return how far the crop can move down and right in padded areas, int64 [B, 2]. areas: int64 [B, 4]."""
        return areas[:, 2:] + 2 * self._padding - torch.tensor(self._crop)


def windows_of(images: Images, augmentations: Mapping[str, Augmentation], crop: tuple[int, int]) -> Windows | None:
    """Return the windows of photographs; None for other images, and where an augmentation needs whole squares."""
    if not isinstance(images.pixels, Stream) or images.pixels.pictures is None:
        return None
    pictures, parts = images.pixels.pictures, augmentations.values()
    resizing = [part for part in parts if part.resizes]
    if resizing and (
        pictures.fit != "whole"  # with other values of `fit`, whole squares are resized as floats: other last bits
        or len(resizing) > 1
        or not resizing[0].takes_box
        or any(part.moves or part.padding for part in parts)
    ):
        return None
    return Windows(pictures, images.pixels.rows, augmentations, crop)


def _resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return an image, uint8 [H, W, C], in another size: bilinear, antialiased, rounded as Pillow does."""
    if pixels.shape[:2] == size:
        return pixels
    channels_first = pixels.permute(2, 0, 1).unsqueeze(0)
    return functional.interpolate(channels_first, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0)
