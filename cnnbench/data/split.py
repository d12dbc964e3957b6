"""Train, validation and test are three things: validation is carved, stratified, out of the training part."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnbench.data.images import counts_per_class
from cnnbench.errors import UserError
from cnnbench.randomness import generator


@dataclass(frozen=True)
class Split:
    """Which rows of the training part train, and which validate; int64, ascending."""

    train: Tensor
    val: Tensor

    def hash(self) -> str:
        """Return the sha256 (hex) of both lists of rows."""
        digest = hashlib.sha256(self.train.numpy().data)
        digest.update(b"|")
        digest.update(self.val.numpy().data)
        return digest.hexdigest()


def stratified_split(
    labels: Tensor, num_classes: int, fraction: float, seed: int, key: str = "data.val_fraction"
) -> Split:
    """Put the nearest whole number of `fraction` of the rows aside, every class in proportion.

    labels: int64 [N]. fraction: in [0, 1), of the setting `key`. The result depends on labels, fraction and seed only.
    Raises UserError where a class has too few images to be in both parts, or the fraction selects none.
    """
    num_rows = len(labels)
    if fraction == 0:
        return Split(torch.arange(num_rows), torch.empty(0, dtype=torch.int64))
    counts = counts_per_class(labels, num_classes)
    taken = largest_remainder_counts(counts, fraction)
    if not any(taken):
        hint = ", or 0 for none" if key == "data.val_fraction" else ""
        raise UserError(f"{key}={fraction}: selects none of {num_rows} images; give more{hint}.")
    _leave_some_to_train(counts, taken, f"{key}={fraction}")
    shuffled = shuffled_by_class(labels, num_classes, seed, "split")
    return _put_aside(torch.cat([rows[:number] for rows, number in zip(shuffled, taken, strict=True)]), num_rows)


def k_fold(labels: Tensor, num_classes: int, folds: int, fold: int, seed: int) -> Split:
    """Put one of `folds` parts aside that together are everything and share nothing.

    labels: int64 [N]. fold: from 0. The parts depend on the labels, their number and the seed only; their sizes differ
    by one at most, in every class and in all.
    Raises UserError where a class has too few images to be in both parts, or there are fewer images than parts.
    """
    assert 0 <= fold < folds, (fold, folds)
    if len(labels) < folds:
        raise UserError(f"data.folds={folds}: there are only {len(labels)} images; give fewer parts.")
    # Dealt out like cards, class after class: no part gets a second image before every other one got its first.
    dealt = torch.cat(shuffled_by_class(labels, num_classes, seed, "folds"))[fold::folds]
    counts, taken = counts_per_class(labels, num_classes), counts_per_class(labels[dealt], num_classes)
    _leave_some_to_train(counts, taken, f"data.folds={folds} data.fold={fold}")
    return _put_aside(dealt, len(labels))


def largest_remainder_counts(counts: Sequence[int], fraction: float) -> list[int]:
    """Return how many of each class make up the nearest whole number of `fraction` of all.

    Each class gives its share, rounded down or up; the largest remainders are rounded up (the lower class on a tie).
    """
    exact = [fraction * count for count in counts]
    taken = [int(share) for share in exact]
    by_remainder = sorted(range(len(counts)), key=lambda index: (taken[index] - exact[index], index))
    for index in by_remainder[: round(fraction * sum(counts)) - sum(taken)]:
        taken[index] += 1
    return taken


def shuffled_by_class(labels: Tensor, num_classes: int, seed: int, purpose: str) -> list[Tensor]:
    """Return the rows of each class, int64, in an order that follows from the seed and the purpose."""
    draws = generator(seed, purpose)
    by_class = [(labels == index).nonzero()[:, 0] for index in range(num_classes)]
    return [rows[torch.randperm(len(rows), generator=draws)] for rows in by_class]


def _leave_some_to_train(counts: Sequence[int], taken: Sequence[int], given: str) -> None:
    for index, (count, number) in enumerate(zip(counts, taken, strict=True)):
        if count and number == count:
            raise UserError(f"{given}: class {index} has {count} image(s), none would be left to train.")


def _put_aside(rows: Tensor, num_rows: int) -> Split:
    is_val = torch.zeros(num_rows, dtype=torch.bool)
    is_val[rows] = True
    return Split((~is_val).nonzero()[:, 0], is_val.nonzero()[:, 0])
