"""To place images so that those of a class lie near each other: what tasks that compare images share."""

from abc import abstractmethod
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.config.schema import RunConfig
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.errors import ConfigError, Mistake
from cnnbench.models.build import Encoder, shape_error
from cnnbench.tasks import exhibits
from cnnbench.tasks.coding import RECALLS, Coding, recalls
from cnnbench.tasks.context import EvalContext


class Embedding(Coding):
    """Codes of images that are compared by their distance; subclasses say by which loss.

    Validation and test are measured on all images of the split: the loss of comparisons that are always the same
    ones, and how often one of the nearest others is of the same class.
    """

    eval_metrics = ("loss", *RECALLS)

    def __init__(self, spec: DataSpec, dimensions: int | None, watch: str, show_every: int | None) -> None:
        super().__init__(spec, dimensions, show_every)
        self.watched = ((watch, watch != "loss"), ("recall@1", True) if watch == "loss" else ("loss", False))

    def validate(self, config: RunConfig) -> None:
        """Raise ConfigError where an image could have nothing to be compared with, or the model classifies besides."""
        super().validate(config)
        lonely = [name for name, count in zip(self.spec.classes, self.spec.counts, strict=True) if count < 2]
        if self.spec.num_classes < 2:
            raise ConfigError([Mistake(f"task={config.task.name}", "compares classes, and the data have one")])
        if lonely:
            problem = f"compares images of a class, and '{lonely[0]}' has {self._count(lonely[0])} to train on"
            raise ConfigError([Mistake(f"task={config.task.name}", problem)])

    def _count(self, name: str) -> str:
        return "one" if self.spec.counts[self.spec.classes.index(name)] else "none"

    def wrap_model(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the network that gives codes. Raises UserError for an encoder with a code of another size."""
        self.size_of_code(model)
        return nn.Sequential(OrderedDict(encoder=model)) if isinstance(model, Encoder) else model

    def validate_output(self, outputs: Any, spec: DataSpec) -> str | None:
        """Say what is wrong with codes for two images."""
        is_code = isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == 2
        return None if is_code else shape_error(outputs, (2, self.num_outputs), "codes")

    def encode(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the codes of images, float [B, D]."""
        codes: Tensor = network(batch.images)
        return codes

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the codes of images, float [B, D]: what is measured are all of them together."""
        return self.encode(network, batch)

    def compute_metrics(self, rows: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the mean loss of comparisons, the same ones every time, and recalls. rows: codes, float32 [N, D]."""
        losses = self.losses(rows, labels, torch.Generator().manual_seed(0))
        loss = float(losses.double().mean()) if len(losses) else float("nan")
        return {"loss": loss} | recalls(rows, labels)

    @abstractmethod
    def losses(self, codes: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the losses of comparisons drawn among the images of a split, float [M]."""

    def log_progress(self, context: EvalContext) -> None:
        """Write the codes of validation for TensorBoard's projector."""
        batches = context.splits[context.held_out]
        exhibits.show_codes(context, context.map_batches(batches, self.encode), batches.labels.cpu())


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return Euclidean distances between rows, float [B]; their gradient is 0, not NaN, where rows are equal."""
    return (one - other).square().sum(1).clamp_min(1e-12).sqrt()
