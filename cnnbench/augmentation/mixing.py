"""Two images in one, and their labels in the same shares."""

import torch
from pydantic import PositiveFloat
from torch import Tensor

from cnnbench.augmentation.base import Augmentation
from cnnbench.augmentation.boxes import covered
from cnnbench.augmentation.placement import pick
from cnnbench.augmentation.settings import Probability
from cnnbench.registry import AUGMENTATIONS

NUM_QUANTILES = 4096


class Blending(Augmentation):
    """One that blends with probability p, in shares from a Beta(alpha, alpha) distribution; its first draw decides."""

    def __init__(self, p: float, alpha: float) -> None:
        from scipy.special import betaincinv

        self.mix_probability = p
        middles = (torch.arange(NUM_QUANTILES, dtype=torch.float64) + 0.5) / NUM_QUANTILES
        self._quantiles = torch.from_numpy(betaincinv(alpha, alpha, middles.numpy())).float()

    def is_off(self) -> bool:  # noqa: D102
        return self.mix_probability == 0

    def shares(self, draws: Tensor) -> Tensor:
        """Return shares from 0 to 1, float32 [M], from draws in [0, 1): a small draw is a small share."""
        return self._quantiles.to(draws.device)[pick(draws, NUM_QUANTILES)]


@AUGMENTATIONS.register("mixup", order=50)
class Mixup(Blending):
    """Blend a sample with another one of its batch, pixel by pixel, with probability p.

    The share of either follows Beta(alpha, alpha): for a small alpha mostly one is seen, for alpha=1 all shares are as
    likely. Source: Zhang et al. 2018, arXiv:1710.09412, with a share of its own for every sample.
    """

    num_draws = 1

    def __init__(self, *, p: Probability, alpha: PositiveFloat) -> None:
        super().__init__(p, alpha)

    def mix(self, images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        shares = self.shares(draws[:, 0])
        return torch.lerp(partners, images, shares.view(-1, 1, 1, 1)), shares


@AUGMENTATIONS.register("cutmix", order=52)
class CutMix(Blending):
    """Put a rectangle of another sample of the batch into a sample, with probability p.

    Its area follows Beta(alpha, alpha), its middle is any pixel; the share is what is seen after cutting it off at the
    border. Source: Yun et al. 2019, arXiv:1905.04899, with a rectangle of its own for every sample.
    """

    num_draws = 3

    def __init__(self, *, p: Probability, alpha: PositiveFloat) -> None:
        super().__init__(p, alpha)

    def mix(self, images: Tensor, partners: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        size = (images.shape[2], images.shape[3])
        side = (1 - self.shares(draws[:, 0])).sqrt()
        halves = [(side * length).long() // 2 for length in size]
        top, left = (pick(draws[:, 1 + axis], size[axis]) - halves[axis] for axis in (0, 1))
        box = covered(top, left, 2 * halves[0], 2 * halves[1], size)
        return torch.where(box, partners, images), 1 - box.float().mean((1, 2, 3))
