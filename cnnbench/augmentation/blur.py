"""Images out of focus."""

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn.functional import pad

from cnnbench.augmentation.base import CropMargin, Sometimes
from cnnbench.augmentation.settings import Factors, Probability
from cnnbench.registry import AUGMENTATIONS

INVISIBLE = 0.25  # sigma at which a neighbour weighs exp(-8): less than half a level of gray in 256


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError
    return size


@AUGMENTATIONS.register("blur", order=34)
class Blur(Sometimes):
    """Blur an image with a Gaussian kernel with probability p.

    sigma: [lowest, highest] standard deviation in pixels. kernel_size: pixels a side, odd. Beyond the border lies the
    image's reflection.
    """

    num_draws = 2

    def __init__(
        self,
        *,
        sigma: Factors,
        kernel_size: Annotated[int, Field(ge=3, description="an odd whole number of at least 3"), AfterValidator(_odd)],
        p: Probability,
    ) -> None:
        super().__init__(p)
        self.sigma, self.radius = sigma, kernel_size // 2

    def problem(self, margin: CropMargin) -> str | None:  # noqa: D102
        side = min(margin.height, margin.width)
        if self.radius >= side:
            return f"kernel_size reaches beyond the reflection of {margin.height}x{margin.width} pixels; give less"
        if self.sigma[1] <= INVISIBLE:
            return f"a sigma up to {self.sigma[1]} is too little to be seen; give more than {INVISIBLE}"
        return None

    def change(self, images: Tensor, draws: Tensor) -> Tensor:  # noqa: D102
        sigma = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * draws
        distances = torch.arange(-self.radius, self.radius + 1, device=images.device)
        weights = (-0.5 * (distances / sigma).square()).exp()
        weights = weights / weights.sum(1, keepdim=True)
        around = pad(images, [self.radius] * 4, mode="reflect")
        return _weighted(_weighted(around, weights, 2), weights, 3)


def _weighted(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Return the sum of each image moved along an axis, weighted. weights: float [B, number of moves]."""
    moves = weights.shape[1]
    size = images.shape[axis] - moves + 1
    columns = [weight.view(-1, 1, 1, 1) for weight in weights.unbind(1)]
    total = images.narrow(axis, 0, size) * columns[0]
    for move in range(1, moves):
        total.addcmul_(images.narrow(axis, move, size), columns[move])
    return total
