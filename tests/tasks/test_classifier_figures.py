"""Figures and grids of classifiers: hostile names, many classes, and what their colours stand for."""

import pandas as pd
import pytest
import torch

from cnnbench.analysis.reports import evaluated
from cnnbench.analysis.reports.page import Page
from cnnbench.tasks import classifier_figures
from cnnbench.tasks.evaluation import Predictions
from tests.tasks.test_evaluation import CASES


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("hostile", [False, True])
def test_every_case_can_be_drawn_also_with_hostile_names(case, hostile, tmp_path):
    probabilities, labels, classes = CASES[case]
    if hostile:
        names = ("<script>", "a\nb", "$\\frac{", "x" * 300, "", "&amp;", "'", '"')
        classes = names[: len(classes)]
    predictions = Predictions(probabilities, labels, classes)
    figure = classifier_figures.confusion_matrix(predictions.confusion)
    figure.savefig(tmp_path / "matrix.png", dpi=40)
    sections = [
        evaluated.class_strips(predictions.per_class),
        evaluated.confusions(predictions.confusion),
        evaluated.reliability(predictions.calibration.table()),
    ]
    text = Page("title", "", sections).html(tmp_path)
    assert text.count("<script") == 1
    assert "nan" not in text.partition("<main>")[2].partition("</main>")[0]


def test_of_many_classes_the_most_confused_are_drawn_by_name():
    labels = torch.arange(200)
    probabilities = torch.eye(200) * 0.9 + 0.1 / 200
    probabilities[[150, 7]] = probabilities[[7, 150]]
    predictions = Predictions(probabilities, labels, tuple(map(str, range(200))))
    figure = classifier_figures.confusion_matrix(predictions.confusion)
    assert max(figure.get_size_inches()) < 13
    drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    listed = [row.label for row in evaluated.class_strips(predictions.per_class).rows]
    for names in (drawn, listed, evaluated.confusions(predictions.confusion).columns):
        assert len(names) == 25
        assert {"7", "150"} <= set(names)


def test_the_colours_of_a_confusion_matrix_are_of_the_mistakes_and_its_numbers_of_all():
    counts = pd.DataFrame([[96, 4], [1, 99]], index=["cat", "dog"], columns=["cat", "dog"])
    axis = classifier_figures.confusion_matrix(counts).axes[0]
    assert [text.get_text() for text in axis.texts] == ["96", "4", "1", "99"]
    assert axis.images[0].get_array().tolist() == [[0, 0.04], [0.01, 0]]
    assert "4 %" in axis.get_title(loc="left")
    grid = evaluated.confusions(counts)
    assert [cells for _, cells in grid.rows] == [[(-1, "96", ""), (1, "4", "")], [(0.33, "1", ""), (-1, "99", "")]]
    assert "4 %" in grid.note
