"""What an evaluation measures: metrics by class, confusions, calibration, single predictions; and how it is written."""

import math
from collections.abc import Callable, Iterator, Mapping
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

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    LogImage = Callable[[str, "np.ndarray[Any, Any]"], None]

T = TypeVar("T")

Z_95 = 1.959963984540054  # standard deviations: the quantile of a two-sided 95 % interval
BINS = 15  # of calibration, as in Guo et al. 2017
LISTED = 5  # most likely classes in the table of predictions
SHOWN = 24  # images of a gallery
LONGEST = 14  # characters of a class above an image


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
    """The metrics of a split, with tables and figures by name; notes: on the images that were measured."""

    metrics: Mapping[str, float]
    tables: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)
    figures: "Mapping[str, Figure]" = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write(self, folder: Path, log_image: "LogImage" = lambda _name, _pixels: None) -> None:
        """Write metrics as JSON, tables as CSV and figures as PNG into a folder.

        log_image: called with the name and the pixels of each figure, uint8 [H, W, 3].
        """
        make_folder(folder)
        for name, table in self.tables.items():
            write_atomically(folder / f"{name}.csv", csv_of_frame(table))
        for name, figure in self.figures.items():
            log_image(name, figures.save(folder / f"{name}.png", figure))
        write_json(folder / "metrics.json", dict(self.metrics))

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
class Calibration:
    """Predictions by their probability, in intervals of equal width; float64 [BINS] each.

    probability, accuracy: sums over the images of an interval. Source: Guo et al. 2017, arXiv:1706.04599.
    """

    images: Tensor
    probability: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of probability and accuracy, weighted by images."""
        return float((self.probability - self.accuracy).abs().sum() / self.images.sum())

    def table(self) -> "pd.DataFrame":
        """Return a row for each interval that has images: from, to, images, mean probability, accuracy."""
        import pandas as pd

        edges = torch.arange(BINS + 1) / BINS
        columns = {"from": edges[:-1], "to": edges[1:], "images": self.images.long()}
        means = {"probability": self.probability / self.images, "accuracy": self.accuracy / self.images}
        table = pd.DataFrame({name: values.numpy() for name, values in (columns | means).items()})
        return table[table["images"] > 0].reset_index(drop=True)


@dataclass(frozen=True)
class Predictions:
    """The probabilities that a network gives to the images of a split.

    probabilities: float [N, K]. labels: int64 [N]. classes: names by label. files: of the images, where they have any.
    """

    probabilities: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...] | None = None

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
        import numpy as np
        import pandas as pd
        from sklearn.metrics import precision_recall_fscore_support

        labels, predicted = self.labels.numpy(), self.probabilities.argmax(1).numpy()
        likeliest = self.probabilities.topk(min(5, len(self.classes)), dim=1).indices
        in_top5 = (likeliest == self.labels.unsqueeze(1)).any(1).numpy()
        logarithms = self.probabilities.double().clamp_min(1e-38).log()
        losses = functional.nll_loss(logarithms, self.labels, reduction="none").numpy()
        precision, recall, f1, images = precision_recall_fscore_support(
            labels, predicted, labels=range(len(self.classes)), zero_division=np.nan
        )
        masks = [labels == label for label in range(len(self.classes))]
        intervals = [wilson(int((predicted[own] == labels[own]).sum()), int(own.sum())) for own in masks]
        columns = {
            "class": self.classes,
            "images": images,
            "top1": recall,
            "top1_low": [low for low, _ in intervals],
            "top1_high": [high for _, high in intervals],
            "top5": [in_top5[own].mean() if own.any() else math.nan for own in masks],
            "loss": [losses[own].mean() if own.any() else math.nan for own in masks],
        }
        return pd.DataFrame(columns | {"precision": precision, "recall": recall, "f1": f1})

    @cached_property
    def confusion(self) -> "pd.DataFrame":
        """The number of images by class (rows) and predicted class (columns)."""
        import pandas as pd
        from sklearn.metrics import confusion_matrix

        predicted = self.probabilities.argmax(1).numpy()
        counts = confusion_matrix(self.labels.numpy(), predicted, labels=range(len(self.classes)))
        return pd.DataFrame(counts, index=pd.Index(self.classes, name="class"), columns=self.classes)

    def table(self) -> "pd.DataFrame":
        """Return a row per image: its index in the split, file, class, whether the prediction is right, and the five
        most likely classes with their probabilities.
        """
        import pandas as pd

        best = self.probabilities.topk(min(LISTED, len(self.classes)), dim=1)
        table = pd.DataFrame({"index": range(len(self.labels))})
        if self.files is not None:
            table["file"] = self.files
        table["class"] = [self.classes[label] for label in self.labels.tolist()]
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


def evaluate_classifier(
    metrics: Mapping[str, float], predictions: Predictions, pixels: Callable[[Tensor], Tensor]
) -> EvalReport:
    """Return the report of a classifier on a split.

    metrics: those measured already. pixels: from rows to their images, float32 [N, C, H, W] in [0, 1].
    """

    def gallery(rows: Tensor) -> "Figure":
        classes = [figures.plain(name, LONGEST) for name in predictions.classes]
        probabilities, predicted = predictions.probabilities[rows].max(1)
        columns = (rows, predictions.labels[rows], predicted, probabilities)
        captions = [
            f"{row}: {classes[label]}\n→ {classes[prediction]} {probability:.2f}"
            for row, label, prediction, probability in zip(*(column.tolist() for column in columns), strict=True)
        ]
        return figures.image_grid(pixels(rows), captions)

    galleries = {
        "mistakes": predictions.most_confident_mistakes(),
        "doubts": predictions.least_confident_correct(),
    }
    return EvalReport(
        {**metrics, "ece": predictions.calibration.error},
        OnDemand(
            {
                "classes": lambda: predictions.per_class,
                "confusion": lambda: predictions.confusion.reset_index(),  # noqa: PLW0108 - computed on demand
                "calibration": predictions.calibration.table,
                "predictions": predictions.table,
            }
        ),
        OnDemand(
            {
                "classes": lambda: figures.class_bars(predictions.per_class),
                "confusion": lambda: figures.confusion_matrix(predictions.confusion),
                "calibration": lambda: figures.reliability_diagram(predictions.calibration),
                **{name: partial(gallery, rows) for name, rows in galleries.items() if len(rows)},
            }
        ),
    )


def wilson(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a counted share; NaN where nothing was counted.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if not total:
        return math.nan, math.nan
    share, z2 = correct / total, Z_95**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def is_chance(one: float, images: int, other: float, others: int) -> bool:
    """Return whether two shares of that many images differ insignificantly, at the 5 % level: Fisher's exact test.

    It holds for shares near 0 and 1 too, and for few images.
    """
    import numpy as np
    from scipy.special import gammaln

    correct, total = round(one * images), round(one * images) + round(other * others)
    possible = np.arange(max(0, total - others), min(images, total) + 1)  # of the first, if both are of one kind
    ways = [
        gammaln(number + 1) - gammaln(part + 1) - gammaln(number - part + 1)
        for number, part in ((images, possible), (others, total - possible))
    ]
    likelihood = np.exp(sum(ways) - np.max(sum(ways)))
    as_unlikely = likelihood <= likelihood[correct - possible[0]] * (1 + 1e-7)
    return bool(likelihood[as_unlikely].sum() > 0.05 * likelihood.sum())
