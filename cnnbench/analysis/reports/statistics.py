"""What may be said of measured numbers: means with intervals, paired differences, and many comparisons at once.

Every claim is wrong at most in one case of twenty: `tests/analysis/test_claims.py` simulates that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit  # scipy.stats has them too, and takes a second to import

from cnnbench.errors import grouped

CONFIDENCE = 0.95
LEVEL = 1 - CONFIDENCE
POWER = 0.8
SEED_COUNTS = np.arange(2, 1001)

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
    right: whether each image is correct, bool [images], of the runs where that is known.
    """

    by_run: Mapping[Any, float]
    images: int = 0
    right: Mapping[Any, Flags] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """A difference of two configurations, paired.

    p: of a difference of zero, two-sided; NaN: unknown. corrected: the same among `family` comparisons (Holm). images:
    of which the interval covers the choice too, not only that of the seeds; 0: it does not. spread: the part of the
    variance that more seeds do not lower.
    """

    estimate: Estimate
    p: float
    images: int = 0
    spread: float = 0.0
    can_repeat: bool = True
    family: int = 1
    corrected: float = math.nan

    @property
    def is_resolved(self) -> bool:
        """Return whether it is more than chance, however many comparisons were made."""
        return (self.p if math.isnan(self.corrected) else self.corrected) < LEVEL

    @property
    def needed(self) -> int | None:
        """Return how many seeds would show it in four of five cases, if it is real and of this size."""
        return seeds_needed(self.estimate, self.spread, LEVEL / self.family) if self.can_repeat else None

    def sentence(self, unit: str = "seeds") -> str:
        """Return the difference in words, and whether it may be chance. unit: what the estimate is over."""
        found = self.estimate
        if found.n < 2:
            few = f"no {unit.removesuffix('s')} in common" if found.n == 0 else f"one {unit.removesuffix('s')}"
            return f"{few}; whether this is chance is unknown"
        if math.isnan(self.p):
            return f"{found.mean:+.4f} with each of {found.n} {unit}; nothing varies, so chance is unknown"
        if math.isnan(found.low):
            return f"{found.mean:+.4f}; the same images are correct with each of {found.n} {unit}"
        over = f"{found.n} {unit}" + (f" and {grouped(self.images)} images" if self.images else "")
        measured = f"{found.mean:+.4f} (95 %: {found.low:+.4f} to {found.high:+.4f}; {over})"
        if self.is_resolved:
            return f"{measured}, more than chance"
        if self.p < LEVEL:
            return f"{measured}, which may be chance among {self.family} comparisons{self._outlook(unit)}"
        return f"{measured}, which may be chance{self._outlook(unit)}"

    def _outlook(self, unit: str) -> str:
        if self.needed:
            return f"; if it is real, {self.needed} {unit} would show it with {POWER:.0%} probability"
        if self.spread and seeds_needed(replace(self.estimate, std=0.0), self.spread, LEVEL / self.family) is None:
            return f"; with any number of {unit}, the images are too few to show it"
        return ""


@dataclass(frozen=True)
class Effect:
    """The difference that one setting makes between two values, over all pairs of otherwise equal configurations."""

    key: str
    before: str
    after: str
    num_pairs: int
    difference: Difference


def estimate(values: Sequence[float], overlap: float = 0.0, bounds: tuple[float, float] | None = None) -> Estimate:
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
    """Return how much the first of each pair exceeds the second, run by run: what they share cancels.

    Several pairs are averaged within each run. Of a share of images the interval covers other images as well: both
    seeds and images vary. Where it is not known which ones are correct, the errors of the two count as independent.
    overlap: as for `estimate`. Runs that one of the configurations has not are left out.
    """
    common = [run for run in pairs[0][0].by_run if all(_has(values, run) for pair in pairs for values in pair)]
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
        return Difference(found, 1.0 if nothing else math.nan, images, can_repeat=False)
    # Welch and Satterthwaite: the degrees of freedom of a sum of two estimated variances.
    freedom = variance**2 / (of_runs**2 / (found.n - 1) + of_images**2 / max(images - 1, 1))
    step = 1 / images if images else 0.0  # the correction for continuity of McNemar's test
    half = _quantile(freedom) * math.sqrt(variance) + step
    p = 2 * float(stdtr(freedom, -max(abs(found.mean) - step, 0.0) / math.sqrt(variance)))
    low, high = _bounded(found.mean - half, found.mean + half, (-1.0, 1.0) if images else None)
    return Difference(replace(found, low=low, high=high), p, images, of_images, can_repeat=not overlap)


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
    """Return differences with what chance means among that many: with Holm's correction.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    known = sorted((one.p, place) for place, one in enumerate(differences) if not math.isnan(one.p))
    corrected, least = dict.fromkeys(range(len(differences)), math.nan), 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        corrected[place] = least
    family = max(len(known), 1)
    return [replace(one, family=family, corrected=corrected[place]) for place, one in enumerate(differences)]


def seeds_needed(gain: Estimate, spread: float = 0.0, level: float = LEVEL) -> int | None:
    """Return the smallest number of seeds that show a difference with a probability of 80 %, if it is as estimated.

    spread: variance that remains with any number of seeds. None if that is unknown, or more than a thousand.
    """
    if gain.n < 2 or gain.mean == 0 or gain.std + spread == 0:
        return None
    shift = abs(gain.mean) / np.sqrt(gain.std**2 / SEED_COUNTS + spread)
    power = 1 - nctdtr(SEED_COUNTS - 1, shift, stdtrit(SEED_COUNTS - 1, 1 - level / 2))
    enough = SEED_COUNTS[power >= POWER]
    return int(enough[0]) if len(enough) else None


def effects(cells: Sequence[Mapping[str, str]], values: Sequence[Values], overlap: float = 0.0) -> list[Effect]:
    """Return, for each setting, the effect of each value compared with that of the first configuration.

    cells: the differing settings of each configuration. Only configurations that are equal in all other settings are
    compared, run by run, and the mean over them is one value for each run: other settings are no chance. A setting
    without such pairs has no effect here.
    """
    all_effects = []
    for key in cells[0]:
        by_cell = {_with(cell, key, cell[key]): own for cell, own in zip(cells, values, strict=True)}
        before = cells[0][key]
        for after in dict.fromkeys(cell[key] for cell in cells if cell[key] != before):
            pairs = [
                (own, by_cell[_with(cell, key, before)])
                for cell, own in zip(cells, values, strict=True)
                if cell[key] == after and _with(cell, key, before) in by_cell
            ]
            if pairs and (gained := paired_difference(pairs, overlap)).estimate.n:
                all_effects.append(Effect(key, before, after, len(pairs), gained))
    together = corrected_together([effect.difference for effect in all_effects if effect.num_pairs > 1])
    found = iter(together)
    return [replace(one, difference=next(found)) if one.num_pairs > 1 else one for one in all_effects]


def _has(values: Values, run: Any) -> bool:
    return math.isfinite(values.by_run.get(run, math.nan))


def _quantile(freedom: float) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _bounded(low: float, high: float, bounds: tuple[float, float] | None) -> tuple[float, float]:
    return (low, high) if bounds is None else (max(low, bounds[0]), min(high, bounds[1]))


def _with(cell: Mapping[str, str], key: str, value: str) -> tuple[str, ...]:
    """Return the settings of a configuration, one of them replaced."""
    return tuple(value if name == key else own for name, own in cell.items())
