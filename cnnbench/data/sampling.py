"""How often the images of each class are trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cnnbench.errors import UserError


def class_weights(sampling: str | Sequence[float], counts: Sequence[int]) -> Tensor | None:
    """Return the weight of each class, float64 [K], or None for `natural`: every image once an epoch.

    sampling: `natural`, `balanced` (every class alike), or a weight a class. counts: images that train, by class.
    Raises UserError where there is not one weight for each class.
    """
    if sampling == "natural":
        return None
    if sampling == "balanced":
        return torch.ones(len(counts), dtype=torch.float64)
    if len(sampling) != len(counts):
        given = ", ".join(map(str, sampling))
        raise UserError(f"data.sampling=[{given}]: {len(sampling)} weights, {len(counts)} classes; give one for each.")
    return torch.tensor(sampling, dtype=torch.float64)


def weighted_order(labels: Tensor, weights: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rows of an epoch, int64 [N]: drawn with replacement, as many as there are.

    labels: int64 [N]. weights: float [K], above 0. Each draw shows a class in proportion to its weight (one without
    images counts for nothing), and any image of that class alike.
    """
    counts = torch.bincount(labels, minlength=len(weights))
    drawn = torch.multinomial(weights * (counts > 0), len(labels), replacement=True, generator=generator)
    place = (torch.rand(len(labels), dtype=torch.float64, generator=generator) * counts[drawn]).long()
    return labels.argsort(stable=True)[(counts.cumsum(0) - counts)[drawn] + place]
