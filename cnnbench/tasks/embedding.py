"""Tasks that make embeddings of images, and those of them that compare images by their embeddings."""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.config.schema import NO_EFFECT_ON_RESULT
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.errors import SettingError
from cnnbench.models.build import Encoder, shape_error
from cnnbench.registry import MODELS
from cnnbench.tasks import projector
from cnnbench.tasks.base import Task
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.tasks.figures import tsne_scatter
from cnnbench.tasks.retrieval import neighbour_accuracy, precisions, recall_at, silhouette

Dimensions = PositiveInt | None
ShowEvery = Annotated[PositiveInt | None, NO_EFFECT_ON_RESULT]
DIMENSIONS = 128  # of the embeddings of a model that is no encoder
RANKS = (1, 5, 10)
RECALLS = tuple(f"recall@{rank}" for rank in RANKS)
PRECISIONS = ("mAP", "R-precision")


class EncodingTask(Task):
    """A task whose network makes embeddings of images, at its end or half-way; any model can make them."""

    figure_titles: Mapping[str, str] = {"tsne": "Embeddings of test images in two dimensions (t-SNE)"}
    higher_is_better: Mapping[str, bool] = {
        "loss": False,
        **dict.fromkeys((*RECALLS, *PRECISIONS, "5-nn", "silhouette"), True),
    }

    def __init__(self, spec: DataSpec, dimensions: int | None, show_every: int | None) -> None:
        super().__init__(spec)
        self._dimensions = dimensions
        self.show_every = show_every

    @property
    def num_outputs(self) -> int:
        """The embedding size of a model that is no encoder."""
        return self._dimensions or DIMENSIONS

    def embedding_size(self, model: nn.Module) -> int:
        """Return the embedding size of a model. Raises SettingError for an encoder of another size than is set."""
        if not isinstance(model, Encoder):
            return self.num_outputs
        if self._dimensions not in (None, model.dimensions):
            problem = f"the model is an encoder with embeddings of {model.dimensions}; give null, or change the model"
            raise SettingError(f"task.dimensions={self._dimensions}", problem)
        return model.dimensions

    def validate(self, config: RunConfig) -> None:
        """Raise SettingError for auxiliary classifiers, which nothing would train."""
        setting = MODELS[config.model.name].facts["aux_classifiers"]
        if setting and config.model.settings.get(setting):
            problem = f"adds auxiliary classifiers, which task={config.task.name} does not train; give false"
            raise SettingError(f"model.{setting}=true", problem, {f"model.{setting}": False})

    @abstractmethod
    def encode(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the embeddings of images, float [B, D]."""

    def evaluate(self, context: EvalContext, split: str) -> EvalReport:
        """Return what is measured after every epoch, and how all images rank, which takes longer."""
        report, batches = super().evaluate(context, split), context.splits[split]
        if split == "test":  # `final_evaluation` has measured it
            return report
        ranked = ranking(context.map_batches(batches, self.encode), batches.labels.cpu())
        return replace(report, metrics={**report.metrics, **ranked})

    def final_evaluation(self, context: EvalContext) -> dict[str, float]:
        """Save and draw the embeddings of all test images, and return how well they find their neighbours.

        5-nn: the accuracy of a vote of the five nearest training images.
        """
        embeddings, labels = {}, {}
        for split in ("train", "test"):
            embeddings[split] = context.map_batches(context.splits[split], self.encode)
            labels[split] = context.splits[split].labels.cpu()
        test, classes = (embeddings["test"], labels["test"]), context.data.spec.classes
        projector.write_embeddings(context, *test)
        projector.save_arrays(context.folder, *test, classes)
        figure = tsne_scatter(*test, classes, seed=0)
        if figure is not None:
            context.save("tsne", figure)
        unmeasured = {} if set(RECALLS) <= set(self.eval_metrics) else recalls(*test)
        voted = neighbour_accuracy(embeddings["train"], labels["train"], *test)
        return unmeasured | ranking(*test) | {"5-nn": voted, "silhouette": silhouette(*test)}


class EmbeddingTask(EncodingTask):
    """Embeddings that are compared by their distance; subclasses add the loss.

    Validation and test are measured on all images of the split: the loss of comparisons that are the same every time,
    and how often one of the nearest others is of the same class.
    """

    eval_metrics = ("loss", *RECALLS)

    def __init__(self, spec: DataSpec, dimensions: int | None, watch: str, show_every: int | None) -> None:
        super().__init__(spec, dimensions, show_every)
        self.watched = ((watch, watch != "loss"), ("recall@1", True) if watch == "loss" else ("loss", False))

    def validate(self, config: RunConfig) -> None:
        """Raise SettingError where an image would have nothing to be compared with, and for auxiliary classifiers."""
        super().validate(config)
        given, counts = f"task={config.task.name}", dict(zip(self.spec.classes, self.spec.counts, strict=True))
        if self.spec.num_classes < 2:
            raise SettingError(given, "compares classes, and the data have one")
        for name, count in counts.items():
            if count < 2:
                number = "one" if count else "none"
                raise SettingError(given, f"compares images of a class, and '{name}' has {number} to train on")

    def wrap_model(self, model: nn.Module, spec: DataSpec) -> nn.Module:
        """Return the network that gives embeddings. Raises SettingError for an encoder of another size than is set."""
        self.embedding_size(model)
        return nn.Sequential(OrderedDict(encoder=model)) if isinstance(model, Encoder) else model

    def validate_output(self, outputs: Any, spec: DataSpec) -> str | None:
        """Return what is wrong with the shape of embeddings of two images; None: nothing."""
        is_valid = isinstance(outputs, Tensor) and outputs.ndim == 2 and len(outputs) == 2
        return None if is_valid else shape_error(outputs, (2, self.num_outputs), "embeddings")

    def encode(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the embeddings of images, float [B, D]."""
        embeddings: Tensor = network(batch.images)
        return embeddings

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the embeddings of images, float [B, D], which are measured all together."""
        return self.encode(network, batch)

    def compute_metrics(self, rows: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the mean loss of fixed comparisons, and recalls. rows: embeddings, float32 [N, D]."""
        losses = self.losses(rows, labels, torch.Generator().manual_seed(0))
        loss = float(losses.double().mean()) if len(losses) else float("nan")
        return {"loss": loss} | recalls(rows, labels)

    @abstractmethod
    def losses(self, embeddings: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the losses of comparisons drawn among the images of a split, float [M]."""

    def log_progress(self, context: EvalContext) -> None:
        """Write the embeddings of validation for TensorBoard's projector."""
        batches = context.splits[context.held_out]
        embeddings = context.map_batches(batches, self.encode)
        projector.write_embeddings(context, embeddings, batches.labels.cpu())


def recalls(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """Return recall@1, 5 and 10. embeddings: float32 [N, D]. labels: int64 [N]."""
    return dict(zip(RECALLS, recall_at(embeddings, labels, RANKS), strict=True))


def ranking(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """Return mean average precision and R-precision. embeddings: float32 [N, D]. labels: int64 [N]."""
    return dict(zip(PRECISIONS, precisions(embeddings, labels), strict=True))


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Return Euclidean distances between rows, float [B]; their gradient is 0, not NaN, where rows are equal."""
    return (one - other).square().sum(1).clamp_min(1e-12).sqrt()
