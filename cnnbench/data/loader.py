"""Batches: cut out of images in memory, augmented and normalised as one tensor, on the device.

Pixels are kept as bytes, channels last. A batch then is one gather of rows of contiguous bytes and a few passes over
the result: 3.5 ms for 1 024 windows of 28x28 with mirror images on two processor cores, where gathering pixel by
pixel takes 20 and more.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, CropMargin, CropPlacement
from cnnbench.data.images import DataSpec, Images
from cnnbench.randomness import uniform_table

MIXING = "augmentation/mixing"  # which augmentation blends a sample, and with which other one
LARGE = 2**15  # bytes of a window: copying each by itself is faster then than one index for all (8 times at 224x224)
GOLDEN_RATIO = 0.6180339887498949  # its multiples, less their whole part, spread over [0, 1) more evenly than any other


class Mixed(NamedTuple):
    """Where samples were blended with others. labels: int64 [B], the other's. share: float32 [B], one's own; 1: all."""

    labels: Tensor
    share: Tensor


@dataclass(frozen=True)
class Batch:
    """images: float32 [B, C, H, W], normalised, channels last in memory. labels: int64 [B].

    group: images that make a sample together, which lie one after another; len() counts samples.
    """

    images: Tensor
    labels: Tensor
    mixed: Mixed | None = None
    group: int = 1

    def __len__(self) -> int:
        return len(self.labels) // self.group

    def parts(self, number: int) -> "list[Batch]":
        """Return the batch in so many parts, as equal as can be; never an empty one."""
        if number == 1:
            return [self]
        sizes = [len(part) * self.group for part in torch.arange(len(self)).tensor_split(number) if len(part)]
        columns = [tensor.split(sizes) for tensor in (self.images, self.labels, *(self.mixed or ()))]
        return [
            Batch(image, label, Mixed(*mixed) if mixed else None, self.group)
            for image, label, *mixed in zip(*columns, strict=True)
        ]


def as_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images as they were before they were normalised: float32 [B, C, H, W] in [0, 1], on the processor."""
    means, deviations = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (images.float().cpu() * deviations + means).clamp(0, 1)


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
        self._resizes = any(part.resizes for part in self.augmentations.values())
        # What is cut out of an image: the window, or all of it where an augmentation makes the window out of that.
        channels, height, width = images.size
        self._cut_size = (height, width) if self._resizes else self._window
        is_large = channels * math.prod(self._cut_size) > LARGE
        self._copies_each = is_large and device.type == "cpu"
        self._padding = max((part.padding for part in self.augmentations.values()), default=0)
        moves = any(part.moves for part in self.augmentations.values())
        down, right = (
            size + 2 * self._padding - side for size, side in zip((height, width), self._cut_size, strict=True)
        )
        self.margin = (
            CropMargin(down, right, channels, *self._window) if moves else CropMargin(0, 0, channels, *self._window)
        )
        self._images = images
        self._windows = self._lay_out(images.pixels.to(device)) if isinstance(images.pixels, Tensor) else None
        self._mean = torch.tensor(mean, device=device).repeat(spec.width)
        self._inverse_std = 1 / torch.tensor(std, device=device).repeat(spec.width)

    def __len__(self) -> int:
        return len(self.labels)

    def problems(self) -> dict[str, str]:
        """Return, by name, why an augmentation would change nothing here."""
        found = {name: part.problem(self.margin) for name, part in self.augmentations.items()}
        return {name: problem for name, problem in found.items() if problem is not None}

    def epoch(
        self, order: Tensor, batch_size: int, epoch: int = 0, first: int = 0, num_workers: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `first` on; the last one may be smaller.

        order: int64 [N], the row of each sample; [N, G] where a sample is a group of images. What an image looks like
        depends on seed, epoch and row only (and, in an order that repeats rows, on how often it came before), so
        neither `first` nor `num_workers` (threads that prepare batches ahead) changes any batch. Only blending depends
        on which samples are in a batch together.
        """
        tables = {
            name: uniform_table(len(self), part.num_draws, self.seed, f"augmentation/{name}", epoch).to(self.device)
            for name, part in self.augmentations.items()
        }
        if any(part.mix_probability for part in self.augmentations.values()):
            tables[MIXING] = uniform_table(len(self), 2, self.seed, MIXING, epoch).to(self.device)
        group = 1 if order.ndim == 1 else order.shape[1]
        order = order.flatten().to(self.device)
        rows = torch.split(order, batch_size * group)
        shifts = torch.split(shifts_of_repeats(order), batch_size * group)
        parts = [partial(self._batch, *part, tables, group) for part in zip(rows, shifts, strict=True)][first:]
        yield from (part() for part in parts) if num_workers == 0 else _ahead(parts, num_workers)

    def _batch(self, rows: Tensor, shifts: Tensor, tables: Mapping[str, Tensor], group: int) -> Batch:
        draws = {name: (table[rows] + shifts.unsqueeze(1)).frac() for name, table in tables.items()}
        values, scale = self._cut(rows, draws).float(), 255.0  # [B, h, w*C]
        if self._resizes or any(part.changes_pixels for part in self.augmentations.values()):
            values, scale = self._apply(values.div_(255), draws), 1.0
        values.sub_(self._mean * scale).mul_(self._inverse_std / scale)
        batch = Batch(self._as_images(values, self._window), self.labels[rows], group=group)
        return self._mix(batch, draws) if MIXING in draws else batch

    def _cut(self, rows: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Return the windows as bytes, uint8 [B, h, w*C]."""
        nowhere = torch.zeros_like(rows)
        placement = CropPlacement(nowhere, nowhere)
        for name, part in self.augmentations.items():
            placement = part.sample_crop(placement, draws[name], self.margin)
        windows = self._windows
        if windows is None:
            windows = self._lay_out(self._images.take(rows.cpu()).to(self.device, non_blocking=True))
            rows = torch.arange(len(rows), device=self.device)
        if self._copies_each:
            places = zip(rows.tolist(), placement.top.tolist(), placement.left.tolist(), strict=True)
            pixels = torch.stack([windows[place] for place in places])
        else:
            pixels = windows[rows, placement.top, placement.left]
        for turned, axis in ((placement.hflipped, 2), (placement.vflipped, 1)):
            if turned is not None:  # both ways, and one of them chosen: half the time of torch.where
                grid = pixels.view(len(rows), *self._cut_size, -1)
                numbers = torch.arange(len(rows), device=self.device) + len(rows) * turned
                chosen = torch.cat([grid, grid.flip(axis)]).index_select(0, numbers)
                pixels = chosen.view_as(pixels)
        return pixels

    def _apply(self, values: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        images = self._as_images(values, self._cut_size)
        for name, part in self.augmentations.items():
            if part.resizes:
                images = part.resize(images, draws[name], self._window)
            elif part.changes_pixels:
                images = part.apply(images, draws[name])
        top, left = ((size - side) // 2 for size, side in zip(images.shape[2:], self._window, strict=True))
        images = images[:, :, top : top + self._window[0], left : left + self._window[1]]
        return images.permute(0, 2, 3, 1).reshape(len(values), self._window[0], -1)

    def _mix(self, batch: Batch, draws: Mapping[str, Tensor]) -> Batch:
        """Blend samples with others of their batch, each by one augmentation at most."""
        images, labels = batch.images, batch.labels
        selector, key = draws[MIXING].unbind(1)
        partner = key.argsort(stable=True)
        share, mixed, low = torch.ones_like(selector), images.clone(), 0.0
        for name, part in self.augmentations.items():
            if part.mix_probability:
                chosen = ((selector >= low) & (selector < low + part.mix_probability)).nonzero()[:, 0]
                blend = part.mix(images[chosen], images[partner[chosen]], draws[name][chosen])
                mixed[chosen], share[chosen] = blend
                low += part.mix_probability
        return Batch(mixed, labels, Mixed(labels[partner], share))

    def _as_images(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        return values.view(len(values), *size, -1).permute(0, 3, 1, 2)

    def _lay_out(self, pixels: Tensor) -> Tensor:
        """Return every window of the images, uint8 [N, down, right, h, w*C], as a view that overlaps itself.

        One row of pixels of a window, as bytes side by side, is the longest contiguous piece of an image.
        """
        if self._padding:
            pixels = torch.nn.functional.pad(pixels, [self._padding] * 4)
        margin, (cut_height, cut_width) = self.margin, self._cut_size
        # Cut to the middle already where no window moves: nothing is where padding was.
        height, width = cut_height + margin.down, cut_width + margin.right
        top, left = ((size - side) // 2 for size, side in zip(pixels.shape[2:], (height, width), strict=True))
        pixels = pixels[:, :, top : top + height, left : left + width].permute(0, 2, 3, 1).contiguous()
        row, channels = width * margin.channels, margin.channels
        return pixels.as_strided(
            (len(pixels), margin.down + 1, margin.right + 1, cut_height, cut_width * channels),
            (height * row, row, channels, row, 1),
        )


def shifts_of_repeats(order: Tensor) -> Tensor:
    """Return what to add to the draws of each entry of an order, so that a row that comes again looks different.

    order: int64 [N]. Returns float32 [N] in [0, 1): 0 for the first time of each row.
    """
    values, by_value = order.sort(stable=True)
    places = torch.arange(len(order), device=order.device)
    is_first = torch.ones_like(values, dtype=torch.bool)
    is_first[1:] = values[1:] != values[:-1]
    times = places - torch.where(is_first, places, 0).cummax(0).values
    return torch.empty(len(order), device=order.device).scatter_(0, by_value, (times * GOLDEN_RATIO).frac())


def _ahead(tasks: Sequence[Callable[[], Batch]], num_workers: int) -> Iterator[Batch]:
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
