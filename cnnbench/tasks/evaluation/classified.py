"""All that the answers of a classifier to a split tell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor

from cnnbench.tasks.captions import plain
from cnnbench.tasks.evaluation.calibration import Calibration, calibration
from cnnbench.tasks.evaluation.findings import EvalReport

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN = 24  # images of a gallery
LONGEST = 14  # letters of a name over one of them


@dataclass(frozen=True)
class Answers:
    """What a network gives to the images of a split.

    probabilities: float [N, K]. labels: int64 [N]. classes: names by label. files: of the images, where they have any.
    """

    probabilities: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    files: tuple[str, ...] | None = None

    @cached_property
    def calibration(self) -> Calibration:
        """Return whether the network is right as often as it believes."""
        return calibration(self.probabilities, self.labels)

    # With scikit-learn and pandas, more than a second: not before it is asked for.

    @cached_property
    def of_classes(self) -> "pd.DataFrame":
        """Return figures by class."""
        from cnnbench.tasks.evaluation.classes import by_class

        return by_class(self.probabilities, self.labels, self.classes)

    @cached_property
    def confusions(self) -> "pd.DataFrame":
        """Return how often which class was taken for which."""
        from cnnbench.tasks.evaluation.classes import confusion

        return confusion(self.probabilities, self.labels, self.classes)

    def predictions(self) -> "pd.DataFrame":
        """Return a row an image."""
        from cnnbench.tasks.evaluation.predictions import predictions

        return predictions(self.probabilities, self.labels, self.classes, self.files)

    def most_certain_mistakes(self) -> Tensor:
        """Return the rows of the wrong answers, the most certain first, int64 [≤ 24]."""
        return self._picked(is_right=False, largest=True)

    def least_certain_hits(self) -> Tensor:
        """Return the rows of the right answers, the least certain first, int64 [≤ 24]."""
        return self._picked(is_right=True, largest=False)

    def _picked(self, is_right: bool, largest: bool) -> Tensor:
        beliefs, answers = self.probabilities.max(1)
        rows = ((answers == self.labels) == is_right).nonzero()[:, 0]
        return rows[beliefs[rows].argsort(descending=largest, stable=True)[:SHOWN]]


def evaluate_classifier(
    metrics: Mapping[str, float], answers: Answers, pixels: Callable[[Tensor], Tensor]
) -> EvalReport:
    """Return what is found out about a classifier.

    metrics: measured already. pixels: images of rows as they can be looked at, float32 [N, C, H, W] in [0, 1].
    """

    def drawings() -> ModuleType:
        from cnnbench.tasks.evaluation import drawings  # with matplotlib: not before there is something to draw

        return drawings

    def gallery(rows: Tensor) -> "Figure":
        beliefs, found = (values.tolist() for values in answers.probabilities[rows].max(1))
        classes = [plain(name, LONGEST) for name in answers.classes]
        titles = [
            f"{row}: {classes[label]}\n→ {classes[answer]} {belief:.2f}"
            for row, label, answer, belief in zip(
                rows.tolist(), answers.labels[rows].tolist(), found, beliefs, strict=True
            )
        ]
        drawn: Figure = drawings().gallery(pixels(rows), titles)
        return drawn

    galleries = {"mistakes": answers.most_certain_mistakes(), "doubts": answers.least_certain_hits()}
    return EvalReport(
        {**metrics, "ece": answers.calibration.error},
        {
            "classes": lambda: answers.of_classes,
            "confusion": lambda: answers.confusions.reset_index(),  # noqa: PLW0108 - counted when it is asked for
            "calibration": answers.calibration.table,
            "predictions": answers.predictions,
        },
        {
            "classes": lambda: drawings().bars(answers.of_classes),
            "confusion": lambda: drawings().matrix(answers.confusions),
            "calibration": lambda: drawings().reliability(answers.calibration),
            **{name: partial(gallery, rows) for name, rows in galleries.items() if len(rows)},
        },
    )
