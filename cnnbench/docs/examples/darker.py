# darker.py
from cnnbench.augmentation.base import RandomApply
from cnnbench.registry import AUGMENTATIONS


@AUGMENTATIONS.register("darker", order=30)  # 10 crops, 20 geometry, 30 colour, 40 occlusion, 50 mixing
class Darker(RandomApply):
    """Darken an image by a random factor, with probability p."""

    num_draws = 2  # for each image: whether it is changed, and one for `change`

    def __init__(self, *, p: float = 0.5, lowest: float = 0.4):
        super().__init__(p=p)
        self.lowest = lowest

    def change(self, images, draws):  # float32 [B, C, H, W] in [0, 1]; draws: float32 [B, 1] in [0, 1)
        return images * (self.lowest + (1 - self.lowest) * draws).view(-1, 1, 1, 1)
