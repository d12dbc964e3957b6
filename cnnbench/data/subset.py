"""Part of a data set: some of its classes, fewer of its training images."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cnnbench.config.schema import Subset
from cnnbench.data.images import ImageData, Images, counts_per_class
from cnnbench.data.split import largest_remainder_counts, shuffled_by_class
from cnnbench.errors import UserError, did_you_mean, listed


def select(data: ImageData, subset: Subset, seed: int) -> tuple[ImageData, Tensor]:
    """Return what the subset leaves of a data set, and where its training images were: rows, int64, ascending.

    Classes first, of both parts, numbered anew; then one choice of the training part, and that of the test part.
    seed: of the draws of `fraction`.
    Raises UserError for classes that there are not, for fewer than two, and for more images than there are.
    """
    rows = torch.arange(len(data.train))
    if subset.classes is not None:
        numbers = _class_numbers(subset.classes, data.classes)
        rows = torch.isin(data.train.labels, torch.tensor(numbers)).nonzero()[:, 0]
        classes = tuple(data.classes[number] for number in numbers)
        train, test = _of_classes(data.train, numbers), _of_classes(data.test, numbers)
        data = replace(data, train=train, test=test, classes=classes, validates=_chosen(data.validates, rows))
    if subset.test_per_class is not None:
        first = _first_of_every_class(data.test, data.classes, "data.subset.test_per_class", subset.test_per_class)
        data = replace(data, test=data.test[first])
    kept = _kept(data, subset, seed)
    if kept is None:
        return data, rows
    return replace(data, train=data.train[kept], validates=_chosen(data.validates, kept)), rows[kept]


def _chosen(values: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values is None else values[rows]


def _class_numbers(wanted: Sequence[int | str], classes: Sequence[str]) -> list[int]:
    """Return the numbers of classes given by name or number, ascending."""
    unknown = [name for name in wanted if name not in classes and name not in range(len(classes))]
    if unknown:
        hint = did_you_mean(str(unknown[0]), classes)
        raise UserError(
            f"data.subset.classes: no class is called {listed(map(str, unknown))}{hint or '.'} "
            f"There are: {listed(classes)}; by number 0 to {len(classes) - 1}."
        )
    numbers = {name if isinstance(name, int) else classes.index(name) for name in wanted}
    if len(numbers) < len(wanted):
        raise UserError("data.subset.classes: a class is named twice; name each once.")
    if len(numbers) < 2:
        raise UserError("data.subset.classes: there is nothing to tell apart; name two classes or more.")
    return sorted(numbers)


def _of_classes(part: Images, numbers: Sequence[int]) -> Images:
    found = part[torch.isin(part.labels, torch.tensor(numbers)).nonzero()[:, 0]]
    return Images(found.pixels, torch.searchsorted(torch.tensor(numbers), found.labels))


def _kept(data: ImageData, subset: Subset, seed: int) -> Tensor | None:
    """Return which training images stay: rows, int64, ascending; None: all."""
    labels, num_classes = data.train.labels, len(data.classes)
    counts = counts_per_class(labels, num_classes)
    if subset.first is not None:
        if subset.first > len(labels):
            raise UserError(f"data.subset.first={subset.first}: there are only {len(labels)} training images.")
        return torch.arange(subset.first)
    if subset.per_class is not None:
        return _first_of_every_class(data.train, data.classes, "data.subset.per_class", subset.per_class)
    if subset.fraction is not None:
        taken = largest_remainder_counts(counts, subset.fraction)
        empty = [name for name, count, left in zip(data.classes, counts, taken, strict=True) if count and not left]
        if empty:
            raise UserError(f"data.subset.fraction={subset.fraction}: leaves no image of {listed(empty)}; give more.")
        shuffled = shuffled_by_class(labels, num_classes, seed, "subset")
        return torch.cat([rows[:number] for rows, number in zip(shuffled, taken, strict=True)]).sort().values
    return None


def _first_of_every_class(part: Images, classes: Sequence[str], key: str, number: int) -> Tensor:
    """Return the rows of the first so many images of every class, int64, ascending."""
    counts = counts_per_class(part.labels, len(classes))
    short = [f"'{name}' ({count})" for name, count in zip(classes, counts, strict=True) if count < number]
    if short:
        raise UserError(f"{key}={number}: these classes have fewer: {', '.join(short)}.")
    return torch.cat([(part.labels == index).nonzero()[:number, 0] for index in range(len(classes))]).sort().values
