"""How often predictions of each probability are correct."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class Calibration:
    """Predictions by their probability, in intervals of equal width; float64 [BINS] each.

    probability, accuracy: sums over the images of an interval. Source: Guo et al. 2017, arXiv:1706.04599.
    """

    images: Tensor
    probability: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of probability and accuracy, weighted by images."""
        return float((self.probability - self.accuracy).abs().sum() / self.images.sum())

    def table(self) -> "pd.DataFrame":
        """Return a row for each interval that has images: from, to, images, mean probability, accuracy."""
        import pandas as pd

        edges = torch.arange(BINS + 1) / BINS
        columns = {"from": edges[:-1], "to": edges[1:], "images": self.images.long()}
        means = {"probability": self.probability / self.images, "accuracy": self.accuracy / self.images}
        table = pd.DataFrame({name: values.numpy() for name, values in (columns | means).items()})
        return table[table["images"] > 0].reset_index(drop=True)
