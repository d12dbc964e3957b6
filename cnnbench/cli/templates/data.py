"""A data set: tensors of all images. Photographs in folders need no code: data=image_folder data.folder=FOLDER."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from cnnbench.data.images import ImageData, Images
from cnnbench.registry import DATASETS


@DATASETS.register("my_data")
def my_data(root: Path, *, num_train: Annotated[int, Field(ge=10)] = 1000) -> ImageData:
    """Bright bars in noise, horizontal or vertical: 1x16x16.

    root: the folder of all data sets, where files would be read from. Validation is split off the training part later.
    """
    generator = torch.Generator().manual_seed(0)  # the same images every time
    parts = []
    for number in (num_train, 200):
        labels = torch.arange(number) % 2
        pixels = torch.randint(0, 160, (number, 1, 16, 16), generator=generator, dtype=torch.uint8)
        places = torch.randint(0, 16, (number,), generator=generator).tolist()
        for image, label, place in zip(pixels, labels.tolist(), places, strict=True):
            bar = image[0, place] if label == 0 else image[0, :, place]
            bar.fill_(255)
        parts.append(Images(pixels, labels))  # pixels: uint8 [N, C, H, W]; labels: int64 [N]
    train, test = parts
    return ImageData(train, test, classes=("horizontal", "vertical"))
