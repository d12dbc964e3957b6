"""Claims hold: where nothing differs, what is said to be more than chance is wrong in at most one case of twenty.

Each simulation draws trainings whose true figures are equal, and counts how often a difference is claimed. Next to it
stands what an obvious method would claim: a simulation in which that held too would prove nothing.
"""

from collections.abc import Callable

import numpy as np
import pytest

from cnnbench.analysis.reports.statistics import (
    LEVEL,
    Difference,
    Estimate,
    Values,
    corrected_together,
    effects,
    estimate,
    outlying,
    paired_difference,
)
from cnnbench.tasks.intervals import is_chance

TIMES = 1000
MOST = LEVEL + 2.6 * (LEVEL * (1 - LEVEL) / TIMES) ** 0.5  # in 199 of 200 simulations of what errs in 5 %


def share(claims: Callable[[np.random.Generator], tuple[bool, ...]], times: int = TIMES) -> list[float]:
    """Return in which share of simulations each of several claims was made."""
    draw = np.random.default_rng(0)
    return np.mean([claims(draw) for _ in range(times)], axis=0).tolist()


def trainings(draw: np.random.Generator, configurations: int, seeds: int, images: int, of_seed: float = 0.1):
    """Return which images are correct, bool [configurations, seeds, images], of networks that are equally good.

    Each configuration is better on some images and worse on others, with all its seeds; seeds vary, too.
    """
    difficulty, kind = draw.normal(2.5, 1.5, images), draw.normal(0, 1, (configurations, 1, images))
    seed, rest = (
        draw.normal(0, of_seed, (configurations, seeds, 1)),
        draw.normal(0, 0.7, (configurations, seeds, images)),
    )
    return difficulty + kind + seed + rest > 0


def values_of(right: np.ndarray, is_known: bool = True) -> Values:
    by_seed = dict(enumerate(right))
    return Values({s: float(own.mean()) for s, own in by_seed.items()}, right.shape[1], by_seed if is_known else {})


def excludes_zero(found: Estimate) -> bool:
    return found.low > 0 or found.high < 0


def by_seeds_alone(gains: np.ndarray) -> bool:
    """Claim a difference where the interval over seeds excludes zero; equal gains leave no interval to speak of."""
    return excludes_zero(estimate(list(gains))) or (gains.std() == 0 and gains.mean() != 0)


@pytest.mark.parametrize("is_known", [True, False], ids=["predictions", "numbers only"])
def test_a_difference_on_a_few_images_is_not_one_on_others(is_known):
    def claims(draw):
        one, other = trainings(draw, 2, 10, 200)
        gains = one.mean(1) - other.mean(1)
        found = paired_difference([(values_of(one, is_known), values_of(other, is_known))])
        return found.is_resolved, by_seeds_alone(gains)

    ours, naive = share(claims)
    assert ours <= MOST
    assert naive > 0.25


@pytest.mark.parametrize("is_known", [True, False], ids=["predictions", "numbers only"])
def test_seeds_that_all_give_the_same_prove_nothing(is_known):
    """Almost all images are correct; two or three others of 200 are, whatever the seed."""

    def claims(draw):
        one, other = (np.repeat(draw.random((1, 200)) < 0.98, 3, axis=0) for _ in range(2))
        found = paired_difference([(values_of(one, is_known), values_of(other, is_known))])
        return found.is_resolved, by_seeds_alone(one.mean(1) - other.mean(1))

    ours, naive = share(claims)
    assert ours <= MOST
    assert naive > 0.7


def test_many_variants_claim_together_no_more_than_one():
    def claims(draw):
        baseline, *variants = (Values(dict(enumerate(draw.normal(0, 1, 3)))) for _ in range(30))
        alone = [paired_difference([(variant, baseline)]) for variant in variants]
        together = corrected_together(alone)
        return any(one.is_resolved for one in together), any(one.is_resolved for one in alone)

    ours, naive = share(claims)
    assert ours <= MOST
    assert naive > 0.5


def centroids(features: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> float:
    """Return the accuracy of the nearest mean, on rows that it has not seen."""
    means = np.stack([features[~held_out & (labels == label)].mean(0) for label in (0, 1)])
    nearest = ((features[held_out, None] - means) ** 2).sum(-1).argmin(1)
    return float((nearest == labels[held_out]).mean())


@pytest.mark.parametrize("repeat", ["folds", "splits"])
def test_folds_overlap(repeat):
    """Two halves of the features say the same about the classes: classifiers of either are equally good."""
    runs, images = 10, 100

    def claims(draw):
        labels = np.arange(images) % 2
        features = draw.normal(0, 1, (images, 20)) + 0.25 * labels[:, None]
        folds = draw.permutation(images) % runs
        fraction = 1 / runs if repeat == "folds" else 0.25
        one, other = {}, {}
        for run in range(runs):
            held_out = folds == run if repeat == "folds" else draw.permutation(images) < fraction * images
            one[run], other[run] = (centroids(half, labels, held_out) for half in np.split(features, 2, axis=1))
        pair = [(Values(one), Values(other))]
        overlap = fraction / (1 - fraction)
        return paired_difference(pair, overlap).is_resolved, paired_difference(pair).is_resolved

    ours, naive = share(claims, 500)
    assert ours <= LEVEL + 2.6 * (LEVEL * (1 - LEVEL) / 500) ** 0.5
    assert naive > 0.07


def test_an_effect_is_no_surer_for_being_seen_in_many_combinations():
    """What a seed does to dropout it does whatever the other settings are."""
    cells = [{"dropout": dropout, "other": str(n)} for n in range(8) for dropout in ("0", "0.5")]

    def claims(draw):
        of_seed = draw.normal(0, 1, 3)
        measured = [(cell["dropout"] == "0.5") * of_seed + draw.normal(0, 0.3, 3) for cell in cells]
        gains = [measured[place + 1] - measured[place] for place in range(0, 16, 2)]
        (_, found), *_ = effects(cells, [Values(dict(enumerate(row))) for row in measured])
        return found.is_resolved, by_seeds_alone(np.concatenate(gains))

    ours, naive = share(claims, 500)
    assert ours <= LEVEL + 2.6 * (LEVEL * (1 - LEVEL) / 500) ** 0.5
    assert naive > 0.3


def test_only_seeds_that_both_have_are_compared():
    """The seeds of one that fail are those that would have been bad: its survivors look better, and are not."""

    def claims(draw):
        seeds = draw.normal(0, 1, 8)  # how hard a seed is, whatever is trained
        one, other = seeds + draw.normal(0, 0.3, 8), seeds + draw.normal(0, 0.3, 8)
        survivors = {seed: one[seed] for seed in range(8) if seeds[seed] > -0.5}
        found = paired_difference([(Values(survivors), Values(dict(enumerate(other))))])
        return found.is_resolved, bool(survivors) and np.mean(list(survivors.values())) > other.mean()

    ours, naive = share(claims)
    assert ours <= MOST
    assert naive > 0.9  # that the survivors are the better ones; one half would be chance


@pytest.mark.parametrize(("accuracy", "few", "many"), [(0.995, 200, 10_000), (0.9, 50, 300), (0.5, 20, 1000)])
def test_validation_and_test_differ_by_chance(accuracy, few, many):
    def claims(draw):
        val, test = draw.binomial(few, accuracy) / few, draw.binomial(many, accuracy) / many
        spread = (val * (1 - val) / few + test * (1 - test) / many) ** 0.5
        return not is_chance(val, few, test, many), abs(val - test) > 1.96 * spread

    ours, naive = share(claims, 5000)
    assert ours <= LEVEL
    assert accuracy < 0.99 or naive > 0.2


def test_a_difference_that_can_be_detected_is_in_four_of_five_cases():
    found = Difference(estimate([-1.0, 0.0, 1.0]), 0.5)

    def claims(draw):
        return (excludes_zero(estimate(list(draw.normal(found.detectable(5), found.estimate.std, 5)))),)

    (shown,) = share(claims, 4000)
    assert shown == pytest.approx(0.8, abs=0.02)


def test_two_settings_that_add_up_have_no_interaction():
    cells = [{"a": a, "b": b} for a in ("0", "1") for b in ("0", "1")]

    def claims(draw):
        measured = [int(cell["a"]) + 2 * int(cell["b"]) + draw.normal(0, 1, 3) for cell in cells]
        *_, (_, found) = effects(cells, [Values(dict(enumerate(row))) for row in measured])
        return (found.p < LEVEL,)

    assert share(claims)[0] <= MOST


def test_no_run_is_called_far_from_its_others_where_all_are_drawn_alike():
    def claims(draw):
        groups = draw.normal(0, 1, (4, 3))
        far = np.abs(groups - groups.mean(1, keepdims=True)) > 2 * groups.std(1, ddof=1, keepdims=True).mean()
        return bool(outlying(groups.tolist())), bool(far.any())

    ours, naive = share(claims)
    assert ours <= MOST
    assert naive > 0.08
