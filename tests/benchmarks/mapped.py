"""A data set of any size: `plugins=tests/benchmarks/mapped.py data=mapped data.file=FILE.npy data.num_classes=10`."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from cnnbench.data.images import ImageData, Images
from cnnbench.registry import DATASETS


@DATASETS.register("mapped")
def mapped(root: Path, *, file: str, num_classes: Annotated[int, Field(ge=2, le=1000)]) -> ImageData:
    """Images of a NumPy file, uint8 [N, C, H, W], which is mapped: of it, memory holds what was read. The last tenth is
    for testing. Labels cycle through the classes.
    """
    pixels = torch.from_numpy(np.load(root / file, mmap_mode="c"))
    labels = torch.arange(len(pixels)) % num_classes
    first = len(pixels) - len(pixels) // 10
    parts = (Images(pixels[rows], labels[rows]) for rows in (slice(None, first), slice(first, None)))
    return ImageData(*parts, classes=tuple(map(str, range(num_classes))))
