"""Decoded images on disk, found by the content of their files: packs that many data sets share, with checksums.

`CACHE/256-rgb-shorter-v2/PACK/pixels` has images one after the other, each followed by its counts: how often each value
is in each channel of its central square. `index.json` says where they are. A pack is never changed, only replaced.
"""

import math
import os
import shutil
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from cnnbench.data.decode import square_in, worker_threads
from cnnbench.data.files import user_cache_dir
from cnnbench.errors import TrainingError, counted
from cnnbench.store.files import DamagedError, write_sealed
from cnnbench.store.lock import take
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Stored

VALUES = 256  # of a byte
_intact: set[tuple[object, ...]] = set()  # images that were checked, each in its file as it was then
_one_at_a_time = threading.Lock()


class Index(Stored):
    """`index.json` of a pack, by the sha256 of files: place, height, width and CRC-32 of images, or what is wrong."""

    images: dict[str, list[int]]
    problems: dict[str, str]


class Entry(NamedTuple):
    """Where in a pack an image is, its size, and the CRC-32 of its pixels and counts."""

    place: int
    height: int
    width: int
    checksum: int


def cache_dir() -> Path:
    """Return the folder of decoded images: $CNNBENCH_CACHE, or one in the user's cache folder."""
    given = os.environ.get("CNNBENCH_CACHE")
    return Path(given).expanduser() if given else user_cache_dir() / "decoded"


class Pack:
    """A pack that is open.

    It is read, never mapped: of a file that is cut meanwhile, a mapping would kill the process.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        """Open the pack. Raises DamagedError where that is not possible."""
        self.path, self._channels = folder / "pixels", channels
        index = read_json(folder / "index.json", Index)
        self.problems: dict[str, str] = index["problems"]
        try:
            self.images = {digest: Entry(*values) for digest, values in index["images"].items()}
            self._handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except TypeError as error:
            raise DamagedError(f"{folder / 'index.json'} is damaged: {error}") from error
        except OSError as error:
            raise DamagedError(f"{self.path} cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._handle)

    def pixels(self, entry: Entry, top: int, height: int) -> Tensor:
        """Return lines of an image, uint8 [height, W, C]. Raises TrainingError where they are not there any more."""
        line = entry.width * self._channels
        return self._read(entry.place + top * line, height * line).view(height, entry.width, self._channels)

    def counts(self, entry: Entry) -> Tensor:
        """Return how often each value is in each channel of the central square, int32 [C, 256]."""
        place = entry.place + entry.height * entry.width * self._channels
        return self._read(place, counts_size(self._channels)).view(torch.int32).view(self._channels, VALUES)

    def check(self, entries: Sequence[Entry]) -> None:
        """Raise DamagedError unless these images are those that were written, by their checksums."""
        found = os.fstat(self._handle)
        version = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        unchecked = [entry for entry in entries if (*version, *entry) not in _intact]

        def is_damaged(entry: Entry) -> bool:
            size = self._size(entry)
            if entry.place + size > found.st_size:
                return True
            content = bytearray(size)
            return not self._fill(content, entry.place) or zlib.crc32(content) != entry.checksum

        with worker_threads() as pool:
            damaged = sum(pool.map(is_damaged, unchecked))
        if damaged:
            raise DamagedError(f"{self.path}: {counted(damaged, 'image')} changed after being written")
        _intact.update((*version, *entry) for entry in unchecked)

    def _size(self, entry: Entry) -> int:
        return math.prod(entry[1:3]) * self._channels + counts_size(self._channels)

    def _read(self, place: int, size: int) -> Tensor:
        content = torch.empty(size, dtype=torch.uint8)
        if not self._fill(content.numpy().data, place):
            raise TrainingError(f"{self.path} was cut while it was in use; the same command again replaces it.")
        return content

    def _fill(self, content: bytearray | memoryview, place: int) -> bool:
        """Read from a place on, and tell whether that was possible."""
        rest = memoryview(content)
        try:
            while rest and (count := _read_at(self._handle, rest, place)):
                rest, place = rest[count:], place + count
        except OSError:
            return False
        return not rest


def counts_size(channels: int) -> int:
    """Return how many bytes the counts of an image have."""
    return channels * VALUES * 4


def counts_of(pixels: Tensor) -> Tensor:
    """Return how often each value is in each channel of the central square, int32 [C, 256]. pixels: uint8 [H, W, C]."""
    height, width, channels = pixels.shape
    (top, left), side = square_in(height, width), min(height, width)
    square = pixels[top : top + side, left : left + side].reshape(-1, channels)
    counts = [torch.bincount(square[:, channel], minlength=VALUES) for channel in range(channels)]
    return torch.stack(counts).to(torch.int32)


def _read_at(handle: int, content: memoryview, place: int) -> int:
    """Read from a place in a file, from any thread, and return how many bytes that were."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [content], place)
    with _one_at_a_time:  # Windows
        os.lseek(handle, place, os.SEEK_SET)
        found = os.read(handle, len(content))
    content[: len(found)] = found
    return len(found)


@dataclass(frozen=True)
class Opened:
    """Packs that are open: where images are, and what is wrong with others, by the digests of their files.

    damaged: why some packs cannot be used, by their folder.
    """

    images: dict[str, tuple[Pack, Entry]]
    problems: dict[str, str]
    damaged: dict[Path, str]

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Return the digests of files that are in none of the packs, each once."""
        return [key for key in dict.fromkeys(digests) if key not in self.images and key not in self.problems]


def open_packs(folder: Path, channels: int, digests: Sequence[str]) -> Opened:
    """Open the packs of one way of decoding, those with any of these images, which are checked; it is a use of them."""
    opened, needed = Opened({}, {}, {}), dict.fromkeys(digests)
    for path in _packs_in(folder):
        try:
            pack = Pack(path, channels)
            images = {digest: (pack, pack.images[digest]) for digest in needed if digest in pack.images}
            pack.check([entry for _, entry in images.values()])
        except DamagedError as error:
            opened.damaged[path] = str(error)
            continue
        problems = {digest: pack.problems[digest] for digest in needed if digest in pack.problems}
        opened.images.update(images)
        opened.problems.update(problems)
        if images or problems:
            with suppress(OSError):  # a read-only disk
                os.utime(path / "index.json")
    return opened


def _packs_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/") if not path.suffix)


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a file lock, and tell whether it was free; the system releases it when the process ends.

    wait: until it is.
    """
    with path.open("a+") as file:  # on network file systems a lock that is shared needs a file that can be read
        while not (is_mine := take(file)) and wait:
            time.sleep(0.05)
        yield is_mine


def write_pack(folder: Path, fill: Callable[[Callable[[str, Tensor], None]], dict[str, str]]) -> None:
    """Write a pack completely, or not at all; its lock has to be held. Raises OSError.

    fill: adds images, uint8 [H, W, C], by the digests of their files, from any thread, and returns what is wrong with
    others.
    """
    scratch = folder.with_suffix(".tmp")
    for leftover in (folder, scratch):  # damaged; of a writer that was killed, since this one holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    scratch.mkdir()
    images: dict[str, Entry] = {}
    lock = threading.Lock()
    try:
        with (scratch / "pixels").open("xb") as file:

            def add(digest: str, image: Tensor) -> None:
                height, width, _ = image.shape
                contents = image.contiguous().numpy().data.cast("B"), counts_of(image).numpy().data.cast("B")
                checksum = zlib.crc32(contents[1], zlib.crc32(contents[0]))
                with lock:
                    images[digest] = Entry(file.tell(), height, width, checksum)
                    for content in contents:
                        file.write(content)

            problems = fill(add)
            file.flush()
            os.fsync(file.fileno())  # so that a power cut cannot keep the folder's name and lose its content
        write_sealed(scratch / "index.json", {"images": images, "problems": problems})
        scratch.rename(folder)  # last, so that a folder of this name is complete
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# Listing and pruning --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stock:
    """A folder of the cache: packs of one way of decoding, or what an earlier version left.

    images: their number; None: unknown. used: when last, in seconds since 1970.
    """

    name: str
    packs: tuple[Path, ...]
    images: int | None
    size: int
    used: float


def stocks() -> list[Stock]:
    """Return what is in the cache."""
    found = []
    for folder in sorted(path for path in cache_dir().glob("*/")):
        packs = tuple(path for path in sorted(folder.glob("*/")))  # of killed writers as well
        is_earlier = (folder / "pixels").exists()
        if packs or is_earlier:
            images = None if is_earlier else sum(map(_number, packs))
            found.append(Stock(folder.name, packs or (folder,), images, *_size_and_use(folder)))
    return found


def _number(pack: Path) -> int:
    try:
        return len(read_json(pack / "index.json", Index)["images"])
    except DamagedError:
        return 0


def _size_and_use(folder: Path) -> tuple[int, float]:
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(one.st_size for one in found), max((one.st_mtime for one in found), default=0.0)


def prune(days: float) -> int:
    """Remove what was not used for a number of days, and what killed writers left, and return how many bytes it had.

    What a training reads meanwhile stays open to it; what is being written stays.
    """
    limit, freed = time.time() - 86400 * days, 0
    for pack in (pack for stock in stocks() for pack in stock.packs):
        with locked(pack.with_suffix(".lock"), wait=False) as is_mine:
            if not is_mine or not pack.exists():
                continue
            size, used = _size_and_use(pack)
            if days == 0 or used <= limit or pack.suffix:
                shutil.rmtree(pack)
                freed += size
    return freed
