"""What may be said of measured numbers: means with intervals, paired differences, and many comparisons at once.

Every claim is wrong at most in one case of twenty: `tests/analysis/test_claims.py` simulates that.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from scipy.special import nctdtrinc, stdtr, stdtrit  # scipy.stats has them too, and takes a second to import

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
POWER = 0.8
SMALL = 0.001  # a p below it is shown as that: it rests on assumptions, not on a few seeds
EVERYWHERE = -math.inf, math.inf
TINY = 1e-24  # a variance that is a matter of rounding

Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Estimate:
    """A mean of n values, their standard deviation (n - 1), and the 95 % interval of the mean.

    std is NaN if n is 1; low and high are NaN if nothing varies: equal values do not say how far the next one lies.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class Values:
    """A metric of one configuration by run: the key is what runs are paired by, such as the seed.

    images: over which it is a share of correct ones; 0: it is no such share, or every run was measured on others.
    right: whether each is correct, bool [images], of the runs where that is known. span: by which values can differ.
    """

    by_run: Mapping[Any, float]
    images: int = 0
    right: Mapping[Any, Flags] = field(default_factory=dict)
    span: float = math.inf


@dataclass(frozen=True)
class Difference:
    """A difference of two configurations, paired.

    p: of a difference of zero, two-sided; NaN: unknown. corrected: the same among `family` comparisons (Holm). spread:
    the part of the variance that more seeds do not lower: which images it is measured on.
    """

    estimate: Estimate
    p: float
    spread: float = 0.0
    family: int = 1
    corrected: float = math.nan

    @property
    def is_resolved(self) -> bool:
        """Return whether it is more than chance, however many comparisons were made."""
        return self._shown_p < LEVEL

    @property
    def verdict(self) -> str:
        """Return whether it may be chance, with the p that decides on it."""
        p = self._shown_p
        if math.isnan(p):
            return f"no test is possible {'with one run' if self.estimate.n < 2 else 'where all runs agree'}"
        name = "p (Holm)" if self.family > 1 else "p"
        value = f"< {SMALL}" if p < SMALL else f"= {p:.2g}"
        is_apart = not self.is_resolved and bool(self.estimate.low * self.estimate.high > 0)
        alone = "; the interval is that of one comparison alone" * is_apart
        return f"{'more than' if self.is_resolved else 'may be'} chance, {name} {value}{alone}"

    @property
    def _shown_p(self) -> float:
        return self.p if math.isnan(self.corrected) else self.corrected

    def detectable(self, seeds: int) -> float:
        """Return the smallest true difference that this number of seeds shows with a probability of 80 %.

        It follows from the spread of the paired differences, not from their size, by the noncentral t distribution; the
        level is shared by all comparisons.
        """
        quantile = stdtrit(seeds - 1, 1 - LEVEL / self.family / 2)
        shift = float(nctdtrinc(seeds - 1, 1 - POWER, quantile))
        return shift * math.sqrt(self.estimate.std**2 / seeds + self.spread)


def estimate(values: Sequence[float], overlap: float = 0.0, bounds: tuple[float, float] = EVERYWHERE) -> Estimate:
    """Return mean, deviation and interval of values, by Student's t: seeds are few, and their spread is not known.

    overlap: of held-out to training images, where these differ between runs. Runs on other folds share most of what
    they were trained on, and vary less than independent ones would (Nadeau and Bengio 2003, Inference for the
    generalization error). bounds: of the values, where the interval ends.
    """
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    n = len(finite)
    mean = float(finite.mean()) if n else math.nan
    std = float(finite.std(ddof=1)) if n > 1 else math.nan
    if n < 2 or std == 0:
        return Estimate(n, mean, std, math.nan, math.nan)
    half = _quantile(n - 1) * std * math.sqrt(1 / n + overlap)
    return Estimate(n, mean, std, *_bounded(mean - half, mean + half, bounds))


def paired_difference(pairs: Sequence[tuple[Values, Values]], overlap: float = 0.0) -> Difference:
    """Return how much the first of each pair exceeds the second, run by run; several pairs are averaged within a run.

    Of a share of images the interval covers other images as well: the variances of both are added (degrees of freedom:
    Satterthwaite 1946, An approximate distribution of estimates of variance components), and never less than Student's
    t over runs alone. Where predictions are not known, the errors of the two count as independent. overlap: as for
    `estimate`. Runs that one of the configurations has not are left out.
    """
    every = [values.by_run for pair in pairs for values in pair]
    common = [run for run in every[0] if all(math.isfinite(by_run.get(run, math.nan)) for by_run in every)]
    gains = np.array([np.mean([one.by_run[run] - other.by_run[run] for one, other in pairs]) for run in common])
    images = min(values.images for pair in pairs for values in pair)
    found = estimate(list(gains), overlap)
    if found.n < 2:
        return Difference(found, math.nan)
    of_runs = found.std**2 * (1 / found.n + overlap)
    of_images = max(_total_variance(common, pairs, of_runs) - of_runs, 0.0) if images else 0.0
    variance = of_runs + of_images
    if variance == 0:
        nothing = images and found.mean == 0  # the same images are correct
        return Difference(found, 1.0 if nothing else math.nan)
    freedom = variance**2 / (of_runs**2 / (found.n - 1) + of_images**2 / max(images - 1, 1))
    step = 1 / images if images else 0.0  # the correction for continuity of McNemar's test
    # More degrees of freedom may narrow an interval by more than the images add to it: not below that of the runs.
    tests = [(freedom, variance, step)] + [(found.n - 1.0, of_runs, 0.0)] * (of_runs > 0)
    half = max(_quantile(free) * math.sqrt(of) + shift for free, of, shift in tests)
    p = max(2 * float(stdtr(free, -max(abs(found.mean) - shift, 0.0) / math.sqrt(of))) for free, of, shift in tests)
    low, high = _bounded(found.mean - half, found.mean + half, (-pairs[0][0].span, pairs[0][0].span))
    return Difference(replace(found, low=low, high=high), p, of_images)


def _total_variance(runs: Sequence[Any], pairs: Sequence[tuple[Values, Values]], of_runs: float) -> float:
    """Return the variance of a mean difference over runs and images, both drawn at random."""
    if any(run not in values.right for run in runs for pair in pairs for values in pair):
        images = min(values.images for pair in pairs for values in pair)
        means = [float(np.mean([values.by_run[run] for run in runs])) for pair in pairs for values in pair]
        return of_runs + sum(mean * (1 - mean) for mean in means) / images / len(pairs)
    # Two-way analysis of variance, runs and images, without repetitions.
    table = np.mean([[one.right[run].astype(float) - other.right[run] for run in runs] for one, other in pairs], axis=0)
    n, images = table.shape
    by_run, by_image = table.mean(1, keepdims=True), table.mean(0, keepdims=True)
    rest = table - by_run - by_image + table.mean()
    of_images: float = by_image.var(ddof=1) / images
    of_rest = float((rest**2).sum()) / ((n - 1) * max(images - 1, 1) * n * images)
    return float(max(of_runs + of_images - of_rest, of_runs, of_images))


def corrected_together(differences: Sequence[Difference]) -> list[Difference]:
    """Return differences with p corrected: Holm 1979, A simple sequentially rejective multiple test procedure."""
    known = sorted((one.p, place) for place, one in enumerate(differences) if not math.isnan(one.p))
    corrected, least = dict.fromkeys(range(len(differences)), math.nan), 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[place] = least
    family = max(len(known), 1)
    return [replace(one, family=family, corrected=corrected[place]) for place, one in enumerate(differences)]


def effects(
    cells: Sequence[Mapping[str, str]], values: Sequence[Values], overlap: float = 0.0
) -> list[tuple[str, Difference]]:
    """Return, for each setting, the effect of each value compared with that of the first configuration, and its name.

    cells: the differing settings of each configuration. Those that are equal in all other settings are compared, run by
    run; the mean over two pairs or more is one value for each run: other settings are no chance. Of two settings follow
    the interactions. All are corrected together.
    """
    by_cell = {tuple(cell.values()): own for cell, own in zip(cells, values, strict=True)}
    others = {key: list(dict.fromkeys(cell[key] for cell in cells))[1:] for key in cells[0]}
    found = []
    for key, before in cells[0].items():
        for after in others[key]:
            afters = [cell for cell in cells if cell[key] == after]
            names = [(tuple(cell.values()), tuple({**cell, key: before}.values())) for cell in afters]
            pairs = [(by_cell[one], by_cell[other]) for one, other in names if other in by_cell]
            if len(pairs) > 1:
                found.append((f"{key} from {before} to {after}", paired_difference(pairs, overlap)))
    if len(cells[0]) == 2:
        found += _interactions(by_cell, cells[0], others, overlap)
    found = [(name, difference) for name, difference in found if difference.estimate.n]
    return list(zip([name for name, _ in found], corrected_together([one for _, one in found]), strict=True))


def _interactions(
    by_cell: Mapping[tuple[str, ...], Values], first: Mapping[str, str], others: Mapping[str, list[str]], overlap: float
) -> Iterator[tuple[str, Difference]]:
    """Yield by how much two settings together change more than the sum of what each changes alone."""
    (key, before), (other_key, other_before) = first.items()
    for after, other_after in product(*others.values()):
        corners = [(after, other_after), (after, other_before), (before, other_before), (before, other_after)]
        if all(corner in by_cell for corner in corners):
            both, one, neither, other = (by_cell[corner] for corner in corners)
            half = paired_difference([(both, one), (neither, other)], overlap)
            found = half.estimate
            doubled = Estimate(found.n, *(2 * number for number in (found.mean, found.std, found.low, found.high)))
            name = f"{key} {after} and {other_key} {other_after} together, beyond the sum of each alone (interaction)"
            yield name, replace(half, estimate=doubled, spread=4 * half.spread)


def outlying(groups: Sequence[Sequence[float]], step: float = 0.0) -> list[tuple[int, int]]:
    """Return which values lie further from the others of their group than chance explains: group and place of each.

    Each value is compared with the mean of its others by the externally studentized residual of a one-way analysis of
    variance, at 5 % over all values (Bonferroni): Cook and Weisberg 1982, Residuals and influence in regression. Of two
    values neither is the other one. step: between possible values: the spread is no smaller.
    """
    arrays = [np.asarray(group, dtype=float) for group in groups if group]
    places = [number for number, group in enumerate(groups) if group]
    apart = [(own - own.mean()) ** 2 for own in arrays]
    freedom = sum(len(own) - 1 for own in arrays) - 1
    tested = sum(len(own) for own in arrays if len(own) > 2)
    found = []
    for number, own in zip(places, apart, strict=True):
        if len(own) > 2:
            deleted = own * len(own) / (len(own) - 1)  # by which the sum of squares falls without each
            rest = np.maximum((sum(one.sum() for one in apart) - deleted) / freedom, max(step**2, TINY))
            p = 2 * stdtr(freedom, -np.sqrt(deleted / rest))
            found += [(number, int(place)) for place in np.flatnonzero(p * tested < LEVEL)]
    return found


def _quantile(freedom: float) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _bounded(low: float, high: float, bounds: tuple[float, float]) -> tuple[float, float]:
    return max(low, bounds[0]), min(high, bounds[1])
