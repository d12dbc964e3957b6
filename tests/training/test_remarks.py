"""What works, and is often not what was meant: said before a training, and kept."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError
from cnnbench.tasks.classification import weights_of_classes
from cnnbench.training.remarks import Trial, remarks_before
from tests.conftest import TINY, latest, only_run
from tests.support.interruption import read
from tests.support.training import SMALL, prepared

pytestmark = pytest.mark.usefixtures("undrawn")

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


def test_remarks_are_the_same_however_often_they_are_asked_for():
    training = prepared(*SMALL)
    again = prepared(*SMALL)
    assert training.remarks == again.remarks
    assert all(dataclasses.asdict(remark).keys() == {"about", "text"} for remark in training.remarks)
