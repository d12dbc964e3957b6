"""Images that are the same: photographs that are copies, in one part whatever is drawn; images of other runs."""

from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from cnnbench.data.image_files import TEST_SEED
from cnnbench.data.images import ImageData, Images, Photographs
from cnnbench.data.split import Split, hold_out, keep_together, split_by
from cnnbench.errors import counted


def contents_of(photographs: Photographs) -> Tensor:
    """Return a number for the content of each file, int64 [N]; copies have the same."""
    numbers = {digest: number for number, digest in enumerate(dict.fromkeys(photographs.digests))}
    return torch.tensor([numbers[digest] for digest in photographs.digests], dtype=torch.int64)


def has_test_copies(data: ImageData) -> bool:
    """Tell whether a test image is one of the training part, or of those of it that are never left out, too."""
    train, test = photographs_of(data)
    if train.skip:
        train = train[torch.empty(0) if data.is_val is None else data.is_val.nonzero()[:, 0]]
    return not set(train.digests).isdisjoint(test.digests)


def photographs_of(data: ImageData) -> tuple[Photographs, Photographs]:
    """Return the files for training and for testing."""
    train, test = data.train.pixels, data.test.pixels
    assert isinstance(train, Photographs)
    assert isinstance(test, Photographs)
    return train, test


def with_test_drawn_again(data: ImageData) -> ImageData:
    """Return the same photographs, with a test part that was drawn such that copies stay together.

    The data set's own validation part remains, and what is a copy of it is not tested.
    """
    train, test = photographs_of(data)
    photographs, is_test = train + test, torch.arange(len(train) + len(test)) >= len(train)
    is_val = torch.zeros(len(is_test), dtype=torch.bool)
    if data.is_val is not None:
        is_val[: len(train)] = data.is_val
    order = torch.tensor(sorted(range(len(is_test)), key=lambda row: (bool(is_val[row]), photographs.paths[row])))
    everything = Images(photographs, torch.cat([data.train.labels, data.test.labels]))[order]
    contents, is_test, is_val = contents_of(photographs)[order], is_test[order], is_val[order]
    is_drawn = ~torch.isin(contents, contents[is_val])
    parts = (is_drawn & is_test).long()
    parts[is_drawn] = keep_together(parts[is_drawn], everything.labels[is_drawn], contents[is_drawn], TEST_SEED)
    split = hold_out(1, parts, everything.labels, len(data.classes), "data.test_fraction")
    own = None if data.is_val is None else is_val[split.train]
    drawn = replace(data, train=everything[split.train], test=everything[split.val], is_val=own, hashes=None)
    return replace(drawn, hashes=hashes_of(drawn))  # as long as there are files: decoded ones have pixels


def without_test_copies(split: Split, data: ImageData) -> Split:
    """Return the split with what is tested too in its training part, where it can be left out."""
    train, test = photographs_of(data)
    tested = set(test.digests)
    is_val = torch.zeros(len(train), dtype=torch.bool)
    for row in split.val.tolist():
        is_val[row] = train.digests[row] not in tested
    return split_by(is_val)


def hashes_of(data: ImageData) -> tuple[Tensor, Tensor]:
    """Return the first 64 bits of the sha256 of each image for training and for testing, int64 [N].

    Of a photograph it is that of its file, of other images that of their pixels as they were read.
    """
    return data.hashes or (_hashes(data.train), _hashes(data.test))


def _hashes(images: Images) -> Tensor:
    pixels = images.pixels
    digests = map(bytes.fromhex, pixels.digests) if isinstance(pixels, Photographs) else _digests(images)
    first = (int.from_bytes(digest[:8], "little", signed=True) for digest in digests)
    return torch.from_numpy(np.fromiter(first, np.int64, len(images)))


def _digests(images: Images) -> Iterator[bytes]:
    for rows in torch.split(torch.arange(len(images)), 1024):
        for pixels in images.take(rows).contiguous().numpy():
            yield sha256(pixels.data).digest()


def packed(hashes: Tensor) -> str:
    """Return hashes, int64 [N], as text: 8 bytes each, little-endian, in base64."""
    return b64encode(hashes.numpy().astype("<i8").tobytes()).decode()


def unpacked(text: str) -> Tensor:
    """Return the hashes that a text holds, int64 [N]."""
    return torch.from_numpy(np.frombuffer(b64decode(text), dtype="<i8").astype(np.int64))


def in_test_part(data: ImageData, name: str) -> ImageData:
    """Return a data set without a test part of its own with all its images as that; any other as it is."""
    train, test = data.train.pixels, data.test.pixels
    if not (data.draws_test and isinstance(train, Tensor) and isinstance(test, Tensor)):
        return data
    rows, nothing = torch.cat(data.source_rows), torch.arange(0)
    order = rows.argsort()
    everything = Images(torch.cat([train, test])[order], torch.cat([data.train.labels, data.test.labels])[order])
    note = f"{counted(len(rows), 'image')} of {name}: all, as there is no test part"
    return replace(
        data, train=everything[nothing], test=everything, is_val=None, notes=(*data.notes, note),
        rows=(nothing, rows[order]), hashes=(nothing, torch.cat(hashes_of(data))[order]),
    )  # fmt: skip
