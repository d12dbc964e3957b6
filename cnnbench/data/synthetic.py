"""Images that are made, not taken: for tests, benchmarks and first steps."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, PositiveInt

from cnnbench.data.images import ImageData, Images
from cnnbench.randomness import generator
from cnnbench.registry import DATASETS

SIDE = 32


@DATASETS.register("synthetic")
def synthetic(
    _root: Path,
    *,
    num_train: PositiveInt,
    num_test: PositiveInt,
    num_classes: Annotated[int, Field(ge=2, le=1000)],
    noise: Annotated[float, Field(ge=0, le=1)],
) -> ImageData:
    """Make coloured patterns in noise, one pattern a class, shifted at random: 3x32x32, always the same images.

    A pattern is a coarse 8x8 grid of colours, enlarged; an image shows it moved by up to 4 pixels each way, rolling
    over the border. Labels go round the classes, so that every class is as frequent as any other.
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
