"""A data set of four classes whose images consist of one pixel, which is their row."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cnnbench.config.schema import DataConfig
from cnnbench.data.images import ImageData, Images
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.registry import DATASETS, Component, Selection

LABELS = torch.tensor([2, 0, 1, 2, 3, 0, 2, 2, 0, 1, 2, 0, 3, 2, 2, 2, 0, 2, 1, 2] * 5)  # 25, 15, 10, 50 of 100
NAMES = ("cat", "dog", "fox", "owl")
FACTS = {"breaks_labels": (), "source": None, "photographs": False}
UNEVEN = torch.repeat_interleave(torch.arange(5), torch.tensor([40, 7, 21, 11, 2]))  # of another data set


def numbered(labels: Tensor) -> Images:
    """Return images of one pixel, which is their row."""
    return Images(torch.arange(len(labels)).byte().view(-1, 1, 1, 1), labels)


def zoo(_root: object = None) -> ImageData:
    """Images of one pixel, which is their row."""
    return ImageData(numbered(LABELS), numbered(torch.arange(20) % 4), NAMES)


def prepared(**settings: Any) -> PreparedData:
    """Return the zoo prepared with these settings."""
    values = {"part": Selection("zoo", {}), "val_fraction": 0.2, "split_seed": 0, **settings}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS.components, "zoo", Component("data", "zoo", zoo, FACTS))
        return prepare(DataConfig(**values))


def rows_of(part: Images) -> Tensor:
    """Return the rows of these images in the zoo."""
    return part.pixels.flatten().long()
