"""Classification of images."""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.errors import SettingError, UserError, counted, listed, quoted
from cnnbench.registry import METRICS, TASKS
from cnnbench.tasks.base import Task
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.evaluation import EvalReport, Predictions, evaluate_classifier

AUXILIARY_WEIGHT = 0.3  # of auxiliary classifiers (Szegedy et al. 2015, arXiv:1409.4842)


@TASKS.register("classification", blends=True)
class Classification(Task):
    """Cross entropy of class scores, or a related loss.

    loss: cross_entropy; focal, which weights down easy samples (Lin et al. 2017, arXiv:1708.02002); binary, for two
    classes with a single output, the logit of the second one.
    class_weights: weight of an image in training by its class; none: 1; balanced: every class counts as much. The loss
    of a batch is the sum of its weighted losses, divided by the number of its images (by torch's `CrossEntropyLoss`
    instead: by the sum of their weights).
    label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016, arXiv:1512.00567).
    metrics: registered ones, functions of predictions, that are measured too.
    watch: the validation metric that decides which epoch is best, when to stop early, and when a plateau is reached:
    accuracy, where the loss breaks ties, loss, where accuracy does, or one of `metrics`.
    The loss in evaluation is always the mean cross entropy, so that runs can be compared. A blended
    sample counts for both of its classes, in loss and accuracy.
    Raises SettingError for a loss that does not fit the classes or the other settings.
    """

    train_metrics = ("loss", "accuracy")
    is_classifier = True
    watched: tuple[tuple[str, bool], ...] = (("accuracy", True), ("loss", False))
    higher_is_better: Mapping[str, bool] = {
        "loss": False, "accuracy": True, "top5": True, "ece": False, "brier": False, "roc_auc": True,
        "average_precision": True,
    }  # fmt: skip

    def __init__(
        self,
        spec: DataSpec,
        *,
        loss: Literal["cross_entropy", "focal", "binary"] = "cross_entropy",
        focal_gamma: Annotated[float, Field(gt=0)] = 2.0,
        class_weights: Literal["none", "balanced"] | list[PositiveFloat] = "none",
        label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        metrics: list[str] | None = None,
        watch: str = "accuracy",
    ) -> None:
        super().__init__(spec)
        self._means = ("loss", "accuracy", "top5") if spec.num_classes > 5 else ("loss", "accuracy")
        self.own_metrics = tuple(metrics or ())
        self.eval_metrics = (*self._means, *self.own_metrics)
        check_metrics(self.own_metrics, ("loss", "accuracy", "top5", "ece", "samples"), spec.classes)
        directions = {name: METRICS[name].facts["higher_is_better"] for name in self.own_metrics}
        self.higher_is_better = {**self.higher_is_better, **directions}
        if watch not in ("accuracy", "loss", *self.own_metrics):
            known = listed(("accuracy", "loss", *self.own_metrics))
            raise SettingError(f"task.watch={watch}", f"is not measured; there are {known}")
        tie_breaker = "accuracy" if watch == "loss" else "loss"
        self.watched = tuple((name, self.higher_is_better[name]) for name in (watch, tie_breaker))
        self._is_binary = loss == "binary"
        self._gamma = focal_gamma if loss == "focal" else 0.0
        self._smoothing = label_smoothing
        self._weights = weights_of_classes(class_weights, spec)
        if self._is_binary and spec.num_classes != 2:
            raise SettingError("task.loss=binary", f"is for two classes, and the data have {spec.num_classes}")
        if not self._gamma and focal_gamma != 2.0:
            problem = f"has no effect with task.loss={loss}; set that to focal"
            raise SettingError(f"task.focal_gamma={focal_gamma}", problem)
        if self._gamma and label_smoothing:
            problem = "has no meaning with task.loss=focal; leave out one"
            raise SettingError(f"label_smoothing={label_smoothing}", problem)

    @property
    def num_outputs(self) -> int:
        """One for a binary loss, else one per class."""
        return 1 if self._is_binary else self.spec.num_classes

    @property
    def chance_loss(self) -> float:
        """The cross entropy where all classes get the same probability."""
        return math.log(self.spec.num_classes)

    def scores(self, outputs: Tensor) -> Tensor:
        """Return class scores, float32 [B, K], whose softmax are probabilities, from outputs [B, O]."""
        outputs = outputs.float()
        # The softmax of (0, x) is the sigmoid of x: with it, everything below holds for a single output as well.
        return torch.cat([torch.zeros_like(outputs), outputs], dim=1) if self._is_binary else outputs

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: D102
        outputs = network(batch.images)
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        scores = self.scores(main)
        losses = self._blended_losses(scores, batch)
        for output in auxiliary:
            losses = losses + AUXILIARY_WEIGHT * self._blended_losses(self.scores(output), batch)
        predicted = scores.detach().argmax(1)
        correct = (predicted == batch.labels).to(losses.dtype)
        if batch.mixed is not None:
            labels, share = batch.mixed
            correct = torch.lerp((predicted == labels).to(losses.dtype), correct, share)
        return losses.mean(), torch.stack([losses.detach().sum(), correct.sum()])

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:  # noqa: D102
        return self._measure(network, batch, with_probabilities=bool(self.own_metrics))

    def compute_metrics(self, rows: Tensor, labels: Tensor) -> dict[str, float]:
        """Return means over images, and the user's own metrics. rows: float32 [N, M], or with probabilities [N, M + K].

        NaN where a metric is undefined, such as the area under a curve for images of a single class.
        """
        means, probabilities = rows.tensor_split([len(self._means)], dim=1)
        metrics = dict(zip(self._means, means.double().mean(0).tolist(), strict=True))
        predictions = Predictions(probabilities, labels, self.spec.classes)
        for name in self.own_metrics:
            try:
                metrics[name] = float(METRICS[name].build({}, predictions=predictions))
            except (ValueError, ArithmeticError):  # the function works: see `check_metrics`
                metrics[name] = math.nan
        return metrics

    def evaluate(self, context: EvalContext, split: str) -> EvalReport:
        """Return metrics with tables and figures by class, of confusions, calibration and single predictions."""
        batches, step = context.splits[split], partial(self._measure, with_probabilities=True)
        rows, labels = context.map_batches(batches, step), batches.labels.cpu()
        probabilities = rows[:, len(self._means) :].contiguous()
        files = getattr(context.data, split).files()
        metrics = self.compute_metrics(rows, labels) | (self.final_evaluation(context) if split == "test" else {})
        predictions = Predictions(probabilities, labels, self.spec.classes, files, rows[:, 0])
        return evaluate_classifier(metrics, predictions, partial(context.pixels_of, split))

    def _measure(self, network: nn.Module, batch: Batch, *, with_probabilities: bool) -> Tensor:
        """Return what is averaged over images, float32 [B, M]; with probabilities: [B, M + K]."""
        scores = self.scores(network(batch.images))
        losses = functional.cross_entropy(scores, batch.labels, reduction="none")
        columns = [losses, (scores.argmax(1) == batch.labels).to(losses.dtype)]
        if "top5" in self._means:
            in_top5 = scores.topk(5, dim=1).indices == batch.labels.unsqueeze(1)
            columns.append(in_top5.any(1).to(losses.dtype))
        measured = torch.stack(columns, dim=1)
        return torch.cat([measured, scores.softmax(1)], dim=1) if with_probabilities else measured

    def _blended_losses(self, scores: Tensor, batch: Batch) -> Tensor:
        losses = self._losses(scores, batch.labels)
        if batch.mixed is None:
            return losses
        return torch.lerp(self._losses(scores, batch.mixed.labels), losses, batch.mixed.share)

    def _losses(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each sample, float32 [B]."""
        losses = functional.cross_entropy(scores, labels, reduction="none", label_smoothing=self._smoothing)
        if self._gamma:
            losses = focal(losses, self._gamma)
        if self._weights is None:
            return losses
        self._weights = self._weights.to(losses.device)  # once: a copy at every step would wait for the GPU
        return losses * self._weights[labels]


def focal(cross_entropies: Tensor, gamma: float) -> Tensor:
    """Return (1 - p)^gamma x cross entropy, float [B], where p is the probability of the true class."""
    return (-torch.expm1(-cross_entropies)).pow(gamma) * cross_entropies


def weights_of_classes(class_weights: str | list[float], spec: DataSpec) -> Tensor | None:
    """Return the weight of an image by its class, float32 [K], 1 in the mean over training images; None: always 1.

    Raises SettingError for a list that does not have a weight for every class.
    """
    if class_weights == "none":
        return None
    counts = torch.tensor(spec.counts, dtype=torch.float64)
    if isinstance(class_weights, list):
        if len(class_weights) != spec.num_classes:
            problem = f"has {counted(len(class_weights), 'weight')}; the data have {spec.num_classes} classes"
            raise SettingError(f"task.class_weights={class_weights}", problem)
        weights = torch.tensor(class_weights, dtype=torch.float64)
    else:
        weights = torch.where(counts > 0, 1 / counts, 0.0)  # a class without images has no loss to weight
    return (weights * counts.sum() / (weights * counts).sum()).float()


def check_metrics(names: Sequence[str], taken: Collection[str], classes: tuple[str, ...]) -> None:
    """Try registered metrics on random predictions in which every class occurs.

    Raises SettingError for one that does not exist, that is measured anyway, or that fails.
    """
    labels = torch.arange(len(classes)).repeat(2)
    scores = torch.randn(len(labels), len(classes), generator=torch.Generator().manual_seed(0))
    predictions = Predictions(scores.softmax(1), labels, classes)
    for name in names:
        given = f"task.metrics=[{','.join(names)}]"
        if name in taken or names.count(name) > 1:
            raise SettingError(given, f"'{name}' is measured already; leave it out, or register it under another name")
        try:
            float(METRICS[name].build({}, predictions=predictions))
        except UserError as error:
            raise SettingError(given, str(error)) from error
        except Exception as error:
            problem = f"{METRICS[name]} fails on random predictions: {quoted(error)}"
            raise SettingError(given, problem) from error
