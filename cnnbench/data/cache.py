"""Photographs decoded and resized once, and kept on disk with checksums."""

import errno
import hashlib
import math
import os
import shutil
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench.data.decode import Undecodable, decode, worker_threads
from cnnbench.data.files import user_cache_dir
from cnnbench.data.images import Photographs, Stream
from cnnbench.errors import TrainingError, counted, grouped
from cnnbench.store.files import DamagedError, write_sealed
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Stored

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

CONVERSION = 2  # raised with every change to the pixels that `decode` returns

_intact: set[tuple[int | bytes, ...]] = set()  # files that were checked, each as it was then
_one_at_a_time = threading.Lock()


class Index(Stored):
    """`index.json` of a folder of decoded images: what is wrong with which, and the CRC-32 of each, 8 hexadecimals."""

    problems: dict[str, str]
    checksums: str


def cache_dir() -> Path:
    """Return the folder of decoded images: $CNNBENCH_CACHE, or one in the user's cache folder."""
    given = os.environ.get("CNNBENCH_CACHE")
    return Path(given).expanduser() if given else user_cache_dir() / "decoded"


def decode_photographs(
    photographs: Photographs, side: int, channels: int, interpolation: str = "bilinear"
) -> tuple[Stream, dict[int, str], tuple[str, ...]]:
    """Return the images as a stream of uint8 [B, C, side, side], what is wrong with which of them, by row, and notes.

    Every file is decoded once, to see whether it can be, into a folder named after the content of all files and the
    settings, where the next run finds them. Where they are not to be kept, or the disk is full or read-only, they are
    decoded again for every batch: the same pixels, at a higher cost. What is damaged there is decoded again.
    """
    folder = cache_dir() / _key(photographs, side, channels, interpolation)
    all_rows, shape, files = torch.arange(len(photographs)), (channels, side, side), tuple(map(str, photographs.paths))

    def decode_file(path: Path) -> Tensor:
        return decode(path, side, channels, photographs.fit, photographs.bits, interpolation)

    def decode_rows(rows: Tensor) -> Tensor:
        images = []
        for path in photographs[rows].paths:
            try:
                images.append(decode_file(path))
            except Undecodable as error:
                raise TrainingError(f"{path} {error}; it could be decoded when the run began.") from error
        return torch.stack(images).permute(0, 3, 1, 2)

    notes: tuple[str, ...] = ()
    if photographs.cache:
        try:
            kept, problems, notes = _cached(folder, photographs, decode_file, (side, side, channels))
            return Stream(lambda rows: kept.load(rows).permute(0, 3, 1, 2), all_rows, shape, files), problems, notes
        except OSError as error:
            size = len(photographs) * side * side * channels
            why = f"{folder.parent} cannot keep {grouped(size / 1e6)} MB: {error.strerror or error}"
            notes = (f"images are decoded for every batch, since {why}; CNNBENCH_CACHE=FOLDER names another place",)
    return Stream(decode_rows, all_rows, shape, files), _decode_each(photographs, decode_file), notes


def _key(photographs: Photographs, side: int, channels: int, interpolation: str) -> str:
    digest = hashlib.sha256(f"{CONVERSION} {side} {channels} {photographs.fit} {photographs.bits}".encode())
    digest.update(b"" if interpolation == "bilinear" else interpolation.encode())
    digest.update("".join(photographs.digests).encode())
    return digest.hexdigest()[:32]


class _Kept:
    """An open file of decoded images, uint8 [N, side, side, C].

    It is read, never mapped: of a file that is cut meanwhile, a mapping would kill the process.
    """

    def __init__(self, path: Path, size: tuple[int, int, int]) -> None:
        """Open the file. Raises DamagedError where that is not possible."""
        self.path, self._size, self._bytes = path, size, math.prod(size)
        try:
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
        weakref.finalize(self, os.close, self._handle)

    def load(self, rows: Tensor) -> Tensor:
        """Return some images, uint8 [B, side, side, C]. Raises TrainingError where they are not there any more."""
        images = torch.empty((len(rows), *self._size), dtype=torch.uint8)
        for image, row in zip(images.numpy().reshape(len(rows), -1), rows.tolist(), strict=True):
            if not self._read(row, image.data):
                raise TrainingError(f"{self.path} was cut while it was in use; the same command again replaces it.")
        return images

    def check(self, checksums: bytes) -> None:
        """Raise DamagedError unless all images are those that were written, by their checksums."""
        found = os.fstat(self._handle)
        version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, checksums)
        if version in _intact:
            return
        if found.st_size != len(checksums) // 4 * self._bytes:
            raise DamagedError(f"{self.path} has {found.st_size} bytes, not {len(checksums) // 4 * self._bytes}")
        image = memoryview(bytearray(self._bytes))
        known = [int.from_bytes(checksums[first : first + 4]) for first in range(0, len(checksums), 4)]
        damaged = sum(not self._read(row, image) or zlib.crc32(image) != checksum for row, checksum in enumerate(known))
        if damaged:
            raise DamagedError(f"{self.path}: {counted(damaged, 'image')} changed after being written")
        _intact.add(version)

    def _read(self, row: int, image: memoryview) -> bool:
        """Read an image, and tell whether that was possible."""
        at = row * self._bytes
        try:
            while image and (count := _read_at(self._handle, image, at)):
                image, at = image[count:], at + count
        except OSError:
            return False
        return not image


def _read_at(handle: int, content: memoryview, place: int) -> int:
    """Read from a place in a file, from any thread, and return how many bytes that were."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [content], place)
    with _one_at_a_time:  # Windows
        os.lseek(handle, place, os.SEEK_SET)
        found = os.read(handle, len(content))
    content[: len(found)] = found
    return len(found)


def _cached(
    folder: Path, photographs: Photographs, decode_file: Callable[[Path], Tensor], size: tuple[int, int, int]
) -> tuple[_Kept, dict[int, str], tuple[str, ...]]:
    """Return the decoded images in the folder, what is wrong with which of them, and notes.

    Everything is decoded into it where it is not complete, or damaged. Raises OSError where it cannot be written.
    """
    try:
        return *_opened(folder, len(photographs), size), ()
    except DamagedError:
        pass
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        try:
            return *_opened(folder, len(photographs), size), ()  # another process may have done it
        except DamagedError as error:
            notes = (f"images were decoded again: {error}",) if (folder / "index.json").exists() else ()
        _fill(folder, photographs, decode_file, len(photographs) * math.prod(size))
    try:
        return *_opened(folder, len(photographs), size), notes
    except DamagedError as error:
        raise OSError(f"what was written there is not what is read: {error}") from error


def _opened(folder: Path, number: int, size: tuple[int, int, int]) -> tuple[_Kept, dict[int, str]]:
    """Return the decoded images in a folder, and what is wrong with which. Raises DamagedError unless all are there."""
    index = read_json(folder / "index.json", Index)
    problems = {int(row): problem for row, problem in index["problems"].items()}
    checksums = bytes.fromhex(index["checksums"])
    if len(checksums) != 4 * number:
        raise DamagedError(f"{folder} is not of {number} images")
    kept = _Kept(folder / "pixels", size)
    kept.check(checksums)
    return kept, problems


def _fill(folder: Path, photographs: Photographs, decode_file: Callable[[Path], Tensor], size: int) -> None:
    scratch = folder.with_suffix(".tmp")
    for leftover in (folder, scratch):  # damaged; of a writer that was killed, since this one holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    if shutil.disk_usage(folder.parent).free < 1.1 * size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    scratch.mkdir()
    pixels = scratch / "pixels"
    checksums = [zlib.crc32(bytes(size // len(photographs)))] * len(photographs)  # zeros: of what cannot be decoded

    def write(row: int, image: Tensor) -> None:
        content = image.numpy().data
        with pixels.open("r+b") as file:
            file.seek(row * content.nbytes)
            file.write(content)
        checksums[row] = zlib.crc32(content)

    try:
        with pixels.open("wb") as file:
            file.truncate(size)
        problems = _decode_each(photographs, decode_file, write)
        with pixels.open("rb") as written:
            os.fsync(written.fileno())  # so that a power cut cannot keep the folder's name and lose its content
        known = "".join(f"{checksum:08x}" for checksum in checksums)
        write_sealed(scratch / "index.json", {"problems": problems, "checksums": known})
        scratch.rename(folder)  # last, so that a folder of this name is complete
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _decode_each(
    photographs: Photographs,
    decode_file: Callable[[Path], Tensor],
    write: Callable[[int, Tensor], None] = lambda _row, _image: None,
) -> dict[int, str]:
    """Decode every file, write it, and return what is wrong with which."""

    def work(row: int) -> str | None:
        try:
            image = decode_file(photographs.paths[row])
        except Undecodable as error:
            return str(error)
        write(row, image)
        return None

    rows = range(len(photographs))
    with worker_threads() as pool:
        problems = tqdm(pool.map(work, rows), "decoding images", len(rows), leave=False, disable=None)
        return {row: problem for row, problem in zip(rows, problems, strict=True) if problem is not None}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock; another process waits. The system releases it when the process ends."""
    with path.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
