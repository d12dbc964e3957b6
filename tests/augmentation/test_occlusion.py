"""Erasing covers the boxes that torchvision would erase, and Cutout the squares of a slow loop."""

import math

import pytest
import torch
from torchvision.transforms import functional

from cnnbench.augmentation.crop import TRIES
from cnnbench.augmentation.occlusion import Cutout, Erasing
from tests.support.augmented import HEIGHT, WIDTH, make_draws, make_images


def torchvisions_box(draws: list[float], scale: list[float], ratio: list[float]) -> tuple[int, int, int, int]:
    """Return top, left, height and width that RandomErasing would choose, given its random numbers."""
    low, high = (math.log(value) for value in ratio)
    for by_area, by_ratio in zip(draws[2 : 2 + TRIES], draws[2 + TRIES :], strict=True):
        area = HEIGHT * WIDTH * (scale[0] + (scale[1] - scale[0]) * by_area)
        shape = math.exp(low + (high - low) * by_ratio)
        tall, wide = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if tall < HEIGHT and wide < WIDTH:
            return int(draws[0] * (HEIGHT - tall + 1)), int(draws[1] * (WIDTH - wide + 1)), tall, wide
    return 0, 0, 0, 0


BOXES = {"usual": ([0.02, 0.33], [0.3, 3.3]), "mostly too large": ([0.6, 1.0], [0.3, 3.3])}


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize("value", [0.0, 0.7, "random"])
@pytest.mark.parametrize(("scale", "ratio"), BOXES.values(), ids=BOXES)
def test_erasing_covers_what_torchvision_would_erase(scale, ratio, value, channels):
    part = Erasing(p=0.8, scale=scale, ratio=ratio, value=value)
    images, draws = make_images(channels), make_draws(part.num_draws)
    got = part.apply(images.clone(), draws)
    number = 0
    for image, shown, row in zip(images, got, draws.tolist(), strict=True):
        box = torchvisions_box(row[2:], scale, ratio) if row[0] < 0.8 else (0, 0, 0, 0)
        seen = shown if value == "random" else torch.full_like(image, value)
        top, left, tall, wide = box
        assert torch.equal(
            shown, functional.erase(image, *box, seen[:, top : top + tall, left : left + wide].contiguous())
        )
        inside = shown[:, top : top + tall, left : left + wide]
        if value == "random" and inside.numel() > 20:
            number += 1
            assert (inside != image[:, top : top + tall, left : left + wide]).float().mean() > 0.9
            assert 0.2 < float(inside.mean()) < 0.8
    assert number > 3 or value != "random"


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize("size", [1, 4, 7, 11])
def test_cutout_covers_a_square_around_any_pixel_clipped_at_the_border(size, channels):
    images, draws = make_images(channels), make_draws(3)
    got = Cutout(size=size, p=0.8).apply(images.clone(), draws)
    for image, shown, (chosen, down, right) in zip(images, got, draws.tolist(), strict=True):
        expected = image.clone()
        top, left = int(down * HEIGHT) - size // 2, int(right * WIDTH) - size // 2
        if chosen < 0.8:
            expected[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
        assert torch.equal(shown, expected)
