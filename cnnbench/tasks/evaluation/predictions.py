"""What a network answers to each image."""

import pandas as pd
from torch import Tensor

ANSWERS = 5


def predictions(
    probabilities: Tensor, labels: Tensor, classes: tuple[str, ...], files: tuple[str, ...] | None = None
) -> pd.DataFrame:
    """Return a row an image: its index in the split, or its file, its class, whether the answer is right, and the five
    likeliest classes with their probabilities.
    """
    found = probabilities.topk(min(ANSWERS, len(classes)), dim=1)
    table = pd.DataFrame({"index": range(len(labels))})
    if files is not None:
        table["file"] = files
    table["class"] = [classes[label] for label in labels.tolist()]
    table["right"] = (found.indices[:, 0] == labels).numpy()
    for place in range(found.indices.shape[1]):
        table[f"answer{place + 1}"] = [classes[label] for label in found.indices[:, place].tolist()]
        table[f"probability{place + 1}"] = found.values[:, place].numpy()
    return table
