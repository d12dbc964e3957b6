"""TrivialAugment: each change matches torchvision's of the same strength."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op

from cnnbench.augmentation.trivial import CHANGES, LEVELS, Trivial, autocontrast, equalize
from tests.support.augmented import augmented

SPACE = TrivialAugmentWide()._augmentation_space(LEVELS)
NAMES = dict(zip(CHANGES, SPACE, strict=True))
EXACT = 1e-6
# torchvision rounds bytes down at every step; ours stay exact until the end.
LEVELS_OFF = {"brightness": 1, "color": 2, "contrast": 3, "sharpness": 2, "autocontrast": 1}


def make_pixels(number: int, channels: int) -> Tensor:
    """Return images of 33x31 pixels, uint8: noise, few values, and a narrow range, in turn.

    Both sides are odd: else a quarter of a turn would fetch from the middle between two pixels, to be rounded any way.
    There are more pixels than values: else there would be nothing for `equalize` to spread.
    """
    draws = torch.Generator().manual_seed(4)
    pixels = torch.randint(0, 256, (number, channels, 33, 31), generator=draws)
    pixels[1::3] = pixels[1::3] // 100 * 100
    pixels[2::3] = pixels[2::3] // 8 + 90
    return pixels.byte()


def draws_for(change: str) -> tuple[Tensor, list[float]]:
    """Return the draws of every strength and sign of a change, and torchvision's magnitudes for them."""
    magnitudes, signed = SPACE[NAMES[change]]
    rows, expected = [], []
    for level in range(LEVELS):
        for sign in (0.25, 0.75):
            rows.append([(CHANGES.index(change) + 0.5) / len(CHANGES), (level + 0.5) / LEVELS, sign])
            # Rounded, because torchvision's table has 15.999999 for 16, and would cut that to 15 pixels.
            magnitude = round(float(magnitudes[level]), 5) if magnitudes.ndim else 0.0
            expected.append(-magnitude if signed and sign < 0.5 else magnitude)
    return torch.tensor(rows), expected


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_any_strength_is_torchvisions(change, channels):
    draws, magnitudes = draws_for(change)
    pixels = make_pixels(len(draws), channels)
    expected = torch.stack(
        [
            _apply_op(image, NAMES[change], magnitude, InterpolationMode.NEAREST, None)
            for image, magnitude in zip(pixels, magnitudes, strict=True)
        ]
    )
    off = (Trivial().apply(pixels / 255, draws) * 255 - expected).abs()
    assert off.max() <= LEVELS_OFF.get(change, 255 * EXACT)


@pytest.mark.parametrize("change", ["brightness", "color", "contrast", "sharpness", "autocontrast"])
def test_a_change_of_colours_is_torchvisions_on_exact_values(change):
    draws, magnitudes = draws_for(change)
    images = make_pixels(len(draws), 3) / 255
    expected = [
        _apply_op(image, NAMES[change], magnitude, InterpolationMode.NEAREST, None)
        for image, magnitude in zip(images, magnitudes, strict=True)
    ]
    assert torch.allclose(Trivial().apply(images.clone(), draws), torch.stack(expected), atol=1e-5)


def test_the_changes_are_in_torchvisions_order():
    snake = ["".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_") for name in SPACE]
    assert [name.replace("auto_contrast", "autocontrast") for name in snake] == list(CHANGES)


def test_an_image_of_a_single_value_stays_as_it_is():
    plain = torch.full((2, 3, 4, 5), 0.4)
    assert torch.equal(autocontrast(plain), plain)
    assert torch.allclose(equalize(plain), plain, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (1, 9), (3, 3)])
def test_every_change_works_on_small_images(size):
    draws = torch.cat([draws_for(change)[0] for change in CHANGES])
    images = torch.rand(len(draws), 3, *size, generator=torch.Generator().manual_seed(0))
    shown = Trivial().apply(images.clone(), draws)
    assert shown.shape == images.shape
    assert shown.isfinite().all()


def test_all_changes_signs_and_strengths_are_equally_likely():
    pixels = make_pixels(1, 3)[:, :, :10, :10]

    def share_unchanged(shown: Tensor) -> float:
        return float(((shown - pixels / 255).abs().amax((1, 2, 3)) < EXACT).float().mean())

    all_draws = torch.cat([draws_for(change)[0] for change in CHANGES])
    of_all = share_unchanged(Trivial().apply((pixels / 255).repeat(len(all_draws), 1, 1, 1), all_draws))
    drawn = share_unchanged(augmented(pixels.expand(4200, -1, -1, -1), {"trivial": Trivial()}))
    assert 1 / len(CHANGES) < of_all < 0.3
    assert abs(drawn - of_all) < 0.024  # four deviations
