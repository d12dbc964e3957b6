"""Photographs decoded and resized once, kept on disk as memory-mapped bytes, and checked for those to exclude."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench.data.decode import Undecodable, decode, worker_threads
from cnnbench.data.files import user_cache_dir
from cnnbench.data.image_files import first_names
from cnnbench.data.images import Photographs, Stream
from cnnbench.data.split import Split
from cnnbench.errors import TrainingError, UserError, grouped

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

CONVERSION = 1  # raised with every change to the pixels that `decode` returns


def cache_dir() -> Path:
    """Return the folder of decoded images: $CNNBENCH_CACHE, or one in the user's cache folder."""
    given = os.environ.get("CNNBENCH_CACHE")
    return Path(given).expanduser() if given else user_cache_dir() / "decoded"


def decode_photographs(
    photographs: Photographs, side: int, channels: int
) -> tuple[Stream, dict[int, str], tuple[str, ...]]:
    """Return the images as a stream of uint8 [B, C, side, side], what is wrong with which of them, by row, and notes.

    Every file is decoded once, to see whether it can be, into a folder named after the content of all files and the
    settings, where the next run finds them. Where they are not to be kept, or the disk is full or read-only, they are
    decoded again for every batch: the same pixels, at a higher cost.
    """
    size = len(photographs) * side * side * channels
    folder = cache_dir() / _key(photographs, side, channels)
    all_rows, shape, files = torch.arange(len(photographs)), (channels, side, side), tuple(map(str, photographs.paths))

    def decode_file(path: Path) -> Tensor:
        return decode(path, side, channels, photographs.fit)

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
            problems = _cached(folder, photographs, decode_file, size)
            pixels = torch.from_file(str(folder / "pixels"), size=size, dtype=torch.uint8)
            images = pixels.view(-1, side, side, channels)
            stream = Stream(lambda rows: images.index_select(0, rows).permute(0, 3, 1, 2), all_rows, shape, files)
            return stream, problems, ()
        except OSError as error:
            why = f"{folder.parent} cannot keep {grouped(size / 1e6)} MB: {error.strerror or error}"
            notes = (f"images are decoded for every batch, since {why}; CNNBENCH_CACHE=FOLDER names another place",)
    return Stream(decode_rows, all_rows, shape, files), _decode_each(photographs, decode_file), notes


def _key(photographs: Photographs, side: int, channels: int) -> str:
    digest = hashlib.sha256(f"{CONVERSION} {side} {channels} {photographs.fit}".encode())
    digest.update("".join(photographs.digests).encode())
    return digest.hexdigest()[:32]


def _cached(folder: Path, photographs: Photographs, decode_file: Callable[[Path], Tensor], size: int) -> dict[int, str]:
    """Decode everything into the folder, unless it is complete, and return what is wrong with which image."""
    if not _is_complete(folder, size):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not _is_complete(folder, size):  # another process may have done it
                _fill(folder, photographs, decode_file, size)
    problems = json.loads((folder / "problems.json").read_text(encoding="utf-8"))
    return {int(row): problem for row, problem in problems.items()}


def _is_complete(folder: Path, size: int) -> bool:
    pixels = folder / "pixels"
    return (folder / "problems.json").is_file() and pixels.is_file() and pixels.stat().st_size == size


def _fill(folder: Path, photographs: Photographs, decode_file: Callable[[Path], Tensor], size: int) -> None:
    scratch = folder.with_suffix(".tmp")
    for leftover in (folder, scratch):  # damaged; of a writer that was killed, since this one holds the lock
        shutil.rmtree(leftover, ignore_errors=True)
    if shutil.disk_usage(folder.parent).free < 1.1 * size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    scratch.mkdir()
    pixels = scratch / "pixels"

    def write(row: int, image: Tensor) -> None:
        with pixels.open("r+b") as file:  # not mapped: writing to a memory map kills the process when the disk is full
            file.seek(row * image.numel())
            file.write(image.numpy().data)

    try:
        with pixels.open("wb") as file:
            file.truncate(size)
        problems = _decode_each(photographs, decode_file, write)
        with pixels.open("rb") as written:
            os.fsync(written.fileno())  # so that a power cut cannot keep the folder's name and lose its content
        (scratch / "problems.json").write_text(json.dumps(problems), encoding="utf-8")
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


def exclude_unusable(
    photographs: Photographs, problems: Mapping[int, str], split: Split, num_train: int
) -> tuple[Split, tuple[str, ...]]:
    """Return the split without training images that cannot be used, and a note that names those left out.

    Unusable are damaged images, and copies of images in a part for evaluation. photographs: the `num_train` of the
    training part, then those of the test part. problems: what is wrong with damaged ones, by row.
    Raises UserError, which names up to twenty, for unusable images in validation or test, and for those in training
    unless the photographs say to skip them.
    """
    paths, digests = photographs.paths, photographs.digests
    evaluated = {"validation": split.val.tolist(), "test": list(range(num_train, len(photographs)))}
    places = {part: {digests[row]: f"{part} ({paths[row]})" for row in rows} for part, rows in evaluated.items()}

    def unusable(rows: Sequence[int], *other_parts: str) -> dict[int, str]:
        copies = {
            row: [places[part][digests[row]] for part in other_parts if digests[row] in places[part]] for row in rows
        }
        reasons = {row: f"is in {' and '.join(found)} too" for row, found in copies.items() if found}
        return reasons | {row: problems[row] for row in rows if row in problems}

    def listing(purpose: str, reasons: Mapping[int, str]) -> str:
        images = [f"{paths[row]} {reason}" for row, reason in sorted(reasons.items())]
        return f"{grouped(len(images))} {purpose}: {first_names(images)}"

    for_training = unusable(split.train.tolist(), "validation", "test")
    for_evaluation = unusable(evaluated["validation"], "test") | unusable(evaluated["test"])
    reported = {"for training": {} if photographs.skip else for_training, "for validation or test": for_evaluation}
    if any(reported.values()):
        number = sum(len(reasons) for reasons in reported.values())
        lines = [f"{grouped(number)} of {grouped(len(photographs))} images cannot be used:"]
        lines += [listing(purpose, reasons) for purpose, reasons in reported.items() if reasons]
        hint = "; data.on_problem=skip trains without those for training" if reported["for training"] else ""
        raise UserError("\n  ".join([*lines, f"repair or remove them{hint}"]))
    if not for_training:
        return split, ()
    keep = torch.tensor([row not in for_training for row in split.train.tolist()])
    return Split(split.train[keep], split.val), (listing("left out of training", for_training),)
