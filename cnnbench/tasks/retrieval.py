"""How well codes find their like: nearest neighbours, and how far classes lie apart."""

import torch
from torch import Tensor

from cnnbench.tasks.pairs import num_present

MOST_QUERIES = 10_000  # of more images, every n-th asks: 50 000 against each other would take as long as an epoch
CHUNK = 512
NEIGHBOURS = 5
NEVER = 2**62
SILHOUETTE_SAMPLE = 5_000  # the time grows with the square


def recall_at(codes: Tensor, labels: Tensor, ranks: tuple[int, ...]) -> list[float]:
    """Return the share of images that have one of their class among the nearest k others, for each k.

    codes: float32 [N, D]. labels: int64 [N]. Of more than 10 000 images, 10 000 at equal distances ask, and all of
    them may answer. NaN where there are no others.
    """
    others = len(codes) - 1
    if others < 1:
        return [float("nan")] * len(ranks)
    number = min(len(codes), MOST_QUERIES)
    queries = torch.arange(number) * len(codes) // number
    parts, deepest = torch.split(queries, CHUNK), min(max(ranks), others)
    first_hit = torch.cat([_first_hit(codes, labels, part, deepest) for part in parts])
    return [float((first_hit < rank).double().mean()) for rank in ranks]


def _first_hit(codes: Tensor, labels: Tensor, queries: Tensor, number: int) -> Tensor:
    """Return the place of the nearest other image of the same class, counted from 0; NEVER: not among so many."""
    distances = torch.cdist(codes[queries], codes)
    distances[torch.arange(len(queries)), queries] = torch.inf
    nearest = distances.topk(number, largest=False).indices
    hits = labels[nearest] == labels[queries].unsqueeze(1)
    return torch.where(hits.any(1), hits.to(torch.uint8).argmax(1), NEVER)


def neighbour_accuracy(known: Tensor, known_labels: Tensor, codes: Tensor, labels: Tensor) -> float:
    """Return the accuracy of a vote of the five nearest known codes. codes: float32 [N, D]. labels: int64 [N]."""
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(min(NEIGHBOURS, len(known)), algorithm="brute")
    voters.fit(known.numpy(), known_labels.numpy())
    return float((voters.predict(codes.numpy()) == labels.numpy()).mean())


def silhouette(codes: Tensor, labels: Tensor) -> float:
    """Return how much nearer images are to their own class than to the next one, in [-1, 1]; 5 000 images at most.

    codes: float32 [N, D]. labels: int64 [N]. NaN where there are no two classes, or nothing but single images.
    Source: Rousseeuw 1987, Silhouettes.
    """
    from sklearn.metrics import silhouette_score

    number = min(len(codes), SILHOUETTE_SAMPLE)
    chosen = torch.arange(number) * len(codes) // number
    if not 2 <= num_present(labels[chosen]) < number:
        return float("nan")
    return float(silhouette_score(codes[chosen].numpy(), labels[chosen].numpy()))
