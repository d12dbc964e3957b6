"""Which images are compared with which."""

from collections import Counter

import pytest
import torch

from cnnbench.tasks.pairs import has_partner, num_present, of_other_class, of_same_class, several_of_each
from tests.support.zoo import LABELS, UNEVEN

MISSING = torch.tensor([4, 4, 0, 2, 0, 2, 2, 4])  # nothing of classes 1 and 3
SETS = {"zoo": LABELS, "uneven": UNEVEN, "classes missing": MISSING}


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", SETS)
def test_a_partner_of_the_same_class_is_any_other_image_of_it_alike(name):
    labels = SETS[name]
    anchors = torch.arange(len(labels)).repeat(400)
    partners = of_same_class(anchors, labels, drawn(0))
    for anchor in range(len(labels)):
        seen = Counter(partners[anchors == anchor].tolist())
        others = [row for row in range(len(labels)) if labels[row] == labels[anchor] and row != anchor]
        assert sorted(seen) == others if len(others) < 20 else set(seen) <= set(others)
        expected = 400 / len(others)
        assert max(seen.values()) < expected + 6 * expected**0.5


@pytest.mark.parametrize("name", SETS)
def test_a_partner_of_another_class_is_of_any_other_class_alike(name):
    labels = SETS[name]
    anchors = torch.arange(len(labels)).repeat(200)
    partners = of_other_class(anchors, labels, drawn(0))
    for own in set(labels.tolist()):
        seen = Counter(labels[partners[labels[anchors] == own]].tolist())
        assert sorted(seen) == sorted(set(labels.tolist()) - {own})
        expected = seen.total() / len(seen)
        assert all(abs(count - expected) < 6 * expected**0.5 for count in seen.values())
    assert set(partners.tolist()) == set(range(len(labels)))


def test_partners_are_drawn_anew_by_each_generator_and_the_same_by_the_same():
    anchors = torch.arange(100)
    for draw in (of_same_class, of_other_class):
        first, again, other = (draw(anchors, LABELS, drawn(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_several_of_each_class_follow_one_another_and_nothing_is_left_out(name, number):
    labels = SETS[name]
    order = several_of_each(labels, number, drawn(0))
    assert sorted(order.tolist()) == list(range(len(labels)))
    whole = sum(count // number for count in torch.bincount(labels).tolist())
    for group in order[: whole * number].view(whole, number):
        assert len(set(labels[group].tolist())) == 1
    assert not torch.equal(order, several_of_each(labels, number, drawn(1)))


def test_the_groups_of_classes_come_in_random_order_and_of_random_images():
    orders = [several_of_each(LABELS, 5, drawn(seed)) for seed in range(30)]
    assert {LABELS[order[0]].item() for order in orders} == {0, 1, 2, 3}
    first_of_class = {tuple(order[LABELS[order] == 2][:5].sort().values.tolist()) for order in orders}
    assert len(first_of_class) == 30


def test_images_alone_of_their_class_have_no_partner():
    labels = torch.tensor([0, 3, 0, 2])
    assert has_partner(labels).tolist() == [True, False, True, False]
    assert num_present(labels) == 3
