"""Image files to pixels, in one way only: training, evaluation and prediction see the same."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cnnbench.errors import grouped

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")  # by content; other decoders have had many security holes
MAX_PIXELS = 100_000_000  # of one image: more is a mistake, or an attack

warnings.filterwarnings("ignore", module="PIL")  # about damaged metadata; damaged pixels raise


@contextmanager
def worker_threads() -> Iterator[ThreadPoolExecutor]:
    """Yield threads for files; what they have not begun when the work is broken off is left."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


class Undecodable(Exception):  # noqa: N818 - a finding about one file of many
    """An image that cannot be used: the message says why."""


class Unreadable(Undecodable):
    """A file whose content cannot be had, or is another one: that may change, so it is not remembered."""


def decode(path: Path, side: int, channels: int, fit: str) -> Tensor:
    """Return the square of an image that a network is evaluated on, uint8 [side, side, channels].

    fit: `whole` and `crop`: resize the shorter side to `side` and take the central square; `stretch`: resize both sides
    to it. Raises Undecodable, as `decode_whole` does.
    """
    height, width, _ = (pixels := decode_whole(path, side, channels, fit)).shape
    top, left = square_in(height, width)
    return pixels[top : top + side, left : left + side].contiguous()


def decode_whole(source: Path | BinaryIO, side: int, channels: int, fit: str) -> Tensor:
    """Return an image resized, uint8 [height, width, channels]; the shorter of its sides is `side`, or both are.

    Resizing is bilinear with antialiasing. channels: 3, or 1 for luminance (ITU-R BT.601).
    Images are rotated by their EXIF orientation; of an animation the first frame is used; transparent pixels become
    white, 16 bits become 8, palettes and CMYK become RGB.
    Raises Undecodable for files that are damaged, empty, too large, or no image of a known format.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            plain = _plain(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
            pixels = np.array(_resized(plain, side, fit))
    except (Undecodable, MemoryError):
        raise
    except Exception as error:  # a decoder may raise anything on damaged content
        is_of_system = isinstance(error, OSError) and error.strerror
        raise (Unreadable if is_of_system else Undecodable)(_reason(source, error)) from error
    return torch.from_numpy(pixels).view(*pixels.shape[:2], channels)


def square_in(height: int, width: int) -> tuple[int, int]:
    """Return where the central square of an image begins: its top and left."""
    side = min(height, width)
    return round((height - side) / 2), round((width - side) / 2)


def _plain(image: Image.Image) -> Image.Image:
    """Return the image with eight bits per channel, without transparency."""
    if image.mode.startswith("I"):  # none of the known formats has more than 16 bits of gray, 65535 for white
        return Image.fromarray((np.asarray(image, dtype=np.float32) / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise Undecodable("has fractions for pixels, with no defined black and white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _resized(image: Image.Image, side: int, fit: str) -> Image.Image:
    width, height = side, side
    if fit != "stretch":
        shorter = min(image.size)
        width, height = (max(side, int(side * size / shorter)) for size in image.size)
        if width * height > MAX_PIXELS:
            raise Undecodable(f"is too long for its {shorter} pixels across")
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)


def _reason(source: Path | BinaryIO, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {grouped(MAX_PIXELS)} pixels"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        size = source.stat().st_size if isinstance(source, Path) else source.seek(0, os.SEEK_END)
        return "is empty" if size == 0 else f"is no image of a known format ({', '.join(FORMATS)})"
    return f"is damaged: {' '.join(str(error).split()) or type(error).__name__}"
