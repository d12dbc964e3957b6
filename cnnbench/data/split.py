"""Train, validation and test are three things: validation is carved, stratified, out of the training part."""

import hashlib
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


def stratified_split(labels: Tensor, num_classes: int, fraction: float, seed: int) -> Split:
    """Put the nearest whole number of `fraction` of the rows aside, every class in proportion.

    labels: int64 [N]. fraction: in [0, 1). The result depends on the labels, the fraction and the seed only.
    Each class gives its share, rounded down or up; the largest remainders are rounded up (the lower class on a tie).
    Raises UserError where a class has too few images to be in both parts, or the fraction selects none.
    """
    num_rows = len(labels)
    if fraction == 0:
        return Split(torch.arange(num_rows), torch.empty(0, dtype=torch.int64))
    wanted = round(fraction * num_rows)
    if wanted == 0:
        raise UserError(f"data.val_fraction={fraction}: selects none of {num_rows} images; give more, or 0 for none.")
    counts = counts_per_class(labels, num_classes)
    shares = [fraction * count for count in counts]
    taken = [int(share) for share in shares]
    by_remainder = sorted(range(num_classes), key=lambda index: (taken[index] - shares[index], index))
    for index in by_remainder[: wanted - sum(taken)]:
        taken[index] += 1
    for index, (count, number) in enumerate(zip(counts, taken, strict=True)):
        if count and number == count:
            raise UserError(
                f"data.val_fraction={fraction}: class {index} has {count} image(s), none would be left to train."
            )
    chosen = generator(seed, "split")
    is_val = torch.zeros(num_rows, dtype=torch.bool)
    for index, number in enumerate(taken):
        rows = (labels == index).nonzero()[:, 0]
        is_val[rows[torch.randperm(len(rows), generator=chosen)[:number]]] = True
    return Split((~is_val).nonzero()[:, 0], is_val.nonzero()[:, 0])
