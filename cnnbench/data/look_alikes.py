"""Photographs that look the same though their files differ: copies that were encoded or resized again."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from cnnbench.data.images import Photographs, Stream
from cnnbench.data.packs import cache_dir
from cnnbench.errors import NotWrittenError
from cnnbench.store.files import DamagedError, make_folder, write_sealed
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Stored

SIDE = 16  # of the thumbnails that are compared
TOLERANCE = 2.0  # gray levels, of the mean, and of the root mean square of the differences
CONTRAST = 10.0  # standard deviation of a thumbnail that shows something, in units of that difference
BLOCK = 1024
LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


class Groups(Stored):
    """What was found in some photographs: groups of digests."""

    groups: list[list[str]]


def look_alikes(photographs: Photographs, stream: Stream, rows: Sequence[int]) -> list[list[int]]:
    """Return groups of rows that show the same picture, of several files.

    stream: the same photographs, decoded. rows: which of them to compare. What is found is kept with the decoded
    images, by the content of all files; where those are not kept, nothing is looked for.
    """
    if not photographs.cache:
        return []
    row_of = {photographs.digests[row]: row for row in reversed(rows)}  # the first of identical files
    digests = sorted(row_of)
    file = cache_dir() / "look-alikes" / f"{hashlib.sha256(''.join(digests).encode()).hexdigest()[:32]}.json"
    try:
        groups = read_json(file, Groups)["groups"]
    except DamagedError:
        first = torch.tensor([row_of[digest] for digest in digests], dtype=torch.int64)
        parts = [_thumbnails(stream[some].load(some)) for some in torch.split(first, BLOCK)]
        groups = [[digests[row] for row in group] for group in groups_of(torch.cat(parts))] if parts else []
        with suppress(NotWrittenError):
            make_folder(file.parent)
            write_sealed(file, {"groups": groups})
    return [[row_of[digest] for digest in group] for group in groups]


def _thumbnails(pixels: Tensor) -> Tensor:
    """Return gray thumbnails, float32 [B, SIDE * SIDE]: JPEG keeps luminance best. pixels: uint8 [B, C, H, W]."""
    small = adaptive_avg_pool2d(pixels.float(), SIDE).flatten(2)
    return small[:, 0] if small.shape[1] == 1 else torch.einsum("bcp,c->bp", small, torch.tensor(LUMINANCE))


def groups_of(thumbnails: Tensor) -> list[list[int]]:
    """Return groups of rows that are alike. thumbnails: gray levels, float32 [N, D].

    Only what is similarly bright is compared, so that the time grows little faster than the number of images.
    """
    brightness, order = thumbnails.mean(1).sort()
    values = (thumbnails - thumbnails.mean(1, keepdim=True))[order]
    allowed = (values.square().mean(1).sqrt() / CONTRAST).clamp(max=TOLERANCE)
    ends = torch.searchsorted(brightness, brightness + TOLERANCE, right=True).tolist()
    above = list(range(len(values)))
    for begin in range(0, len(values), BLOCK):
        last = min(begin + BLOCK, len(values)) - 1
        distances = torch.cdist(values[begin : last + 1], values[begin : ends[last]]) / values.shape[1] ** 0.5
        alike = (distances <= allowed[begin : last + 1, None]) & (allowed[begin : ends[last]] > 0)
        for row, other in (alike.triu(1).nonzero() + begin).tolist():
            if other < ends[row]:
                above[_top(above, other)] = _top(above, row)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row in range(len(values)):
        groups[_top(above, row)].append(int(order[row]))
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _top(above: list[int], row: int) -> int:
    while above[row] != row:
        row = above[row]
    return row
