"""Small photographs, and what decoding them gives, with the cache and without."""

from pathlib import Path

import torch

from cnnbench.data.cache import decode_photographs
from cnnbench.data.decode import decode
from cnnbench.data.image_files import content_digest
from cnnbench.data.images import Photographs
from cnnbench.data.packs import cache_dir
from tests.support.photographs import photograph

NUM, SIDE = 12, 20


def write_photographs(folder: Path) -> Path:
    for index in range(NUM):
        photograph(folder / f"{index:02}.png", index)
    return folder


def photographs(folder: Path, **changes) -> Photographs:
    paths = tuple(sorted(folder.glob("*.png")))
    settings = {"fit": "crop", "cache": True, "skip": False} | changes
    return Photographs(paths, tuple(content_digest(path) for path in paths), **settings)


def load_all(given: Photographs, side: int = SIDE, channels: int = 3) -> torch.Tensor:
    stream, problems, _ = decode_photographs(given, side, channels)
    assert not problems
    return stream.load(stream.rows)


def decode_all(given: Photographs, side: int = SIDE, channels: int = 3) -> torch.Tensor:
    return torch.stack([decode(path, side, channels, given.fit).permute(2, 0, 1) for path in given.paths])


def cache_folders() -> list[Path]:
    """Return the packs, and what there is of those that are being written."""
    return sorted(path for path in cache_dir().glob("*/*") if path.is_dir())
