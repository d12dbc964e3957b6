"""An augmentation: acts on whole batches, with random numbers of its own for each image."""

from torch import Tensor

from cnnbench.augmentation.base import Probability, RandomApply
from cnnbench.registry import AUGMENTATIONS


@AUGMENTATIONS.register("my_augmentation", order=30)  # 10 crops, 20 geometry, 30 colour, 40 occlusion
class MyAugmentation(RandomApply):
    """Darken an image by a random factor, with probability p. lowest: of the factors."""

    num_draws = 2  # for each image: the first decides whether it is changed

    def __init__(self, *, p: Probability = 0.5, lowest: Probability = 0.4) -> None:
        super().__init__(p=p)
        self.lowest = lowest

    def change(self, images: Tensor, draws: Tensor) -> Tensor:
        """Return images changed. images: float32 [B, C, H, W] in [0, 1]; draws: float32 [B, 1] in [0, 1)."""
        factors = self.lowest + (1 - self.lowest) * draws[:, 0]
        return images * factors.view(-1, 1, 1, 1)
