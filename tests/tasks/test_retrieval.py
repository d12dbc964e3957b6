"""How well embeddings find images of their class, against slow obvious loops and scikit-learn."""

import math

import pytest
import torch
from sklearn.metrics import silhouette_score

from cnnbench.tasks import retrieval
from cnnbench.tasks.retrieval import neighbour_accuracy, recall_at, silhouette
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
