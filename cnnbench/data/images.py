"""What a data set is made of, and what it tells a model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DataSpec:
    """What data tells a model: the window that the network sees, and the classes.

    counts: images that train, by class, as they are labelled; empty where that is not known.
    outputs: numbers that a network shall return an image; None: one a class.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    counts: tuple[int, ...] = ()
    outputs: int | None = None

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.classes)

    @property
    def num_outputs(self) -> int:
        """Return how many numbers a network returns an image."""
        return self.num_classes if self.outputs is None else self.outputs


@dataclass(frozen=True)
class Images:
    """Images with their labels. pixels: uint8 [N, C, H, W]. labels: int64 [N]."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> "Images":
        return Images(self.pixels[rows], self.labels[rows])


@dataclass(frozen=True)
class ImageData:
    """What a data set's factory returns: the training part, the test part, and the names of the classes."""

    train: Images
    test: Images
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for part in (self.train, self.test):
            assert part.pixels.dtype == torch.uint8, part.pixels.dtype
            assert part.pixels.ndim == 4, part.pixels.shape
            assert part.labels.dtype == torch.int64, part.labels.dtype
            assert len(part.pixels) == len(part.labels)

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of all pixels, labels and class names, in their order."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.train, self.test):
            digest.update(str(tuple(part.pixels.shape)).encode())
            digest.update(part.pixels.contiguous().numpy().data)
            digest.update(part.labels.numpy().data)
        return digest.hexdigest()


def counts_per_class(labels: Tensor, num_classes: int) -> Sequence[int]:
    """Return how many of the labels (int64 [N]) name each class."""
    counts: list[int] = torch.bincount(labels, minlength=num_classes).tolist()
    return counts
