"""How an image looks after the augmentation of a run, again and again."""

import torch
from torch import Tensor

from cnnbench.analysis.explanation.subject import NotPossible, Subject
from cnnbench.data.images import Images, Stream
from cnnbench.data.loader import Batches
from cnnbench.errors import listed
from cnnbench.training.setup import make_augmentations

NUM_LOOKS = 24


def augmented_views(subject: Subject) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """Return looks at the first image, float32 [24, C, H, W], normalised; what made them; and what was left out.

    An image that trains is seen as in the epochs from 1 on. What blends images is left out, since it takes a second
    one. Raises NotPossible where nothing is left.
    """
    run = subject.run
    active = {name: part for name, part in make_augmentations(run.config).items() if not part.is_off()}
    blending = tuple(name for name, part in active.items() if part.mix_probability)
    alone = {name: part for name, part in active.items() if not part.mix_probability}
    if not alone:
        raise NotPossible(
            f"the run's augmentation, {listed(blending)}, blends an image with another one" if blending
            else "the run has no augmentation"
        )  # fmt: skip
    pixels, data = subject.asked[0].pixels, run.record["data"]
    channels, height, width = pixels.shape
    # Draws follow from how many images train, and from the row; so the image stands for all of them.
    number = 1 if subject.row is None else len(run.data("train"))
    everywhere = Stream(
        lambda rows: pixels.expand(len(rows), -1, -1, -1), torch.arange(number), (channels, height, width)
    )
    images = Images(everywhere, torch.zeros(number, dtype=torch.int64))
    batches = Batches(
        images, run.spec, tuple(data["mean"]), tuple(data["std"]), torch.device("cpu"), alone, run.config.seed
    )
    row = torch.tensor([subject.row or 0])
    looks = [next(iter(batches.epoch(row, 1, epoch))).images for epoch in range(1, NUM_LOOKS + 1)]
    return torch.cat(looks), tuple(alone), blending
