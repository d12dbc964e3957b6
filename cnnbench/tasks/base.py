"""What a task is, to the loop."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from cnnbench.data.batches import Batch
from cnnbench.data.images import DataSpec
from cnnbench.data.sampling import weighted_order


class Task(ABC):
    """Something to learn with a network; subclasses say what.

    Metrics are kept as sums over samples, so that a mean never depends on how samples fell into batches.
    """

    train_metrics: tuple[str, ...] = ("loss",)
    eval_metrics: tuple[str, ...] = ("loss",)
    watched: tuple[tuple[str, bool], ...] = (("loss", False),)
    """Metrics that decide which epoch is best, on validation, the first one first; True: the higher the better."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    @property
    def num_outputs(self) -> int:
        """Return how many outputs the network needs for each image."""
        return self.spec.num_classes

    @property
    def loss_of_guessing(self) -> float | None:
        """Return the loss of a network that knows nothing, if that can be said."""
        return None

    def order(self, labels: Tensor, weights: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return the rows of an epoch in the order in which they are trained on, int64 [N].

        weights: how often each class is wanted, float [K]; None: every row once.
        """
        if weights is None:
            return torch.randperm(len(labels), generator=generator)
        return weighted_order(labels, weights, generator)

    @abstractmethod
    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss to descend (a scalar with gradient), and the sum of each train metric over the samples."""

    @abstractmethod
    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the sum of each eval metric over the samples of a batch."""
