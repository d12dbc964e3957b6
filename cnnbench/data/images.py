"""What a data set is made of, and what it tells a model."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
class Stream:
    """Images that are made when they are asked for, since all of them together are too much to hold.

    make: from rows, int64 [B], to uint8 [B, C, H, W]. rows: which of those that can be made, int64 [N].
    size: channels, height, width. files: of all that can be made, by row, where they come from files.
    """

    make: Callable[[Tensor], Tensor]
    rows: Tensor
    size: tuple[int, int, int]
    files: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> "Stream":
        return replace(self, rows=self.rows[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """Return what the shape of all of them would be: N, C, H, W."""
        return len(self), *self.size


@dataclass(frozen=True)
class Photographs:
    """Files of images of any size, still to be opened.

    digests: sha256 (hex) of the content of each. fit: `crop`: the shorter side is resized to `data.image_size`, and
    the square in the middle taken; `stretch`: both sides are resized to it.
    cache: whether they are kept, decoded, on disk. skip: whether training goes on without those that cannot be used.
    """

    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    fit: str
    cache: bool
    skip: bool

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> "Photographs":
        chosen: list[int] = rows.tolist()
        paths, digests = tuple(self.paths[row] for row in chosen), tuple(self.digests[row] for row in chosen)
        return replace(self, paths=paths, digests=digests)


Pixels = Tensor | Stream | Photographs


@dataclass(frozen=True)
class Images:
    """Images with their labels. pixels: uint8 [N, C, H, W], or where to get them. labels: int64 [N]."""

    pixels: Pixels
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> "Images":
        return Images(self.pixels[rows], self.labels[rows])

    @property
    def size(self) -> tuple[int, int, int]:
        """Return channels, height and width of every image."""
        assert not isinstance(self.pixels, Photographs), "every photograph has a size of its own"
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def files(self) -> tuple[str, ...] | None:
        """Return the file of each image; None where they have none of their own."""
        if not isinstance(self.pixels, Stream) or not self.pixels.files:
            return None
        return tuple(self.pixels.files[row] for row in self.pixels.rows.tolist())

    def take(self, rows: Tensor) -> Tensor:
        """Return the pixels of some images, uint8 [B, C, H, W], wherever they are. rows: int64 [B]."""
        chosen = self.pixels[rows]
        assert not isinstance(chosen, Photographs), "photographs have to be opened first"
        return chosen.make(chosen.rows) if isinstance(chosen, Stream) else chosen


@dataclass(frozen=True)
class ImageData:
    """What a data set's factory returns: the training part, the test part, and the names of the classes.

    validates: which images of the training part the data set itself has for validation, bool [N]; None: it has none.
    notes: what a user should know.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    validates: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in (self.train, self.test):
            if isinstance(part.pixels, Tensor):
                assert part.pixels.dtype == torch.uint8, part.pixels.dtype
                assert part.pixels.ndim == 4, part.pixels.shape
            assert part.labels.dtype == torch.int64, part.labels.dtype
            assert len(part.pixels) == len(part.labels)

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of all images, labels and class names, in their order."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.train, self.test):
            if isinstance(part.pixels, Photographs):
                digest.update("".join(part.pixels.digests).encode())
            else:
                pixels = part.take(torch.arange(len(part)))
                digest.update(str(tuple(pixels.shape)).encode())
                digest.update(pixels.contiguous().numpy().data)
            digest.update(part.labels.numpy().data)
        return digest.hexdigest()


def counts_per_class(labels: Tensor, num_classes: int) -> Sequence[int]:
    """Return how many of the labels (int64 [N]) name each class."""
    counts: list[int] = torch.bincount(labels, minlength=num_classes).tolist()
    return counts
