"""Images and draws for tests of augmentation, and the augmented images of an epoch."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cnnbench.augmentation.base import Augmentation
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batches

NUM, SIDE = 40, 10
HEIGHT, WIDTH = 11, 14  # of images that are not square
SEED, EPOCH = 7, 3


def make_pixels(channels: int = 3, num: int = NUM) -> Tensor:
    """Return square images, uint8."""
    return torch.randint(0, 256, (num, channels, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).byte()


def make_images(channels: int = 3, height: int = HEIGHT, width: int = WIDTH) -> Tensor:
    """Return images in [0, 1]."""
    return torch.rand(NUM, channels, height, width, generator=torch.Generator().manual_seed(2))


def make_draws(number: int) -> Tensor:
    """Return this number of draws for each image."""
    return torch.rand(NUM, number, generator=torch.Generator().manual_seed(3))


def augmented(
    pixels: Tensor,
    parts: Mapping[str, Augmentation],
    epoch: int = EPOCH,
    seed: int = SEED,
    crop: int = SIDE,
    order: Tensor | None = None,
    num_workers: int = 0,
) -> Tensor:
    """Return the images of an epoch in [0, 1], in the order of their rows."""
    channels = pixels.shape[1]
    spec = DataSpec(channels, crop, crop, ("a",))
    images = Images(pixels, torch.arange(len(pixels)))
    batches = Batches(images, spec, (0.0,) * channels, (1.0,) * channels, torch.device("cpu"), parts, seed)
    order = torch.arange(len(pixels)) if order is None else order
    got = list(batches.epoch(order, 16, epoch, 0, num_workers))
    return torch.cat([batch.images for batch in got])[torch.cat([batch.labels for batch in got]).argsort()]
