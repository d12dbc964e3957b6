"""Which images are compared: partners of the same class, of another one, and batches with several of each class."""

import torch
from torch import Tensor


def of_same_class(anchors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return another image of each anchor's class, any with the same probability, never the anchor. int64 [M].

    anchors: int64 [M], rows. labels: int64 [N]; every anchor's class has at least two images.
    """
    by_class, starts, counts = _by_class(labels)
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    number = labels[anchors]
    chosen = _draw(counts[number] - 1, generator)
    return by_class[starts[number] + chosen + (chosen >= rank[anchors])]


def of_other_class(anchors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return an image of another class for each anchor, any class with the same probability. int64 [M].

    anchors: int64 [M], rows. labels: int64 [N], of two classes at least.
    """
    by_class, starts, counts = _by_class(labels)
    there = counts.nonzero()[:, 0]  # of a split, a class may be missing
    place = torch.searchsorted(there, labels[anchors])
    other = _draw(torch.full_like(anchors, len(there) - 1), generator)
    number = there[other + (other >= place)]
    return by_class[starts[number] + _draw(counts[number], generator)]


def num_present(labels: Tensor) -> int:
    """Return how many classes the labels (int64 [N]) name."""
    return int(torch.bincount(labels).count_nonzero())


def has_partner(labels: Tensor) -> Tensor:
    """Tell which images have another one of their class beside them, bool [N]. labels: int64 [N]."""
    return torch.bincount(labels)[labels] > 1


def several_of_each(labels: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Return all rows in random order, so many of the same class always one after another. int64 [N].

    So a batch of P x `number` has images of P classes (fewer where a class comes twice). The images of a class that
    are left over come at the end. labels: int64 [N]. Source: Hermans et al. 2017, arXiv:1703.07737, less repetitions.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    _, starts, counts = _by_class(labels)
    own = labels[by_class]
    within = (torch.arange(len(labels)) - starts[own]) // number  # which group of its class
    is_full = within < counts[own] // number
    begins = (within.diff() != 0) | (own.diff() != 0)
    group = torch.cat([torch.zeros(1, dtype=torch.int64), begins.cumsum(0)])
    num_groups = int(group[-1]) + 1
    key = torch.randperm(num_groups, generator=generator)[group] + num_groups * ~is_full
    return by_class[key.argsort(stable=True)]


def _by_class(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows by class, where each class begins among them, and how many it has."""
    counts = torch.bincount(labels)
    return labels.argsort(stable=True), counts.cumsum(0) - counts, counts


def _draw(below: Tensor, generator: torch.Generator) -> Tensor:
    """Return a whole number in [0, below) for each bound. int64 [M]."""
    return (torch.rand(len(below), generator=generator, dtype=torch.float64) * below).long()
