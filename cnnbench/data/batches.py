"""Batches: cut out of images in memory, augmented and normalised as one tensor, on the device.

Pixels are kept as bytes, channels last. A batch then is one gather of rows of contiguous bytes and a few passes over
the result: 3.5 ms for 1 024 windows of 28x28 with mirror images on two processor cores, where gathering pixel by
pixel takes 20 and more.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, Placement, Room
from cnnbench.data.images import DataSpec, Images
from cnnbench.randomness import uniform_table


class Batch(NamedTuple):
    """images: float32 [B, C, H, W], normalised, channels last in memory. labels: int64 [B]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Batches:
    """The batches of one split.

    spec: its height and width are the window; it lies in the middle where no augmentation moves it.
    mean, std: per channel, of pixels scaled to [0, 1].
    augmentations: by name, in the order in which they act; none for evaluation.
    seed: of the augmentations' draws.
    """

    def __init__(
        self,
        images: Images,
        spec: DataSpec,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device,
        augmentations: Mapping[str, Augmentation] | None = None,
        seed: int = 0,
    ) -> None:
        self.augmentations = {name: part for name, part in (augmentations or {}).items() if not part.is_off()}
        self.seed = seed
        self.device = device
        self.labels = images.labels.to(device)
        self._window = (spec.height, spec.width)
        self._pixels = self._lay_out(images.pixels).to(device)
        _, height, width, channels = self._pixels.shape
        self.room = Room(height - spec.height, width - spec.width, channels)
        # One row of pixels of a window, as bytes side by side, is the longest contiguous piece of an image:
        row, image = width * channels, height * width * channels
        self._windows = self._pixels.as_strided(
            (len(images), self.room.down + 1, self.room.right + 1, spec.height, spec.width * channels),
            (image, row, channels, row, 1),
        )
        self._mean = torch.tensor(mean, device=device).repeat(spec.width)
        self._inverse_std = 1 / torch.tensor(std, device=device).repeat(spec.width)

    def __len__(self) -> int:
        return len(self.labels)

    def problems(self) -> dict[str, str]:
        """Return, by name, why an augmentation would change nothing here."""
        found = {name: part.problem(self.room) for name, part in self.augmentations.items()}
        return {name: problem for name, problem in found.items() if problem is not None}

    def epoch(
        self, order: Tensor, batch_size: int, epoch: int = 0, first: int = 0, num_workers: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `first` on; the last one may be smaller.

        order: int64 [N], the row of each sample. What a sample looks like depends on seed, epoch and row only, so
        neither `first` nor `num_workers` (threads that prepare batches ahead) changes any batch.
        """
        tables = {
            name: uniform_table(len(self), part.num_draws, self.seed, f"augmentation/{name}", epoch).to(self.device)
            for name, part in self.augmentations.items()
        }
        parts = torch.split(order.to(self.device), batch_size)[first:]
        if num_workers == 0:
            yield from (self._batch(rows, tables) for rows in parts)
        else:
            yield from _ahead([partial(self._batch, rows, tables) for rows in parts], num_workers)

    def _batch(self, rows: Tensor, tables: Mapping[str, Tensor]) -> Batch:
        draws = {name: table[rows] for name, table in tables.items()}
        pixels = self._cut(rows, draws)  # uint8 [B, h, w*C]
        scale = 255.0
        values = pixels.float()
        if any(part.paints for part in self.augmentations.values()):
            values, scale = self._paint(values.div_(255), draws), 1.0
        values.sub_(self._mean * scale).mul_(self._inverse_std / scale)
        return Batch(self._as_images(values), self.labels[rows])

    def _cut(self, rows: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        nowhere = torch.zeros_like(rows)
        placement = Placement(nowhere, nowhere)
        for name, part in self.augmentations.items():
            placement = part.place(placement, draws[name], self.room)
        pixels = self._windows[rows, placement.top, placement.left]
        if placement.mirrored is not None:
            grid = pixels.view(len(rows), *self._window, -1)
            pixels = torch.where(placement.mirrored.view(-1, 1, 1, 1), grid.flip(2), grid).view_as(pixels)
        return pixels

    def _paint(self, values: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        images = self._as_images(values)
        for name, part in self.augmentations.items():
            if part.paints:
                images = part.paint(images, draws[name])
        return images.permute(0, 2, 3, 1).reshape(values.shape)

    def _as_images(self, values: Tensor) -> Tensor:
        return values.view(len(values), *self._window, -1).permute(0, 3, 1, 2)

    def _lay_out(self, pixels: Tensor) -> Tensor:
        """Return the pixels as [N, H, W, C]: padded, or already cut to the middle where no window moves."""
        padding = max((part.padding for part in self.augmentations.values()), default=0)
        if padding:
            pixels = torch.nn.functional.pad(pixels, [padding] * 4)
        if not any(part.moves for part in self.augmentations.values()):
            top, left = ((size - side) // 2 for size, side in zip(pixels.shape[2:], self._window, strict=True))
            pixels = pixels[:, :, top : top + self._window[0], left : left + self._window[1]]
        return pixels.permute(0, 2, 3, 1).contiguous()


def _ahead(tasks: list[Callable[[], Batch]], num_workers: int) -> Iterator[Batch]:
    """Yield the results of tasks in their order, worked on by threads one task ahead of each thread."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(num_workers, initializer=lambda: torch.set_num_threads(threads))
    try:
        waiting: deque[Future[Batch]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
