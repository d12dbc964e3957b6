"""From a data configuration to images that are ready to be batched."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from cnnbench.config import DataConfig
from cnnbench.data.files import data_root
from cnnbench.data.images import DataSpec, ImageData, Images, counts_per_class
from cnnbench.data.noise import wrong_on_purpose
from cnnbench.data.sampling import class_weights
from cnnbench.data.split import Split, k_fold, stratified_split
from cnnbench.data.subset import select
from cnnbench.errors import UserError, grouped
from cnnbench.registry import DATASETS


@dataclass(frozen=True)
class PreparedData:
    """The three splits, and everything that is known of them.

    split: rows of the training part as it was read, also where a subset of it was chosen.
    mean, std: per channel, of the images that train (pixels scaled to [0, 1]); never a constant out of a paper.
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
    split = _split(config, data)
    train, val, test = (
        Images(adapt(part.pixels, config.image_size, config.channels), part.labels)
        for part in (data.train[split.train], data.train[split.val], data.test)
    )
    channels, height, width = train.pixels.shape[1:]
    window = window_of(height, width, config.crop)
    mean, std = channel_statistics(train.pixels)
    labels, wrong = wrong_on_purpose(train.labels, len(data.classes), config.label_noise, config.noise_seed)
    counts = tuple(counts_per_class(labels, len(data.classes)))
    class_weights(config.sampling, counts)  # refused here, before anything starts, where they do not fit the classes
    return PreparedData(
        DataSpec(channels, *window, data.classes, counts), Images(train.pixels, labels), val, test,
        Split(rows[split.train], rows[split.val]), mean, std, fingerprint, wrong,
        (_noise_note(wrong, len(labels)),) if wrong else (),
    )  # fmt: skip


def _noise_note(wrong: int, number: int) -> str:
    return f"label_noise: {grouped(wrong)} of {grouped(number)} training labels are wrong on purpose"


def _split(config: DataConfig, data: ImageData) -> Split:
    labels, num_classes = data.train.labels, len(data.classes)
    if config.folds is None:
        return stratified_split(labels, num_classes, config.val_fraction, config.split_seed)
    assert config.fold is not None
    return k_fold(labels, num_classes, config.folds, config.fold, config.split_seed)


def adapt(pixels: Tensor, image_size: int | None, channels: int | None) -> Tensor:
    """Resize images to a square of `image_size` and convert them to `channels`, None leaving either as it is.

    pixels: uint8 [N, C, H, W]. Resizing is bilinear with antialiasing, one colour channel is repeated to three, three
    become one by luminance (ITU-R BT.601). Returns uint8, rounded.
    """
    if channels == 3 and pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1)
    elif channels == 1 and pixels.shape[1] == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        pixels = (pixels * weights).sum(1, keepdim=True).round_().to(torch.uint8)
    if image_size is not None and tuple(pixels.shape[2:]) != (image_size, image_size) and len(pixels):
        size = (image_size, image_size)
        resized = [
            torch.nn.functional.interpolate(part.float(), size, mode="bilinear", antialias=True).round_().clamp_(0, 255)
            for part in torch.split(pixels, 1024)  # as float, a chunk at a time
        ]
        pixels = torch.cat([part.to(torch.uint8) for part in resized])
    return pixels


def window_of(height: int, width: int, crop: float | None) -> tuple[int, int]:
    """Return height and width of the window that a network sees; a fraction is rounded down to whole pixels."""
    if crop is None:
        return height, width
    if isinstance(crop, float):
        return max(1, int(height * crop + 1e-9)), max(1, int(width * crop + 1e-9))
    if crop > min(height, width):
        raise UserError(f"data.crop={crop}: is larger than the images, which have {height}x{width} pixels.")
    return int(crop), int(crop)


def channel_statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images [N, C, H, W], scaled to [0, 1].

    Exact: the 256 values are counted. A channel that never changes gets a deviation of 1.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in range(pixels.shape[1]):
        share = torch.bincount(pixels[:, channel].reshape(-1), minlength=256).double()
        share /= share.sum()
        mean = float((share * values).sum())
        variance = float((share * (values - mean) ** 2).sum())
        means.append(mean)
        stds.append(variance**0.5 if variance > 0 else 1.0)
    return tuple(means), tuple(stds)
