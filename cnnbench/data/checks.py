"""What is noticed about photographs before training: copies, files that cannot be used, depths that lose grays."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cnnbench.data.decode import brightest
from cnnbench.data.image_files import first_names
from cnnbench.data.images import Photographs, Stream
from cnnbench.data.look_alikes import look_alikes
from cnnbench.data.split import Split
from cnnbench.errors import UserError, counted, grouped

MAX_COPIES = 4  # of one picture, in a message
MIN_FOLDERS = 3  # in a class; fewer may be parts
SIXTEENTH, QUARTER = 16, 64  # of 255: what 12 and 14 of 16 bits become


def depth_notes(photographs: Photographs, stream: Stream, rows: Sequence[int]) -> tuple[str, ...]:
    """Return a note where files with 16 bits per channel use a small part of them, so that few of 256 levels are left.

    stream: the same images, decoded. rows: which of them to look at.
    """
    deep = torch.tensor([row for row in rows if photographs.digests[row] in photographs.deep], dtype=torch.int64)
    if not len(deep):
        return ()
    levels = torch.cat([stream[some].load(some).flatten(1).amax(1) for some in torch.split(deep, 256)])
    dark = deep[levels <= (QUARTER if int(levels.max()) <= QUARTER else SIXTEENTH)]
    if not len(dark):
        return ()
    path = photographs.paths[int(deep[levels.where(torch.isin(deep, dark), 0).argmax()])]
    value = brightest(path)
    bits = max(8, value.bit_length())
    if bits > 14 or bits >= photographs.bits:  # a few pixels are white; all is dark
        return ()
    way = f"data.bits={bits} makes {2**bits - 1} white"
    if len(dark) < len(deep):
        way += f", and refuses the {grouped(len(deep) - len(dark))} that use more"
    return (
        f"grays: {counted(len(dark), 'image')} of 16 bits per channel use 1/{2 ** (16 - bits)} of their range, so few "
        f"of 256 levels are left: the brightest value is {value} of 65535 ({path}); {way}",
    )


def copy_notes(photographs: Photographs, labels: Tensor, rows: Iterable[int]) -> tuple[str, ...]:
    """Return notes on which of these files are copies of each other, and which of them have several labels."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: photographs.paths[row]):
        groups[photographs.digests[row]].append(row)
    same: list[list[int]] = []
    differing: list[list[int]] = []
    for group in groups.values():
        if len(group) > 1:
            (same if len(set(labels[group].tolist())) == 1 else differing).append(group)
    notes = []
    if same:
        number = counted(sum(len(group) - 1 for group in same), "file")
        names = _named(photographs, same, " = ")
        notes.append(f"copies: {number} with the content of another one, in the same part as that one: {names}")
    if differing:
        names = _named(photographs, differing, " = ")
        notes.append(f"labels: {counted(len(differing), 'picture')} with several labels: {names}")
    return tuple(notes)


def look_alike_notes(
    photographs: Photographs, labels: Tensor, parts: Mapping[str, Sequence[int]], stream: Stream
) -> tuple[str, ...]:
    """Return a note on pictures that are there in several files which differ. parts: rows of each; stream: decoded."""
    part_of = {row: part for part, rows in parts.items() for row in rows}
    by_path = photographs.paths.__getitem__
    groups = [sorted(group, key=by_path) for group in look_alikes(photographs, stream, list(part_of))]
    if not groups:
        return ()
    divided = [len({part_of[row] for row in group}) > 1 for group in groups]
    labelled = sum(len(set(labels[group].tolist())) > 1 for group in groups)
    divided_first = sorted(range(len(groups)), key=lambda number: (not divided[number], by_path(groups[number][0])))
    return (
        f"look-alikes: {counted(len(groups), 'picture')} in several files that differ, such as encoded again: "
        f"{sum(divided)} in several parts, {labelled} with several labels: "
        f"{_named(photographs, [groups[number] for number in divided_first], ' ~ ')}",
    )


def divided_folder_notes(
    photographs: Photographs, classes: Sequence[str], labels: Tensor, parts: Mapping[str, Sequence[int]]
) -> tuple[str, ...]:
    """Return a note where a class has folders in it, as of patients or days, and their images are in several parts."""
    parts_of: defaultdict[Path, set[str]] = defaultdict(set)
    folders_of: defaultdict[int, set[Path]] = defaultdict(set)
    for part, rows in parts.items():
        for row in rows:
            path, label = photographs.paths[row], int(labels[row])
            if path.parent.name != classes[label]:
                parts_of[path.parent].add(part)
                folders_of[label].add(path.parent)
    divided = sorted(folder for folder, found in parts_of.items() if len(found) > 1)
    if not divided or max(map(len, folders_of.values())) < MIN_FOLDERS:
        return ()
    return (
        f"folders: {grouped(len(divided))} of {counted(len(parts_of), 'folder')} within classes have images in several "
        f"parts, such as {divided[0]}: if each is of one patient, place or day, the test images are not new ones; "
        "folders called train, val and test, or lists (data=csv), keep them apart",
    )


def _named(photographs: Photographs, groups: Iterable[Sequence[int]], sign: str) -> str:
    above = os.path.commonpath([path.parent for path in photographs.paths])

    def listing(rows: Sequence[int]) -> str:
        more = f" and {grouped(len(rows) - MAX_COPIES)} more" if len(rows) > MAX_COPIES else ""
        return sign.join(os.path.relpath(photographs.paths[row], above) for row in rows[:MAX_COPIES]) + more

    return first_names(map(listing, groups))


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
        lines = [f"{grouped(number)} of {counted(len(photographs), 'image')} cannot be used:"]
        lines += [listing(purpose, reasons) for purpose, reasons in reported.items() if reasons]
        hint = "; data.on_problem=skip trains without those for training" if reported["for training"] else ""
        raise UserError("\n  ".join([*lines, f"repair or remove them{hint}"]))
    if not for_training:
        return split, ()
    keep = torch.tensor([row not in for_training for row in split.train.tolist()])
    return Split(split.train[keep], split.val), (listing("left out of training", for_training),)
