"""From a data configuration to images that are ready to be batched."""

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from cnnbench.config.schema import DataConfig
from cnnbench.data.cache import opened
from cnnbench.data.files import data_root
from cnnbench.data.images import DataSpec, ImageData, Images, Photographs, Pixels, Stream, counts_per_class
from cnnbench.data.noise import wrong_on_purpose
from cnnbench.data.sampling import class_weights
from cnnbench.data.scan import Scanned, usable
from cnnbench.data.split import Split, k_fold, stratified_split
from cnnbench.data.subset import select
from cnnbench.errors import UserError, grouped, listed
from cnnbench.registry import DATASETS

HELD = 2**30  # bytes of a split that are held in memory; more is made when it is asked for

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights


@dataclass(frozen=True)
class PreparedData:
    """The three splits, and everything that is known of them.

    split: rows of the training part as it was read, also where a subset of it was chosen.
    mean, std: per channel, of the images that train (pixels scaled to [0, 1]), unless data.statistics says else.
    fingerprint: of the data set as it was read, before it was split or resized.
    wrong_labels: how many of the images that train are labelled wrong on purpose. notes: what a user should know.
    """

    spec: DataSpec
    train: Images
    val: Images
    test: Images
    split: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    wrong_labels: int = 0
    notes: tuple[str, ...] = ()


@lru_cache(maxsize=1)  # the jobs of a sweep mostly share one data set, and are all checked before the first starts
def _load(name: str, settings: str, root: Path) -> tuple[ImageData, str]:
    """settings: as JSON, which can be a key where a list is among them."""
    data: ImageData = DATASETS[name].factory(root, **json.loads(settings))
    return data, data.fingerprint()


def prepare(config: DataConfig) -> PreparedData:
    """Read a data set, choose of it, split, adapt and measure it.

    Raises UserError for files that are missing or wrong, and for a subset, split or window that cannot be made.
    """
    data, fingerprint = _load(config.name, json.dumps(dict(config.settings)), data_root(config.root))
    data, rows = select(data, config.subset, config.split_seed)
    split, notes = _split(config, data)
    if isinstance(data.train.pixels, Photographs):
        data, split, found = _opened(data, split, config)
        notes = (*notes, *found)
    train, val, test = (
        Images(adapted(part.pixels, config.image_size, config.channels), part.labels)
        for part in (data.train[split.train], data.train[split.val], data.test)
    )
    channels, height, width = train.size
    window = window_of(height, width, config.crop)
    mean, std = statistics_of(train, config.statistics)
    labels, wrong = wrong_on_purpose(train.labels, len(data.classes), config.label_noise, config.noise_seed)
    counts = tuple(counts_per_class(labels, len(data.classes)))
    class_weights(config.sampling, counts)  # refused here, before anything starts, where they do not fit the classes
    return PreparedData(
        DataSpec(channels, *window, data.classes, counts), Images(train.pixels, labels), val, test,
        Split(rows[split.train], rows[split.val]), mean, std, fingerprint, wrong,
        (*notes, _noise_note(wrong, len(labels))) if wrong else notes,
    )  # fmt: skip


def _noise_note(wrong: int, number: int) -> str:
    return f"label_noise: {grouped(wrong)} of {grouped(number)} training labels are wrong on purpose"


def _split(config: DataConfig, data: ImageData) -> tuple[Split, tuple[str, ...]]:
    """Return the split: the data set's own, where it has one and validation is wanted; and the data set's notes."""
    labels, num_classes = data.train.labels, len(data.classes)
    if config.folds is not None:
        assert config.fold is not None
        return k_fold(labels, num_classes, config.folds, config.fold, config.split_seed), data.notes
    if data.validates is not None and config.val_fraction:
        if not data.validates.any():
            raise UserError(
                "data.subset: leaves no image of the data set's own validation; data.val_fraction=0 has none."
            )
        split = Split((~data.validates).nonzero()[:, 0], data.validates.nonzero()[:, 0])
        return split, (*data.notes, "validation is the data set's own, whatever data.val_fraction says")
    return stratified_split(labels, num_classes, config.val_fraction, config.split_seed), data.notes


def _opened(data: ImageData, split: Split, config: DataConfig) -> tuple[ImageData, Split, tuple[str, ...]]:
    """Return the data set with its photographs decoded, without those that nothing can be learnt from."""
    train, test = data.train.pixels, data.test.pixels
    assert isinstance(train, Photographs)
    assert isinstance(test, Photographs)
    if config.image_size is None:
        raise UserError("data.image_size: photographs are of any size; say which side they shall have, as in 256.")
    everything = replace(train, paths=train.paths + test.paths, digests=train.digests + test.digests)
    stream, problems, notes = opened(everything, config.image_size, config.channels or 3)
    scanned = Scanned(everything.paths, everything.digests, problems, len(train))
    labels = data.train.labels
    before = set(labels[split.train].tolist())
    split, found = usable(scanned, split, train.skip)
    gone = [data.classes[number] for number in sorted(before - set(labels[split.train].tolist()))]
    if gone:
        raise UserError(f"data.on_problem=skip leaves no image to train on of {listed(gone)}.")
    first, last = torch.arange(len(everything)).tensor_split([len(train)])
    parts = Images(stream[first], data.train.labels), Images(stream[last], data.test.labels)
    return replace(data, train=parts[0], test=parts[1]), split, (*notes, *found)


def adapted(pixels: Pixels, image_size: int | None, channels: int | None) -> Pixels:
    """Return images resized and converted as `adapt` does; those that would take too much memory, whenever asked for.

    pixels: uint8 [N, C, H, W].
    """
    if not isinstance(pixels, Tensor):  # photographs are as they shall be
        return pixels
    number, given, height, width = pixels.shape
    size = (channels or given, image_size or height, image_size or width)
    if size == (given, height, width) or number * math.prod(size) <= HELD:
        return adapt(pixels, image_size, channels)
    return Stream(lambda rows: adapt(pixels[rows], image_size, channels), torch.arange(number), size)


def adapt(pixels: Tensor, image_size: int | None, channels: int | None) -> Tensor:
    """Resize images to a square of `image_size` and convert them to `channels`, None leaving either as it is.

    pixels: uint8 [N, C, H, W]. Resizing is bilinear with antialiasing, one colour channel is repeated to three, three
    become one by luminance (ITU-R BT.601). Returns uint8, rounded.
    """
    if channels == 1 and pixels.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        pixels = (pixels * weights).sum(1, keepdim=True).round_().to(torch.uint8)
    if image_size is not None and tuple(pixels.shape[2:]) != (image_size, image_size) and len(pixels):
        size = (image_size, image_size)
        resized = [
            torch.nn.functional.interpolate(part.float(), size, mode="bilinear", antialias=True).round_().clamp_(0, 255)
            for part in torch.split(pixels, 1024)  # as float, a chunk at a time
        ]
        pixels = torch.cat([part.to(torch.uint8) for part in resized])
    return pixels.expand(-1, 3, -1, -1) if channels == 3 and pixels.shape[1] == 1 else pixels


def window_of(height: int, width: int, crop: float | None) -> tuple[int, int]:
    """Return height and width of the window that a network sees; a fraction is rounded down to whole pixels."""
    if crop is None:
        return height, width
    if isinstance(crop, float):
        return max(1, int(height * crop + 1e-9)), max(1, int(width * crop + 1e-9))
    if crop > min(height, width):
        raise UserError(f"data.crop={crop}: is larger than the images, which have {height}x{width} pixels.")
    return int(crop), int(crop)


def statistics_of(images: Images, kind: str) -> Statistics:
    """Return mean and standard deviation per channel: the images' `own`, or those that known networks learnt with."""
    channels = images.size[0]
    if kind == "imagenet" and channels != 3:
        raise UserError("data.statistics=imagenet: are of three channels, and the images have one; data.channels=3.")
    known = {"imagenet": IMAGENET, "half": ((0.5,) * channels, (0.5,) * channels)}
    return known[kind] if kind in known else channel_statistics(images)


def channel_statistics(images: Images) -> Statistics:
    """Return mean and standard deviation per channel of images scaled to [0, 1].

    Exact: the 256 values are counted. A channel that never changes gets a deviation of 1.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(images.size[0], 256, dtype=torch.int64)
    for rows in torch.split(torch.arange(len(images)), 1024):
        for channel, pixels in enumerate(images.take(rows).unbind(1)):
            counts[channel] += torch.bincount(pixels.reshape(-1), minlength=256)
    means, stds = [], []
    for count in counts.double():
        share = count / count.sum()
        mean = float((share * values).sum())
        variance = float((share * (values - mean) ** 2).sum())
        means.append(mean)
        stds.append(variance**0.5 if variance > 0 else 1.0)
    return tuple(means), tuple(stds)
