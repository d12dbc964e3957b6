"""Rotation, affine and resized crops match torchvision on single images with the same numbers."""

import math

import pytest
import torch
from torchvision.transforms import InterpolationMode, functional

from cnnbench.augmentation.crop import ResizedCrop
from cnnbench.augmentation.geometry import Affine, Rotation
from cnnbench.randomness import uniform_table
from tests.support.augmented import EPOCH, HEIGHT, NUM, SEED, WIDTH, augmented, make_draws, make_images, make_pixels

BILINEAR = InterpolationMode.BILINEAR
TOLERANCE = 1e-4  # places are known to about 1e-6 of a side; neighbours differ by up to 1


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize("degrees", [10.0, 180.0])
def test_rotation_is_torchvisions_rotate(degrees, channels):
    images, draws = make_images(channels), make_draws(1)
    angles = (degrees * (2 * draws[:, 0] - 1)).tolist()
    expected = [functional.rotate(image, angle, BILINEAR) for image, angle in zip(images, angles, strict=True)]
    got = Rotation(degrees=degrees).apply(images.clone(), draws)
    assert torch.allclose(got, torch.stack(expected), atol=TOLERANCE)


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize(
    "settings",
    [
        {"degrees": 40.0},
        {"translate": 0.4},
        {"scale": [0.5, 2.0]},
        {"shear": 30.0},
        {"degrees": 90.0, "translate": 0.3, "scale": [0.7, 1.6], "shear": 20.0},
    ],
    ids=["rotate", "translate", "scale", "shear", "all"],
)
def test_affine_is_torchvisions_affine_with_the_numbers_that_random_affine_draws(settings, channels):
    images, draws = make_images(channels), make_draws(5)
    everything = {"degrees": 0.0, "translate": 0.0, "scale": [1.0, 1.0], "shear": 0.0} | settings
    low, high = everything["scale"]
    expected = []
    for image, (turn, right, down, zoom, slope) in zip(images, draws.tolist(), strict=True):
        moved = [
            round(everything["translate"] * side * (2 * draw - 1))
            for side, draw in zip((WIDTH, HEIGHT), (right, down), strict=True)
        ]
        angle, shear = everything["degrees"] * (2 * turn - 1), everything["shear"] * (2 * slope - 1)
        scale = low + (high - low) * zoom
        expected.append(functional.affine(image, angle, moved, scale, [shear, 0.0], BILINEAR))
    got = Affine(**settings).apply(images.clone(), draws)
    assert torch.allclose(got, torch.stack(expected), atol=TOLERANCE)


def torchvisions_box(part: ResizedCrop, draws: list[float], height: int, width: int) -> tuple[int, int, int, int]:
    """Return what RandomResizedCrop would choose, given its random numbers."""
    tries = (len(draws) - 2) // 2
    low, high = (math.log(ratio) for ratio in part.ratio)
    for by_area, by_ratio in zip(draws[2 : 2 + tries], draws[2 + tries :], strict=True):
        area = height * width * (part.scale[0] + (part.scale[1] - part.scale[0]) * by_area)
        ratio = math.exp(low + (high - low) * by_ratio)
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            return int(draws[0] * (height - tall + 1)), int(draws[1] * (width - wide + 1)), tall, wide
    tall, wide = height, width
    if width / height < part.ratio[0]:
        tall = round(width / part.ratio[0])
    elif width / height > part.ratio[1]:
        wide = round(height * part.ratio[1])
    return (height - tall) // 2, (width - wide) // 2, tall, wide


BOXES = {
    "usual": ([0.08, 1.0], [0.75, 1.3333]),
    "hardly fits": ([0.7, 1.0], [0.4, 2.5]),
    "never fits, too wide": ([0.9, 1.0], [3.0, 4.0]),
    "never fits, too tall": ([0.9, 1.0], [0.2, 0.3]),
    "tiny": ([0.001, 0.02], [0.5, 2.0]),
}


@pytest.mark.parametrize("size", [(11, 14), (7, 5), (23, 17)], ids=["same size", "smaller", "larger"])
@pytest.mark.parametrize(("scale", "ratio"), BOXES.values(), ids=BOXES)
def test_resized_crop_is_torchvisions_with_the_boxes_that_random_resized_crop_draws(scale, ratio, size):
    part = ResizedCrop(scale=scale, ratio=ratio)
    images, draws = make_images(), make_draws(part.num_draws)
    boxes = [torchvisions_box(part, row, HEIGHT, WIDTH) for row in draws.tolist()]
    expected = [
        functional.resized_crop(image, *box, list(size), BILINEAR, antialias=True)
        for image, box in zip(images, boxes, strict=True)
    ]
    assert torch.allclose(part.resize(images, draws, size), torch.stack(expected), atol=TOLERANCE)


def test_the_boxes_above_are_of_all_kinds():
    """Some fit at once, some later, some never: otherwise the test above would prove less than it claims."""
    part = ResizedCrop(scale=BOXES["hardly fits"][0], ratio=BOXES["hardly fits"][1])
    boxes = [torchvisions_box(part, row, HEIGHT, WIDTH) for row in make_draws(part.num_draws).tolist()]
    assert len({box[2:] for box in boxes}) > 10
    assert {box[0] for box in boxes} >= {0, 1, 2}


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
def test_resized_crop_uses_the_whole_image(channels):
    pixels, part = make_pixels(channels), ResizedCrop(scale=[0.3, 1.0], ratio=[0.5, 2.0])
    draws = uniform_table(NUM, part.num_draws, SEED, "augmentation/resized_crop", EPOCH)
    expected = part.resize(pixels.float() / 255, draws, (7, 7))
    assert torch.allclose(augmented(pixels, {"resized_crop": part}, crop=7), expected, atol=1e-6)
    pixels[:, :, 3:7, 3:7] = 0  # the centre, which is nearly all of a crop that cannot move
    assert augmented(pixels, {"resized_crop": part}, crop=4).amax((1, 2, 3)).gt(0).float().mean() > 0.9
