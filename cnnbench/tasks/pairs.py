"""Which images are compared: partners of the same class or of another, and batches with several images per class."""

import torch
from torch import Tensor


def of_same_class(anchors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random other image of each anchor's class, int64 [M].

    anchors: int64 [M], rows. labels: int64 [N]; every anchor's class has at least two images.
    """
    by_class, starts, counts = _by_class(labels)
    rank = torch.empty_like(by_class)
    rank[by_class] = torch.arange(len(labels)) - starts[labels[by_class]]
    number = labels[anchors]
    chosen = _draw(counts[number] - 1, generator)
    return by_class[starts[number] + chosen + (chosen >= rank[anchors])]


def of_other_class(anchors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random image of a random other class for each anchor, int64 [M].

    anchors: int64 [M], rows. labels: int64 [N], of at least two classes.
    """
    by_class, starts, counts = _by_class(labels)
    present = counts.nonzero()[:, 0]  # a split may lack a class
    place = torch.searchsorted(present, labels[anchors])
    other = _draw(torch.full_like(anchors, len(present) - 1), generator)
    number = present[other + (other >= place)]
    return by_class[starts[number] + _draw(counts[number], generator)]


def num_present(labels: Tensor) -> int:
    """Return the number of classes among the labels, int64 [N]."""
    return int(torch.bincount(labels).count_nonzero())


def has_partner(labels: Tensor) -> Tensor:
    """Return which images are not alone in their class, bool [N]. labels: int64 [N]."""
    return torch.bincount(labels)[labels] > 1


def several_of_each(labels: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Return all rows, int64 [N], in a random order of groups of `number` images of the same class.

    So a batch of P x `number` has images of P classes (fewer where a class comes twice). The images left over in a
    class come at the end. labels: int64 [N]. Source: Hermans et al. 2017, arXiv:1703.07737, but without repetitions.
    """
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    _, starts, counts = _by_class(labels)
    own = labels[by_class]
    within = (torch.arange(len(labels)) - starts[own]) // number  # index of the group in its class
    is_full = within < counts[own] // number
    is_first = (within.diff() != 0) | (own.diff() != 0)
    group = torch.cat([torch.zeros(1, dtype=torch.int64), is_first.cumsum(0)])
    num_groups = int(group[-1]) + 1
    key = torch.randperm(num_groups, generator=generator)[group] + num_groups * ~is_full
    return by_class[key.argsort(stable=True)]


def _by_class(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows sorted by class, and the start and the size of each class among them."""
    counts = torch.bincount(labels)
    return labels.argsort(stable=True), counts.cumsum(0) - counts, counts


def _draw(below: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random integer in [0, below) for each bound, int64 [M]."""
    return (torch.rand(len(below), generator=generator, dtype=torch.float64) * below).long()
