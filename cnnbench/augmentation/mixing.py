"""Augmentations that mix two samples of a batch, and their labels in the same proportion."""

import torch
from pydantic import PositiveFloat
from torch import Tensor

from cnnbench.augmentation.base import Augmentation, Probability, uniform_integers
from cnnbench.augmentation.occlusion import box_mask
from cnnbench.registry import AUGMENTATIONS

NUM_QUANTILES = 4096


class Mixing(Augmentation):
    """An augmentation that mixes with probability p, in shares drawn from a Beta(alpha, alpha) distribution."""

    def __init__(self, *, p: Probability, alpha: PositiveFloat) -> None:
        from scipy.special import betaincinv

        self.p = self.mix_probability = p
        midpoints = (torch.arange(NUM_QUANTILES, dtype=torch.float64) + 0.5) / NUM_QUANTILES
        self._quantiles = torch.from_numpy(betaincinv(alpha, alpha, midpoints.numpy())).float()

    def shares(self, draws: Tensor) -> Tensor:
        """Return shares from 0 to 1, float32 [M], that increase with the draws in [0, 1)."""
        self._quantiles = self._quantiles.to(draws.device)  # once: a copy for every batch would wait for the GPU
        return self._quantiles[uniform_integers(draws, NUM_QUANTILES)]


@AUGMENTATIONS.register("mixup", order=50)
class Mixup(Mixing):
    """Blend a sample with another one of its batch, pixel by pixel, with probability p.

    The share of each follows Beta(alpha, alpha): mostly one of the two for a small alpha, uniform for alpha=1.
    Source: Zhang et al. 2018, arXiv:1710.09412, with a separate share for every sample.
    """

    num_draws = 1

    def mix(self, images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        shares = self.shares(draws[:, 0])
        return torch.lerp(partners, images, shares.view(-1, 1, 1, 1)), shares


@AUGMENTATIONS.register("cutmix", order=52)
class CutMix(Mixing):
    """Paste a box of another sample of the batch into a sample, with probability p.

    The box's area follows Beta(alpha, alpha), its centre is any pixel; what extends beyond the border is cut off before
    the shares are measured. Source: Yun et al. 2019, arXiv:1905.04899, with a separate box for every sample.
    """

    num_draws = 3

    def mix(self, images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        size = (images.shape[2], images.shape[3])
        side = (1 - self.shares(draws[:, 0])).sqrt()
        halves = [(side * length).long() // 2 for length in size]
        top, left = (uniform_integers(draws[:, 1 + axis], size[axis]) - halves[axis] for axis in (0, 1))
        box = box_mask(top, left, 2 * halves[0], 2 * halves[1], size)
        return torch.where(box, partners, images), 1 - box.float().mean((1, 2, 3))
