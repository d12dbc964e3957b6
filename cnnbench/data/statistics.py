"""Mean and standard deviation of images, by which they are normalised."""

import torch
from torch import Tensor

from cnnbench.data.images import Images, Stream
from cnnbench.errors import SettingError

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights


def statistics_of(images: Images, kind: str | list[list[float]]) -> Statistics:
    """Return mean and standard deviation per channel: the images' `own`, or those that a network was trained with.

    kind: `own`, `imagenet`, `half`, or a mean and a deviation for each channel.
    """
    channels = images.size[0]
    if kind == "own":
        return channel_statistics(images)
    if kind == "half":
        return (0.5,) * channels, (0.5,) * channels
    mean, std = IMAGENET if isinstance(kind, str) else map(tuple, kind)
    if len(mean) != len(std) or min(std, default=0) <= 0:
        problem = "must be two lists of the same length, means and deviations; deviations are above 0"
        raise SettingError(f"data.statistics={kind}", problem)
    if len(mean) != channels:
        problem = f"is for {len(mean)} channels, the images have {channels}; set data.channels={len(mean)}"
        raise SettingError(f"data.statistics={kind}", problem, {"data.statistics": "own"})
    return mean, std


def channel_statistics(images: Images) -> Statistics:
    """Return mean and standard deviation per channel of images scaled to [0, 1].

    Exact: the 256 values are counted. A constant channel gets a deviation of 1.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = value_counts(images)
    means, stds = [], []
    for count in counts.double():
        share = count / count.sum()
        mean = float((share * values).sum())
        variance = float((share * (values - mean) ** 2).sum())
        means.append(mean)
        stds.append(variance**0.5 if variance > 0 else 1.0)
    return tuple(means), tuple(stds)


def value_counts(images: Images) -> Tensor:
    """Return how often each value is in each channel, int64 [C, 256]; the cache of photographs knows that of each."""
    pictures = images.pixels.pictures if isinstance(images.pixels, Stream) else None
    if isinstance(images.pixels, Stream) and pictures is not None and pictures.counts is not None:
        return pictures.counts(images.pixels.rows)
    counts = torch.zeros(images.size[0], 256, dtype=torch.int64)
    for rows in torch.split(torch.arange(len(images)), 1024):
        for channel, pixels in enumerate(images.take(rows).unbind(1)):
            counts[channel] += torch.bincount(pixels.reshape(-1), minlength=256)
    return counts
