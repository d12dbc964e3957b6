"""Means over seeds with their intervals, differences paired by seed, and effects of single settings."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import stdtrit  # of scipy.stats, which takes a second to import, only this is needed

CONFIDENCE = 0.95
SEED_COUNTS = np.arange(2, 1001)


@dataclass(frozen=True)
class Estimate:
    """A mean of n values, their standard deviation (n - 1), and half the 95 % interval of the mean; NaN if n is 1."""

    n: int
    mean: float
    std: float
    half: float


@dataclass(frozen=True)
class Difference:
    """A difference of two configurations, over seeds. needed: how many seeds would resolve it, see `seeds_needed`."""

    estimate: Estimate
    needed: int | None

    @property
    def is_resolved(self) -> bool:
        """Return whether the interval excludes zero."""
        return abs(self.estimate.mean) > self.estimate.half

    def sentence(self, unit: str = "seeds") -> str:
        """Return the difference in words, and whether it may be chance. unit: what the estimate is over."""
        n, mean, half = self.estimate.n, self.estimate.mean, self.estimate.half
        if n < 2:
            few = "no seed in common" if n == 0 else "one seed"
            return f"{few}; whether this is chance is unknown"
        measured = f"{mean:+.4f} ± {half:.4f} over {n} {unit}"
        if self.is_resolved:
            return f"{measured}, more than chance"
        needed = f"; if it is real, about {self.needed} {unit} would show it" if self.needed else ""
        return f"{measured}, which may be chance{needed}"


@dataclass(frozen=True)
class Effect:
    """The difference that one setting makes between two values, over all pairs of otherwise equal configurations."""

    key: str
    before: str
    after: str
    num_pairs: int
    difference: Difference


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, deviation and interval of values, by Student's t: seeds are few, and their spread is not known."""
    finite = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    n = len(finite)
    if n == 0:
        return Estimate(0, math.nan, math.nan, math.nan)
    if n == 1:
        return Estimate(1, float(finite[0]), math.nan, math.nan)
    std = float(finite.std(ddof=1))
    return Estimate(n, float(finite.mean()), std, float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n))


def paired_difference(pairs: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> Difference:
    """Return how much the first of each pair exceeds the second, paired by seed: the effect of a seed cancels.

    pairs: values by seed, of two configurations; seeds that only one of them has are left out.
    """
    gains = [one[seed] - other[seed] for one, other in pairs for seed in sorted(one.keys() & other.keys())]
    gain = estimate(gains)
    return Difference(gain, seeds_needed(gain))


def seeds_needed(gain: Estimate) -> int | None:
    """Return the smallest number of seeds whose interval would exclude zero, if mean and deviation stayed the same.

    None if that is unknown, or more than a thousand.
    """
    if gain.n < 2 or gain.mean == 0:
        return None
    halves = _quantiles() * gain.std / np.sqrt(SEED_COUNTS)
    enough = SEED_COUNTS[halves < abs(gain.mean)]
    return int(enough[0]) if len(enough) else None


@cache
def _quantiles() -> "np.ndarray[Any, Any]":
    quantiles: np.ndarray[Any, Any] = stdtrit(SEED_COUNTS - 1, (1 + CONFIDENCE) / 2)
    return quantiles


def effects(cells: Sequence[Mapping[str, str]], values: Sequence[Mapping[int, float]]) -> list[Effect]:
    """Return, for each setting, the effect of each value compared with that of the first configuration.

    cells: the differing settings of each configuration. values: the metric by seed, of each. Only configurations that
    are equal in all other settings are compared, seed by seed; a setting without such pairs has no effect here.
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
            gained = paired_difference(pairs)
            if gained.estimate.n:
                all_effects.append(Effect(key, before, after, len(pairs), gained))
    return all_effects


def _with(cell: Mapping[str, str], key: str, value: str) -> tuple[str, ...]:
    """Return the settings of a configuration, one of them replaced."""
    return tuple(value if name == key else own for name, own in cell.items())
