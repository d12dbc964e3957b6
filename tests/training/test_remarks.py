"""What works, and is often not what was meant: said before a training, or after it, and kept."""

import dataclasses
import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnbench.data.images import DataSpec, Images
from cnnbench.errors import ConfigError
from cnnbench.tasks.classification import weights_of_classes
from cnnbench.training.remarks import Outcome, Trial, remarks_after, remarks_before
from tests.conftest import TINY, latest, only_run
from tests.support.interruption import read
from tests.support.training import SMALL, prepared

# 65 images to train on, batches of 16: the last one has one image; the last maps of this network have one pixel.
LAST_OF_ONE = (*TINY, "model=resnet18", "model.width=4", "data.image_size=32")


def said(*words: str) -> dict[str, str]:
    """Return what is said of the training of a command before its first step, by what it is on."""
    return {remark.about: remark.text for remark in prepared(*latest((*SMALL, *words))).remarks}


@pytest.mark.parametrize(("momentum", "rate"), [("0.99", "10"), ("0.95", "2")])
def test_momentum_that_makes_the_learning_rate_much_higher(momentum, rate):
    text = f"with momentum {momentum}, the effective learning rate is lr / (1 - momentum) = {rate}"
    assert said("optimizer.lr=0.1", f"optimizer.momentum={momentum}")["optimizer.momentum"] == text
    assert "optimizer.momentum" not in said("optimizer.lr=0.1", "optimizer.momentum=0.9")


# Batch norm over a single value per channel ---------------------------------------------------------------------------


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        prepared(*latest(words))
    (mistake,) = caught.value.mistakes
    return f"{mistake.given} {mistake.problem}"


def test_a_last_batch_of_one_image_is_refused_where_the_last_maps_have_one_pixel():
    problem = "makes a batch of one of 65 images, too few for batch norm; change it by one"
    assert refusal(*LAST_OF_ONE) == f"batch_size=16 {problem}"
    assert prepared(*latest((*LAST_OF_ONE, "batch_size=15")))
    assert prepared(*latest((*LAST_OF_ONE, "data.image_size=64")))  # maps of 2x2


def test_the_command_refuses_it_before_anything_is_written(cnnbench, outputs):
    ended = cnnbench(*latest(LAST_OF_ONE))
    assert ended.code == 2
    assert "batch_size=16  makes a batch of one of 65 images, too few for batch norm" in ended.err
    assert not outputs.exists()


def test_parts_of_one_image_are_refused_too():
    words = (*SMALL, "model=resnet18", "model.width=4", "data.image_size=32", "accumulate=8")
    assert refusal(*words).startswith("accumulate=8 makes parts of one image, too few for batch norm")


def test_batch_norms_that_are_frozen_take_no_statistics():
    assert prepared(*latest((*LAST_OF_ONE, "freeze.what=all_but_head")))
    assert "batch of one" in refusal(*LAST_OF_ONE, "freeze.what=all_but_head", "freeze.epochs=1")


def test_a_group_of_images_is_no_batch_of_one_but_for_averages_that_measure_single_images():
    words = (*TINY, "model=resnet18", "model.width=4", "data.image_size=32", "task=triplet")
    assert prepared(*latest(words))
    averaged = ("regularization.average.kind=swa",)
    assert "batch of one" in refusal(*words, *averaged)


# Networks -------------------------------------------------------------------------------------------------------------


class Ending(nn.Module):
    """A linear classifier, and what it does with its scores."""

    def __init__(self, end: Any, outputs: int = 3) -> None:
        super().__init__()
        self.layer, self.end = nn.Linear(256, outputs), end

    def forward(self, images: Tensor) -> Tensor:
        return self.end(self.layer(images.flatten(1)))


def said_of(network: nn.Module, *words: str) -> list[str]:
    training = prepared(*latest((*SMALL, *words)))
    remarks = remarks_before(Trial(training.config, training.task, training.data, network))
    return [remark.text for remark in remarks if remark.about == "model"]


@pytest.mark.parametrize(
    ("end", "outputs", "name"),
    [
        (nn.Softmax(1), 3, "softmax"), (nn.Sigmoid(), 3, "sigmoid"), (torch.sigmoid, 1, "sigmoid"),
    ],
)  # fmt: skip
def test_a_network_that_ends_in_probabilities(end, outputs, name):
    words = ["data.num_classes=2", "task.loss=binary"] if outputs == 1 else []
    text = f"the network ends in a {name}; the loss applies its own: leave it out, or learning is slow"
    assert said_of(Ending(end, outputs), *words) == [text]


@pytest.mark.parametrize("end", [nn.Identity(), nn.LogSoftmax(1), nn.ReLU(), nn.LayerNorm(3), nn.Tanh()], ids=str)
def test_a_network_that_ends_in_scores(end):
    network = Ending(end)
    before = [weight.clone() for weight in network.parameters()]
    assert said_of(network) == []
    assert all(map(torch.equal, before, network.parameters()))


def test_outputs_of_another_task_may_be_between_0_and_1():
    assert said("task=autoencoder", "model=conv_encoder") == {}


def test_a_network_that_drops_out_in_evaluation():
    (text,) = said_of(Ending(lambda scores: nn.functional.dropout(scores, 0.5)))
    assert "the network measures the same images differently each time" in text
    network = Ending(nn.Dropout())
    assert said_of(network) == []
    network.eval = lambda: network
    network.train()
    assert len(said_of(network)) == 1


def test_what_is_tried_changes_no_random_number():
    training, network = prepared(*SMALL), Ending(nn.functional.dropout)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    remarks_before(Trial(training.config, training.task, training.data, network))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("model", ["mlp", "lenet_v2", "minialexnet_v3", "resnet20_cifar", "googlenet_cifar"])
def test_nothing_is_said_of_ordinary_networks(model):
    assert "model" not in said(f"model={model}", "data.image_size=32", "optimizer.momentum=0.9")


# Settings -------------------------------------------------------------------------------------------------------------


def test_published_statistics_without_published_weights():
    words = ("data.channels=3", "data.statistics=imagenet")
    assert "normalised as for published weights, and none are loaded" in said(*words)["data.statistics"]
    assert "data.statistics" not in said("data.channels=3")


def test_sampling_and_weights_that_make_up_for_the_same_imbalance():
    both = ("data.sampling=balanced", "task.class_weights=balanced")
    assert said(*both)["task.class_weights"].startswith("classes are weighted twice")
    assert said("data.sampling=[1,1,5]", "task.class_weights=[1.0,1.0,5.0]").keys() == {"task.class_weights"}
    assert all(said(word) == {} for word in both)


@pytest.mark.parametrize("name", ["rotation", "affine"])
def test_digits_that_are_rotated_upside_down(name):
    words = tuple(word for word in SMALL if not word.startswith("data"))
    key = f"augmentation.{name}"
    by_degrees = {
        degrees: {remark.about: remark.text for remark in prepared(*words, "data=digits", *rotated).remarks}
        for degrees in (180, 90)
        for rotated in [(f"augmentation={name}", f"{key}.degrees={degrees}")]
    }
    text = "rotates images by up to 180 degrees: upside down, an image of 'digits' can show another class"
    assert by_degrees[180][key].startswith(text)
    assert by_degrees[90] == {}
    assert said(f"augmentation={name}", f"{key}.degrees=180") == {}  # of patterns that may turn


def test_balanced_weights_leave_out_a_class_without_images():
    spec = DataSpec(1, 8, 8, ("a", "b", "c"), (30, 0, 10))
    weights = weights_of_classes("balanced", spec)
    assert weights.tolist() == pytest.approx([40 / 60, 0.0, 40 / 20])


def test_a_class_without_training_images_is_said_and_ends_no_training(cnnbench, outputs):
    words = (
        "data=digits", "data.subset.first=8", "data.val_fraction=0", "batch_size=4", "epochs=1", "device=cpu",
        "threads=1", "model=mlp", "task.class_weights=balanced",
    )  # fmt: skip
    ended = cnnbench(*words)
    assert ended.code == 0, ended.err
    assert "loss nan" not in ended.out
    counts = prepared(*words).data.spec.counts
    empty = ", ".join(f"'{number}'" for number, count in enumerate(counts) if not count)
    text = (
        f"classes {empty} have no training image, and cannot be learnt; "
        "task.class_weights=balanced gives weights to the others"
    )
    run = only_run(outputs)
    assert f"  note: {text}\n" in ended.out
    assert f"  note        {text}\n" in ended.out
    assert {"about": "data", "text": text} in read(run / "result.json")["remarks"]
    assert {"about": "data", "text": text} in read(run / "run.json")["remarks"]
    assert f"- {text}" in (run / "report.md").read_text()


# Results --------------------------------------------------------------------------------------------------------------


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
        "test loss 1.2 is above 1.099, that of the same probability for every class"
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
    unmeasured = rows(losses, accuracy_val=[0.8, None, 0.9, None], loss_val=[0.4, None, 0.3, None])
    assert said_after(unmeasured, epoch=3, loss=0.5) == []


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


def test_remarks_are_the_same_however_often_they_are_asked_for():
    training = prepared(*SMALL)
    again = prepared(*SMALL)
    assert training.remarks == again.remarks
    assert all(dataclasses.asdict(remark).keys() == {"about", "text"} for remark in training.remarks)
