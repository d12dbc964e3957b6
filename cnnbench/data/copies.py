"""Photographs that are the same file, in one part only; and those that cannot be used, in none."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cnnbench.data.image_files import TEST_SEED, first_names
from cnnbench.data.images import ImageData, Images, Photographs
from cnnbench.data.split import Split, hold_out, keep_together, split_by
from cnnbench.errors import UserError, counted, grouped

MAX_COPIES = 4  # of one picture, in a message


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
    drawn = ~torch.isin(contents, contents[is_val])
    parts = (drawn & is_test).long()
    parts[drawn] = keep_together(parts[drawn], everything.labels[drawn], contents[drawn], TEST_SEED)
    split = hold_out(1, parts, everything.labels, len(data.classes), "data.test_fraction")
    own = None if data.is_val is None else is_val[split.train]
    return replace(data, train=everything[split.train], test=everything[split.val], is_val=own)


def without_test_copies(split: Split, data: ImageData) -> Split:
    """Return the split with what is tested too in its training part, where it can be left out."""
    train, test = photographs_of(data)
    tested = set(test.digests)
    is_val = torch.zeros(len(train), dtype=torch.bool)
    for row in split.val.tolist():
        is_val[row] = train.digests[row] not in tested
    return split_by(is_val)


def copy_notes(photographs: Photographs, labels: Tensor, rows: Iterable[int]) -> tuple[str, ...]:
    """Return notes on which of these files are copies of each other, and which of them have several labels."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: photographs.paths[row]):
        groups[photographs.digests[row]].append(row)
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return ()
    above = os.path.commonpath([path.parent for path in photographs.paths])

    def named(groups: Iterable[list[int]]) -> str:
        names = ([os.path.relpath(photographs.paths[row], above) for row in rows] for rows in groups)
        return first_names(map(_equated, names))

    same: list[list[int]] = []
    differing: list[list[int]] = []
    for group in several:
        (same if len(set(labels[group].tolist())) == 1 else differing).append(group)
    notes = []
    if same:
        number = counted(sum(len(group) - 1 for group in same), "file")
        notes.append(f"copies: {number} with the content of another one, in the same part as that one: {named(same)}")
    if differing:
        notes.append(f"labels: {counted(len(differing), 'picture')} with several labels: {named(differing)}")
    return tuple(notes)


def _equated(names: Sequence[str]) -> str:
    more = f" and {grouped(len(names) - MAX_COPIES)} more" if len(names) > MAX_COPIES else ""
    return " = ".join(names[:MAX_COPIES]) + more


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
