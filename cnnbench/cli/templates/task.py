"""A task: what is learnt, how it is measured, and which metric selects the best epoch."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.data.loader import Batch
from cnnbench.registry import TASKS
from cnnbench.tasks.base import Task


@TASKS.register("my_task")
class MyTask(Task):
    """Classes, learnt by the squared error of probabilities (the Brier score)."""

    train_metrics = eval_metrics = ("loss", "accuracy")
    watched = (("accuracy", True), ("loss", False))  # which epoch is best on validation; True: higher is better
    is_classifier = True

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise, and the sum of each train metric over the batch."""
        measured = self._measure(network, batch)
        return measured[:, 0].mean(), measured.detach().sum(0)

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the eval metrics of each image, float [B, 2]."""
        return self._measure(network, batch)

    def _measure(self, network: nn.Module, batch: Batch) -> Tensor:
        probabilities = network(batch.images).float().softmax(1)
        truth = functional.one_hot(batch.labels, self.spec.num_classes)
        losses = (probabilities - truth).square().sum(1)
        correct = (probabilities.argmax(1) == batch.labels).float()
        return torch.stack([losses, correct], dim=1)
