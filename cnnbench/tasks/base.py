"""What a task is, to the loop."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cnnbench.config.schema import RunConfig
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.data.sampling import weighted_order
from cnnbench.models.build import Scores
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.evaluation.findings import EvalReport


class Task(Scores, ABC):
    """Something to learn with a network; subclasses say what.

    By default a network gives `num_outputs` numbers for an image; `wrap_model` and `validate_output` change that.
    """

    train_metrics: tuple[str, ...] = ("loss",)
    eval_metrics: tuple[str, ...] = ("loss",)
    watched: tuple[tuple[str, bool], ...] = (("loss", False),)
    """Metrics that decide which epoch is best, on validation, the first one first; True: the higher the better."""
    is_classifier = False
    """Whether an output stands for a class: then the last layer is of no use for other classes."""
    show_every: int | None = None
    """Epochs between two calls of `show`; None: it is never called."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    @property
    def num_outputs(self) -> int:
        """Return how many numbers a model gives for each image."""
        return self.spec.num_classes

    @property
    def chance_loss(self) -> float | None:
        """Return the loss of a network that knows nothing, if that can be said."""
        return None

    def validate(self, config: RunConfig) -> None:
        """Raise UserError for settings of the run that this cannot be learnt with."""

    def order(self, labels: Tensor, weights: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return the rows of an epoch in the order in which they are trained on, int64 [N].

        [N, G] where a sample is a group of images, such as a pair.
        weights: how often each class is wanted, float [K]; None: every row once.
        """
        if weights is None:
            return torch.randperm(len(labels), generator=generator)
        return weighted_order(labels, weights, generator)

    def caption(self, labels: Sequence[str]) -> str:
        """Return what the images of one sample, with these labels, are to the task."""
        return " | ".join(labels)

    @abstractmethod
    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss to descend (a scalar with gradient), and the sum of each train metric over the samples."""

    @abstractmethod
    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return what is measured of each image of a batch, float [B, M]: by default a column an eval metric."""

    def compute_metrics(self, rows: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the eval metrics of a split from what was measured of its images: by default the means.

        rows: float32 [N, M]. labels: int64 [N]. A mean never depends on how images fell into batches.
        """
        return dict(zip(self.eval_metrics, rows.double().mean(0).tolist(), strict=True))

    def evaluate(self, context: EvalContext, split: str) -> EvalReport:
        """Return what can be found out about a network on a split that the context has."""
        batches = context.splits[split]
        metrics = self.compute_metrics(context.map_batches(batches, self.eval_step), batches.labels.cpu())
        return EvalReport(metrics | (self.final_evaluation(context) if split == "test" else {}))

    def log_progress(self, context: EvalContext) -> None:
        """Show how far a training is, in the midst of it."""

    def final_evaluation(self, context: EvalContext) -> dict[str, float]:
        """Show what came out of a training, and return what else was measured of the test images."""
        return {}
