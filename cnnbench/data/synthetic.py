"""Data sets that need no download: generated patterns, and the digits that ship with scikit-learn."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from cnnbench.data.images import ImageData, Images
from cnnbench.data.split import TestFraction, stratified_split
from cnnbench.randomness import generator
from cnnbench.registry import DATASETS

SIDE = 32
Number = Annotated[int, Field(ge=1, le=10_000_000)]  # 31 GB of pixels


@DATASETS.register("synthetic")
def synthetic(
    _root: Path,
    *,
    num_train: Number,
    num_test: Number,
    num_classes: Annotated[int, Field(ge=2, le=1000)],
    noise: Annotated[float, Field(ge=0, le=1)],
) -> ImageData:
    """Coloured patterns in noise, one pattern per class, shifted at random: 3x32x32, always the same images.

    A pattern is a coarse 8x8 grid of colours, enlarged; an image shows it shifted by up to 4 pixels each way, wrapping
    around at the border. Labels cycle through the classes, so that all are equally frequent.
    """
    patterns = torch.rand(num_classes, 3, 8, 8, generator=generator(0, "synthetic patterns"))
    enlarged = patterns.repeat_interleave(SIDE // 8, dim=2).repeat_interleave(SIDE // 8, dim=3)
    parts = []
    for purpose, number in (("train", num_train), ("test", num_test)):
        draws = generator(0, f"synthetic {purpose}")
        labels = torch.arange(number) % num_classes
        shifts = torch.randint(-4, 5, (number, 2), generator=draws).tolist()
        pixels = torch.empty(number, 3, SIDE, SIDE, dtype=torch.uint8)
        for row, (down, right) in enumerate(shifts):
            image = enlarged[labels[row]].roll((down, right), (1, 2))
            image = image + noise * torch.randn(image.shape, generator=draws)
            pixels[row] = (image * 255).round().clamp(0, 255).to(torch.uint8)
        parts.append(Images(pixels, labels))
    return ImageData(parts[0], parts[1], tuple(f"pattern {index}" for index in range(num_classes)))


@DATASETS.register(
    "digits",
    breaks_labels=("flip", "vertical_flip", "trivial"),  # a 6 rotated is a 9
    licence="CC BY 4.0",
    citation="Alpaydin, Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49",
)
def digits(_root: Path, *, test_fraction: TestFraction) -> ImageData:
    """1 797 handwritten digits, 8x8, gray; the copy in scikit-learn, nothing is downloaded.

    The set has no test part: `test_fraction` of every class is held out, always the same images.
    """
    package = find_spec("sklearn")  # only its file is read: to import it takes a second
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).with_name("datasets") / "data" / "digits.csv.gz"
    table = torch.from_numpy(np.loadtxt(file, delimiter=","))
    pixels = (table[:, :-1] * (255 / 16)).round_().to(torch.uint8).view(-1, 1, 8, 8)
    labels = table[:, -1].long()
    split = stratified_split(labels, 10, test_fraction, seed=0, key="data.test_fraction")
    everything = Images(pixels, labels)
    rows = (split.train, split.val)
    train, test = (everything[some] for some in rows)
    return ImageData(train, test, tuple("0123456789"), rows=rows, draws_test=True)
