"""Which images are trained and validated on, how often, and with which labels: subset, split, label noise, sampling."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from cnnbench.config.schema import Subset
from cnnbench.data.images import ImageData, Images, counts_per_class
from cnnbench.errors import SettingError, counted, did_you_mean, grouped, listed
from cnnbench.randomness import generator

TestFraction = Annotated[float, Field(gt=0, lt=1)]  # setting of the data sets without a test part


def select_subset(data: ImageData, subset: Subset, seed: int) -> tuple[ImageData, Tensor]:
    """Return the subset of a data set, and the rows of its training part that remain, int64, ascending.

    Classes first, in both parts, which are then renumbered; then one selection of the training part, and that of the
    test part. seed: of the draws of `fraction`.
    Raises SettingError for unknown classes, for fewer than two, for more than there may be, and for more images than
    there are.
    """
    _check_number_of_classes(subset, data.classes)
    rows = torch.arange(len(data.train))
    if subset.classes is not None:
        numbers = torch.tensor(_class_numbers(subset.classes, data.classes))
        rows, test_rows = (torch.isin(part.labels, numbers).nonzero()[:, 0] for part in (data.train, data.test))
        data = data.selected(rows, test_rows)
        train, test = (
            Images(part.pixels, torch.searchsorted(numbers, part.labels)) for part in (data.train, data.test)
        )
        data = replace(data, train=train, test=test, classes=tuple(data.classes[number] for number in numbers.tolist()))
    if subset.test_per_class is not None:
        first = _first_per_class(data.test, data.classes, "data.subset.test_per_class", subset.test_per_class)
        data = data.selected(test_rows=first)
    selected = _select_rows(data, subset, seed)
    return (data, rows) if selected is None else (data.selected(selected), rows[selected])


def _class_numbers(selected: Sequence[int | str], classes: Sequence[str]) -> list[int]:
    """Return the numbers of classes given by name or number, ascending."""
    given = f"data.subset.classes=[{','.join(map(str, selected))}]"
    unknown = [name for name in selected if name not in classes and name not in range(len(classes))]
    if unknown:
        hint = did_you_mean(str(unknown[0]), classes)
        raise SettingError(
            given,
            f"no class is called {listed(map(str, unknown))}{hint or '.'} "
            f"There are: {listed(classes)}; by number 0 to {len(classes) - 1}",
        )
    numbers = {name if isinstance(name, int) else classes.index(name) for name in selected}
    if len(numbers) < len(selected):
        raise SettingError(given, "names a class twice; name each once")
    if len(numbers) < 2:
        raise SettingError(given, "at least two classes are required")
    return sorted(numbers)


def _check_number_of_classes(subset: Subset, classes: Sequence[str]) -> None:
    """Raise SettingError where there are more classes than there may be; the first of them could be used instead."""
    most, number = subset.max_classes, len(classes if subset.classes is None else subset.classes)
    if most is None or number <= most:
        return
    if subset.classes is None:
        problem = f"keeps {grouped(number)} classes, more than data.subset.max_classes={most}"
        raise SettingError("data.subset.classes=null", problem, {"data.subset.classes": list(range(most))})
    problem = f"is less than the {grouped(number)} that data.subset.classes names"
    raise SettingError(f"data.subset.max_classes={most}", problem, {"data.subset.max_classes": number})


def _select_rows(data: ImageData, subset: Subset, seed: int) -> Tensor | None:
    """Return which training images to keep: rows, int64, ascending; None: all."""
    labels, num_classes = data.train.labels, len(data.classes)
    if subset.first is not None:
        if subset.first > len(labels):
            raise SettingError(f"data.subset.first={subset.first}", f"there are only {len(labels)} training images")
        return torch.arange(subset.first)
    if subset.per_class is not None:
        return _first_per_class(data.train, data.classes, "data.subset.per_class", subset.per_class)
    if subset.fraction is not None:
        counts = counts_per_class(labels, num_classes)
        taken = largest_remainder_counts(counts, subset.fraction)
        empty = [name for name, count, number in zip(data.classes, counts, taken, strict=True) if count and not number]
        if empty:
            problem = f"leaves no image of {listed(empty)}; give more"
            raise SettingError(f"data.subset.fraction={subset.fraction}", problem)
        return _draw_per_class(labels, taken, seed, "subset").sort().values
    return None


def _first_per_class(part: Images, classes: Sequence[str], key: str, number: int) -> Tensor:
    """Return the rows of the first `number` images of every class, int64, ascending."""
    counts = counts_per_class(part.labels, len(classes))
    short = [f"'{name}' ({count})" for name, count in zip(classes, counts, strict=True) if count < number]
    if short:
        fewest = {key: min(counts) or None}
        raise SettingError(f"{key}={number}", f"these classes have fewer: {', '.join(short)}", fewest)
    return torch.cat([(part.labels == index).nonzero()[:number, 0] for index in range(len(classes))]).sort().values


@dataclass(frozen=True)
class Split:
    """The rows of the training part that are trained on, and those that are validated on; int64, ascending."""

    train: Tensor
    val: Tensor

    def hash(self) -> str:
        """Return the sha256 (hex) of both lists of rows."""
        digest = hashlib.sha256(self.train.numpy().data)
        digest.update(b"|")
        digest.update(self.val.numpy().data)
        return digest.hexdigest()


def stratified_split(
    labels: Tensor,
    num_classes: int,
    fraction: float,
    seed: int,
    key: str = "data.val_fraction",
    copies: Tensor | None = None,
) -> Split:
    """Hold out `fraction` of the rows, to the nearest whole number, every class in proportion.

    labels: int64 [N]. fraction: in [0, 1), of the setting `key`. copies: see `keep_together`. The result depends on
    labels, fraction, seed and copies only.
    Raises SettingError where a class has too few images to be in both parts, or the fraction selects none.
    """
    num_rows = len(labels)
    if fraction == 0:
        return Split(torch.arange(num_rows), torch.empty(0, dtype=torch.int64))
    taken = largest_remainder_counts(counts_per_class(labels, num_classes), fraction)
    if not any(taken):
        hint = ", or 0 for none" if key == "data.val_fraction" else ""
        raise SettingError(f"{key}={fraction}", f"selects none of {counted(num_rows, 'image')}; give more{hint}")
    parts = torch.zeros(num_rows, dtype=torch.int64)
    parts[_draw_per_class(labels, taken, seed, "split")] = 1
    return hold_out(1, keep_together(parts, labels, copies, seed), labels, num_classes, f"{key}={fraction}")


def k_fold(labels: Tensor, num_classes: int, folds: int, fold: int, seed: int, copies: Tensor | None = None) -> Split:
    """Hold out one of `folds` disjoint parts that together are all rows.

    labels: int64 [N]. fold: from 0. copies: see `keep_together`. The parts depend on labels, folds, seed and copies
    only; without copies their sizes differ by at most one, in every class and in total.
    Raises SettingError where a class has too few images to be in both parts, or there are fewer images than folds.
    """
    assert 0 <= fold < folds, (fold, folds)
    if len(labels) < folds:
        raise SettingError(f"data.folds={folds}", f"there are only {len(labels)} images; give fewer folds")
    # Dealt out like cards, class after class: no fold gets a second image before every other one got its first.
    dealt = torch.cat(_shuffled_per_class(labels, num_classes, seed, "folds"))
    parts = torch.empty(len(labels), dtype=torch.int64)
    parts[dealt] = torch.arange(len(labels)) % folds
    parts = keep_together(parts, labels, copies, seed)
    return hold_out(fold, parts, labels, num_classes, f"data.folds={folds} data.fold={fold}")


def keep_together(parts: Tensor, labels: Tensor, copies: Tensor | None, seed: int) -> Tensor:
    """Return the part of each row, int64 [N], such that copies are in one part.

    parts: int64 [N], as drawn without regard to copies. labels: int64 [N]. copies: int64 [N], the same number for the
    same content; None: there are none. Where the draw has divided no copies, it stays as it is. Otherwise the classes
    of those that it has divided are dealt out again among the parts that share them: the largest group of copies
    first, each to the part that lacks most images of its classes. So every part keeps its number of images of every
    class, as far as the groups allow.
    """
    if copies is None:
        return parts
    part_of, label_of = parts.tolist(), labels.tolist()
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for row, content in enumerate(copies.tolist()):
        groups[content].append(row)
    divided = [row for rows in groups.values() if len({part_of[row] for row in rows}) > 1 for row in rows]
    if not divided:
        return parts
    shared, classes = {part_of[row] for row in divided}, {label_of[row] for row in divided}
    dealt = [
        rows for rows in groups.values() if all(part_of[row] in shared and label_of[row] in classes for row in rows)
    ]
    lacking = Counter((part_of[row], label_of[row]) for rows in dealt for row in rows)
    given: Counter[tuple[int, int]] = Counter()
    drawn = torch.randperm(len(dealt), generator=generator(seed, "copies")).tolist()
    for rows in sorted((dealt[index] for index in drawn), key=len, reverse=True):
        counts = Counter(label_of[row] for row in rows)
        room = {part: min(lacking[part, label] - number for label, number in counts.items()) for part in shared}
        filled = {part: sum(given[part, label] for label in counts) for part in shared}
        chosen = max(sorted(shared), key=lambda part: (room[part], -filled[part]))  # else the first, that of training
        for label, number in counts.items():
            lacking[chosen, label] -= number
            given[chosen, label] += number
        for row in rows:
            part_of[row] = chosen
    return torch.tensor(part_of)


def largest_remainder_counts(counts: Sequence[int], fraction: float) -> list[int]:
    """Return how many of each class make up `fraction` of all, to the nearest whole number.

    Each class contributes in proportion, rounded down or up; the largest remainders are rounded up (the lower class on
    a tie).
    """
    exact = [fraction * count for count in counts]
    taken = [int(number) for number in exact]
    by_remainder = sorted(range(len(counts)), key=lambda index: (taken[index] - exact[index], index))
    for index in by_remainder[: round(fraction * sum(counts)) - sum(taken)]:
        taken[index] += 1
    return taken


def _draw_per_class(labels: Tensor, numbers: Sequence[int], seed: int, purpose: str) -> Tensor:
    """Return rows, int64, drawn from each class: as many as `numbers` says."""
    shuffled = _shuffled_per_class(labels, len(numbers), seed, purpose)
    return torch.cat([rows[:number] for rows, number in zip(shuffled, numbers, strict=True)])


def _shuffled_per_class(labels: Tensor, num_classes: int, seed: int, purpose: str) -> list[Tensor]:
    draws = generator(seed, purpose)
    per_class = [(labels == index).nonzero()[:, 0] for index in range(num_classes)]
    return [rows[torch.randperm(len(rows), generator=draws)] for rows in per_class]


def hold_out(part: int, parts: Tensor, labels: Tensor, num_classes: int, given: str) -> Split:
    """Return the split that validates on one of the parts. Raises SettingError where nothing of a class is left."""
    split = split_by(parts == part)
    every, taken = (counts_per_class(some, num_classes) for some in (labels, labels[split.val]))
    for index, (count, number) in enumerate(zip(every, taken, strict=True)):
        if count and number == count:
            raise SettingError(
                given, f"class {index} has {counted(int(count), 'image')}, none would be left to train on"
            )
    if not len(split.val):
        raise SettingError(given, "leaves no image to validate on: copies stay together, and too few images differ")
    return split


def split_by(is_val: Tensor) -> Split:
    """Return the split that a mask describes. is_val: bool [N]."""
    return Split((~is_val).nonzero()[:, 0], is_val.nonzero()[:, 0])


def add_label_noise(labels: Tensor, num_classes: int, rate: float, seed: int) -> tuple[Tensor, int]:
    """Return the labels with `rate` of them replaced, to the nearest whole number, and how many that are.

    labels: int64 [N]. rate: in [0, 1). A replaced label is any of the other classes, equally likely. The result depends
    on the arguments only, and what is wrong at one rate is wrong in the same way at every higher one.
    Raises SettingError where the rate selects none, or there is no other class.
    """
    if rate == 0:
        return labels, 0
    given, number = f"data.label_noise={rate}", round(rate * len(labels))
    if number == 0:
        raise SettingError(given, f"selects none of {counted(len(labels), 'image')}; give more, or 0 for none")
    if num_classes < 2:
        raise SettingError(given, "with one class there is no wrong label; give 0")
    draws = generator(seed, "label noise")
    rows = torch.randperm(len(labels), generator=draws)[:number]
    shifts = torch.randint(1, num_classes, (len(labels),), generator=draws)  # modulo the classes, never the same
    noisy = labels.clone()
    noisy[rows] = (labels[rows] + shifts[rows]) % num_classes
    return noisy, number


def class_weights(sampling: str | Sequence[float], counts: Sequence[int]) -> Tensor | None:
    """Return the sampling weight of each class, float64 [K], or None for `natural`: every image once per epoch.

    sampling: `natural`, `balanced` (every class equally often), or one per class. counts: training images by class.
    Raises SettingError where there is not one weight per class.
    """
    if sampling == "natural":
        return None
    if sampling == "balanced":
        return torch.ones(len(counts), dtype=torch.float64)
    if len(sampling) != len(counts):
        problem = f"{counted(len(sampling), 'weight')}, {counted(len(counts), 'class')}; give one for each"
        raise SettingError(f"data.sampling=[{','.join(map(str, sampling))}]", problem)
    return torch.tensor(sampling, dtype=torch.float64)


def weighted_order(labels: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rows of an epoch, int64 [N]: drawn with replacement, as many as there are.

    labels: int64 [N]. weights: float [K], above 0. Each draw is of a class in proportion to its weight (classes without
    images are ignored), and of any image of that class, equally likely.
    """
    counts = torch.bincount(labels, minlength=len(weights))
    drawn = torch.multinomial(weights * (counts > 0), len(labels), replacement=True, generator=generator)
    place = (torch.rand(len(labels), dtype=torch.float64, generator=generator) * counts[drawn]).long()
    return labels.argsort(stable=True)[(counts.cumsum(0) - counts)[drawn] + place]
