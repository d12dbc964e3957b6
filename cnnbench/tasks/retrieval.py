"""How well embeddings find images of their class: nearest neighbours, and the separation of classes."""

import torch
from torch import Tensor

from cnnbench.tasks.pairs import num_present

MAX_QUERIES = 10_000  # of more images every n-th is a query: 50 000 against each other take as long as an epoch
CHUNK = 512
NEIGHBOURS = 5
NEVER = 2**62
SILHOUETTE_SAMPLE = 5_000  # the time grows with the square


def recall_at(embeddings: Tensor, labels: Tensor, ranks: tuple[int, ...]) -> list[float]:
    """Return, for each k, the share of images with one of their class among the k nearest others; NaN without others.

    embeddings: float32 [N, D]. labels: int64 [N]. Of more than 10 000 images, 10 000 evenly spaced ones are queries.
    """
    others = len(embeddings) - 1
    if others < 1:
        return [float("nan")] * len(ranks)
    number = min(len(embeddings), MAX_QUERIES)
    queries = torch.arange(number) * len(embeddings) // number
    parts, deepest = torch.split(queries, CHUNK), min(max(ranks), others)
    first_match = torch.cat([_first_match(embeddings, labels, part, deepest) for part in parts])
    return [float((first_match < rank).double().mean()) for rank in ranks]


def _first_match(embeddings: Tensor, labels: Tensor, queries: Tensor, number: int) -> Tensor:
    """Return the rank of the nearest other image of the same class, counted from 0; NEVER: above `number`."""
    distances = torch.cdist(embeddings[queries], embeddings)
    distances[torch.arange(len(queries)), queries] = torch.inf
    nearest = distances.topk(number, largest=False).indices
    matches = labels[nearest] == labels[queries].unsqueeze(1)
    return torch.where(matches.any(1), matches.to(torch.uint8).argmax(1), NEVER)


def neighbour_accuracy(known: Tensor, known_labels: Tensor, embeddings: Tensor, labels: Tensor) -> float:
    """Return the accuracy of a vote of the five nearest known embeddings, float32 [M, D]. labels: int64 [N]."""
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(min(NEIGHBOURS, len(known)), algorithm="brute")
    voters.fit(known.numpy(), known_labels.numpy())
    return float((voters.predict(embeddings.numpy()) == labels.numpy()).mean())


def silhouette(embeddings: Tensor, labels: Tensor) -> float:
    """Return how much nearer images are to their own class than to the next one, in [-1, 1].

    embeddings: float32 [N, D]. labels: int64 [N]. Of more than 5 000 images, 5 000 evenly spaced ones count. NaN
    without two classes, and where every image is alone in its class. Source: Rousseeuw 1987, Silhouettes.
    """
    from sklearn.metrics import silhouette_score

    number = min(len(embeddings), SILHOUETTE_SAMPLE)
    chosen = torch.arange(number) * len(embeddings) // number
    if not 2 <= num_present(labels[chosen]) < number:
        return float("nan")
    return float(silhouette_score(embeddings[chosen].numpy(), labels[chosen].numpy()))
