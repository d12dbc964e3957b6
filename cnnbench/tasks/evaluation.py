"""What an evaluation measures: metrics by class, confusions, calibration, single predictions; and how it is written."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from cnnbench.errors import listed
from cnnbench.store.files import make_folder, write_atomically, write_json
from cnnbench.store.tables import csv_of_frame
from cnnbench.tasks import figures
from cnnbench.tasks.calibration import BINS, Calibration
from cnnbench.tasks.classifier_figures import confusion_matrix
from cnnbench.tasks.gallery import Gallery, gallery_of
from cnnbench.tasks.intervals import student, wilson
from cnnbench.tasks.two_classes import TwoClasses

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    LogImage = Callable[[str, "np.ndarray[Any, Any]"], None]

T = TypeVar("T")

LISTED = 5  # most likely classes in the table of predictions
SHOWN = 24  # images of a gallery


class OnDemand(Mapping[str, T]):
    """Values by name, each computed when it is looked up."""

    def __init__(self, functions: Mapping[str, Callable[[], T]]) -> None:
        self._functions = functions

    def __getitem__(self, name: str) -> T:
        return self._functions[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    def __contains__(self, name: object) -> bool:  # the inherited one computes the value
        return name in self._functions

    def __repr__(self) -> str:
        return f"OnDemand({listed(self)})"


@dataclass(frozen=True)
class EvalReport:
    """The metrics of a split, with tables and figures by name; notes: on the images that were measured.

    calibrated: the same with probabilities that were calibrated on validation, where that was asked for.
    gallery: images for a page, made when it is written.
    """

    metrics: Mapping[str, float]
    tables: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)
    figures: "Mapping[str, Figure]" = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    calibrated: "EvalReport | None" = None
    gallery: Callable[[], Gallery] | None = None

    def write(self, folder: Path, log_image: "LogImage" = lambda _name, _pixels: None) -> None:
        """Write metrics as JSON, tables as CSV, figures as PNG, and the gallery into a folder.

        log_image: called with the name and the pixels of each figure, uint8 [H, W, 3].
        """
        make_folder(folder)
        for name, table in self.tables.items():
            write_atomically(folder / f"{name}.csv", csv_of_frame(table))
        for name, figure in self.figures.items():
            log_image(name, figures.save(folder / f"{name}.png", figure))
        write_json(folder / "metrics.json", dict(self.metrics))
        if self.gallery is not None:
            self.gallery().write(folder)
        if self.calibrated is not None:
            self.calibrated.write(folder / "calibrated")

    def __repr__(self) -> str:
        measured = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
        return f"EvalReport({measured}; tables {listed(self.tables)}; figures {listed(self.figures)})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the metrics, and which tables and figures there are."""
        import pandas as pd

        parts = [pd.DataFrame([self.metrics]).to_html(index=False, border=0)]
        for kind, names in (("tables", self.tables), ("figures", self.figures)):
            parts += [f"<div>{kind}: <code>{escape(', '.join(names))}</code></div>"] if names else []
        return "".join(parts)


@dataclass(frozen=True)
class Predictions:
    """The probabilities that a network gives to the images of a split.

    probabilities: float [N, K]. labels: int64 [N]. classes: names by label. files: of the images, where they have any.
    cross_entropies: float [N], where they are known more exactly than from probabilities.
    """

    probabilities: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...] | None = None
    cross_entropies: Tensor | None = None

    @cached_property
    def losses(self) -> Tensor:
        """The negative log-likelihood of each image, float64 [N]."""
        if self.cross_entropies is not None:
            return self.cross_entropies.double()
        return functional.nll_loss(self.probabilities.double().clamp_min(1e-38).log(), self.labels, reduction="none")

    @cached_property
    def brier(self) -> Tensor:
        """The Brier score of each image, float64 [N]: the squared errors of all its probabilities, from 0 to 2.

        Source: Brier 1950, Verification of forecasts expressed in terms of probability.
        """
        right = functional.one_hot(self.labels, len(self.classes))
        return (self.probabilities.double() - right).square().sum(1)

    @cached_property
    def two_classes(self) -> TwoClasses | None:
        """What holds at every threshold, of two classes that both occur."""
        is_defined = len(self.classes) == 2 and bool((torch.bincount(self.labels, minlength=2) > 0).all())
        return TwoClasses(self.probabilities, self.labels) if is_defined else None

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % intervals over images: Wilson's of shares, Student's of means."""
        likeliest = self.probabilities.topk(min(5, len(self.classes)), dim=1).indices == self.labels.unsqueeze(1)
        shares = {"accuracy": likeliest[:, 0], "top5": likeliest.any(1)}
        return {
            **{name: wilson(int(right.sum()), len(right)) for name, right in shares.items()},
            "loss": student(self.losses),
            "brier": student(self.brier),
        }

    @cached_property
    def calibration(self) -> Calibration:
        """How often predictions of each probability are correct."""
        probabilities, predicted = self.probabilities.double().max(1)
        correct = (predicted == self.labels).double()
        # An interval includes its upper end, as in the source; the first one 0 too.
        intervals = (torch.ceil(probabilities * BINS).long() - 1).clamp(0, BINS - 1)
        columns = (torch.ones_like(correct), probabilities, correct)
        return Calibration(*(torch.bincount(intervals, weights=values, minlength=BINS) for values in columns))

    @cached_property
    def per_class(self) -> "pd.DataFrame":
        """A row per class: images, top1 (accuracy, with a 95 % interval), top5, loss, precision, recall, f1.

        NaN where it is undefined, as the precision of a class that is never predicted.
        """
        import pandas as pd

        counts = self._counts.double()
        right, images, predicted = counts.diag(), counts.sum(1), counts.sum(0)
        likeliest = self.probabilities.topk(min(5, len(self.classes)), dim=1).indices
        in_top5 = (likeliest == self.labels.unsqueeze(1)).any(1).numpy()
        labels, losses = self.labels.numpy(), self.losses.numpy()
        masks = [labels == label for label in range(len(self.classes))]
        intervals = [wilson(int(part), int(total)) for part, total in zip(right, images, strict=True)]
        columns = {
            "class": self.classes,
            "images": images.long().numpy(),
            "top1": (right / images).numpy(),
            "top1_low": [low for low, _ in intervals],
            "top1_high": [high for _, high in intervals],
            "top5": [in_top5[own].mean() if own.any() else math.nan for own in masks],
            "loss": [losses[own].mean() if own.any() else math.nan for own in masks],
            "precision": (right / predicted).numpy(),
            "recall": (right / images).numpy(),
            "f1": (2 * right / (images + predicted)).numpy(),
        }
        return pd.DataFrame(columns)

    @cached_property
    def confusion(self) -> "pd.DataFrame":
        """The number of images by class (rows) and predicted class (columns)."""
        import pandas as pd

        return pd.DataFrame(self._counts.numpy(), index=pd.Index(self.classes, name="class"), columns=self.classes)

    @cached_property
    def _counts(self) -> Tensor:
        """The number of images by label and predicted label, int64 [K, K]."""
        size = len(self.classes)
        pairs = self.labels * size + self.probabilities.argmax(1)
        return torch.bincount(pairs, minlength=size**2).view(size, size)

    def table(self) -> "pd.DataFrame":
        """Return a row per image: its index in the split, file, class, whether the prediction is right, and the five
        most likely classes with their probabilities.
        """
        best = self.probabilities.topk(min(LISTED, len(self.classes)), dim=1)
        table = table_of_images(self.labels, self.classes, self.files)
        table["right"] = (best.indices[:, 0] == self.labels).numpy()
        for place in range(best.indices.shape[1]):
            table[f"answer{place + 1}"] = [self.classes[label] for label in best.indices[:, place].tolist()]
            table[f"probability{place + 1}"] = best.values[:, place].numpy()
        return table

    def most_confident_mistakes(self) -> Tensor:
        """Return the rows of wrong predictions, the most probable first, int64 [≤ 24]."""
        return self._rows(correct=False, descending=True)

    def least_confident_correct(self) -> Tensor:
        """Return the rows of correct predictions, the least probable first, int64 [≤ 24]."""
        return self._rows(correct=True, descending=False)

    def _rows(self, correct: bool, descending: bool) -> Tensor:
        probabilities, predicted = self.probabilities.max(1)
        rows = ((predicted == self.labels) == correct).nonzero()[:, 0]
        return rows[probabilities[rows].argsort(descending=descending, stable=True)[:SHOWN]]


def table_of_images(labels: Tensor, classes: Sequence[str], files: Sequence[str] | None) -> "pd.DataFrame":
    """Return a row per image: its index in the split, its file, if it has one, and its class. labels: int64 [N]."""
    import pandas as pd

    names = [classes[label] for label in labels.tolist()]
    return pd.DataFrame({"index": range(len(names)), **({"file": files} if files else {}), "class": names})


def evaluate_classifier(
    metrics: Mapping[str, float], predictions: Predictions, pixels: Callable[[Tensor], Tensor]
) -> EvalReport:
    """Return the report of a classifier on a split.

    metrics: those measured already. pixels: from rows to their images, float32 [N, C, H, W] in [0, 1].
    """
    curves = predictions.two_classes
    measured = {"ece": predictions.calibration.error, "brier": float(predictions.brier.mean())}
    measured |= curves.metrics() if curves is not None else {}
    # A metric of the same name that a user registered takes its place.
    metrics = {**metrics, **{name: value for name, value in measured.items() if name not in metrics}}
    return EvalReport(
        metrics,
        OnDemand(
            {
                "metrics": lambda: _with_intervals(metrics, predictions.intervals()),
                "classes": lambda: predictions.per_class,
                "confusion": lambda: predictions.confusion.reset_index(),  # noqa: PLW0108 - computed on demand
                "calibration": predictions.calibration.table,
                "predictions": predictions.table,
                **({"roc": curves.roc, "precision_recall": curves.precision_recall} if curves is not None else {}),
            }
        ),
        OnDemand({"confusion": lambda: confusion_matrix(predictions.confusion)}),
        gallery=partial(gallery_of, predictions, pixels),
    )


def _with_intervals(metrics: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> "pd.DataFrame":
    import pandas as pd

    rows = [(name, value, *intervals.get(name, (math.nan, math.nan))) for name, value in metrics.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])
