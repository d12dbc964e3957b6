"""Means over seeds, their intervals, and differences, against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from cnnbench.analysis.reports.statistics import (
    Difference,
    Values,
    corrected_together,
    estimate,
    paired_difference,
    seeds_needed,
)


def test_an_estimate_agrees_with_scipy():
    values = [0.91, 0.93, 0.90, 0.96]
    got = estimate(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (got.n, got.mean, got.std) == (4, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (got.low, got.high) == pytest.approx((low, high))


@pytest.mark.parametrize(("values", "n"), [([0.5], 1), ([], 0), ([math.nan, 0.5], 1), ([0.5, 0.5], 2)])
def test_a_single_value_has_no_interval_and_equal_ones_have_none(values, n):
    got = estimate(values)
    assert got.n == n
    assert math.isnan(got.low)
    assert math.isnan(got.high)


def test_intervals_end_where_the_values_do():
    got = estimate([0.99, 0.97, 0.999], bounds=(0.0, 1.0))
    assert got.high == 1.0
    assert 0.9 < got.low < 0.97
    assert estimate([0.01, 0.0], bounds=(0.0, 1.0)).low == 0.0
    gained = paired_difference([(Values({0: 0.9, 1: 0.2}, 100), Values({0: 0.1, 1: 0.3}, 100))])
    assert (gained.estimate.low, gained.estimate.high) == (-1.0, 1.0)


def test_the_interval_over_folds_is_that_of_nadeau_and_bengio():
    values = [0.91, 0.93, 0.90, 0.96, 0.92]
    got = estimate(values, overlap=1 / 4)
    half = stats.t.ppf(0.975, 4) * np.std(values, ddof=1) * math.sqrt(1 / 5 + 1 / 4)
    assert (got.high - got.low) / 2 == pytest.approx(half)


def test_a_difference_is_paired_by_seed():
    one, other = Values({0: 0.9, 1: 0.8, 2: 0.7, 5: 0.1}), Values({2: 0.6, 1: 0.71, 0: 0.79, 7: 0.9})
    got = paired_difference([(one, other)])
    test = stats.ttest_rel([0.9, 0.8, 0.7], [0.79, 0.71, 0.6])
    interval, found = test.confidence_interval(0.95), got.estimate
    assert (found.n, found.mean) == (3, pytest.approx(0.1))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert got.p == pytest.approx(test.pvalue)
    assert got.is_resolved
    assert not paired_difference([(Values({0: 0.9}), Values({1: 0.8}))]).is_resolved


def test_with_seeds_that_change_nothing_a_difference_is_that_of_mcnemar():
    one, other = np.zeros(1000, dtype=bool), np.zeros(1000, dtype=bool)
    one[:60], other[40:70] = True, True  # 40 that only the first has, 10 that only the other has
    pair = [tuple(Values({0: x.mean(), 1: x.mean()}, 1000, {0: x, 1: x}) for x in (one, other))]
    got = paired_difference(pair)
    assert got.estimate.mean == pytest.approx(0.03)
    assert got.p == pytest.approx(stats.chi2.sf((abs(40 - 10) - 1) ** 2 / (40 + 10), 1), rel=0.2)
    assert paired_difference([(pair[0][0], pair[0][0])]).p == 1.0


def test_equal_gains_without_a_spread_over_images_prove_nothing():
    got = paired_difference([(Values({0: 0.5, 1: 0.25}), Values({0: 0.25, 1: 0.0}))])
    assert not got.is_resolved
    assert got.sentence() == "+0.2500 with each of 2 seeds; nothing varies, so chance is unknown"


def test_holms_correction_is_that_of_his_example():
    """With p of 0.01, 0.02, 0.03 and 0.04 the smallest only is below 0.05: 4, 3, 2 and 1 times these, ascending."""
    given = [0.03, 0.01, math.nan, 0.04, 0.02]
    got = corrected_together([Difference(estimate([0.0, 1.0]), p) for p in given])
    assert [one.corrected for one in got] == pytest.approx([0.06, 0.04, math.nan, 0.06, 0.06], nan_ok=True)
    assert [one.is_resolved for one in got] == [False, True, False, False, False]
    assert {one.family for one in got} == {4}
    assert "which may be chance among 4 comparisons" in got[0].sentence()


def test_the_seeds_needed_are_the_fewest():
    got = estimate([0.010, 0.002, -0.004])
    needed = seeds_needed(got)
    power = {
        n: stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, got.mean / got.std * math.sqrt(n))
        for n in (needed - 1, needed)
    }
    assert power[needed - 1] < 0.8 <= power[needed]
    assert seeds_needed(got, level=0.05 / 9) > needed
    assert seeds_needed(estimate([0.5])) is None
    assert seeds_needed(estimate([0.1, -0.1])) is None


def test_two_that_have_the_same_images_correct_are_said_not_to_differ():
    right = {seed: np.arange(10) % 3 > 0 for seed in (0, 1, 2)}
    same = Values(dict.fromkeys(right, 0.6), 10, right)
    said = paired_difference([(same, same)]).sentence()
    assert said == "+0.0000; the same images are correct with each of 3 seeds"
    assert not paired_difference([(same, same)]).is_resolved
