"""Label noise, and how often each class is sampled."""

import pytest
import torch

from cnnbench.data.prepare import prepare
from cnnbench.data.split import add_label_noise, class_weights, weighted_order
from cnnbench.errors import SettingError
from cnnbench.training.plan import plan_run
from tests.support.zoo import LABELS, UNEVEN, prepared

# Label noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.9])
def test_exactly_the_given_rate_of_labels_is_wrong(rate):
    noisy, number = add_label_noise(LABELS, 4, rate, seed=0)
    assert number == round(rate * 100) == int((noisy != LABELS).sum())
    assert set(noisy.tolist()) <= {0, 1, 2, 3}


def test_wrong_labels_are_uniform_over_the_other_classes():
    labels = torch.arange(4000) % 4
    noisy, _ = add_label_noise(labels, 4, 0.75, seed=0)
    steps = torch.bincount((noisy - labels) % 4, minlength=4)
    assert steps[0] == 1000
    assert (steps[1:] - 1000).abs().max() < 130  # 1 000 of 3 000 draws have a deviation of 26
    by_class = torch.bincount(labels[noisy != labels])
    assert (by_class - 750).abs().max() < 70  # a deviation below 14


def test_wrong_labels_follow_from_labels_rate_and_seed_only():
    torch.manual_seed(1)
    first, again, other = (add_label_noise(LABELS, 4, 0.3, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_labels_wrong_at_one_rate_are_wrong_in_the_same_way_at_a_higher_one():
    low, high = (add_label_noise(LABELS, 4, rate, 5)[0] for rate in (0.2, 0.5))
    changed = low != LABELS
    assert torch.equal(low[changed], high[changed])


def test_validation_and_test_stay_clean_and_the_noise_is_noted():
    clean, noisy = prepared(), prepared(label_noise=0.25)
    assert torch.equal(noisy.val.labels, clean.val.labels)
    assert torch.equal(noisy.test.labels, clean.test.labels)
    assert int((noisy.train.labels != clean.train.labels).sum()) == 20
    assert noisy.notes == ("label_noise: 20 of 80 training labels are wrong on purpose",)
    assert noisy.spec.counts == tuple(torch.bincount(noisy.train.labels).tolist()) != clean.spec.counts
    assert noisy.split.hash() == clean.split.hash()
    assert torch.equal(prepared().train.labels, clean.train.labels), "the cached data set stays clean"


def test_large_numbers_are_noted_in_groups_of_three_digits(composer):
    data = prepare(plan_run(composer, ["data.label_noise=0.1"]).config.data)
    assert data.notes == ("label_noise: 129 of 1 294 training labels are wrong on purpose",)


@pytest.mark.parametrize(
    ("num_classes", "rate", "message"),
    [(4, 0.001, "selects none of 100 images"), (1, 0.5, "with one class there is no wrong label")],
)
def test_impossible_noise_is_a_clear_error(num_classes, rate, message):
    with pytest.raises(SettingError, match=message):
        add_label_noise(LABELS, num_classes, rate, 0)


# Sampling -------------------------------------------------------------------------------------------------------------


def test_weights_by_name_and_by_class():
    assert class_weights("natural", (3, 4)) is None
    assert class_weights("balanced", (3, 4)).tolist() == [1, 1]
    assert class_weights([1.0, 2.5], (3, 4)).tolist() == [1, 2.5]


def test_weights_that_do_not_fit_the_classes_are_refused_before_training():
    message = r"data\.sampling=\[1\.0,2\.0\]  2 weights, 4 classes; give one for each$"
    with pytest.raises(SettingError, match=message):
        prepared(sampling=[1.0, 2.0])


@pytest.mark.parametrize(
    ("sampling", "share"),
    [("balanced", [1, 1, 1, 1, 1]), ([1.0, 2.0, 3.0, 4.0, 10.0], [0.25, 0.5, 0.75, 1, 2.5])],
    ids=["balanced", "weights"],
)
def test_classes_are_drawn_in_proportion_and_images_of_a_class_uniformly(sampling, share):
    labels = UNEVEN[torch.randperm(len(UNEVEN), generator=torch.Generator().manual_seed(0))].repeat(100)
    weights = class_weights(sampling, torch.bincount(labels).tolist())
    order = weighted_order(labels, weights, torch.Generator().manual_seed(1))
    assert (len(order), order.dtype) == (8100, torch.int64)
    drawn = torch.bincount(labels[order], minlength=5)
    expected = torch.tensor(share) * 8100 / 5
    assert ((drawn - expected).abs() < 5 * expected.sqrt()).all()
    of_one = torch.bincount(order, minlength=8100)[labels == 4]  # of 200 images
    mean = float(expected[4]) / 200
    assert abs(of_one.double().var() - mean) < 0.5 * mean  # draws with replacement: variance and mean are the same
    assert (of_one > 0).double().mean() > 0.99


def test_an_order_follows_from_its_generator():
    weights = torch.ones(4)
    first, again, other = (weighted_order(LABELS, weights, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_class_without_images_is_never_drawn():
    order = weighted_order(torch.tensor([0, 2, 2, 0]).repeat(50), torch.ones(4), torch.Generator().manual_seed(0))
    assert order.max() < 200
