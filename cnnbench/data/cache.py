"""Photographs, decoded and resized once, and kept on disk as bytes that are mapped into memory."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench.data.decode import Undecodable, decode
from cnnbench.data.images import Photographs, Stream
from cnnbench.errors import TrainingError, grouped

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

CONVERSION = 1  # raised with every change of what `decode` makes of a file


def cache_dir() -> Path:
    """Return the folder of decoded images: $CNNBENCH_CACHE, or one in the user's cache folder."""
    chosen = os.environ.get("CNNBENCH_CACHE")
    above = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cnnbench" / "decoded"
    return (Path(chosen) if chosen else above).expanduser()


def opened(photographs: Photographs, side: int, channels: int) -> tuple[Stream, dict[int, str], tuple[str, ...]]:
    """Return the images as a stream of uint8 [B, C, side, side], what is wrong with which of them, by row, and notes.

    Every file is decoded once to see whether it can be, and kept in a folder named after the content of all of them
    and the settings; the next run finds it there. Where they shall not be kept, or the disk has no room or cannot be
    written, they are decoded again for every batch: the same numbers, at another price.
    """
    size = len(photographs) * side * side * channels
    folder = cache_dir() / _key(photographs, side, channels)
    rows, shape = torch.arange(len(photographs)), (channels, side, side)
    files = tuple(map(str, photographs.paths))

    def decoded(path: Path) -> Tensor:
        return decode(path, side, channels, photographs.fit)

    def again(wanted: Tensor) -> Tensor:
        return torch.stack([still(photographs.paths[row]) for row in wanted.tolist()]).permute(0, 3, 1, 2)

    def still(path: Path) -> Tensor:
        try:
            return decoded(path)
        except Undecodable as error:
            raise TrainingError(f"{path} {error}; it was whole when the run began.") from error

    notes: tuple[str, ...] = ()
    if photographs.cache:
        try:
            problems = _kept(folder, photographs, decoded, size)
            kept = torch.from_file(str(folder / "pixels"), size=size, dtype=torch.uint8).view(-1, side, side, channels)
            found = Stream(lambda wanted: kept.index_select(0, wanted).permute(0, 3, 1, 2), rows, shape, files)
            return found, problems, ()
        except OSError as error:
            why = f"{folder.parent} cannot keep {grouped(size / 1e6)} MB: {error.strerror or error}"
            notes = (f"images are decoded for every batch, since {why}; CNNBENCH_CACHE=FOLDER names another place",)
    return Stream(again, rows, shape, files), _each(photographs, decoded), notes


def _key(photographs: Photographs, side: int, channels: int) -> str:
    digest = hashlib.sha256(f"{CONVERSION} {side} {channels} {photographs.fit}".encode())
    digest.update("".join(photographs.digests).encode())
    return digest.hexdigest()[:32]


def _kept(folder: Path, photographs: Photographs, decoded: Callable[[Path], Tensor], size: int) -> dict[int, str]:
    """Decode everything into the folder, unless that is there; it gets its name last, when it is whole."""
    if not _is_whole(folder, size):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not _is_whole(folder, size):  # another process may have made it
                _fill(folder, photographs, decoded, size)
    said = json.loads((folder / "problems.json").read_text(encoding="utf-8"))
    return {int(row): problem for row, problem in said.items()}


def _is_whole(folder: Path, size: int) -> bool:
    pixels = folder / "pixels"
    return (folder / "problems.json").is_file() and pixels.is_file() and pixels.stat().st_size == size


def _fill(folder: Path, photographs: Photographs, decoded: Callable[[Path], Tensor], size: int) -> None:
    scratch = folder.with_suffix(".tmp")
    for left in (folder, scratch):  # damaged; of a writer that was killed: this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    if shutil.disk_usage(folder.parent).free < 1.1 * size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    scratch.mkdir()
    pixels = scratch / "pixels"

    def write(row: int, image: Tensor) -> None:  # through the file, since a full disk kills who writes to its map
        with pixels.open("r+b") as file:
            file.seek(row * image.numel())
            file.write(image.numpy().data)

    try:
        with pixels.open("wb") as file:
            file.truncate(size)
        problems = _each(photographs, decoded, write)
        with pixels.open("rb") as written:
            os.fsync(written.fileno())  # a name that outlives the power means that the content does
        (scratch / "problems.json").write_text(json.dumps(problems), encoding="utf-8")
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _each(
    photographs: Photographs,
    decoded: Callable[[Path], Tensor],
    write: Callable[[int, Tensor], None] = lambda _row, _image: None,
) -> dict[int, str]:
    """Decode every file, write it, and return what is wrong with which."""

    def work(row: int) -> str | None:
        try:
            image = decoded(photographs.paths[row])
        except Undecodable as error:
            return str(error)
        write(row, image)
        return None

    rows = range(len(photographs))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = tqdm(pool.map(work, rows), "decoding images", len(rows), leave=False, disable=None)
        return {row: problem for row, problem in zip(rows, found, strict=True) if problem is not None}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file for this process; another one waits. The system lets go of it when the process ends."""
    with path.open("a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
