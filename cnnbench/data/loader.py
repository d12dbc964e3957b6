"""Batches: cropped, augmented and normalised as one tensor, on the device.

Pixels are kept as bytes, channels last. A batch then is one gather of rows of contiguous bytes and a few passes over
the result: 3.5 ms for 1 024 crops of 28x28 with flips on two processor cores, where gathering pixel by pixel takes 20
and more.
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
from cnnbench.data.images import DataSpec, Images, Stream
from cnnbench.data.windows import windows_of
from cnnbench.randomness import uniform_table

MIXING = "augmentation/mixing"  # which augmentation mixes a sample, and with which other one
TOGETHER = 2**22  # bytes of small batches that are prepared at once: with 1 MiB LeNet waits twice as long for them
ALIGNED = 64  # bytes; what begins elsewhere may be multiplied by another kernel, with other last bits
LARGE = 2**15  # bytes of a crop: copying one by one is then faster than indexing all at once (8 times at 224x224)
GOLDEN_RATIO = 0.6180339887498949  # fractional parts of its multiples spread over [0, 1) more evenly than any other's


class Mixed(NamedTuple):
    """How samples were mixed. labels: int64 [B], the partner's. share: float32 [B], its own; 1: not mixed."""

    labels: Tensor
    share: Tensor


@dataclass(frozen=True)
class Batch:
    """images: float32 [B, C, H, W], normalised, channels last in memory. labels: int64 [B].

    group: consecutive images that form a sample together; len() counts samples.
    """

    images: Tensor
    labels: Tensor
    mixed: Mixed | None = None
    group: int = 1

    def __len__(self) -> int:
        return self.labels.shape[0] // self.group  # a tenth of the time of len()

    def parts(self, number: int) -> "list[Batch]":
        """Return the batch in up to `number` parts of nearly equal size, none of them empty."""
        if number == 1:
            return [self]
        return self.split([len(part) for part in torch.arange(len(self)).tensor_split(number) if len(part)])

    def split(self, samples: int | list[int]) -> "list[Batch]":
        """Return the batch in parts of that many samples, as views of it; the last one may be smaller."""
        sizes = samples * self.group if isinstance(samples, int) else [number * self.group for number in samples]
        columns = [tensor.split(sizes) for tensor in (self.images, self.labels, *(self.mixed or ()))]
        return [
            Batch(image, label, Mixed(*mixed) if mixed else None, self.group)
            for image, label, *mixed in zip(*columns, strict=True)
        ]


def as_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return images as before normalisation: float32 [B, C, H, W] in [0, 1], on the CPU."""
    means, deviations = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
    return (images.float().cpu() * deviations + means).clamp(0, 1)


class Batches:
    """The batches of one split.

    spec: its height and width are the crop, which is centred where no augmentation moves it.
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
        self._crop_size = (spec.height, spec.width)
        self._resizes = any(part.resizes for part in self.augmentations.values())
        self._windows = windows_of(images, self.augmentations, self._crop_size)
        channels, height, width = images.size
        # What is cut out of an image: the crop, or the whole image where an augmentation makes the crop from that.
        self._cut_size = (height, width) if self._resizes else self._crop_size
        self._copies_each = channels * math.prod(self._cut_size) > LARGE and device.type == "cpu"
        self._padding = max((part.padding for part in self.augmentations.values()), default=0)
        down, right = (
            size + 2 * self._padding - side for size, side in zip((height, width), self._cut_size, strict=True)
        )
        if not any(part.moves for part in self.augmentations.values()):
            down, right = 0, 0
        self._rest = down, right
        self.margin = CropMargin(down, right, channels, *self._crop_size)
        if self._windows is not None:
            self._cut_size, self.margin = self._windows.size, self._windows.margin
        self._images, pixels = images, images.pixels
        if isinstance(pixels, Stream) and pixels.is_in_memory and device.type != "cpu":
            pixels = images.take(torch.arange(len(images)))  # a GPU has them all
        self._placements = self._view_placements(pixels.to(device)) if isinstance(pixels, Tensor) else None
        # Of pixels in [0, 1] where an augmentation has changed them, and else of bytes.
        self._changes_pixels = self._resizes or any(part.changes_pixels for part in self.augmentations.values())
        scale = 1.0 if self._changes_pixels else 255.0
        self._mean = torch.tensor(mean, device=device).repeat(spec.width) * scale
        self._inverse_std = 1 / torch.tensor(std, device=device).repeat(spec.width) / scale

    def __len__(self) -> int:
        return len(self.labels)

    def problems(self) -> dict[str, str]:
        """Return, by name, why an augmentation would change nothing here."""
        problems = {name: part.problem(self.margin) for name, part in self.augmentations.items()}
        return {name: problem for name, problem in problems.items() if problem is not None}

    def epoch(
        self, order: Tensor, batch_size: int, epoch: int = 0, first: int = 0, num_workers: int = 0
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `first` on; the last one may be smaller.

        order: int64 [N], the row of each sample; [N, G] where a sample is a group of images. How an image is augmented
        depends on seed, epoch and row only (and, in an order that repeats rows, on how often it came before), so
        neither `first` nor `num_workers` (threads that prefetch batches) changes any batch. Only mixing depends on
        which samples are in a batch together.
        """
        numbers = {name: part.num_draws for name, part in self.augmentations.items()}
        draws = {
            name: uniform_table(len(self), number, self.seed, f"augmentation/{name}", epoch)
            for name, number in numbers.items()
        }
        if any(part.mix_probability for part in self.augmentations.values()):
            draws[MIXING] = uniform_table(len(self), 2, self.seed, MIXING, epoch)
        drawn_on = self.device if self._windows is None else torch.device("cpu")  # where windows are read
        tables = {name: table.to(drawn_on) for name, table in draws.items()}
        group = 1 if order.ndim == 1 else order.shape[1]
        order = order.flatten()
        shifts = shifts_of_repeats(order) if tables else torch.zeros(1).expand(len(order))  # sorting takes a while
        columns = order, order.to(self.device), shifts.to(drawn_on)
        size = batch_size * group
        together = size * self._batches_together(size, is_mixed=MIXING in draws)
        tasks = [
            partial(self._batch, tables, group, *(column[start : start + together] for column in columns))
            for start in range(first * size, len(order), together)
        ]
        prepared = (task() for task in tasks) if num_workers == 0 else _prefetch(tasks, num_workers)
        for batches in prepared:
            yield from (batches,) if together == size else batches.split(batch_size)

    def _batches_together(self, size: int, *, is_mixed: bool) -> int:
        """Return how many batches of `size` images are prepared at once: of small ones, calls are most of the time.

        Not where what is done to an image might depend on those next to it.
        """
        batch_bytes = 4 * size * self.margin.channels * math.prod(self._crop_size)
        if is_mixed or self._changes_pixels or self._placements is None or batch_bytes % ALIGNED:
            return 1
        return max(1, TOGETHER // batch_bytes)

    def _batch(self, tables: Mapping[str, Tensor], group: int, cpu_rows: Tensor, rows: Tensor, shifts: Tensor) -> Batch:
        """Return the batch of some rows, which are given on the CPU as well: copying them back would wait for a GPU.

        Nothing in here waits for it, but augmentations that select images.
        """
        drawn = rows if self._windows is None else cpu_rows
        draws = {name: (table[drawn] + shifts.unsqueeze(1)).frac() for name, table in tables.items()}
        values = self._cut(cpu_rows, rows, draws).float()  # [B, h, w*C]
        draws = {name: values_drawn.to(self.device, non_blocking=True) for name, values_drawn in draws.items()}
        if self._changes_pixels:
            values = self._apply(values.div_(255), draws)
        values.sub_(self._mean).mul_(self._inverse_std)
        batch = Batch(self._as_images(values, self._crop_size), self.labels[rows], group=group)
        return self._mix(batch, draws) if MIXING in draws else batch

    def _cut(self, cpu_rows: Tensor, rows: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """Return what is cut out of the images, uint8 [B, h, w*C], flipped."""
        if self._windows is None:
            pixels, placement = self._cut_alike(cpu_rows, rows, draws)
        else:
            pixels, placement = self._windows.cut(cpu_rows, draws)
            pixels = self._to_device(pixels)
        for flipped, axis in ((placement.hflipped, 2), (placement.vflipped, 1)):
            if flipped is not None:  # selecting from both takes half the time of torch.where
                grid = pixels.view(len(rows), *self._cut_size, -1)
                is_flipped = flipped.to(self.device, non_blocking=True)
                selected = torch.arange(len(rows), device=self.device) + len(rows) * is_flipped
                pixels = torch.cat([grid, grid.flip(axis)]).index_select(0, selected).view_as(pixels)
        return pixels

    def _cut_alike(self, cpu_rows: Tensor, rows: Tensor, draws: Mapping[str, Tensor]) -> tuple[Tensor, CropPlacement]:
        """Return what is cut out of images of one size, and how it is to be flipped."""
        zeros = torch.zeros_like(rows)
        placement = CropPlacement(zeros, zeros)
        for name, part in self.augmentations.items():
            placement = part.sample_crop(placement, draws[name], self.margin)
        placements = self._placements
        if placements is None:
            placements = self._view_placements(self._to_device(self._images.take(cpu_rows)))
            rows = torch.arange(len(rows), device=self.device)
        if self._copies_each:
            places = zip(rows.tolist(), placement.top.tolist(), placement.left.tolist(), strict=True)
            return torch.stack([placements[place] for place in places]), placement
        if placements.shape[1:3] == (1, 1):  # a seventh of the time that three indices take
            return placements[:, 0, 0].index_select(0, rows), placement
        return placements[rows, placement.top, placement.left], placement

    def _to_device(self, pixels: Tensor) -> Tensor:
        pixels = pixels.pin_memory() if self.device.type == "cuda" else pixels  # else the copy blocks
        return pixels.to(self.device, non_blocking=True)

    def _apply(self, values: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        images = self._as_images(values, self._cut_size)
        for name, part in self.augmentations.items():
            if part.resizes and self._windows is None:
                images = part.resize(images, draws[name], self._crop_size)
            elif part.changes_pixels:
                images = part.apply(images, draws[name])
        images = _centre(images, *self._crop_size)
        return images.permute(0, 2, 3, 1).reshape(len(values), self._crop_size[0], -1)

    def _mix(self, batch: Batch, draws: Mapping[str, Tensor]) -> Batch:
        """Mix samples with others of their batch, each by at most one augmentation."""
        images, labels = batch.images, batch.labels
        selector, key = draws[MIXING].unbind(1)
        partner = key.argsort(stable=True)
        share, mixed, low = torch.ones_like(selector), images.clone(), 0.0
        for name, part in self.augmentations.items():
            if part.mix_probability:
                rows = ((selector >= low) & (selector < low + part.mix_probability)).nonzero()[:, 0]
                mixed[rows], share[rows] = part.mix(images[rows], images[partner[rows]], draws[name][rows])
                low += part.mix_probability
        return Batch(mixed, labels, Mixed(labels[partner], share))

    def _as_images(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        return values.view(len(values), *size, -1).permute(0, 3, 1, 2)

    def _view_placements(self, pixels: Tensor) -> Tensor:
        """Return every placement of the cut, uint8 [N, down + 1, right + 1, h, w*C], as a view that overlaps itself.

        One row of pixels of a cut, as bytes side by side, is the longest contiguous piece of an image.
        """
        if self._padding:
            pixels = torch.nn.functional.pad(pixels, [self._padding] * 4)
        (down, right), channels, (cut_height, cut_width) = self._rest, self.margin.channels, self._cut_size
        height, width = cut_height + down, cut_width + right
        pixels = _centre(pixels, height, width).permute(0, 2, 3, 1).contiguous()
        row = width * channels
        return pixels.as_strided(
            (len(pixels), down + 1, right + 1, cut_height, cut_width * channels),
            (height * row, row, channels, row, 1),
        )


def _centre(images: Tensor, height: int, width: int) -> Tensor:
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]


def shifts_of_repeats(order: Tensor) -> Tensor:
    """Return what to add to the draws of each entry of an order, so that a repeated row is augmented differently.

    order: int64 [N]. Returns float32 [N] in [0, 1): 0 for the first occurrence of each row.
    """
    values, by_value = order.sort(stable=True)
    positions = torch.arange(len(order), device=order.device)
    is_first = torch.ones_like(values, dtype=torch.bool)
    is_first[1:] = values[1:] != values[:-1]
    repeats = positions - torch.where(is_first, positions, 0).cummax(0).values
    return torch.empty(len(order), device=order.device).scatter_(0, by_value, (repeats * GOLDEN_RATIO).frac())


def _prefetch(tasks: Sequence[Callable[[], Batch]], num_workers: int) -> Iterator[Batch]:
    """Yield the results of tasks in their order, computed by threads, one task ahead per thread."""
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
