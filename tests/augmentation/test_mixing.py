"""Mixup and CutMix: labels and shares match the pixels, and each sample is mixed at most once."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from cnnbench.augmentation.mixing import CutMix, Mixup
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batches, Mixed
from tests.support.augmented import HEIGHT, WIDTH, make_draws, make_images

NUM = 1000
Seen = tuple[Tensor, Tensor, Mixed]


def epoch_of(parts: dict, epoch: int = 3, batch_size: int = 100, num_workers: int = 0) -> list[Seen]:
    """Return the batches of an epoch, of images whose pixels all have the value of their label / 1000."""
    labels = torch.arange(NUM)
    pixels = torch.zeros(NUM, 1, 8, 6, dtype=torch.uint8)
    batches = Batches(Images(pixels, labels), DataSpec(1, 8, 6, ("a",)), (0.0,), (1.0,), torch.device("cpu"), parts, 7)
    values = labels.float().view(-1, 1, 1, 1).expand(-1, 1, 8, 6) / NUM
    batches._as_images = lambda rows, size: rows.view(len(rows), *size, -1).permute(0, 3, 1, 2)
    cut = batches._cut

    def cut_with_values(cpu_rows, rows, draws):
        return cut(cpu_rows, rows, draws).float() + 255 * values[rows].permute(0, 2, 3, 1).flatten(2)

    batches._cut = cut_with_values
    made = batches.epoch(labels, batch_size, epoch, 0, num_workers)
    return [(batch.images, batch.labels, batch.mixed) for batch in made]


PARTS = {
    "mixup": {"mixup": Mixup(p=0.6, alpha=0.5)},
    "cutmix": {"cutmix": CutMix(p=0.6, alpha=1.0)},
    "both": {"mixup": Mixup(p=0.5, alpha=0.5), "cutmix": CutMix(p=0.5, alpha=1.0)},
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_the_mean_of_a_mixed_image_is_that_of_both_images_weighted_by_their_shares(parts):
    for images, labels, mixed in epoch_of(parts):
        own, other = labels / NUM, mixed.labels / NUM
        expected = mixed.share * own + (1 - mixed.share) * other
        assert torch.allclose(images.mean((1, 2, 3)), expected, atol=1e-4)
        assert torch.equal(mixed.labels.sort().values, labels.sort().values)  # a partner each, of the same batch


def test_mixup_blends_all_pixels_alike_and_cutmix_pastes_a_box():
    for images, labels, mixed in epoch_of(PARTS["mixup"]):
        assert torch.allclose(images, images[:, :, :1, :1], atol=1e-6)
        assert ((mixed.share == 1) | (mixed.labels != labels)).float().mean() > 0.95
    for images, labels, mixed in epoch_of(PARTS["cutmix"]):
        own = (images - labels.view(-1, 1, 1, 1) / NUM).abs() < 1e-6
        other = (images - mixed.labels.view(-1, 1, 1, 1) / NUM).abs() < 1e-6
        assert (own | other).all()
        foreign = ~own[:, 0]
        area = foreign.any(1).sum(1) * foreign.any(2).sum(1)
        assert torch.equal(foreign.sum((1, 2)), area)
        differs = mixed.labels != labels
        assert torch.allclose(mixed.share[differs], 1 - area[differs] / 48)


def test_each_sample_is_mixed_with_its_probability_and_at_most_once():
    pixelwise, boxes, num_mixed = 0, 0, 0
    for epoch in range(4):
        for images, _, mixed in epoch_of({"mixup": Mixup(p=0.3, alpha=1.0), "cutmix": CutMix(p=0.5, alpha=1.0)}, epoch):
            plain = (images == images[:, :, :1, :1]).flatten(1).all(1)
            num_mixed += int((mixed.share < 1).sum())
            pixelwise += int((plain & (mixed.share < 1)).sum())
            boxes += int((~plain).sum())
    assert abs(pixelwise / 4000 - 0.3) < 0.04  # with some boxes that cover all
    assert 0.35 < boxes / 4000 < 0.52  # without those too small to hold a pixel
    assert num_mixed / 4000 < 0.83


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_mixing_differs_by_epoch_and_not_by_the_number_of_workers(parts):
    once, again, later = (
        torch.cat([images for images, *_ in epoch_of(parts, epoch, num_workers=workers)])
        for epoch, workers in ((3, 0), (3, 2), (4, 0))
    )
    assert torch.equal(once, again)
    assert (once != later).flatten(1).any(1).float().mean() > 0.5


@pytest.mark.parametrize("parts", [{}, {"mixup": Mixup(p=0.0, alpha=1.0), "cutmix": CutMix(p=0.0, alpha=1.0)}])
def test_a_probability_of_0_is_off(parts):
    assert all(mixed is None for *_, mixed in epoch_of(parts))


@pytest.mark.parametrize("alpha", [0.3, 1.0, 8.0])  # for less, many shares are 1 in float32
def test_shares_follow_a_beta_distribution(alpha):
    draws = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    shares = Mixup(p=1.0, alpha=alpha).shares(draws).numpy()
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).statistic < 0.025  # 0.023 is passed once in 100 times
    assert shares.min() >= 0
    assert shares.max() <= 1


def test_mixup_matches_a_slow_loop_with_the_same_shares():
    images, partners, draws = make_images(), make_images().flip(0), make_draws(1)
    part = Mixup(p=1.0, alpha=0.4)
    got, shares = part.mix(images, partners, draws)
    for row in range(len(images)):
        share = float(stats.beta(0.4, 0.4).ppf(float(draws[row, 0])))
        assert abs(float(shares[row]) - share) < 0.005
        expected = float(shares[row]) * images[row] + (1 - float(shares[row])) * partners[row]
        assert torch.allclose(got[row], expected, atol=1e-6)


def boxed(image: Tensor, partner: Tensor, share: float, down: float, right: float) -> Tensor:
    """Return an image with the box of its partner, computed as in the paper."""
    middle = int(down * HEIGHT), int(right * WIDTH)
    rows, columns = (
        slice(max(at - int(side * (1 - share) ** 0.5) // 2, 0), at + int(side * (1 - share) ** 0.5) // 2)
        for at, side in zip(middle, (HEIGHT, WIDTH), strict=True)
    )
    mixed = image.clone()
    mixed[:, rows, columns] = partner[:, rows, columns]
    return mixed


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
def test_cutmix_matches_a_slow_loop_with_the_same_draws(channels):
    images, draws = make_images(channels), make_draws(3)
    partners = -images.flip(0)
    part = CutMix(p=1.0, alpha=1.0)
    got, shares = part.mix(images, partners, draws)
    drawn_shares = part.shares(draws[:, 0]).tolist()
    for row, (_, down, right) in enumerate(draws.tolist()):
        expected = boxed(images[row], partners[row], drawn_shares[row], down, right)
        assert torch.equal(got[row], expected)
        own = float((expected == images[row]).float().mean())
        assert abs(float(shares[row]) - own) < 1e-6
