"""What a network has learnt is drawn as it is: maps, kernels, what speaks for a class, features, looks."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torch.nn import functional

from cnnbench.answers import from_split
from cnnbench.errors import UserError
from cnnbench.explain_command import main
from cnnbench.explanation import activations, features, sheets
from cnnbench.explanation.activations import convolutions, maps_of, maps_of_layer, spread
from cnnbench.explanation.attribution import gradcam, last_with_maps, saliency
from cnnbench.explanation.features import features_of, inputs_of, what_the_last_layer_sees
from cnnbench.explanation.kernels import first_kernels
from cnnbench.explanation.looks import NUM_LOOKS, looks_at_first
from cnnbench.explanation.pictures import Request, pictures
from cnnbench.explanation.subject import NotPossible, Subject, plain, subject_of
from cnnbench.run import Run, load_run
from tests.conftest import ended
from tests.interruption import fingerprints, finished
from tests.photographs import write_classes
from tests.test_tasks import words_of
from tests.training import SMALL, prepared

ONCE = (*SMALL, "epochs=1", "data.num_test=40")
COLOUR = (
    *ONCE, "model=lenet_v2", "model.maps=[4,6]", "model.units=[12]", "data.channels=3", "data.image_size=20",
    "data.crop=16", "augmentation=crop_flip_jitter",
)  # fmt: skip
NETWORKS = {
    "lenet": ("model=lenet", "model.maps=[4,6]", "model.units=[12]"),
    "mlp": ("model=mlp", "model.units=[12]"),
    "resnet": ("model=resnet20_cifar", "model.width=4"),
    "encoder": ("model=embedding_net", "model.maps=[4,6]", "model.units=[12]", "model.dimensions=5"),
}
TASKS = {
    "classification": (),
    "classification by one output": ("task.loss=binary", "data.num_classes=2"),
    "autoencoder": ("task=autoencoder",),
    "siamese": ("task=siamese",),
    "triplet": ("task=triplet",),
}


@pytest.fixture(scope="module", autouse=True)
def needs_captum():
    pytest.importorskip("captum")


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory) -> Path:
    return finished(COLOUR, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished_once, tmp_path) -> Path:
    return Path(shutil.copytree(finished_once, tmp_path / "run"))


@pytest.fixture
def subject(finished_once) -> Subject:
    return subject_of(load_run(finished_once), "best", [], "test", "0,3,5")[0]


@pytest.fixture
def explain(capsys):
    return lambda *words: ended(main, [str(word) for word in words], capsys)


def of(network: nn.Module, images: torch.Tensor) -> SimpleNamespace:
    """Return what stands for a subject where only its network is looked at."""
    return SimpleNamespace(network=network.eval(), images=images)


def untrained(*words: str) -> Subject:
    """Return two images and a network as it begins, without a folder of a run."""
    parts, ready = prepared(*SMALL, *words)
    record = {"data": {"mean": ready.data.mean, "std": ready.data.std, "classes": ready.data.spec.classes}}
    run = Run(SimpleNamespace(record=lambda: record), parts.config)
    vars(run).update(ready=ready, spec=ready.data.spec)  # in place of what it would read
    asked = from_split(SimpleNamespace(run=run, classes=run.classes), "test", "0,1")
    return Subject(run, "last", parts.network.eval(), torch.device("cpu"), asked, "test")


# Maps -----------------------------------------------------------------------------------------------------------------


def test_the_network_sees_the_window_normalised(subject):
    data = subject.run.data("test").take(torch.tensor([0, 3, 5]))[:, :, 2:18, 2:18] / 255
    mean, std = (torch.tensor(subject.run.record["data"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(subject.images, (data - mean) / std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(subject.pixels(subject.images), data, rtol=1e-4, atol=1e-5)


def test_maps_are_what_the_layer_computes(subject):
    features, image = subject.network.features, subject.images[1:2]
    conv, after = maps_of(subject.network, image, ["features.conv1", "features.relu1"])
    expected = functional.conv2d(image, features.conv1.weight, features.conv1.bias)[0]
    torch.testing.assert_close(conv.values, expected)
    torch.testing.assert_close(after.values, functional.max_pool2d(expected, 2).relu())
    assert (conv.size, conv.uses) == ("4 maps of 12x12", 1)
    torch.testing.assert_close(maps_of_layer(subject, "features.conv1", 1).values, expected)
    assert [maps.layer for maps in maps_of(subject.network, image, ["head.linear"])] == []


def test_maps_are_not_changed_by_what_computes_in_place(subject):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))
    (maps,) = maps_of(network, subject.images[:1], ["0"])
    torch.testing.assert_close(maps.values, network[0](subject.images[:1])[0])
    assert (maps.values < 0).any()


def test_of_a_layer_that_is_used_again_the_last_maps_are_told(subject):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 1)
    network = nn.Sequential(conv, nn.Tanh(), conv)
    (maps,) = maps_of(network, subject.images[:1], ["0"])
    assert maps.uses == 2
    torch.testing.assert_close(maps.values, network(subject.images[:1])[0])


def test_eight_layers_are_spread_from_the_first_to_the_last():
    names = [str(number) for number in range(20)]
    assert spread(names[:8]) == names[:8]
    assert spread(names) == ["0", "3", "5", "8", "11", "14", "16", "19"]


def test_maps_are_drawn_on_one_scale_each_in_its_place():
    maps = torch.randn(7, 5, 6, generator=torch.Generator().manual_seed(0))
    figure = sheets.maps_sheet(maps, torch.zeros(1, 5, 6), "title")
    (drawn,) = figure.axes[1].images
    assert drawn.get_clim() == pytest.approx((-float(maps.abs().max()), float(maps.abs().max())))
    assert figure.get_suptitle() == "title; all on one scale"
    columns = len(figure.axes[1].get_xticks())
    for number, one in enumerate(maps):
        torch.testing.assert_close(tile_of(drawn, number, columns, one.shape), one)
    labels = [int(label.get_text()) for label in figure.axes[1].get_yticklabels()]
    assert labels == list(range(0, 7, columns))
    assert sheets.maps_sheet(maps.relu(), torch.zeros(1, 5, 6), "").axes[1].images[0].get_clim()[0] == 0


def tile_of(drawn, number: int, columns: int, size) -> torch.Tensor:
    """Return the values that are drawn as a tile, one for each square."""
    height, width = size[:2]
    times = -(-sheets.TILE // max(height, width))
    gap = sheets.TILE // 12
    down, right = number // columns * (height * times + gap), number % columns * (width * times + gap)
    page = np.asarray(drawn.get_array().filled(np.nan), dtype=np.float32)
    return torch.from_numpy(page[down : down + height * times : times, right : right + width * times : times])


@pytest.mark.parametrize(
    ("number", "columns"), [(1, 1), (2, 2), (3, 3), (6, 3), (16, 4), (64, 8), (120, 12), (256, 16)]
)
def test_grids_leave_few_places_empty(number, columns):
    assert sheets.columns_for(number) == columns


# Kernels --------------------------------------------------------------------------------------------------------------


def test_kernels_of_colour_images_are_in_colour_and_gray_is_zero(subject):
    found = first_kernels(subject)
    weight = subject.network.features.conv1.weight.detach()
    assert (found.layer, found.size, found.in_colour) == ("features.conv1", "4 kernels of 3x5x5", True)
    assert torch.equal(found.weights, weight)
    figure = sheets.kernels_sheet(found.weights, "title")
    (drawn,) = figure.axes[0].images
    reach = float(weight.abs().max())
    assert figure.get_suptitle() == f"title; gray is zero, full colour ±{reach:.2g}"
    columns = len(figure.axes[0].get_xticks())
    for number, kernel in enumerate(weight):
        shown = tile_of(drawn, number, columns, (5, 5))
        torch.testing.assert_close(shown, kernel.permute(1, 2, 0) / reach / 2 + 0.5)


def test_kernels_of_gray_images_have_zero_in_the_middle_of_their_scale():
    weights = torch.randn(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    (drawn,) = sheets.kernels_sheet(weights, "").axes[0].images
    assert drawn.get_clim() == pytest.approx((-float(weights.abs().max()), float(weights.abs().max())))
    for number, kernel in enumerate(weights):
        torch.testing.assert_close(tile_of(drawn, number, 3, (3, 3)), kernel[0])


def test_dense_weights_that_see_pixels_have_the_form_of_the_image():
    subject = untrained(*NETWORKS["mlp"], "data.channels=3")
    found = first_kernels(subject)
    assert found.size == "12 units of 3x16x16"
    linear = subject.network.dense.linear1
    expected = linear(subject.images.flatten(1))[0] - linear.bias
    torch.testing.assert_close((found.weights * subject.images[0]).sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_begins_otherwise_has_no_kernels(subject):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(NotPossible, match="have the form of images"):
        first_kernels(of(network, subject.images))
    network = nn.Sequential(nn.Linear(16, 16), nn.Flatten(), nn.Linear(768, 3))  # along rows only
    with pytest.raises(NotPossible, match="have the form of images"):
        first_kernels(of(network, subject.images))


# Where a network sees a class -----------------------------------------------------------------------------------------


def cam(layer_gives, then, image: torch.Tensor, label: int) -> torch.Tensor:
    """Return Grad-CAM as it is written: ReLU of the maps, each weighted by the mean gradient of the score."""
    maps = layer_gives(image).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(then(maps)[0, label], maps)
    found = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    return functional.interpolate(found, image.shape[2:], mode="bilinear")[0, 0].detach()


def test_gradcam_is_the_weighted_sum_of_maps(subject):
    labels = torch.tensor([0, 2, 1])
    network = subject.network
    assert last_with_maps(subject) == "features.conv2"
    found = gradcam(subject.score, network.features.conv2, subject.images, labels)
    before = network.features[: list(dict(network.features.named_children())).index("conv2") + 1]
    after = network.features[len(before) :]
    assert found.shape == (3, 16, 16)
    for one, image, label in zip(found, subject.images.split(1), labels.tolist(), strict=True):
        expected = cam(before, lambda maps: network.head(network.dense(after(maps).flatten(1))), image, label)
        torch.testing.assert_close(one, expected)
    assert (found > 0).any()


@pytest.mark.parametrize("in_place", [False, True])
def test_what_computes_in_place_changes_no_attribution(in_place, subject):
    torch.manual_seed(0)
    relu = nn.ReLU(inplace=in_place)
    network = nn.Sequential(relu, nn.Conv2d(3, 4, 3), nn.ReLU(inplace=in_place), nn.Flatten(), nn.Linear(784, 3)).eval()
    other, image, labels = replace(subject, network=network), subject.images[:1], torch.tensor([1])
    before = image.clone()
    first, second, third = network[1], network[3], network[4]
    expected = cam(lambda image: first(image.relu()), lambda maps: third(second(maps.relu())), image, 1)
    torch.testing.assert_close(gradcam(other.score, first, image, labels)[0], expected)
    wanted = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(third(second(first(wanted.relu()).relu()))[0, 1], wanted)
    torch.testing.assert_close(saliency(other.score, image, labels)[0], gradient.abs().amax(1)[0])
    assert torch.equal(image, before)


def test_saliency_is_the_largest_gradient_of_the_channels(subject):
    labels = torch.tensor([2, 0, 1])
    found = saliency(subject.score, subject.images, labels)
    for one, image, label in zip(found, subject.images.split(1), labels.tolist(), strict=True):
        wanted = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(subject.network(wanted)[0, label], wanted)
        torch.testing.assert_close(one, gradient.abs().amax(1)[0])


def test_one_output_speaks_for_the_one_class_as_it_does_against_the_other():
    subject = untrained(*NETWORKS["lenet"], *TASKS["classification by one output"])
    zero, one = (saliency(subject.score, subject.images, torch.tensor([label, label])) for label in (0, 1))
    wanted = subject.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(subject.network(wanted).sum(), wanted)
    torch.testing.assert_close(one, gradient.abs().amax(1))
    torch.testing.assert_close(zero, one)
    torch.testing.assert_close(subject.probabilities[:, 1], subject.network(subject.images)[:, 0].sigmoid())


def test_what_speaks_for_a_class_glows_over_the_image_on_a_scale_of_its_own():
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    shares = torch.zeros(2, 6, 5)
    shares[1, 2, 3], shares[1, 4, 4] = 0.02, 0.01
    figure = sheets.pairs_sheet(images, shares, ["one", "other"], "title", True)
    first, second = (np.asarray(figure.axes[place].images[0].get_array()) for place in (1, 3))
    gray = sheets.DIMMED * images.mean(1).numpy()
    assert first == pytest.approx(gray[0, ..., None].repeat(3, axis=2), abs=1e-6)
    glow = (second - gray[1, ..., None]).sum(2)
    assert glow.argmax() == 2 * 5 + 3
    assert (glow > 1e-3).sum() == 2
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["one", "", "other", ""]


class Block(nn.Module):
    """A block with a way around it, and one that weighs its maps."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.weigh = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        maps = self.conv(images)
        return (images + maps * self.weigh(self.pool(maps))).relu()


LAST = {
    "what comes after it as large": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), "2"),
    "pooling only blurs": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU()), "1"),
    "the whole block": (nn.Sequential(nn.Conv2d(3, 3, 3), Block(), nn.AdaptiveAvgPool2d(1)), "1"),
    "larger than a pixel": (nn.Sequential(nn.Conv2d(3, 4, 15), nn.AvgPool2d(2), nn.Conv2d(4, 4, 1)), "0"),
    "not what enlarges a pixel": (nn.Sequential(nn.Conv2d(3, 4, 15), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(7)), "0"),
}


@pytest.mark.parametrize("case", LAST)
def test_the_last_maps_that_say_where(case, subject):
    network, expected = LAST[case]
    assert last_with_maps(of(network, subject.images)) == expected


def test_maps_of_one_pixel_say_nothing_of_where(subject):
    with pytest.raises(NotPossible, match="more than one pixel"):
        last_with_maps(
            of(nn.Conv2d(3, 4, 16), subject.images) if False else of(nn.Sequential(nn.Conv2d(3, 4, 16)), subject.images)
        )
    with pytest.raises(NotPossible, match="no convolutions"):
        convolutions(of(nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(768, 3)), subject.images))


# What the last layer sees ---------------------------------------------------------------------------------------------


def test_features_are_the_inputs_of_the_layer_that_gives_the_scores(subject):
    found = features_of(subject)
    (batch,) = subject.run.batches("test").epoch(torch.arange(40), 40)
    with torch.inference_mode():
        expected = subject.network.dense(subject.network.features(batch.images).flatten(1))
    torch.testing.assert_close(found.values, expected)
    assert torch.equal(found.labels, batch.labels)
    assert (found.what, found.total) == ("what head.linear sees", 40)


def test_features_are_of_so_many_images_each_at_most_once(subject, monkeypatch):
    everything = features_of(subject)
    monkeypatch.setattr(features, "DRAWN", 15)
    some, again, others = (features_of(subject, seed) for seed in (0, 0, 1))
    assert len(some.values) == 15
    assert torch.equal(some.values, again.values)
    assert not torch.equal(some.values, others.values)
    rows = [(everything.values - one).abs().sum(1).argmin().item() for one in some.values]
    assert len(set(rows)) == 15
    assert torch.equal(everything.labels[rows], some.labels)


def test_features_of_a_head_of_several_layers_are_those_of_its_last():
    found = features_of(untrained(*NETWORKS["lenet"], "head.units=[7]"))
    assert (found.values.shape, found.what) == ((20, 7), "what head.linear.linear sees")


def test_of_maps_that_give_scores_the_means_are_taken(subject):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    expected = network[:2](subject.images).mean((2, 3))
    torch.testing.assert_close(inputs_of(network, ("2",), subject.images), expected)


def test_tasks_with_codes_show_these():
    subject = untrained(*NETWORKS["encoder"], "data.image_size=20", *TASKS["autoencoder"])
    assert what_the_last_layer_sees(subject)[1] == "codes"
    (batch,) = subject.run.batches("test").epoch(torch.arange(20), 20)
    with torch.inference_mode():
        torch.testing.assert_close(features_of(subject).values, subject.network.encoder(batch.images))


# Looks ----------------------------------------------------------------------------------------------------------------


def test_an_image_that_trains_looks_as_in_its_epochs(finished_once):
    subject, _ = subject_of(load_run(finished_once), "best", [], "train", "7,3")
    looks, parts, blending = looks_at_first(subject)
    assert (parts, blending, len(looks)) == (("crop", "flip", "jitter"), (), NUM_LOOKS)
    train = prepared(*COLOUR)[0].train
    for epoch, look in enumerate(looks, start=1):
        (batch,) = train.epoch(torch.tensor([7]), 1, epoch)
        assert torch.equal(look, batch.images[0])


def test_any_other_image_looks_different_every_time_and_the_same_again(subject):
    looks, again = looks_at_first(subject)[0], looks_at_first(subject)[0]
    assert torch.equal(looks, again)
    assert all(not torch.equal(one, other) for at, one in enumerate(looks) for other in looks[at + 1 :])


def test_looks_are_drawn_from_number_1_on():
    image, looks = torch.full((1, 4, 4), 0.25), torch.linspace(0, 1, 24).view(24, 1, 1, 1).expand(24, 1, 4, 4)
    (drawn,) = sheets.looks_sheet(image, looks, "").axes[0].images
    for number, one in enumerate([image, *looks]):
        torch.testing.assert_close(tile_of(drawn, number, sheets.LOOKS_IN_A_ROW, (4, 4)), one[0])


NO_LOOKS = {"none": "the run has no augmentation", "mixup": "the run's augmentation, 'mixup', blends"}


@pytest.mark.parametrize("augmentation", NO_LOOKS)
def test_without_an_augmentation_that_takes_one_image_there_are_no_looks(augmentation):
    subject = untrained(*NETWORKS["lenet"], f"augmentation={augmentation}")
    with pytest.raises(NotPossible, match=NO_LOOKS[augmentation]):
        looks_at_first(subject)


# The command ----------------------------------------------------------------------------------------------------------

ALL = ("activations", "kernels", "gradcam", "saliency", "tsne", "augmentation")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("task", TASKS)
def test_every_picture_of_every_task_and_network_is_drawn_or_said_to_be_none(task, network, monkeypatch):
    monkeypatch.setattr(activations, "MOST_LAYERS", 2)
    subject = untrained("data.image_size=20", *NETWORKS[network], *TASKS[task], "augmentation=flip")
    drawn, none = [], []
    for kind in ALL:
        try:
            for picture in pictures(Request(subject, 1), kind, is_asked_for=False):
                picture.figure.draw_without_rendering()
                assert picture.line
                drawn.append(kind)
        except NotPossible:
            none.append(kind)
    without_maps = network == "mlp" and task != "autoencoder"  # whose decoder has convolutions
    missing = {"gradcam", "saliency"} if not task.startswith("classification") else set()
    missing |= {"activations", "gradcam"} if without_maps else set()
    assert set(none) == missing
    assert set(drawn) == set(ALL) - missing


def test_all_that_there_can_be_is_drawn_of_the_first_image_of_each_class(run, explain):
    before = fingerprints(run)
    done = explain(run)
    assert done.code == 0, done.err
    labels = load_run(run).data("test").labels.tolist()
    first = labels.index(0)
    names = [
        f"activations-features.conv1-test-{first}.png", f"activations-features.conv2-test-{first}.png",
        "augmentation.png", "doubts.png", "gradcam.png", "kernels.png", "mistakes.png", "saliency.png", "tsne.png",
    ]  # fmt: skip
    if load_run(run).result["test"]["accuracy"] == 1:
        names.remove("mistakes.png")
    folder = run / "explanation"
    assert sorted(path.name for path in folder.iterdir()) == names
    lines = done.out.splitlines()
    assert sorted(line.split(":")[0].strip() for line in lines[: len(names)]) == names
    assert "  left out: activations of 2 other images, which --index names" in lines
    assert lines[-1] == f"  pictures: {folder}"
    assert {name: mark for name, mark in fingerprints(run).items() if not name.startswith("explanation/")} == before
    marks = fingerprints(folder)
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    assert explain(run).code == 0
    assert fingerprints(folder) == marks


@pytest.mark.parametrize("case", ["siamese", "autoencoder"])
def test_of_a_task_that_tells_no_classes_nothing_but_the_explanation_is_written(case, explain, tmp_path):
    run = finished(words_of(case), tmp_path / "task")
    before = fingerprints(run)
    done = explain(run)
    assert done.code == 0, done.err
    assert f"left out: gallery: task {case} does not tell classes" in done.out
    after = fingerprints(run)
    assert {name: mark for name, mark in after.items() if not name.startswith("explanation/")} == before


def test_what_is_asked_for_is_drawn(run, explain, tmp_path):
    words = (
        "--index",
        "4,2",
        "--layer",
        "features.relu1",
        "--filter",
        3,
        "--class",
        "pattern 1",
        "--checkpoint",
        "last",
    )
    done = explain(run, *words, "--what", "saliency,activations", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "activations-features.relu1-3-test-2.png", "activations-features.relu1-3-test-4.png", "saliency.png",
    ]  # fmt: skip
    assert "features.relu1 of test 4 (" in done.out
    assert "): map 3 of 4, 6x6" in done.out
    assert not (run / "explanation").exists()


def test_titles_tell_the_class_and_its_probability(run):
    opened = load_run(run)
    subject, _ = subject_of(opened, "best", [], "test", "0")
    probabilities = opened.predict(opened.data("test").take(torch.tensor([0])))[0]
    answer, true = int(probabilities.argmax()), subject.asked[0].true
    for label, word in ((None, "answer"), (2, "for")):
        (picture,) = pictures(Request(subject, 1, label=label), "gradcam", is_asked_for=True)
        shown = answer if label is None else label
        title = picture.figure.axes[0].get_title(loc="left")
        told = f"test 0 ({true})\n{word} {opened.classes[shown]}, {probabilities[shown]:.2f}"
        assert title in (told, f"{told}: nothing")


def test_files_are_explained_as_they_would_have_been_seen_without_the_data(run, explain, tmp_path, monkeypatch):
    folder = write_classes(tmp_path / "photos", {"one": 2, "two": 1})
    (folder / "broken.png").write_bytes(b"")
    opened = load_run(run)
    subject, unusable = subject_of(opened, "best", [str(folder)], "test", None)
    assert [subject.word(number) for number in range(3)] == ["0000-0", "0001", "0000-2"]
    assert len(unusable) == 1

    def gone(_):
        raise UserError("the data are gone")

    monkeypatch.setattr("cnnbench.run.preflight", gone)
    done = explain(run, folder)
    assert (done.code, f"not explained:\n  {folder / 'broken.png'} is empty" in done.err) == (2, True)
    assert "  left out: tsne: the data are gone\n" in done.out
    assert len(list((run / "explanation").iterdir())) == 4 + 3 * 2
    assert "--what tsne: the data are gone" in explain(run, folder, "--what", "tsne").err
    assert explain(run).err == "cnnbench-explain: the data are gone\n"


MISTAKES = {
    "--what nothing": "--what nothing: there is no such picture; there are 'activations', 'kernels', 'gradcam'",
    "--what kernel": "did you mean 'kernels'?",
    "--layer conv1": "--layer conv1: no such layer; did you mean 'features.conv1'?; those with maps are",
    "--layer dense.linear3": "--layer dense.linear3: gives no maps; those that do are 'features.conv1'",
    "--layer features.conv1 --filter 4": "--filter 4: features.conv1 has 4 maps of 12x12, counted from 0",
    "--layer features.conv1 --filter -1": "--filter takes the number of a map",
    "--filter 1": "--filter takes the number of a map of the layer that --layer names",
    "--class 7": "--class 7: no such class; there are 'pattern 0', 'pattern 1', 'pattern 2'",
    "--index 40": "--index '40': test has 40 images, counted from 0",
    "--index 1,x": "--index takes numbers with commas between",
    "--what kernels --layer features.conv1": "--layer: is of 'activations', 'gradcam', and --what does not name them",
    "--what gradcam --layer features.relu9": "did you mean 'features.relu",
    "--checkpoint 3": "has no checkpoint '3'",
    "nowhere.png": "nowhere.png: no such file or folder",
    "nowhere.png --split test": "give files or folders of images, or --split and --index",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_told_with_what_there_is_and_nothing_is_written(words, run, explain):
    done = explain(run, *words.split())
    assert done.code == 2
    assert MISTAKES[words] in done.err
    assert not (run / "explanation").exists()


def test_what_a_task_or_a_network_cannot_give_is_said_once_or_refused_by_its_name(tmp_path, explain):
    run = finished((*ONCE, *NETWORKS["mlp"], *TASKS["siamese"], "data.image_size=20"), tmp_path / "siamese")
    done = explain(run)
    assert done.code == 0, done.err
    for kind, reason in (
        ("activations", "the network has no convolutions, and so no maps"),
        ("gradcam", "task siamese does not tell classes"),
        ("saliency", "task siamese does not tell classes"),
    ):
        assert done.out.count(f"  left out: {kind}: {reason}\n") == 1
        refused = explain(run, "--what", kind)
        assert (refused.code, f"--what {kind}: {reason}." in refused.err) == (2, True)


def test_without_the_library_the_other_pictures_are_drawn(run, explain, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    done = explain(run, "--index", 0)
    assert done.code == 0, done.err
    needed = "needs a library that is not installed: pip install 'cnnbench[explain]'"
    for kind in ("gradcam", "saliency"):
        assert f"left out: {kind}: {needed}" in done.out
        assert f"--what {kind}: {needed}" in explain(run, "--what", kind).err
        assert not (run / "explanation" / f"{kind}.png").exists()


def test_too_many_images_are_refused(run, explain):
    done = explain(run, "--split", "train", "--index", ",".join(map(str, range(41))))
    assert (done.code, "41 images are more than anybody looks at; name 40 at most" in done.err) == (2, True)


def test_a_split_without_images_has_nothing_to_explain(tmp_path, explain):
    run = finished((*ONCE, *NETWORKS["mlp"], "data.val_fraction=0"), tmp_path / "unvalidated")
    done = explain(run, "--split", "val", "--checkpoint", "last")
    assert (done.code, "val: there are no such images" in done.err) == (2, True)


def test_a_place_that_cannot_be_written_is_said(run, explain, tmp_path):
    (tmp_path / "file").write_text("")
    done = explain(run, "--what", "kernels", "--out", tmp_path / "file" / "out")
    assert (done.code, "--out FOLDER names another place" in done.err) == (2, True)


HOSTILE = ("$\\frac{$", "new\nline\x1b[2J", "a name that is much longer than any title")


def test_hostile_names_are_drawn_as_they_are(tmp_path, explain, monkeypatch):
    folder = write_classes(tmp_path / "classes", dict.fromkeys(HOSTILE, 8))
    words = (
        "data=image_folder",
        f"data.folder={folder}",
        "data.image_size=16",
        "data.crop=16",
        "data.test_fraction=0.25",
        "epochs=1",
    )
    run = finished(
        (*words, *NETWORKS["lenet"], "batch_size=4", "threads=1", "device=cpu", "report=false"), tmp_path / "hostile"
    )
    drawn: list[str] = []
    save = Figure.savefig

    def noting(figure, *words, **settings):
        drawn.extend(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
        save(figure, *words, **settings)

    monkeypatch.setattr(Figure, "savefig", noting)
    done = explain(run, "--class", HOSTILE[0])
    assert done.code == 0, done.err
    shown = "\n".join(drawn)
    assert "($\\frac{$)\nfor $\\frac{$, 0." in shown
    assert "(new line [2J)" in shown
    assert "(a name that is mu…)" in shown
    assert "\x1b" not in done.out + shown


def test_names_fit_into_a_line():
    assert plain("a\tb \x1b\u200b c") == "a b c"
    assert plain("x" * 19) == "x" * 17 + "…"


def test_help_waits_for_no_library():
    code = (
        "import sys, cnnbench.explain_command; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
