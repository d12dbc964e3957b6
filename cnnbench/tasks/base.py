"""What the loop knows of a task, and a check of one before anything is trained."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch, Batches
from cnnbench.data.prepare import PreparedData
from cnnbench.data.split import weighted_order
from cnnbench.errors import UserError
from cnnbench.models.build import OutputSpec
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.tasks.gallery import samples_of


class Task(OutputSpec, ABC):
    """What a network learns; subclasses say what, and declare here what they offer.

    By default a network returns `num_outputs` numbers per image; `wrap_model` and `validate_output` change that.
    """

    train_metrics: tuple[str, ...] = ("loss",)
    eval_metrics: tuple[str, ...] = ("loss",)
    watched: tuple[tuple[str, bool], ...] = (("loss", False),)
    """Validation metrics that decide which epoch is best, the most important first; True: higher is better."""
    own_metrics: tuple[str, ...] = ()
    """Those of `eval_metrics` that its user registered, and wants to see after each epoch."""
    is_classifier = False
    """Whether outputs stand for classes, so that the last layer is of no use for other classes."""
    show_every: int | None = None
    """Epochs between two calls of `log_progress`; None: it is never called."""
    figure_titles: Mapping[str, str] = {}
    """Titles of its figures by file name, without epoch and ending, in the order of a report."""
    scores: Callable[[Tensor], Tensor] | None = None
    """From outputs [B, O] to class scores, float32 [B, K], whose softmax are probabilities; None: it predicts none."""
    encode: Callable[[nn.Module, Batch], Tensor] | None = None
    """From a network and a batch to embeddings, float [B, D]; None: it learns none."""

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    @property
    def higher_is_better(self) -> Mapping[str, bool]:
        """Which way each metric is better, those of `final_evaluation` included."""
        return {"loss": False, **dict(self.watched)}

    @property
    def num_outputs(self) -> int:
        """The number of values that a model returns per image."""
        return self.spec.num_classes

    @property
    def chance_loss(self) -> float | None:
        """The loss of guessing at random, if it is known."""
        return None

    def validate(self, config: RunConfig) -> None:
        """Raise SettingError for settings of the run that the task does not work with."""

    def order(self, labels: Tensor, weights: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return the rows of an epoch in training order, int64 [N]; [N, G] where a sample is a group, such as a pair.

        weights: relative frequency of each class, float [K]; None: every row once.
        """
        if weights is None:
            return torch.randperm(len(labels), generator=generator)
        return weighted_order(labels, weights, generator)

    def caption(self, labels: Sequence[str]) -> str:
        """Return a caption for the images of one sample, which have these labels."""
        return " | ".join(labels)

    @abstractmethod
    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss to minimise (a scalar with gradient), and the sum of each train metric over the samples."""

    @abstractmethod
    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return measurements of each image of a batch, float [B, M]: by default a column per eval metric."""

    def compute_metrics(self, rows: Tensor, labels: Tensor) -> dict[str, float]:
        """Return the eval metrics of a split from the measurements of all its images: by default their means.

        rows: float32 [N, M]. labels: int64 [N]. A mean does not depend on how images fall into batches.
        """
        return dict(zip(self.eval_metrics, rows.double().mean(0).tolist(), strict=True))

    def evaluate(self, context: EvalContext, split: str) -> EvalReport:
        """Return the report of a network on one of the context's splits."""
        batches = context.splits[split]
        metrics = self.compute_metrics(context.map_batches(batches, self.eval_step), batches.labels.cpu())
        metrics |= self.final_evaluation(context) if split == "test" else {}
        samples = partial(samples_of, batches.labels.cpu(), self.spec.classes, partial(context.pixels_of, split))
        return EvalReport(metrics, gallery=samples)

    def log_progress(self, context: EvalContext) -> None:
        """Show the progress of a training, as figures or in TensorBoard."""

    def final_evaluation(self, context: EvalContext) -> dict[str, float]:
        """Show the result of a training, and return additional metrics of the test images."""
        return {}


def first_batch(data: PreparedData, order: Tensor) -> Batch:
    """Return some training samples as one batch, without augmentation, on the processor.

    order: int64 [N], the row of each; [N, G] where a sample is a group of images.
    """
    images = data.train[order.flatten()]
    batches = Batches(images, data.spec, data.mean, data.std, torch.device("cpu"))
    (batch,) = batches.epoch(torch.arange(len(images)).view(order.shape), len(order))
    return batch


def needs_several_samples(task: Task, network: nn.Module, data: PreparedData, ungrouped: bool) -> bool:
    """Return whether batch norm refuses a batch of one sample: what it sees is a single value per channel.

    network: in training mode. ungrouped: whether it is also given single images where a sample is a group of them.
    """
    batch = first_batch(data, task.order(data.train.labels, None, torch.Generator().manual_seed(0))[:1])
    try:
        with torch.random.fork_rng(devices=()), torch.no_grad():
            task.train_step(network, batch)
            if ungrouped:
                network(batch.images[:1])
    except Exception as error:  # noqa: BLE001 - what else fails, `check_task` reports
        return "more than 1 value per channel" in str(error)
    return False


def check_task(name: str, task: Task, network: nn.Module, data: PreparedData, num_samples: int) -> None:
    """Pass some training samples through a task's steps, without a gradient; the network's statistics change.

    network: in training mode. Raises UserError where a step fails, or returns something else than it should.
    """
    try:
        order = task.order(data.train.labels, None, torch.Generator().manual_seed(0))[:num_samples]
        batch, ungrouped = first_batch(data, order), first_batch(data, order.flatten())
        with torch.random.fork_rng(devices=()), torch.no_grad():
            returned = task.train_step(network, batch)
            if not (isinstance(returned, tuple) and len(returned) == 2):
                raise UserError(
                    f"task '{name}': train_step returns a {type(returned).__name__}, "
                    "not a loss and the sum of each metric."
                )
            loss, sums = returned
            rows = task.eval_step(network.eval(), ungrouped)
            metrics = task.compute_metrics(rows.float(), ungrouped.labels)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"task '{name}' fails on the first images: {type(error).__name__}: {error}") from error
    num_sums, watched = len(sums) if sums.ndim else 1, [metric for metric, _ in task.watched]
    problems = []
    if loss.ndim:
        problems.append(f"train_step returns a loss of shape {tuple(loss.shape)}, not a scalar")
    if num_sums != len(task.train_metrics):
        problems.append(f"train_step returns {num_sums} sums for the metrics {', '.join(task.train_metrics)}")
    if len(rows) != len(ungrouped):
        problems.append(f"eval_step returns {len(rows)} rows for {len(ungrouped)} images")
    if tuple(metrics) != task.eval_metrics:
        problems.append(f"compute_metrics returns {', '.join(metrics)}, not {', '.join(task.eval_metrics)}")
    if not set(watched) <= set(metrics):
        problems.append(f"watched names {', '.join(watched)}, which are not all measured")
    if problems:
        raise UserError(f"task '{name}': {'; '.join(problems)}.")
