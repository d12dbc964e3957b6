# rotations.py
from typing import Annotated

import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from cnnbench.registry import TASKS
from cnnbench.tasks.base import Task


@TASKS.register("rotations")
class Rotations(Task):
    """Predict how an image was rotated."""

    train_metrics = eval_metrics = ("loss", "accuracy")
    watched = (("accuracy", True), ("loss", False))  # decide which epoch is best on validation; True: more is better

    def __init__(self, spec, *, turns: Annotated[int, Field(ge=2, le=4)] = 4):
        super().__init__(spec)
        self.turns = turns

    @property
    def num_outputs(self):
        return self.turns

    def measured(self, network, batch):
        """Return the loss and the accuracy of each image over its turns, float [B, 2]."""
        turned = torch.cat([batch.images.rot90(turn, (2, 3)) for turn in range(self.turns)])
        turns = torch.arange(self.turns, device=turned.device).repeat_interleave(len(batch))
        scores = network(turned).float()
        correct = (scores.argmax(1) == turns).float()
        measured = torch.stack([cross_entropy(scores, turns, reduction="none"), correct])
        return measured.view(2, self.turns, len(batch)).mean(1).T

    def train_step(self, network, batch):  # the loss to minimise, the sum of each metric
        measured = self.measured(network, batch)
        return measured[:, 0].mean(), measured.detach().sum(0)

    def eval_step(self, network, batch):  # one row per image, one column per metric
        return self.measured(network, batch)
