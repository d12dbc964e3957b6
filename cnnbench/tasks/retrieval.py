"""How well embeddings find images of their class: nearest neighbours, and the separation of classes."""

import numpy as np
import torch
from torch import Tensor

from cnnbench.tasks.pairs import has_partner, num_present

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
    queries = _queries(len(embeddings))
    parts, deepest = torch.split(queries, CHUNK), min(max(ranks), others)
    first_match = torch.cat([_first_match(embeddings, labels, part, deepest) for part in parts])
    return [float((first_match < rank).double().mean()) for rank in ranks]


def _queries(number: int) -> Tensor:
    """Return the rows of the images that are queries, int64 [≤ 10 000]."""
    asked = min(number, MAX_QUERIES)
    return torch.arange(asked) * number // asked


def _first_match(embeddings: Tensor, labels: Tensor, queries: Tensor, number: int) -> Tensor:
    """Return the rank of the nearest other image of the same class, counted from 0; NEVER: above `number`."""
    distances = torch.cdist(embeddings[queries], embeddings)
    distances[torch.arange(len(queries)), queries] = torch.inf
    nearest = distances.topk(number, largest=False).indices
    matches = labels[nearest] == labels[queries].unsqueeze(1)
    return torch.where(matches.any(1), matches.to(torch.uint8).argmax(1), NEVER)


def precisions(embeddings: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the mean average precision, and the R-precision, of all other images by their distance.

    The average precision of a query is the mean precision at the ranks of the images of its class; the R-precision is
    that at rank R, their number. Images at equal distances have the same rank, as in scikit-learn, and are equally
    likely to be among the first R. Images alone in their class are no queries; NaN where all are.
    embeddings: float32 [N, D]. labels: int64 [N]. Of more than 10 000 images, 10 000 evenly spaced ones are queries.
    Source: Manning, Raghavan, Schütze 2008, Introduction to information retrieval, 8.4.
    """
    points, queries = embeddings.double(), _queries(len(embeddings))
    queries = queries[has_partner(labels)[queries]]
    measured = [
        _precisions(points, part, (labels == label).nonzero()[:, 0])
        for label in torch.bincount(labels[queries]).nonzero()[:, 0].tolist()
        for part in torch.split(queries[labels[queries] == label], CHUNK)
    ]
    if not measured:
        return float("nan"), float("nan")
    average, at_r = torch.cat(measured, dim=1).mean(1).tolist()
    return average, at_r


def _precisions(points: Tensor, queries: Tensor, alike: Tensor) -> Tensor:
    """Return average precision and R-precision of queries of one class, float64 [2, Q]. alike: rows of the class."""
    distances = torch.cdist(points[queries], points)
    distances[torch.arange(len(queries)), queries] = torch.inf  # a query is no answer to itself, and comes last
    of_class = distances[:, alike].sort(1).values[:, :-1].contiguous()
    of_all = torch.from_numpy(np.sort(distances.numpy(), axis=1))  # 10 times as fast as torch, which sorts rows too
    number = of_class.shape[1]
    found, seen = (torch.searchsorted(some, of_class, right=True).double() for some in (of_class, of_all))
    farthest = of_all[:, number - 1 : number].contiguous()  # at rank R
    nearer, up_to = (
        [torch.searchsorted(some, farthest, right=right)[:, 0].double() for some in (of_class, of_all)]
        for right in (False, True)
    )
    share = (up_to[0] - nearer[0]) / (up_to[1] - nearer[1])  # of the class, among all at the distance of rank R
    return torch.stack([(found / seen).mean(1), (nearer[0] + share * (number - nearer[1])) / number])


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
