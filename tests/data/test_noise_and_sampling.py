"""What images that train are labelled, and how often each is trained on."""

import pytest
import torch

from cnnbench.data.noise import wrong_on_purpose
from cnnbench.data.prepare import prepare
from cnnbench.data.sampling import class_weights, weighted_order
from cnnbench.errors import UserError
from cnnbench.training.plan import plan_run
from tests.support.zoo import LABELS, UNEVEN, prepared

# Label noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.9])
def test_so_many_labels_are_wrong_and_no_more(rate):
    noisy, number = wrong_on_purpose(LABELS, 4, rate, seed=0)
    assert number == round(rate * 100) == int((noisy != LABELS).sum())
    assert set(noisy.tolist()) <= {0, 1, 2, 3}


def test_wrong_labels_are_any_other_class_alike():
    labels = torch.arange(4000) % 4
    noisy, _ = wrong_on_purpose(labels, 4, 0.75, seed=0)
    steps = torch.bincount((noisy - labels) % 4, minlength=4)
    assert steps[0] == 1000
    assert (steps[1:] - 1000).abs().max() < 130  # 1 000 of 3 000 draws have a deviation of 26
    by_class = torch.bincount(labels[noisy != labels])
    assert (by_class - 750).abs().max() < 70  # a deviation below 14


def test_wrong_labels_follow_from_labels_rate_and_seed_only():
    torch.manual_seed(1)
    first, again, other = (wrong_on_purpose(LABELS, 4, 0.3, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_is_wrong_at_one_rate_is_as_wrong_at_a_higher_one():
    low, high = (wrong_on_purpose(LABELS, 4, rate, 5)[0] for rate in (0.2, 0.5))
    changed = low != LABELS
    assert torch.equal(low[changed], high[changed])


def test_validation_and_test_stay_true_and_the_noise_is_noted():
    true, noisy = prepared(), prepared(label_noise=0.25)
    assert torch.equal(noisy.val.labels, true.val.labels)
    assert torch.equal(noisy.test.labels, true.test.labels)
    assert int((noisy.train.labels != true.train.labels).sum()) == noisy.wrong_labels == 20
    assert noisy.notes == ("label_noise: 20 of 80 training labels are wrong on purpose",)
    assert noisy.spec.counts == tuple(torch.bincount(noisy.train.labels).tolist()) != true.spec.counts
    assert noisy.split.hash() == true.split.hash()
    assert torch.equal(prepared().train.labels, true.train.labels), "the data set that is kept in memory stays true"


def test_large_numbers_are_noted_with_thin_groups(composer):
    data = prepare(plan_run(composer, ["data.label_noise=0.1"]).config.data)
    assert data.notes == ("label_noise: 129 of 1 294 training labels are wrong on purpose",)


@pytest.mark.parametrize(
    ("num_classes", "rate", "message"),
    [(4, 0.001, "selects none of 100 images"), (1, 0.5, "with one class there is no wrong label")],
)
def test_noise_that_cannot_be_is_a_clear_error(num_classes, rate, message):
    with pytest.raises(UserError, match=message):
        wrong_on_purpose(LABELS, num_classes, rate, 0)


# Sampling -------------------------------------------------------------------------------------------------------------


def test_weights_by_name_and_by_class():
    assert class_weights("natural", (3, 4)) is None
    assert class_weights("balanced", (3, 4)).tolist() == [1, 1]
    assert class_weights([1.0, 2.5], (3, 4)).tolist() == [1, 2.5]


def test_weights_that_do_not_fit_the_classes_are_refused_before_anything_starts():
    message = r"data\.sampling=\[1\.0, 2\.0\]: 2 weights, 4 classes; give one for each\."
    with pytest.raises(UserError, match=message):
        prepared(sampling=[1.0, 2.0])


@pytest.mark.parametrize(
    ("sampling", "share"),
    [("balanced", [1, 1, 1, 1, 1]), ([1.0, 2.0, 3.0, 4.0, 10.0], [0.25, 0.5, 0.75, 1, 2.5])],
    ids=["balanced", "weights"],
)
def test_classes_are_drawn_in_proportion_and_images_of_a_class_alike(sampling, share):
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
