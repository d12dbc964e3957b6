"""Means over seeds, their intervals, and differences, against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from cnnbench.analysis.reports.statistics import estimate, paired_difference, seeds_needed


def test_an_estimate_agrees_with_scipy():
    values = [0.91, 0.93, 0.90, 0.96]
    got = estimate(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (got.n, got.mean, got.std) == (4, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (got.mean - got.half, got.mean + got.half) == pytest.approx((low, high))


@pytest.mark.parametrize(("values", "n"), [([0.5], 1), ([], 0), ([math.nan, 0.5], 1)])
def test_a_single_value_has_no_interval(values, n):
    got = estimate(values)
    assert got.n == n
    assert math.isnan(got.half)


def test_a_difference_is_paired_by_seed():
    one, other = {0: 0.9, 1: 0.8, 2: 0.7, 5: 0.1}, {2: 0.6, 1: 0.71, 0: 0.79, 7: 0.9}
    got = paired_difference([(one, other)])
    interval = stats.ttest_rel([0.9, 0.8, 0.7], [0.79, 0.71, 0.6]).confidence_interval(0.95)
    found = got.estimate
    assert (found.n, found.mean) == (3, pytest.approx(0.1))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((interval.low, interval.high))
    assert got.is_resolved
    assert not paired_difference([({0: 0.9}, {1: 0.8})]).is_resolved


def test_the_seeds_needed_are_the_fewest():
    got = estimate([0.010, 0.002, -0.004])
    needed = seeds_needed(got)
    halves = {n: stats.t.ppf(0.975, n - 1) * got.std / math.sqrt(n) for n in (needed - 1, needed)}
    assert halves[needed] < got.mean < halves[needed - 1]
    assert seeds_needed(estimate([0.5])) is None
    assert seeds_needed(estimate([0.1, -0.1])) is None
