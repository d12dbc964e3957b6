"""Whether a network is right as often as it believes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

BINS = 15  # as Guo et al. 2017 have them


@dataclass(frozen=True)
class Calibration:
    """Answers by the probability that the network gives them, in intervals of equal width; float64 [BINS] each.

    probability, accuracy: sums over the images of an interval.
    """

    images: Tensor
    probability: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """Return the expected calibration error: the mean distance of belief and accuracy, over all images."""
        return float((self.probability - self.accuracy).abs().sum() / self.images.sum())

    def table(self) -> "pd.DataFrame":
        """Return a row for each interval that has images: from, to, images, mean probability, accuracy."""
        import pandas as pd

        edges = torch.arange(BINS + 1) / BINS
        columns = {"from": edges[:-1], "to": edges[1:], "images": self.images.long()}
        shares = {"probability": self.probability / self.images, "accuracy": self.accuracy / self.images}
        table = pd.DataFrame({name: values.numpy() for name, values in (columns | shares).items()})
        return table[table["images"] > 0].reset_index(drop=True)


def calibration(probabilities: Tensor, labels: Tensor) -> Calibration:
    """Return how often answers of each probability are right. probabilities: float [N, K]. labels: int64 [N].

    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    beliefs, answers = probabilities.double().max(1)
    hits = (answers == labels).double()
    # An interval holds its upper end, as in the source; all of them together [0, 1].
    places = (torch.ceil(beliefs * BINS).long() - 1).clamp(0, BINS - 1)
    counted = (torch.bincount(places, weights=values, minlength=BINS) for values in (hits * 0 + 1, beliefs, hits))
    return Calibration(*counted)
