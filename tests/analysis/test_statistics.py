"""Means over seeds, their intervals, and differences, against scipy."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cnnbench.analysis.reports.statistics import (
    Difference,
    Values,
    corrected_together,
    effects,
    estimate,
    outlying,
    paired_difference,
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
    for images in (100, 0):
        one, other = (Values(by_run, images, span=1.0) for by_run in ({0: 0.9, 1: 0.2}, {0: 0.1, 1: 0.3}))
        gained = paired_difference([(one, other)])
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
    assert got.verdict == "no test is possible where all runs agree"
    assert paired_difference([(Values({0: 0.5}), Values({0: 0.25}))]).verdict == "no test is possible with one run"


def test_holms_correction_is_that_of_his_example():
    """With p of 0.01, 0.02, 0.03 and 0.04 the smallest only is below 0.05: 4, 3, 2 and 1 times these, ascending."""
    given = [0.03, 0.01, math.nan, 0.04, 0.02]
    got = corrected_together([Difference(estimate([0.0, 1.0]), p) for p in given])
    assert [one.corrected for one in got] == pytest.approx([0.06, 0.04, math.nan, 0.06, 0.06], nan_ok=True)
    assert [one.is_resolved for one in got] == [False, True, False, False, False]
    assert {one.family for one in got} == {4}
    apart = replace(got[0], estimate=replace(got[0].estimate, low=0.01, high=0.2))
    assert apart.verdict == "may be chance, p (Holm) = 0.06; the interval is that of one comparison alone"
    assert [got[0].verdict, got[1].verdict] == ["may be chance, p (Holm) = 0.06", "more than chance, p (Holm) = 0.04"]


def test_what_can_be_detected_has_the_power_that_is_said():
    """It follows from the spread of the differences, not from their mean."""
    one, other = (Difference(estimate([mean + x for x in (-0.1, 0.0, 0.1)]), 0.5, family=3) for mean in (0.001, 5.0))
    for seeds in (2, 3, 10):
        least = one.detectable(seeds)
        power = stats.nct.sf(stats.t.ppf(1 - 0.05 / 6, seeds - 1), seeds - 1, least / 0.1 * math.sqrt(seeds))
        assert power == pytest.approx(0.8, abs=1e-4)
        assert other.detectable(seeds) == pytest.approx(least)
    assert replace(one, spread=0.01).detectable(10**6) == pytest.approx((2.394 + 0.842) * 0.1, rel=0.001)


def satterthwaite(table: np.ndarray) -> tuple[float, float]:
    """Return variance and degrees of freedom of the mean of a table [seeds, images], by loops over its cells."""
    n, images = table.shape
    mean = table.mean()
    seeds = [sum(row) / images for row in table]
    columns = [sum(table[:, place]) / n for place in range(images)]
    of_seeds = sum((own - mean) ** 2 for own in seeds) / (n - 1) / n
    of_images = sum((own - mean) ** 2 for own in columns) / (images - 1) / images
    rest = [(table[s, i] - seeds[s] - columns[i] + mean) ** 2 for s in range(n) for i in range(images)]
    total = of_seeds + of_images - sum(rest) / ((n - 1) * (images - 1)) / n / images
    total = max(total, of_seeds, of_images)  # no less than either alone
    return total, total**2 / (of_seeds**2 / (n - 1) + (total - of_seeds) ** 2 / (images - 1))


def test_an_interval_that_covers_images_is_never_narrower_than_that_over_seeds():
    draw, narrower, seeds = np.random.default_rng(3), 0, 3
    for _ in range(40):
        shift = draw.normal(0, 0.02, (2, seeds, 1))
        one, other = (draw.random((seeds, 300)) < 0.9 + own for own in shift)
        pair = [tuple(Values(dict(enumerate(x.mean(1))), 300, dict(enumerate(x))) for x in (one, other))]
        got = paired_difference(pair)
        alone = stats.ttest_rel(one.mean(1), other.mean(1))
        interval = alone.confidence_interval(0.95)
        variance, freedom = satterthwaite(one.astype(float) - other)
        step, mean = 1 / 300, abs(got.estimate.mean)
        half = stats.t.ppf(0.975, freedom) * math.sqrt(variance) + step
        p = 2 * stats.t.sf(max(mean - step, 0) / math.sqrt(variance), freedom)
        narrower += 2 * half < interval.high - interval.low
        assert got.estimate.high - got.estimate.low == pytest.approx(max(2 * half, interval.high - interval.low))
        assert got.p == pytest.approx(max(p, alone.pvalue))
    assert narrower, "these cases do not show the difference"


def test_an_interaction_is_what_two_settings_change_together_beyond_the_sum_of_both():
    draw = np.random.default_rng(0)
    cells = [{"a": a, "b": b} for a in ("0", "1") for b in ("x", "y")]
    measured = draw.normal(0.5, 0.1, (4, 5))
    (*_, (name, got)) = effects(cells, [Values(dict(enumerate(row))) for row in measured])
    neither, second, first, both = measured
    alone = stats.ttest_1samp(both - first - second + neither, 0)
    interval = alone.confidence_interval(0.95)
    assert name == "a 1 and b y together, beyond the sum of each alone (interaction)"
    assert got.estimate.mean == pytest.approx(np.mean(both - first - second + neither))
    assert (got.estimate.low, got.estimate.high) == pytest.approx((interval.low, interval.high))
    assert (got.p, got.family) == (pytest.approx(alone.pvalue), 3)


def test_one_that_is_far_from_its_others_is_found_as_a_refit_without_it_finds_it():
    groups = [[0.9525, 0.956, 0.946], [0.9601, 0.9574, 0.9665], [], [0.953, 0.9138, 0.9596], [0.95]]
    assert outlying(groups, 1e-4) == [(3, 1)]
    for number, place in ((3, 1), (3, 2), (0, 0)):
        without = [[x for n, x in enumerate(own) if (number, n) != (at, place)] for at, own in enumerate(groups)]
        squares = sum(np.var(own) * len(own) for own in without if own)
        freedom = sum(len(own) - 1 for own in without if own)
        others = without[number]
        t = (groups[number][place] - np.mean(others)) / math.sqrt(squares / freedom * (1 + 1 / len(others)))
        assert (2 * 9 * stats.t.sf(abs(t), freedom) < 0.05) == ((number, place) == (3, 1))
    assert outlying([[0.9, 0.9, 0.903]], 1 / 300) == [], "one image more"
    assert outlying([[0.1, 0.95, 0.95]], 1e-4) == [(0, 0)]
    assert outlying([[0.1, 0.9]]) == []


def test_two_that_have_the_same_images_correct_are_said_not_to_differ():
    right = {seed: np.arange(10) % 3 > 0 for seed in (0, 1, 2)}
    same = Values(dict.fromkeys(right, 0.6), 10, right)
    found = paired_difference([(same, same)])
    assert (found.p, found.verdict) == (1.0, "may be chance, p = 1")
