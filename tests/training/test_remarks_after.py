"""What is said of a training when it is over: results that are chance, worse than chance, or not what they seem."""

import dataclasses
import math
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cnnbench.data.images import Images
from cnnbench.training.remarks_after import Outcome, remarks_after
from tests.conftest import latest, only_run
from tests.support.interruption import read
from tests.support.training import SMALL, prepared

pytestmark = pytest.mark.usefixtures("undrawn")


def rows(losses: Sequence[float], **columns: Sequence[float | None]) -> list[dict[str, Any]]:
    """Return rows of epochs, and the row of the first step, whose loss is the first one."""
    epochs = [
        {"row": "epoch", "epoch": epoch, "step": 5 * epoch, "loss/train": loss}
        | {name.replace("_", "/"): values[epoch - 1] for name, values in columns.items()}
        for epoch, loss in enumerate(losses[1:], start=1)
    ]
    return [{"row": "step", "epoch": 1, "step": 1, "loss/train": losses[0]}, *epochs]


def said_after(
    measured: Sequence[dict[str, Any]], kind: str = "best", epoch: int = 1, **metrics: float | None
) -> list[str]:
    training = prepared(*SMALL)
    checkpoint = {"kind": kind, "epoch": epoch}
    outcome = Outcome(training.task, training.data, metrics, checkpoint, tuple(measured))
    return [remark.text for remark in remarks_after(outcome)]


LEARNT = rows([1.1, 0.9, 0.3])


def test_a_classifier_at_chance_level():
    counts = torch.bincount(prepared(*SMALL).data.test.labels)
    share = int(counts.max()) / 20
    constant = f"always answering 'pattern {int(counts.argmax())}' gives {share:.4f}"
    text = f"test accuracy {share:.4f} is at chance level: {constant}"
    assert said_after(LEARNT, loss=1.0, accuracy=share) == [text]
    below = f"test accuracy 0.0000 is below chance, {1 / 3:.4f}: {constant}"
    assert said_after(LEARNT, loss=1.0, accuracy=0.0) == [below]
    above = share + 1 / 20
    (remark,) = said_after(LEARNT, loss=1.0, accuracy=above)
    assert remark == f"test accuracy {above:.4f} may be chance, 20 images cannot show more: {constant}"
    assert said_after(LEARNT, loss=1.0, accuracy=0.9) == []
    assert said_after(LEARNT, loss=1.0, accuracy=math.nan) == said_after(LEARNT, loss=1.0) == []


def test_chance_is_the_most_frequent_class_of_the_test_images():
    training = prepared(*SMALL)
    unequal = Images(training.data.test.pixels, torch.tensor([0] * 15 + [1] * 5))
    data = dataclasses.replace(training.data, test=unequal)
    outcome = Outcome(training.task, data, {"accuracy": 0.75}, {"kind": "last"}, ())
    (remark,) = remarks_after(outcome)
    assert remark.text.endswith("always answering 'pattern 0' gives 0.7500")


def test_probabilities_that_are_worse_than_equal_ones():
    assert said_after(LEARNT, loss=1.2, accuracy=1.0) == [
        "test loss 1.2000 is above 1.0986, that of the same probability for every class"
    ]
    assert said_after(LEARNT, loss=1.09864, accuracy=1.0) == [
        "test loss 1.0986 is that of the same probability for every class"
    ]


def test_a_loss_that_grew_without_end_is_no_success():
    diverged = "and began at 1.1: the training diverged; try a smaller optimizer.lr"
    assert said_after(rows([1.1, 3e9, 5e20]), loss=0.5) == [f"the training loss ended at 5e+20, {diverged}"]
    assert f"the test loss ended at 5e+20, {diverged}" in said_after(LEARNT, loss=5e20)
    assert said_after(rows([1.1, 8.0, 0.5]), loss=0.5) == []  # it recovered
    assert said_after([], loss=0.5) == []


def test_a_loss_below_zero():
    (text,) = said_after(rows([0.3, -1.5, -0.5], loss_val=[0.1, 0.2]), loss=0.5)
    assert text.startswith("the loss falls below zero, to -1.5 in epoch 1: no cross entropy and no error does")
    (text,) = said_after(LEARNT, epoch=2, loss=-3.0)
    assert "to -3 in epoch 2" in text


def test_a_metric_that_ends_as_no_number_is_said_with_the_epoch_from_which_on():
    measured = rows([1.1, 0.9, 0.3, 0.2], accuracy_val=[None, 0.9, None], loss_val=[None] * 3)
    meaning = "look at what computes it, as for a division by 0"
    assert said_after(measured, kind="last", loss=0.5) == [
        "validation loss is no finite number since epoch 1: nothing was chosen by it; " + meaning,
        "validation accuracy is no finite number since epoch 3: no epoch since then can be the best; " + meaning,
    ]
    together = rows([1.1, math.nan], accuracy_val=[None], loss_val=[None])
    (remark,) = said_after(together, kind="last", loss=0.5)
    assert remark.startswith("validation accuracy and loss are no finite number since epoch 1: no epoch since then")


def test_what_decided_between_equally_good_evaluations():
    tied = {"accuracy_val": [0.8, 0.9, 0.9, 0.9]}
    losses = [1.1, 0.9, 0.8, 0.7, 0.6]
    reached = "3 evaluations have accuracy 0.9000"
    by_loss = rows(losses, **tied, loss_val=[0.5, 0.3, 0.2, 0.2])
    assert said_after(by_loss, epoch=3, loss=0.5) == [f"{reached}; the loss decided for epoch 3"]
    first = rows(losses, **tied, loss_val=[0.5, 0.2, 0.2, 0.2])
    assert said_after(first, epoch=2, loss=0.5) == [f"{reached}; the first was taken"]
    assert said_after(by_loss, kind="last", epoch=4, loss=0.5) == []
    assert said_after(rows(losses, accuracy_val=[0.8, 0.9, 0.7, 0.6]), epoch=2, loss=0.5) == []
    unmeasured = rows(losses, accuracy_val=[None, 0.8, None, 0.9], loss_val=[None, 0.4, None, 0.3])
    assert said_after(unmeasured, epoch=4, loss=0.5) == []


NEGATIVE = """
import torch
from cnnbench.registry import TASKS
from cnnbench.tasks.classification import Classification

@TASKS.register("negative")
class Negative(Classification):
    \"\"\"Minus the mean score.\"\"\"
    def __init__(self, spec): super().__init__(spec)
    def train_step(self, network, batch):
        loss, sums = super().train_step(network, batch)
        return loss - 5, sums - torch.tensor([5.0 * len(batch), 0.0])
"""


def test_of_a_negative_loss_no_page_says_whether_it_overfits(cnnbench, outputs, tmp_path):
    (tmp_path / "negative.py").write_text(NEGATIVE)
    words = [word for word in SMALL if not word.startswith(("task", "report"))]
    ended = cnnbench(*words, f"plugins={tmp_path / 'negative.py'}", "task=negative", "report=true")
    assert ended.code == 0, ended.err
    text = "  note        the loss falls below zero, to -"
    assert text in ended.out
    run = only_run(outputs)
    page = (run / "report.md").read_text()
    assert "- the loss falls below zero: nothing is said of overfitting" in page
    assert "does not overfit" not in page
    assert [remark["about"] for remark in read(run / "result.json")["remarks"]].count("task") == 1
    assert text in cnnbench(*words, f"plugins={tmp_path / 'negative.py'}", "task=negative", "report=true").out


def test_a_validation_without_any_number_is_shown_and_explained_everywhere(cnnbench, outputs, tmp_path):
    lines = NEGATIVE[: NEGATIVE.index("    def train_step")].replace("negative", "undefined")
    lines += "    def eval_step(self, network, batch): return super().eval_step(network, batch) * float('nan')\n"
    (tmp_path / "undefined.py").write_text(lines)
    words = [word for word in SMALL if not word.startswith(("task", "report"))]
    typed = (*words, f"plugins={tmp_path / 'undefined.py'}", "task=undefined", "report=true")
    remark = "validation loss and accuracy are no finite number since epoch 1: no epoch since then can be the best"
    for ended in (cnnbench(*typed), cnnbench(*typed)):  # and where its result is shown again
        assert ended.code == 0, ended.err
        assert f"  note        {remark}" in ended.out
        assert re.search(r"\n  val +nan +nan +\d+\n", ended.out)
    run = only_run(outputs)
    assert read(run / "result.json")["val"]["loss"] is None
    page = (run / "report.md").read_text()
    assert f"- {remark}" in page
    assert "| loss | nan | nan | 0." in page
    assert "no validation:" not in page


def test_a_loss_without_a_lower_bound_that_diverges_is_not_blamed_on_the_learning_rate(cnnbench, tmp_path):
    unbounded = NEGATIVE.replace("loss - 5, sums - torch.tensor([5.0 * len(batch), 0.0])", "-(loss**3), -sums")
    (tmp_path / "negative.py").write_text(unbounded)
    words = [word for word in SMALL if not word.startswith("task")]
    ended = cnnbench(*words, f"plugins={tmp_path / 'negative.py'}", "task=negative", "optimizer.lr=10")
    assert ended.code == 1
    assert "Its loss fell below zero before: one without a lower bound diverges at any learning rate." in ended.err
    assert "Try a smaller" not in ended.err


def test_a_run_that_learnt_nothing_says_so_everywhere(cnnbench, outputs):
    ended = cnnbench(*latest((*SMALL, "optimizer.lr=1e-9", "report=true")))
    run = only_run(outputs)
    remarks = {remark["about"]: remark["text"] for remark in read(run / "result.json")["remarks"]}
    assert "is at chance level" in remarks["result"]
    assert remarks["result"] in ended.out
    assert remarks["result"] in (run / "report.md").read_text()


def test_a_large_number_is_printed_by_its_power_of_ten(capsys, monkeypatch):
    from cnnbench.analysis.reports.page import _shown
    from cnnbench.training.console import summary

    folder = SimpleNamespace(shown_path="run")
    result = {
        "test": {"loss": 5e20, "accuracy": 0.1, "samples": 20}, "checkpoint": {"epoch": 1, "step": 5, "chosen": "last"},
        "seconds": {"train": 1.0, "total": 2.0}, "images_per_second": 10.0, "epochs": 1,
    }  # fmt: skip
    summary(result, folder)
    assert f"  test      {'5e+20':>12}{'0.1000':>12}{20:>12}\n" in capsys.readouterr().out
    assert [_shown(value) for value in (5e20, 0.5, 12345.5, 1e6)] == ["5e+20", "0.5000", "12345.5000", "1 000 000"]
