"""What the loop knows of a task, and a check of one before anything is trained."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isclose
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch, Batches
from cnnbench.data.prepare import PreparedData
from cnnbench.data.split import weighted_order
from cnnbench.errors import UserError, blaming, counted, described, try_out
from cnnbench.models.build import OutputSpec
from cnnbench.registry import TASKS, ContractError
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.evaluation import EvalReport, OnDemand, table_of_images
from cnnbench.tasks.gallery import samples_of

if TYPE_CHECKING:
    import pandas as pd


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
        if rows.shape[1:] != (len(self.eval_metrics),):
            columns = "a number" if rows.ndim == 1 else counted(rows.shape[1], "column")
            metrics = f"{counted(len(self.eval_metrics), 'metric')} {', '.join(self.eval_metrics)}"
            raise UserError(f"eval_step returns {columns} per image for {metrics}; or define compute_metrics")
        return dict(zip(self.eval_metrics, rows.double().mean(0).tolist(), strict=True))

    def evaluate(self, context: EvalContext, split: str) -> EvalReport:
        """Return the report of a network on one of the context's splits."""
        batches = context.splits[split]
        labels, rows = batches.labels.cpu(), context.map_batches(batches, self.eval_step)
        metrics = self.compute_metrics(rows, labels) | (self.final_evaluation(context) if split == "test" else {})
        samples = partial(samples_of, labels, self.spec.classes, partial(context.pixels_of, split))
        names: Sequence[str] = self.eval_metrics
        if type(self).compute_metrics is not Task.compute_metrics:  # of embeddings there are files already
            names = [] if self.encode or rows.ndim != 2 else [f"column{place + 1}" for place in range(rows.shape[1])]

        def by_image() -> "pd.DataFrame":
            table = table_of_images(labels, self.spec.classes, getattr(context.data, split).files())
            return table.assign(**dict(zip(names, rows.numpy().T, strict=True)))

        return EvalReport(metrics, OnDemand({"images": by_image} if names else {}), gallery=samples)

    def log_progress(self, context: EvalContext) -> None:
        """Show the progress of a training, as figures or in TensorBoard."""

    def final_evaluation(self, context: EvalContext) -> dict[str, float]:
        """Show the result of a training, and return additional metrics of the test images."""
        return {}


def build_task(config: RunConfig, spec: DataSpec) -> Task:
    """Return the configured task.

    Raises SettingError for settings that it does not work with, and UserError for declarations of another form.
    """
    component = TASKS[config.task.name]
    with blaming(component, "cannot be made"):
        task: Task = TASKS.build(config.objective(), spec=spec)
        if not hasattr(task, "spec"):
            raise ContractError(f"{component}: its __init__ has to call super().__init__(spec).")
        for problem in _misdeclared(task):
            raise ContractError(f"{component}: {problem}.")
        task.validate(config)
    return task


def _misdeclared(task: Any) -> Iterator[str]:
    if callable(number := task.num_outputs):
        yield "num_outputs is a method: write @property above it"
    elif not isinstance(number, int) or number < 1:
        yield f"num_outputs is {number!r}, not a whole number from 1 on"
    for key in ("train_metrics", "eval_metrics"):
        names = getattr(task, key)
        if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
            yield f"{key} is {names!r}, not a tuple of names: write ('loss',), say"
    pairs = task.watched
    if (
        not isinstance(pairs, tuple)
        or not pairs
        or not all(isinstance(pair, tuple) and list(map(type, pair)) == [str, bool] for pair in pairs)
    ):
        yield f"watched is {pairs!r}, not a tuple of pairs: write (('loss', False),), say; True: higher is better"


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
    """Pass some training samples through a task's steps; the network's statistics change.

    network: in training mode. Raises UserError where a step fails, or returns something else than it should.
    """
    try_out(TASKS[name], _problems(task, network, data, num_samples))


def _problems(task: Task, network: nn.Module, data: PreparedData, num_samples: int) -> Iterator[str]:
    order = task.order(data.train.labels, None, torch.Generator().manual_seed(0))[:num_samples]
    returned, sums_shape = task.train_step(network, first_batch(data, order)), (len(task.train_metrics),)
    if not (isinstance(returned, tuple) and len(returned) == 2):
        yield f"train_step returns {described(returned)}, not a loss and the sum of each metric"
        return
    loss, sums = returned
    if not isinstance(loss, Tensor) or loss.ndim:
        yield f"train_step returns {described(loss)} as loss, not a scalar tensor"
    elif not loss.requires_grad and loss != 0:  # a constant 0: there may be nothing to learn from so few samples
        yield "train_step returns a loss without gradient: no_grad, detach and item have to go, in the network too"
    elif unknown := _unregistered(loss, network):
        yield (
            f"the loss is computed with {counted(len(unknown), 'weight')} that the network does not know, the first of "
            f"shape {tuple(unknown[0].shape)}, so that they are neither trained nor in a checkpoint: keep layers in an "
            "nn.ModuleList or nn.ModuleDict, not in a list or dict, and weights as nn.Parameter"
        )
    if not isinstance(sums, Tensor) or sums.shape != sums_shape:
        yield f"train_step returns {described(sums)} as sums of {', '.join(task.train_metrics)}, not shape {sums_shape}"
        return
    if "loss" in task.train_metrics and isinstance(loss, Tensor) and not loss.ndim and loss > 0:
        place = task.train_metrics.index("loss")
        if isclose(sums[place].item(), loss.item(), rel_tol=1e-5):  # a mean, or the loss is a sum, too, and grows
            _, of_twice = task.train_step(network, first_batch(data, torch.cat([order, order])))
            if of_twice[place] < 1.5 * sums[place] and len(order) > 1:
                yield "train_step returns a mean as metric loss: return sums over the images of the batch, not means"
    batch = first_batch(data, order.flatten())
    with torch.no_grad():
        rows = task.eval_step(network.eval(), batch)
    if not isinstance(rows, Tensor) or rows.shape[:1] != (len(batch),):
        yield f"eval_step returns {described(rows)}, not a row for each of {counted(len(batch), 'image')}"
        return
    metrics = task.compute_metrics(rows.float(), batch.labels)
    if not isinstance(metrics, dict) or tuple(metrics) != task.eval_metrics:
        found = ", ".join(map(str, metrics)) if isinstance(metrics, dict) else described(metrics)
        yield f"compute_metrics returns {found}, not {', '.join(task.eval_metrics)}"
    elif foreign := [name for name, value in metrics.items() if not isinstance(value, int | float)]:
        yield f"compute_metrics returns {described(metrics[foreign[0]])} as {foreign[0]}, not a number"
    if not {name for name, _ in task.watched} <= set(task.eval_metrics):
        yield f"watched names {', '.join(name for name, _ in task.watched)}, not all of which are in eval_metrics"


def _unregistered(loss: Tensor, network: nn.Module) -> list[Tensor]:
    """Return the weights that a loss depends on, and that are no parameters of the network.

    A tensor that needs a gradient for one step alone, as for a penalty on gradients, is none.
    """
    known = {id(one) for one in network.parameters()}
    held = {id(value) for module in network.modules() for value in vars(module).values()}
    found: list[Tensor] = []
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor) and id(leaf) not in known and (isinstance(leaf, nn.Parameter) or id(leaf) in held):
            found.append(leaf)
        waiting += [before for before, _ in node.next_functions]
    return found
