"""Image files to pixels, in one way only: training, evaluation and prediction see the same."""

import os
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from cnnbench.data.images import DeepKind
from cnnbench.errors import grouped

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".jfif", ".jpe")
UNREAD_SUFFIXES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".dcm", ".psd", ".tga")
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")  # by content; other decoders have had many security holes
MAX_PIXELS = 100_000_000  # of one image: more is a mistake, or an attack
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}  # by data.interpolation

SPACE = rb"(?:\s|#[^\n]*\n)+"  # and comments
PGM_OF_16_BITS = re.compile(rb"P[25]" + (SPACE + rb"\d+") * 2 + SPACE + rb"65535\s")

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


def decode(
    path: Path,
    side: int,
    channels: int,
    fit: str,
    bits: int = 16,
    interpolation: str = "bilinear",
    window: int | None = None,
) -> Tensor:
    """Return the square of an image that a network is evaluated on, uint8 [window, window, channels].

    fit: `whole` and `crop`: resize the shorter side to `side` and take the central square; `stretch`: resize both sides
    to it. window: side of that square; None: `side`. Raises Undecodable, and all else is as in `decode_whole`.
    """
    pixels = decode_whole(path, side, channels, fit, bits, interpolation)
    window = window or side
    top, left = (round((length - window) / 2) for length in pixels.shape[:2])
    return pixels[top : top + window, left : left + window].contiguous()


def decode_whole(
    source: Path | BinaryIO, side: int, channels: int, fit: str, bits: int = 16, interpolation: str = "bilinear"
) -> Tensor:
    """Return an image resized, uint8 [height, width, channels]; the shorter of its sides is `side`, or both are.

    interpolation: `bilinear` or `bicubic`, with antialiasing. channels: 3, or 1 for luminance (ITU-R BT.601).
    Images are rotated by their EXIF orientation; of an animation the first frame is used; transparent pixels become
    white, palettes and CMYK become RGB. bits: of a file with 16 per channel, how many are used: 2^bits - 1 becomes 255,
    gray or colour, rounded; a PGM may say itself what is white.
    Raises Undecodable for files that are damaged, empty, too large, or no image of a known format.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            upright = ImageOps.exif_transpose(_in_eight_bits(image, bits))
            plain = _plain(upright).convert("L" if channels == 1 else "RGB")
            pixels = np.array(_resized(plain, side, fit, FILTERS[interpolation]))
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


def deep_kind(path: Path) -> DeepKind | None:
    """Return whether a file with 16 bits per channel is gray, or in colour or translucent; None: it has fewer."""
    try:
        with path.open("rb") as file:
            return _deep_kind(file)
    except OSError:
        return None


def _deep_kind(file: IO[bytes]) -> DeepKind | None:
    place = file.tell()
    file.seek(0)
    header = file.read(128)
    file.seek(place)
    if header.startswith(b"\x89PNG") and header[24:25] == b"\x10":
        return "colour" if header[25] else "gray"
    return "gray" if PGM_OF_16_BITS.match(header) else None


def brightest(path: Path) -> int:
    """Return the largest value of a file with 16 bits per channel; white is 65535."""
    with Image.open(path, formats=FORMATS) as image:
        values, colours = _deep_values(image)
        return int(values[..., :colours].max())


def _deep_values(image: ImageFile.ImageFile) -> tuple[NDArray[np.float32], int]:
    """Return the values of an image with 16 bits per channel, [H, W, C], and how many channels are colours."""
    if image.mode.startswith("I"):
        return np.asarray(image, dtype=np.float32)[..., None], 1
    assert image.fp is not None
    image.fp.seek(0)
    content = image.fp.read()

    def unpacked(layout: str) -> NDArray[np.uint8]:
        """Return the bytes in another layout than PIL's own, which keeps the upper one of each value only."""
        with Image.open(BytesIO(content), formats=("PNG",)) as again:
            again.tile = [tile._replace(args=layout) for tile in again.tile]
            return np.asarray(again)

    if "LA" in str(image.tile[0].args):  # four bytes, as many as of RGBA
        pairs = unpacked("RGBA")
        upper, lower = pairs[..., ::2], pairs[..., 1::2]
    else:
        upper, lower = unpacked(f"{image.mode};16B"), unpacked(f"{image.mode};16L")
    return upper.astype(np.float32) * 256 + lower, 1 if upper.shape[2] == 2 else 3


def _in_eight_bits(image: ImageFile.ImageFile, bits: int) -> Image.Image:
    """Return an image with eight bits per channel. bits: how many of 16 are used, where there are 16."""
    assert image.fp is not None
    kind = _deep_kind(image.fp)
    if kind != "colour" and not image.mode.startswith("I"):  # none of the known formats has more than 16 bits of gray
        return image
    values, colours = _deep_values(image)
    white = 65535 if kind is None else 2**bits - 1  # PGM with a white of its own
    if values[..., :colours].max() > white:
        problem = f"{values[..., :colours].max():.0f} of 65535; data.bits={bits} makes {white} white"
        raise Undecodable(f"has values up to {problem}")
    values[..., :colours] /= white / 255
    values[..., colours:] /= 257  # opacity
    eight = values.round().astype(np.uint8)
    plain = Image.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight)
    plain.info["exif"] = image.getexif().tobytes()
    return plain


def _plain(image: Image.Image) -> Image.Image:
    """Return the image without transparency."""
    if image.mode == "F":
        raise Undecodable("has fractions for pixels, with no defined black and white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image


def _resized(image: Image.Image, side: int, fit: str, resampling: Image.Resampling) -> Image.Image:
    width, height = side, side
    if fit != "stretch":
        shorter = min(image.size)
        width, height = (max(side, int(side * size / shorter)) for size in image.size)
        if width * height > MAX_PIXELS:
            raise Undecodable(f"is too long for its {shorter} pixels across")
    return image if image.size == (width, height) else image.resize((width, height), resampling)


def _reason(source: Path | BinaryIO, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {grouped(MAX_PIXELS)} pixels"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        size = source.stat().st_size if isinstance(source, Path) else source.seek(0, os.SEEK_END)
        return "is empty" if size == 0 else f"is no image of a known format ({', '.join(FORMATS)})"
    return f"is damaged: {' '.join(str(error).split()) or type(error).__name__}"
