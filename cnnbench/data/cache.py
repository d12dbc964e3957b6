"""Photographs, decoded and resized once, and kept on disk as bytes that are mapped into memory."""

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


def opened(photographs: Photographs, side: int, channels: int) -> tuple[Stream, dict[int, str]]:
    """Return the images as a stream of uint8 [B, C, side, side], and what is wrong with which of them, by row.

    Every file is decoded once to see whether it can be, and kept in a folder named after the content of all of them
    and the settings; the next run finds it there. Where they shall not be kept, or the disk has no room, they are
    decoded again for every batch: the same numbers, at another price.
    """
    size = len(photographs) * side * side * channels
    folder = cache_dir() / _key(photographs, side, channels)
    rows, shape = torch.arange(len(photographs)), (channels, side, side)

    def decoded(path: Path) -> Tensor:
        return decode(path, side, channels, photographs.fit)

    def again(wanted: Tensor) -> Tensor:
        images = [decoded(photographs.paths[row]) for row in wanted.tolist()]
        return torch.stack(images).permute(0, 3, 1, 2)

    if not photographs.cache or not _has_room(folder, size):
        return Stream(again, rows, shape), _each(photographs, decoded, None)
    problems = _fill(folder, photographs, decoded, size)
    kept = torch.from_file(str(folder / "pixels"), size=size, dtype=torch.uint8).view(-1, side, side, channels)
    return Stream(lambda wanted: kept.index_select(0, wanted).permute(0, 3, 1, 2), rows, shape), problems


def _key(photographs: Photographs, side: int, channels: int) -> str:
    digest = hashlib.sha256(f"{CONVERSION} {side} {channels} {photographs.fit}".encode())
    digest.update("".join(photographs.digests).encode())
    return digest.hexdigest()[:32]


def _has_room(folder: Path, size: int) -> bool:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return (folder / "problems.json").is_file() or shutil.disk_usage(folder.parent).free > 1.1 * size
    except OSError:
        return False


def _fill(folder: Path, photographs: Photographs, decoded: Callable[[Path], Tensor], size: int) -> dict[int, str]:
    """Decode everything into the folder, unless that is there; it gets its name last, when it is whole."""
    with _locked(folder.with_suffix(".lock")):
        said = folder / "problems.json"
        if not said.is_file():
            scratch = folder.with_suffix(".tmp")
            shutil.rmtree(scratch, ignore_errors=True)  # of a writer that was killed: this one holds the lock
            scratch.mkdir()
            target = torch.from_file(str(scratch / "pixels"), shared=True, size=size, dtype=torch.uint8)
            problems = _each(photographs, decoded, target.view(len(photographs), -1))
            (scratch / said.name).write_text(json.dumps(problems), encoding="utf-8")
            scratch.rename(folder)
        return {int(row): problem for row, problem in json.loads(said.read_text(encoding="utf-8")).items()}


def _each(photographs: Photographs, decoded: Callable[[Path], Tensor], target: Tensor | None) -> dict[int, str]:
    """Decode every file, into a row of the target if there is one, and return what is wrong with which."""

    def work(row: int) -> str | None:
        try:
            pixels = decoded(photographs.paths[row])
        except Undecodable as error:
            return str(error)
        if target is not None:
            target[row] = pixels.reshape(-1)
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
