"""Means over seeds, what they leave open, and differences paired by seed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import stdtrit  # of scipy.stats, which takes a second to import, only this is needed

CONFIDENCE = 0.95
COUNTS = np.arange(2, 1001)  # of seeds


@dataclass(frozen=True)
class Estimate:
    """A mean of n values, their deviation (by n - 1), and half the 95 % interval of the mean; NaN where n is 1."""

    n: int
    mean: float
    std: float
    half: float


@dataclass(frozen=True)
class Difference:
    """What one configuration has more than another, seed by seed. needed: seeds that would tell it from nothing."""

    estimate: Estimate
    needed: int | None

    @property
    def is_resolved(self) -> bool:
        """Tell whether the interval leaves out zero."""
        return abs(self.estimate.mean) > self.estimate.half


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean, deviation and interval of values, by Student's t: seeds are few, and their spread is not known."""
    found = np.asarray([value for value in values if math.isfinite(value)], dtype=float)
    n = len(found)
    if n == 0:
        return Estimate(0, math.nan, math.nan, math.nan)
    if n == 1:
        return Estimate(1, float(found[0]), math.nan, math.nan)
    std = float(found.std(ddof=1))
    return Estimate(n, float(found.mean()), std, float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * std / math.sqrt(n))


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Return what `one` has more than `other`, by the seeds that both have: what a seed does to both is taken out."""
    seeds = sorted(one.keys() & other.keys())
    found = estimate([one[seed] - other[seed] for seed in seeds])
    return Difference(found, seeds_needed(found))


def seeds_needed(found: Estimate) -> int | None:
    """Return the smallest number of seeds whose interval would leave out zero, were mean and deviation the same.

    None where that cannot be said, or takes more than a thousand.
    """
    if found.n < 2 or found.mean == 0:
        return None
    halves = _quantiles() * found.std / np.sqrt(COUNTS)
    told = COUNTS[halves < abs(found.mean)]
    return int(told[0]) if len(told) else None


@cache
def _quantiles() -> "np.ndarray[Any, Any]":
    """Return Student's t at the confidence, for each of the counts."""
    found: np.ndarray[Any, Any] = stdtrit(COUNTS - 1, (1 + CONFIDENCE) / 2)
    return found
