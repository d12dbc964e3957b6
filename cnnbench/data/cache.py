"""Photographs decoded and resized once, and kept on disk by the content of their files."""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cnnbench.data.decode import Undecodable, Unreadable, decode_whole, worker_threads
from cnnbench.data.images import Photographs, Pictures, Stream
from cnnbench.data.packs import VALUES, Entry, Pack, cache_dir, counts_size, locked, open_packs, write_pack
from cnnbench.errors import TrainingError, counted

CONVERSION = 2  # raised with every change to the pixels that `decode_whole` returns

Decode = Callable[[Path, str], Tensor]  # a file, and the digest of what it has to contain
Found = tuple[Pictures, dict[str, str]]  # and what is wrong with the others, by the digest of the file


def decode_photographs(
    photographs: Photographs, side: int, channels: int, interpolation: str = "bilinear"
) -> tuple[Stream, dict[int, str], tuple[str, ...]]:
    """Return the images as a stream of uint8 [B, C, side, side], what is wrong with which of them, by row, and notes.

    Every file is decoded once, to see whether it can be, into packs where other data sets find it too, by its content.
    Where they are not to be kept, or the disk is full or read-only, files are decoded again for every batch: the same
    pixels, at a higher cost. What is damaged in a pack is decoded again.
    """

    def decode_file(path: Path, digest: str) -> Tensor:
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise Unreadable("has other content than when it was first read")
                file.seek(0)
                return decode_whole(file, side, channels, photographs.fit, photographs.bits, interpolation)
        except OSError as error:
            raise Unreadable(f"cannot be read: {error.strerror or error}") from error

    ways = [f"{side}", "gray" if channels == 1 else "rgb", "both" if photographs.fit == "stretch" else "shorter"]
    ways += [f"{photographs.bits}bit"] * (photographs.bits != 16) + [interpolation] * (interpolation != "bilinear")
    folder = cache_dir() / "-".join([*ways, f"v{CONVERSION}"])
    found: Found | None = None
    notes: tuple[str, ...] = ()
    if photographs.cache:
        try:
            found, notes = _cached(folder, photographs, decode_file, side * side * channels, channels)
        except OSError as error:
            why = f"{folder.parent} cannot keep {counted(len(photographs), 'image')}: {error.strerror or error}"
            notes = (f"images are decoded for every batch, since {why}; CNNBENCH_CACHE=FOLDER names another place",)
    pictures, problems = found or _uncached(photographs, decode_file, channels)
    files, rows = tuple(map(str, photographs.paths)), torch.arange(len(photographs))
    stream = Stream(pictures.squares, rows, (channels, side, side), files, pictures)
    return stream, {row: problems[key] for row, key in enumerate(photographs.digests) if key in problems}, notes


def _cached(
    folder: Path, photographs: Photographs, decode_file: Decode, smallest: int, channels: int
) -> tuple[Found, tuple[str, ...]]:
    """Return pictures that are read from packs, and notes. smallest: bytes of an image at least.

    What is in no pack, or only in damaged ones, is decoded into a new one. Raises OSError where it cannot be written.
    """
    digests, unreadable = photographs.digests, {}
    notes: tuple[str, ...] = ()
    opened = open_packs(folder, channels, digests)
    if missing := opened.missing(digests):
        folder.mkdir(parents=True, exist_ok=True)
        pack = folder / hashlib.sha256("".join(sorted(missing)).encode()).hexdigest()[:32]
        with locked(pack.with_suffix(".lock")):
            opened = open_packs(folder, channels, digests)  # another process may have done it
            if missing := opened.missing(digests):
                reasons = (why for path, why in opened.damaged.items() if (path / "index.json").exists())
                notes = tuple(f"images were decoded again: {why}" for why in reasons)
                for damaged in opened.damaged:
                    shutil.rmtree(damaged, ignore_errors=True)
                unreadable = _write(pack, photographs, missing, decode_file, smallest + counts_size(channels))
        opened = open_packs(folder, channels, digests)
        if set(opened.missing(digests)) - unreadable.keys():
            raise OSError(f"what was written there is not what is read: {', '.join(opened.damaged.values())}")
    places = [opened.images.get(digest) for digest in digests]

    def place(row: int) -> tuple[Pack, Entry]:
        found = places[row]
        assert found is not None, "excluded, since it cannot be decoded"
        return found

    def read(row: int, top: int, height: int) -> Tensor:
        pack, entry = place(row)
        return pack.pixels(entry, top, height)

    def counts(rows: Tensor) -> Tensor:
        total = torch.zeros(channels, VALUES, dtype=torch.int64)
        for pack, entry in map(place, rows.tolist()):
            total += pack.counts(entry)
        return total

    sizes = {digest: (entry.height, entry.width) for digest, (_, entry) in opened.images.items()}
    return (
        Pictures(_sizes(digests, sizes), channels, photographs.fit, read, counts),
        opened.problems | unreadable,
    ), notes


def _uncached(photographs: Photographs, decode_file: Decode, channels: int) -> Found:
    """Return pictures that are decoded whenever they are read."""
    paths, digests, sizes = photographs.paths, photographs.digests, {}

    def add(digest: str, image: Tensor) -> None:
        sizes[digest] = image.shape[0], image.shape[1]

    def read(row: int, top: int, height: int) -> Tensor:
        try:
            return decode_file(paths[row], digests[row])[top : top + height]
        except Undecodable as error:
            raise TrainingError(f"{paths[row]} {error}; it could be decoded when the run began.") from error

    problems = _decode_each(photographs, digests, decode_file, add)
    return Pictures(_sizes(digests, sizes), channels, photographs.fit, read), {
        key: str(why) for key, why in problems.items()
    }


def _sizes(digests: Sequence[str], sizes: Mapping[str, tuple[int, int]]) -> Tensor:
    """Return heights and widths, int64 [N, 2]; 0 of what cannot be decoded."""
    return torch.tensor([sizes.get(digest, (0, 0)) for digest in digests]).view(-1, 2)


def _write(
    pack: Path, photographs: Photographs, missing: Sequence[str], decode_file: Decode, smallest: int
) -> dict[str, str]:
    """Write the images of some digests into a pack, and return what is wrong with files that could not be read."""
    expected, unreadable = len(missing) * smallest, {}

    def require(free: float) -> None:
        if shutil.disk_usage(pack.parent).free < free:  # other files need some of it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill(add: Callable[[str, Tensor], None]) -> dict[str, str]:
        def add_where_room(digest: str, image: Tensor) -> None:
            require(0.1 * expected)
            add(digest, image)

        problems = _decode_each(photographs, missing, decode_file, add_where_room)
        unreadable.update({key: str(why) for key, why in problems.items() if isinstance(why, Unreadable)})
        return {key: str(why) for key, why in problems.items() if key not in unreadable}

    require(1.1 * expected)
    write_pack(pack, fill)
    return unreadable


def _decode_each(
    photographs: Photographs, digests: Sequence[str], decode_file: Decode, add: Callable[[str, Tensor], None]
) -> dict[str, Undecodable]:
    """Decode the files of some digests, each content once, add the images, and return what is wrong with the others."""
    paths = dict(zip(photographs.digests, photographs.paths, strict=True))
    once = list(dict.fromkeys(digests))

    def work(digest: str) -> Undecodable | None:
        try:
            image = decode_file(paths[digest], digest)
        except Undecodable as error:
            return error
        add(digest, image)
        return None

    with worker_threads() as pool:
        problems = tqdm(pool.map(work, once), "decoding images", len(once), leave=False, disable=None)
        return {digest: problem for digest, problem in zip(once, problems, strict=True) if problem is not None}
