"""To place images so that those of a class lie near each other: what tasks that compare images share."""

from abc import abstractmethod
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.config import RunConfig
from cnnbench.data.batches import Batch
from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError, Mistake, UserError
from cnnbench.models.ending import Encoder, misshapen
from cnnbench.tasks import exhibits
from cnnbench.tasks.base import Task
from cnnbench.tasks.retrieval import neighbour_accuracy, recall_at, silhouette
from cnnbench.tasks.view import View

DIMENSIONS = 128  # of the codes of a model that is no encoder
RANKS = (1, 5, 10)
RECALLS = tuple(f"recall@{rank}" for rank in RANKS)


class Embedding(Task):
    """Codes of images that are compared by their distance; subclasses say by which loss.

    Validation and test are measured on all images of the split: the loss of comparisons that are always the same
    ones, and how often one of the nearest others is of the same class.
    """

    eval_metrics = ("loss", *RECALLS)

    def __init__(self, spec: DataSpec, dimensions: int | None, watch: str, show_every: int | None) -> None:
        super().__init__(spec)
        self._dimensions = dimensions
        self.watched = ((watch, watch != "loss"), ("recall@1", True) if watch == "loss" else ("loss", False))
        self.show_every = show_every

    @property
    def num_outputs(self) -> int:
        """Return the size of the code of a model that is no encoder."""
        return self._dimensions or DIMENSIONS

    def check(self, config: RunConfig) -> None:
        """Raise ConfigError where an image could have nothing to be compared with, or the model classifies besides."""
        refuse_auxiliary(config)
        lonely = [name for name, count in zip(self.spec.classes, self.spec.counts, strict=True) if count < 2]
        if self.spec.num_classes < 2:
            raise ConfigError([Mistake(f"task={config.task.name}", "compares classes, and the data have one")])
        if lonely:
            problem = f"compares images of a class, and '{lonely[0]}' has {self._count(lonely[0])} to train on"
            raise ConfigError([Mistake(f"task={config.task.name}", problem)])

    def _count(self, name: str) -> str:
        return "one" if self.spec.counts[self.spec.classes.index(name)] else "none"

    def complete(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the network that gives codes. Raises UserError for an encoder with a code of another size."""
        size_of_code(model, self._dimensions)
        return nn.Sequential(OrderedDict(encoder=model)) if isinstance(model, Encoder) else model

    def misfit(self, outputs: Any, spec: DataSpec) -> str | None:
        """Say what is wrong with codes for two images."""
        is_code = isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == 2
        return None if is_code else misshapen(outputs, (2, self.num_outputs), "codes")

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the codes of images, float [B, D]."""
        codes: Tensor = network(batch.images)
        return codes

    def measure(self, rows: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the mean loss of comparisons, the same ones every time, and recalls. rows: codes, float32 [N, D]."""
        losses = self.losses(rows, labels, torch.Generator().manual_seed(0))
        loss = float(losses.double().mean()) if len(losses) else float("nan")
        return {"loss": loss} | dict(zip(RECALLS, recall_at(rows, labels, RANKS), strict=True))

    @abstractmethod
    def losses(self, codes: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the losses of comparisons drawn among the images of a split, float [M]."""

    def show(self, view: View) -> None:
        """Write the codes of validation for TensorBoard's projector."""
        batches = view.splits[view.held_out]
        exhibits.show_codes(view, view.each(batches, self.eval_step), batches.labels.cpu())

    def conclude(self, view: View) -> dict[str, float]:
        """Write and draw the codes of all test images, and return how well they find their like."""
        return conclude_codes(view, self.eval_step)


def size_of_code(model: nn.Module, wanted: int | None) -> int:
    """Return the size of a model's code. Raises UserError where another one is wanted of an encoder."""
    if not isinstance(model, Encoder):
        return wanted or DIMENSIONS
    if wanted not in (None, model.dimensions):
        raise UserError(
            f"task.dimensions={wanted}: the model is an encoder, whose code has {model.dimensions}; set the model's "
            "own settings, and null here"
        )
    return model.dimensions


def refuse_auxiliary(config: RunConfig) -> None:
    """Raise ConfigError where a network would have classifiers half-way up, which nothing would train."""
    if config.model.settings.get("auxiliary"):
        problem = f"are classifiers, of no use to task={config.task.name}; give false"
        raise ConfigError([Mistake("model.auxiliary=true", problem)])


def conclude_codes(view: View, encode: Any) -> dict[str, float]:
    """Write and draw the codes of all test images; return what their neighbours, also of training, say."""
    codes, labels = {}, {}
    for split in ("train", "test"):
        codes[split] = view.each(view.splits[split], encode).flatten(1)
        labels[split] = view.splits[split].labels.cpu()
    spec = view.data.spec
    exhibits.show_codes(view, codes["test"], labels["test"])
    exhibits.save_codes(view.folder, codes["test"], labels["test"], spec.classes)
    figure = exhibits.scatter(codes["test"], labels["test"], spec.classes, seed=0)
    if figure is not None:
        view.save("tsne", figure)
    recalls = dict(zip(RECALLS, recall_at(codes["test"], labels["test"], RANKS), strict=True))
    voted = neighbour_accuracy(codes["train"], labels["train"], codes["test"], labels["test"])
    return recalls | {"5-nn": voted, "silhouette": silhouette(codes["test"], labels["test"])}


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return Euclidean distances between rows, float [B]; their gradient is 0, not NaN, where rows are equal."""
    return (one - other).square().sum(1).clamp_min(1e-12).sqrt()
