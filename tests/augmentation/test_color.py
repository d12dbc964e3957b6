"""Hue, grayscale and blur match torchvision on single images; noise has the right statistics."""

from functools import partial

import pytest
import torch
from torchvision.transforms import functional

from cnnbench.augmentation.color import Blur, Grayscale, Jitter, Noise, adjust_hue, normal_noise, uniform_noise
from tests.support.augmented import NUM, augmented, make_draws, make_images, make_pixels


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
def test_a_hue_shift_is_torchvisions(channels):
    images = make_images(channels)
    images[::3] = (images[::3] * 3).round() / 3  # pixels whose channels are equal, two of them or all
    shifts = torch.linspace(-0.5, 0.5, NUM)
    expected = [functional.adjust_hue(image, float(shift)) for image, shift in zip(images, shifts, strict=True)]
    assert torch.allclose(adjust_hue(images.clone(), shifts), torch.stack(expected), atol=1e-5)


def test_a_hue_shift_of_a_third_makes_red_green():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert torch.allclose(adjust_hue(red, torch.tensor([1 / 3])).flatten(), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)


def test_jitter_shifts_the_hue_last_by_its_own_draw():
    images, draws = make_images(), make_draws(4)
    three, four = Jitter(brightness=0.3, contrast=0.4), Jitter(brightness=0.3, contrast=0.4, hue=0.2)
    expected = adjust_hue(three.apply(images.clone(), draws[:, :3]), 0.2 * (2 * draws[:, 3] - 1))
    assert (three.num_draws, four.num_draws) == (3, 4)
    assert torch.equal(four.apply(images.clone(), draws), expected)


def test_grayscale_is_torchvisions_for_the_images_drawn():
    images, draws = make_images(), make_draws(1)
    gray = draws[:, 0] < 0.3
    assert 0 < int(gray.sum()) < NUM
    expected = [
        functional.rgb_to_grayscale(image, 3) if chosen else image for image, chosen in zip(images, gray, strict=True)
    ]
    assert torch.allclose(Grayscale(p=0.3).apply(images.clone(), draws), torch.stack(expected), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize("kernel_size", [3, 5, 21])
def test_blur_is_torchvisions_gaussian_blur_for_the_images_drawn(kernel_size, channels):
    images, draws = make_images(channels), make_draws(2)
    expected = [
        functional.gaussian_blur(image, [kernel_size] * 2, [0.4 + 1.6 * by_sigma] * 2) if chosen < 0.7 else image
        for image, (chosen, by_sigma) in zip(images, draws.tolist(), strict=True)
    ]
    got = Blur(sigma=[0.4, 2.0], kernel_size=kernel_size, p=0.7).apply(images.clone(), draws)
    assert torch.allclose(got, torch.stack(expected), atol=1e-5)


def test_noise_has_its_standard_deviation_and_no_bias():
    gray = torch.full((400, 1, 12, 12), 0.5)
    draws = torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    noise = Noise(std=0.1, p=1.0).apply(gray.clone(), draws) - gray
    assert abs(float(noise.mean())) < 0.001  # 57 600 values: a deviation of the mean of 0.0004
    assert abs(float(noise.std()) - 0.1) < 0.001
    assert abs(float((noise.abs() < 0.1).float().mean()) - 0.683) < 0.01  # a normal distribution's share


def test_noise_is_uncorrelated_between_images_and_channels():
    draws = torch.rand(50, generator=torch.Generator().manual_seed(0))
    values = normal_noise(draws, torch.Size((50, 3, 16, 16))).flatten(1)
    correlations = torch.corrcoef(values) - torch.eye(50)
    assert correlations.abs().max() < 0.2  # of 768 values: a deviation of 0.036
    channels = values.view(50, 3, 256).transpose(0, 1).flatten(1)
    assert (torch.corrcoef(channels) - torch.eye(3)).abs().max() < 0.05


def test_the_same_draw_gives_the_same_noise_in_any_batch():
    draws = torch.rand(9, generator=torch.Generator().manual_seed(0))
    for noise in (normal_noise, uniform_noise):
        of = partial(noise, shape=torch.Size((1, 3, 5, 7)))
        together = noise(draws, torch.Size((9, 3, 5, 7)))
        assert all(torch.equal(together[row], of(draws[row : row + 1])[0]) for row in range(9))
        assert len(together.flatten(1).unique(dim=0)) == 9


def test_uniform_noise_is_uniform():
    values = uniform_noise(torch.rand(50, generator=torch.Generator().manual_seed(0)), torch.Size((50, 3, 16, 16)))
    shares = torch.histc(values, 10, 0, 1) / values.numel()
    assert (shares - 0.1).abs().max() < 0.01


def test_an_augmentation_happens_with_its_probability():
    pixels = make_pixels(num=1).expand(4000, -1, -1, -1)
    plain = pixels[0] / 255
    for p in (0.2, 0.9):
        changed = (augmented(pixels, {"noise": Noise(std=0.1, p=p)}) - plain).abs().flatten(1).amax(1) > 0.01
        assert abs(float(changed.float().mean()) - p) < 4 * (p * (1 - p) / 4000) ** 0.5
    assert torch.equal(augmented(pixels, {"noise": Noise(std=0.1, p=0.0)}), augmented(pixels, {}))
