"""Handwritten digits that ship with scikit-learn."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from cnnbench.data.images import ImageData, Images
from cnnbench.data.split import stratified_split
from cnnbench.registry import DATASETS


@DATASETS.register("digits", breaks_labels=("flip", "vertical_flip", "trivial"))  # a 6 turned is a 9
def digits(_root: Path, *, test_fraction: Annotated[float, Field(gt=0, lt=1)]) -> ImageData:
    """1 797 handwritten digits, 8x8, gray; nothing is downloaded.

    The set has no test part: `test_fraction` of every class is put aside, always the same images.
    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998; the copy in scikit-learn.
    """
    from sklearn.datasets import load_digits

    loaded = load_digits()
    pixels = (torch.from_numpy(loaded.images) * (255 / 16)).round_().to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(loaded.target).long()
    split = stratified_split(labels, 10, test_fraction, seed=0)
    everything = Images(pixels, labels)
    return ImageData(everything[split.train], everything[split.val], tuple(str(digit) for digit in range(10)))
