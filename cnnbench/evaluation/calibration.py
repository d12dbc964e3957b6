"""Whether a network is right as often as it believes."""

import pandas as pd
import torch
from torch import Tensor

BINS = 15  # as Guo et al. 2017 have them


def calibration(probabilities: Tensor, labels: Tensor) -> tuple[pd.DataFrame, float]:
    """Return a row for each interval of the highest probability that has images: images, mean probability, accuracy;
    and the expected calibration error, the mean distance of the two over all images.

    probabilities: float [N, K]. Source: Guo et al. 2017, arXiv:1706.04599.
    """
    beliefs, answers = probabilities.double().max(1)
    hits = (answers == labels).double()
    # An interval holds its upper end, as in the source; all of them together [0, 1].
    places = (torch.ceil(beliefs * BINS).long() - 1).clamp(0, BINS - 1)
    counts = torch.bincount(places, minlength=BINS)
    shares = [torch.bincount(places, weights=values, minlength=BINS) / counts for values in (beliefs, hits)]
    table = pd.DataFrame(
        {
            "from": torch.arange(BINS) / BINS,
            "to": torch.arange(1, BINS + 1) / BINS,
            "images": counts,
            "probability": shares[0],
            "accuracy": shares[1],
        }
    )
    table = table[table["images"] > 0].reset_index(drop=True)
    weights = table["images"] / len(labels)
    return table, float(((table["probability"] - table["accuracy"]).abs() * weights).sum())
