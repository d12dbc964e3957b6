"""How well embeddings find images of their class, against slow obvious loops and scikit-learn."""

import math
from itertools import permutations

import pytest
import torch
from sklearn.metrics import average_precision_score, silhouette_score

from cnnbench.tasks import retrieval
from cnnbench.tasks.retrieval import neighbour_accuracy, precisions, recall_at, silhouette
from tests.support.zoo import LABELS, UNEVEN

RANKS = (1, 5, 10)


def embeddings_of(labels: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Return embeddings that are nearer to their class than by chance, but not always."""
    generator = torch.Generator().manual_seed(seed)
    middles = torch.randn(int(labels.max()) + 1, 6, generator=generator)
    return middles[labels] + torch.randn(len(labels), 6, generator=generator)


def slow_recall(embeddings: torch.Tensor, labels: torch.Tensor, rank: int, queries: range) -> float:
    matches = 0
    for query in queries:
        others = [row for row in range(len(embeddings)) if row != query]
        nearest = sorted(others, key=lambda row: math.dist(embeddings[query].tolist(), embeddings[row].tolist()))[:rank]
        matches += any(labels[row] == labels[query] for row in nearest)
    return matches / len(queries)


@pytest.mark.parametrize("labels", [LABELS, UNEVEN, LABELS[:4]], ids=["zoo", "uneven", "fewer than ranks"])
def test_recall_is_how_often_one_of_the_nearest_is_alike(labels):
    embeddings = embeddings_of(labels)
    expected = [slow_recall(embeddings, labels, rank, range(len(embeddings))) for rank in RANKS]
    assert recall_at(embeddings, labels, RANKS) == pytest.approx(expected, abs=1e-12)
    assert 0 < expected[0] < 1 or len(labels) == 4


def test_of_many_images_some_ask_and_all_answer(monkeypatch):
    embeddings = embeddings_of(LABELS)
    monkeypatch.setattr(retrieval, "MAX_QUERIES", 25)
    monkeypatch.setattr(retrieval, "CHUNK", 7)
    expected = [slow_recall(embeddings, LABELS, rank, range(0, 100, 4)) for rank in RANKS]
    assert recall_at(embeddings, LABELS, RANKS) == pytest.approx(expected, abs=1e-12)


def test_an_image_is_no_neighbour_of_itself_even_among_its_copies():
    embeddings = torch.zeros(4, 3)
    embeddings[2:] = 1
    assert recall_at(embeddings, torch.tensor([0, 1, 2, 2]), (1,)) == [0.5]


def test_a_single_image_has_no_neighbours():
    assert all(math.isnan(value) for value in recall_at(torch.zeros(1, 3), torch.tensor([0]), RANKS))


# Precisions -----------------------------------------------------------------------------------------------------------

EQUAL = torch.tensor([[0.0], [0.0], [1.0], [1.0], [1.0], [2.0], [2.0], [4.0]])  # many at the same distance
RANKED = {
    "zoo": (embeddings_of(LABELS), LABELS),
    "uneven": (embeddings_of(UNEVEN), UNEVEN),
    "some alone": (embeddings_of(LABELS[:8]), torch.tensor([0, 0, 1, 2, 2, 2, 3, 0])),
    "equal distances": (EQUAL, torch.tensor([0, 1, 0, 1, 1, 0, 1, 0])),
    "collapsed": (torch.zeros(12, 3), torch.tensor([0] * 6 + [1] * 4 + [2] * 2)),
}


def slow_precisions(embeddings: torch.Tensor, labels: torch.Tensor, queries: range) -> tuple[float, float]:
    average, at_r = [], []
    for query in queries:
        others = [row for row in range(len(labels)) if row != query]
        distances = [math.dist(embeddings[query].tolist(), embeddings[row].tolist()) for row in others]
        alike = [int(labels[row] == labels[query]) for row in others]
        if not sum(alike):
            continue
        average.append(average_precision_score(alike, [-distance for distance in distances]))
        # Whoever is at the same distance comes first in one of the orders.
        first, last = (
            [one for _, one in sorted(zip(distances, [sign * one for one in alike], strict=True))][: sum(alike)]
            for sign in (-1, 1)
        )
        if -sum(first) == sum(last):
            at_r.append(sum(last) / sum(alike))
        else:
            limit = sorted(distances)[sum(alike) - 1]
            tied = [one for one, distance in zip(alike, distances, strict=True) if distance == limit]
            sure = sum(one for one, distance in zip(alike, distances, strict=True) if distance < limit)
            places = sum(alike) - sum(distance < limit for distance in distances)
            drawn = [sum(order[:places]) for order in permutations(tied)]
            at_r.append((sure + sum(drawn) / len(drawn)) / sum(alike))
    return sum(average) / len(average), sum(at_r) / len(at_r)


@pytest.mark.parametrize("case", [name for name in RANKED if name != "collapsed"])
def test_precisions_are_those_of_scikit_learn_and_of_all_orders_of_equal_distances(case):
    embeddings, labels = RANKED[case]
    expected = slow_precisions(embeddings, labels, range(len(labels)))
    assert precisions(embeddings, labels) == pytest.approx(expected, abs=1e-9)
    assert 0 < expected[0] < 1


def test_embeddings_that_collapsed_are_as_precise_as_chance_in_whatever_order_images_come():
    embeddings, labels = RANKED["collapsed"]
    chance = (6 * 5 / 11 + 4 * 3 / 11 + 2 * 1 / 11) / 12
    assert precisions(embeddings, labels) == pytest.approx((chance, chance))


def test_of_many_images_some_are_ranked_for(monkeypatch):
    embeddings = embeddings_of(LABELS)
    monkeypatch.setattr(retrieval, "MAX_QUERIES", 25)
    monkeypatch.setattr(retrieval, "CHUNK", 3)
    assert precisions(embeddings, LABELS) == pytest.approx(slow_precisions(embeddings, LABELS, range(0, 100, 4)))


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], []])
def test_images_that_are_alone_rank_nothing(labels):
    assert all(math.isnan(value) for value in precisions(torch.randn(len(labels), 3), torch.tensor(labels).long()))


def test_five_neighbours_vote():
    known, asked = embeddings_of(LABELS), embeddings_of(UNEVEN.clamp_max(3), seed=1)
    right = 0
    for code, label in zip(asked, UNEVEN.clamp_max(3).tolist(), strict=True):
        nearest = sorted(range(100), key=lambda row: math.dist(code.tolist(), known[row].tolist()))[:5]
        votes = torch.bincount(LABELS[nearest], minlength=4)
        right += int(votes.argmax()) == label
    got = neighbour_accuracy(known, LABELS, asked, UNEVEN.clamp_max(3))
    assert got == pytest.approx(right / len(asked), abs=1e-12)
    assert neighbour_accuracy(known[:2], LABELS[:2], asked[:1], LABELS[:1]) in (0.0, 1.0)


def test_silhouette_is_that_of_scikit_learn_on_images_at_equal_distances(monkeypatch):
    embeddings = embeddings_of(LABELS)
    assert silhouette(embeddings, LABELS) == pytest.approx(silhouette_score(embeddings.numpy(), LABELS.numpy()))
    monkeypatch.setattr(retrieval, "SILHOUETTE_SAMPLE", 50)
    expected = silhouette_score(embeddings[::2].numpy(), LABELS[::2].numpy())
    assert silhouette(embeddings, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_where_classes_cannot_lie_apart_there_is_no_silhouette(labels):
    assert math.isnan(silhouette(torch.randn(len(labels), 3), torch.tensor(labels)))
