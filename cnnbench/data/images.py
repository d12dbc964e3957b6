"""What a data set consists of, and what a model needs to know about it."""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cnnbench.errors import UserError, as_utf8

SHOWN = 16  # images in a notebook
THUMBNAIL = 48  # pixels


@dataclass(frozen=True)
class DataSpec:
    """What a model needs to know about data: the shape of the crop that the network sees, and the classes.

    counts: training images by class, as they are labelled; empty where unknown.
    outputs: numbers that a network returns per image; None: one per class.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    counts: tuple[int, ...] = ()
    outputs: int | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def num_outputs(self) -> int:
        """How many numbers a network returns per image."""
        return self.num_classes if self.outputs is None else self.outputs


@dataclass(frozen=True)
class Pictures:
    """Whole photographs, of which parts can be read.

    sizes: heights and widths, int64 [N, 2]; evaluation sees the central squares. fit: as of Photographs.
    read: from row, first line and number of lines to uint8 [lines, width, C].
    counts: from rows, int64 [B], to how often each value is in each channel of their squares, int64 [C, 256]; None:
    they have to be counted.
    """

    sizes: Tensor
    channels: int
    fit: str
    read: Callable[[int, int, int], Tensor]
    counts: Callable[[Tensor], Tensor] | None = None

    def areas(self, whole: bool) -> Tensor:
        """Return what is seen of each picture, all of it or its square: top, left, height and width, int64 [N, 4]."""
        if whole:
            return torch.cat([torch.zeros_like(self.sizes), self.sizes], 1)
        sides = self.sizes.amin(1, keepdim=True).expand(-1, 2)
        starts = ((self.sizes - sides) / 2).round().long()  # half to even, as `square_in` has it
        return torch.cat([starts, sides], 1)

    def window(self, row: int, area: Sequence[int], place: Sequence[int]) -> Tensor:
        """Return a part of an area of a picture, uint8 [height, width, C], black outside of the area.

        area: top, left, height and width in the picture; place: the same in the area.
        """
        (down, right, tall, wide), (top, left, height, width) = area, place
        upper, lower = max(top, 0), min(top + height, tall)
        first, last = max(left, 0), min(left + width, wide)
        if (lower - upper, last - first) == (height, width):
            return self.read(row, down + top, height)[:, right + left : right + left + width]
        padded = torch.zeros(height, width, self.channels, dtype=torch.uint8)
        if lower > upper and last > first:
            inside = self.read(row, down + upper, lower - upper)[:, right + first : right + last]
            padded[upper - top : lower - top, first - left : last - left] = inside
        return padded

    def squares(self, rows: Tensor) -> Tensor:
        """Return the central squares of pictures, uint8 [B, C, side, side]. rows: int64 [B]."""
        areas = self.areas(whole=False)[rows].tolist()
        windows = (self.window(row, area, (0, 0, *area[2:])) for row, area in zip(rows.tolist(), areas, strict=True))
        return torch.from_numpy(np.stack([window.numpy() for window in windows])).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Stream:
    """Images that are loaded on demand, since all of them together would not fit into memory.

    load: from rows, int64 [B], to uint8 [B, C, H, W]. rows: which of the images that can be loaded, int64 [N].
    size: channels, height, width. files: of all images that can be loaded, by row, where they come from files.
    pictures: of all of them as well, where these images are the central squares of photographs. is_in_memory: whether
    loading only selects from images that are in memory.
    """

    load: Callable[[Tensor], Tensor]
    rows: Tensor
    size: tuple[int, int, int]
    files: tuple[str, ...] = ()
    pictures: Pictures | None = None
    is_in_memory: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor) -> "Stream":
        return replace(self, rows=self.rows[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that all of them would have: N, C, H, W."""
        return len(self), *self.size


DeepKind = Literal["gray", "colour"]  # of a file with 16 bits per channel


@dataclass(frozen=True)
class Photographs:
    """Image files of any size that have not been decoded yet.

    digests: sha256 (hex) of the content of each. fit: `whole`: resize the shorter side to `data.image_size`; random
    crops in training are of the whole image, and what is evaluated is the central square; `crop`: random crops are of
    that square too; `stretch`: resize both sides.
    cache: whether to keep them, decoded, on disk. skip: whether to train without those that cannot be used.
    bits: how many a file with 16 per channel uses. deep: the kind of these, by digest, see `deep_kind`.
    """

    paths: tuple[Path, ...]
    digests: tuple[str, ...]
    fit: str
    cache: bool
    skip: bool
    bits: int = 16
    deep: Mapping[str, DeepKind] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Tensor) -> "Photographs":
        selected: list[int] = rows.tolist()
        paths, digests = tuple(self.paths[row] for row in selected), tuple(self.digests[row] for row in selected)
        return replace(self, paths=paths, digests=digests)

    def __add__(self, other: "Photographs") -> "Photographs":
        deep = {**self.deep, **other.deep}
        return replace(self, paths=self.paths + other.paths, digests=self.digests + other.digests, deep=deep)


Pixels = Tensor | Stream | Photographs


@dataclass(frozen=True)
class Images:
    """Images with their labels. pixels: uint8 [N, C, H, W], or where to get them. labels: int64 [N]."""

    pixels: Pixels
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | int) -> "Images":
        rows = torch.tensor([rows]) if isinstance(rows, int) else rows  # one image is images too
        return Images(self.pixels[rows], self.labels[rows])

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width, which all images share."""
        assert not isinstance(self.pixels, Photographs), "photographs differ in size"
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def files(self) -> tuple[str, ...] | None:
        """Return the file of each image; None where images have no files."""
        if not isinstance(self.pixels, Stream) or not self.pixels.files:
            return None
        return tuple(as_utf8(self.pixels.files[row]) for row in self.pixels.rows.tolist())

    def take(self, rows: Tensor) -> Tensor:
        """Return the pixels of some images, uint8 [B, C, H, W], loading them where necessary. rows: int64 [B]."""
        pixels = self.pixels[rows]
        assert not isinstance(pixels, Photographs), "photographs have to be decoded first"
        return pixels.load(pixels.rows) if isinstance(pixels, Stream) else pixels

    def __repr__(self) -> str:
        size = "" if isinstance(self.pixels, Photographs) else f"{'x'.join(map(str, self.size))}, "
        return f"Images({len(self)}, {size}{len(set(self.labels.tolist()))} classes)"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how many there are, and the first of them."""
        has_none = isinstance(self.pixels, Photographs) or not len(self)
        first = "" if has_none else _thumbnails(self.take(torch.arange(min(len(self), SHOWN))))
        return f"<div>{escape(repr(self))}</div>{first}"


def _thumbnails(pixels: Tensor) -> str:
    """Return images, uint8 [N, C, H, W], as one small picture in HTML."""
    side = min(THUMBNAIL, *pixels.shape[2:])
    small = functional.interpolate(pixels.float(), (side, side), mode="area").round().to(torch.uint8)
    strip = torch.cat(list(small.expand(-1, 3, -1, -1)), dim=2).permute(1, 2, 0).numpy()
    content = BytesIO()
    Image.fromarray(strip).save(content, "PNG")
    return f'<img alt="" src="data:image/png;base64,{b64encode(content.getvalue()).decode()}">'


@dataclass(frozen=True)
class ImageData:
    """What a data set's factory returns: the training part, the test part, and the names of the classes.

    is_val: which images of the training part are the data set's own validation part, bool [N]; None: it has none.
    notes: for the user. rows: of the images of both parts in the source, int64; None: counted from 0 in each.
    draws_test: whether the test part was drawn from what the source has for training. hashes: see `copies.hashes_of`.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    is_val: Tensor | None = None
    notes: tuple[str, ...] = ()
    rows: tuple[Tensor, Tensor] | None = None
    draws_test: bool = False
    hashes: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        for name, part in (("train", self.train), ("test", self.test)):
            problem = _problem(part, len(self.classes))
            if problem:
                raise UserError(f"the data set's part '{name}': {problem}.")
        if foreign := [name for name in self.classes if not isinstance(name, str)]:
            raise UserError(
                f"the data set's classes must be texts, and {foreign[0]!r} is a {type(foreign[0]).__name__}."
            )
        first: dict[str, int] = {}
        for row, name in enumerate(self.classes):
            if first.setdefault(name, row) != row:
                places = f"{first[name]} and {row}"
                raise UserError(
                    f"the data set's classes {places} are both called '{name}'; give each a name of its own."
                )

    @property
    def source_rows(self) -> tuple[Tensor, Tensor]:
        """The rows of the training and of the test images in the source, int64."""
        return self.rows or (torch.arange(len(self.train)), torch.arange(len(self.test)))

    def selected(self, train_rows: Tensor | None = None, test_rows: Tensor | None = None) -> "ImageData":
        """Return these images only, int64 rows of each part; None: all of it."""
        train, test, is_val, (source, test_source) = self.train, self.test, self.is_val, self.source_rows
        hashes = self.hashes
        if train_rows is not None:
            train, source = train[train_rows], source[train_rows]
            is_val = None if is_val is None else is_val[train_rows]
            hashes = hashes and (hashes[0][train_rows], hashes[1])
        if test_rows is not None:
            test, test_source = test[test_rows], test_source[test_rows]
            hashes = hashes and (hashes[0], hashes[1][test_rows])
        return replace(self, train=train, test=test, is_val=is_val, rows=(source, test_source), hashes=hashes)

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of all images, labels and class names, in their order."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.train, self.test):
            if isinstance(part.pixels, Photographs):
                digest.update("".join(part.pixels.digests).encode())
                if any(part.pixels.deep.get(one) == "colour" for one in part.pixels.digests):
                    digest.update(b"16 bits of colour are rounded")  # by earlier versions they were cut off
            else:
                digest.update(str(tuple(part.pixels.shape)).encode())
                for rows in torch.split(torch.arange(len(part)), 1024):  # a copy of all would need twice the memory
                    digest.update(part.take(rows).contiguous().numpy().data)
            digest.update(part.labels.numpy().data)
        return digest.hexdigest()


def _problem(images: Images, num_classes: int) -> str:
    """Return what is wrong with a part of a data set; empty: nothing."""
    pixels, labels = images.pixels, images.labels
    for name, values, kinds in (("pixels", pixels, Pixels), ("labels", labels, Tensor)):
        if not isinstance(values, kinds):
            return f"{name} must be a tensor, and are a {type(values).__name__}; torch.as_tensor makes one of it"
    if isinstance(pixels, Tensor) and (pixels.dtype != torch.uint8 or pixels.ndim != 4):
        return f"pixels must be uint8 [N, C, H, W], and are {pixels.dtype} {list(pixels.shape)}"
    if not isinstance(pixels, Photographs) and _has_channels_last(*pixels.shape[1:]):
        return f"pixels {list(pixels.shape)} look like [N, H, W, C]; use .permute(0, 3, 1, 2)"
    if labels.dtype != torch.int64 or labels.shape != (len(pixels),):
        return f"labels must be int64 [{len(pixels)}], one per image, and are {labels.dtype} {list(labels.shape)}"
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        return f"labels go from {int(labels.min())} to {int(labels.max())}, and there are {num_classes} classes"
    return ""


def _has_channels_last(channels: int, height: int, width: int) -> bool:
    """Tell whether sizes read as channels, height and width are rather those of height, width and channels."""
    # No image is so narrow; feature maps of 4x4 or 1x1, and signals of several channels, [12, 1000, 1], are none.
    short, long = sorted((channels, height))
    return width in (1, 3, 4) and short > 4 and long <= 4 * short


def counts_per_class(labels: Tensor, num_classes: int) -> Sequence[int]:
    """Return the number of labels (int64 [N]) of each class."""
    counts: list[int] = torch.bincount(labels, minlength=num_classes).tolist()
    return counts
