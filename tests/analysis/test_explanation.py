"""Maps, kernels, attributions, features and views, against slow obvious computations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from cnnbench.analysis.explanation import features, sheets
from cnnbench.analysis.explanation.attribution import gradcam, last_with_maps, saliency
from cnnbench.analysis.explanation.explainer import NUM_VIEWS, Explainer, explainer_of
from cnnbench.analysis.explanation.features import features_of, inputs_of, penultimate_features
from cnnbench.analysis.explanation.layers import (
    NotPossible,
    convolutions,
    first_kernels,
    maps_of,
    maps_of_layer,
    spread,
)  # fmt: skip
from cnnbench.analysis.run import load_run
from tests.support.explaining import COLOUR, NETWORKS, TASKS, untrained
from tests.support.interruption import finished
from tests.support.training import prepared


@pytest.fixture(scope="module", autouse=True)
def needs_captum():
    pytest.importorskip("captum")


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory) -> Path:
    return finished(COLOUR, tmp_path_factory.mktemp("finished"))


@pytest.fixture
def explainer(finished_once) -> Explainer:
    return explainer_of(load_run(finished_once), "best", [], "test", [0, 3, 5])[0]


# Maps -----------------------------------------------------------------------------------------------------------------


def test_the_network_sees_cropped_and_normalised_images(explainer):
    data = explainer.run.data("test").take(torch.tensor([0, 3, 5]))[:, :, 2:18, 2:18] / 255
    mean, std = (torch.tensor(explainer.run.record["data"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    torch.testing.assert_close(explainer.images, (data - mean) / std, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(explainer.pixels(explainer.images), data, rtol=1e-4, atol=1e-5)


def test_maps_are_what_the_layer_computes(explainer):
    features, image = explainer.network.features, explainer.images[1:2]
    conv, after = maps_of(explainer.network, image, ["features.conv1", "features.relu1"])
    expected = functional.conv2d(image, features.conv1.weight, features.conv1.bias)[0]
    torch.testing.assert_close(conv.values, expected)
    torch.testing.assert_close(after.values, functional.max_pool2d(expected, 2).relu())
    assert (conv.size, conv.uses) == ("4 maps of 12x12", 1)
    torch.testing.assert_close(maps_of_layer(explainer.network, image, "features.conv1").values, expected)
    assert [maps.layer for maps in maps_of(explainer.network, image, ["head.linear"])] == []


def test_maps_are_not_changed_by_in_place_layers(explainer):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))
    (maps,) = maps_of(network, explainer.images[:1], ["0"])
    torch.testing.assert_close(maps.values, network[0](explainer.images[:1])[0])
    assert (maps.values < 0).any()


def test_a_layer_used_twice_gives_its_last_maps(explainer):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 1)
    network = nn.Sequential(conv, nn.Tanh(), conv)
    (maps,) = maps_of(network, explainer.images[:1], ["0"])
    assert maps.uses == 2
    torch.testing.assert_close(maps.values, network(explainer.images[:1])[0])


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
    assert sheets.grid_for(number)[1] == columns


# Kernels --------------------------------------------------------------------------------------------------------------


def test_kernels_of_colour_images_are_in_colour_and_gray_is_zero(explainer):
    found = first_kernels(explainer.network, explainer.images[:1])
    weight = explainer.network.features.conv1.weight.detach()
    assert (found.layer, found.size, found.is_colour) == ("features.conv1", "4 kernels of 3x5x5", True)
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


def test_dense_weights_of_pixels_have_the_shape_of_the_image():
    explainer = untrained(*NETWORKS["mlp"], "data.channels=3")
    found = first_kernels(explainer.network, explainer.images[:1])
    assert found.size == "12 units of 3x16x16"
    linear = explainer.network.dense.linear1
    expected = linear(explainer.images.flatten(1))[0] - linear.bias
    torch.testing.assert_close((found.weights * explainer.images[0]).sum((1, 2, 3)), expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_begins_with_another_layer_has_no_kernels(explainer):
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(NotPossible, match="in the shape of images"):
        first_kernels(network, explainer.images[:1])
    network = nn.Sequential(nn.Linear(16, 16), nn.Flatten(), nn.Linear(768, 3))  # along rows only
    with pytest.raises(NotPossible, match="in the shape of images"):
        first_kernels(network, explainer.images[:1])


# Where a network sees a class -----------------------------------------------------------------------------------------


def cam(layer_gives, then, image: torch.Tensor, label: int) -> torch.Tensor:
    """Return Grad-CAM as it is written: ReLU of the maps, each weighted by the mean gradient of the score."""
    maps = layer_gives(image).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(then(maps)[0, label], maps)
    found = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    return functional.interpolate(found, image.shape[2:], mode="bilinear")[0, 0].detach()


def test_gradcam_is_the_weighted_sum_of_maps(explainer):
    labels = torch.tensor([0, 2, 1])
    network = explainer.network
    assert last_with_maps(explainer.network, explainer.images[:1]) == "features.conv2"
    found = gradcam(explainer.score, network.features.conv2, explainer.images, labels)
    before = network.features[: list(dict(network.features.named_children())).index("conv2") + 1]
    after = network.features[len(before) :]
    assert found.shape == (3, 16, 16)
    for one, image, label in zip(found, explainer.images.split(1), labels.tolist(), strict=True):
        expected = cam(before, lambda maps: network.head(network.dense(after(maps).flatten(1))), image, label)
        torch.testing.assert_close(one, expected)
    assert (found > 0).any()


@pytest.mark.parametrize("in_place", [False, True])
def test_in_place_layers_change_no_attribution(in_place, explainer):
    torch.manual_seed(0)
    relu = nn.ReLU(inplace=in_place)
    network = nn.Sequential(relu, nn.Conv2d(3, 4, 3), nn.ReLU(inplace=in_place), nn.Flatten(), nn.Linear(784, 3)).eval()
    other, image, labels = replace(explainer, network=network), explainer.images[:1], torch.tensor([1])
    before = image.clone()
    first, second, third = network[1], network[3], network[4]
    expected = cam(lambda image: first(image.relu()), lambda maps: third(second(maps.relu())), image, 1)
    torch.testing.assert_close(gradcam(other.score, first, image, labels)[0], expected)
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(third(second(first(leaf.relu()).relu()))[0, 1], leaf)
    torch.testing.assert_close(saliency(other.score, image, labels)[0], gradient.abs().amax(1)[0])
    assert torch.equal(image, before)


def test_saliency_is_the_largest_gradient_of_the_channels(explainer):
    labels = torch.tensor([2, 0, 1])
    found = saliency(explainer.score, explainer.images, labels)
    for one, image, label in zip(found, explainer.images.split(1), labels.tolist(), strict=True):
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(explainer.network(leaf)[0, label], leaf)
        torch.testing.assert_close(one, gradient.abs().amax(1)[0])


def test_with_one_output_both_classes_have_the_same_saliency():
    explainer = untrained(*NETWORKS["lenet"], *TASKS["classification by one output"])
    zero, one = (saliency(explainer.score, explainer.images, torch.tensor([label, label])) for label in (0, 1))
    leaf = explainer.images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(explainer.network(leaf).sum(), leaf)
    torch.testing.assert_close(one, gradient.abs().amax(1))
    torch.testing.assert_close(zero, one)
    torch.testing.assert_close(explainer.probabilities[:, 1], explainer.network(explainer.images)[:, 0].sigmoid())


def test_a_heat_map_is_overlaid_on_a_scale_of_its_own():
    images = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    shares = torch.zeros(2, 6, 5)
    shares[1, 2, 3], shares[1, 4, 4] = 0.02, 0.01
    figure = sheets.pairs_sheet(images, shares, ["one", "other"], "title", is_overlaid=True)
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
def test_the_last_layer_with_maps(case, explainer):
    network, expected = LAST[case]
    assert last_with_maps(network, explainer.images[:1]) == expected


def test_maps_of_one_pixel_are_not_used(explainer):
    with pytest.raises(NotPossible, match="more than one pixel"):
        last_with_maps(nn.Sequential(nn.Conv2d(3, 4, 16)), explainer.images[:1])
    with pytest.raises(NotPossible, match="no convolutions"):
        convolutions(nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(768, 3)), explainer.images[:1])


# What the last layer sees ---------------------------------------------------------------------------------------------


def features_of_test(explainer: Explainer, seed: int = 0) -> features.Features:
    return features_of(explainer.run, explainer.network, "test", explainer.device, seed)


def test_features_are_the_inputs_of_the_layer_that_computes_the_scores(explainer):
    found = features_of_test(explainer)
    (batch,) = explainer.run.batches("test").epoch(torch.arange(40), 40)
    with torch.inference_mode():
        expected = explainer.network.dense(explainer.network.features(batch.images).flatten(1))
    torch.testing.assert_close(found.values, expected)
    assert torch.equal(found.labels, batch.labels)
    assert (found.source, found.total) == ("inputs of head.linear", 40)


def test_features_are_of_a_sample_without_replacement(explainer, monkeypatch):
    everything = features_of_test(explainer)
    monkeypatch.setattr(features, "TSNE_POINTS", 15)
    some, again, others = (features_of_test(explainer, seed) for seed in (0, 0, 1))
    assert len(some.values) == 15
    assert torch.equal(some.values, again.values)
    assert not torch.equal(some.values, others.values)
    rows = [(everything.values - one).abs().sum(1).argmin().item() for one in some.values]
    assert len(set(rows)) == 15
    assert torch.equal(everything.labels[rows], some.labels)


def test_features_of_a_head_of_several_layers_are_those_of_its_last():
    found = features_of_test(untrained(*NETWORKS["lenet"], "head.units=[7]"))
    assert (found.values.shape, found.source) == ((20, 7), "inputs of head.linear.linear")


def test_maps_that_scores_are_computed_from_are_averaged(explainer):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)).eval()
    expected = network[:2](explainer.images).mean((2, 3))
    torch.testing.assert_close(inputs_of(network, ("2",), explainer.images), expected)


def test_the_features_of_an_encoder_are_its_embeddings():
    explainer = untrained(*NETWORKS["encoder"], "data.image_size=20", *TASKS["autoencoder"])
    assert penultimate_features(explainer.run, explainer.network)[1] == "embeddings"
    (batch,) = explainer.run.batches("test").epoch(torch.arange(20), 20)
    with torch.inference_mode():
        torch.testing.assert_close(features_of_test(explainer).values, explainer.network.encoder(batch.images))


# Views ----------------------------------------------------------------------------------------------------------------


def test_a_training_image_is_augmented_as_in_its_epochs(finished_once):
    explainer, _ = explainer_of(load_run(finished_once), "best", [], "train", [7, 3])
    views, parts, blending = explainer.augmented_views()
    assert (parts, blending, len(views)) == (("crop", "flip", "jitter"), (), NUM_VIEWS)
    train = prepared(*COLOUR).train
    for epoch, view in enumerate(views, start=1):
        (batch,) = train.epoch(torch.tensor([7]), 1, epoch)
        assert torch.equal(view, batch.images[0])


def test_views_of_any_other_image_differ_and_are_repeatable(explainer):
    views, again = explainer.augmented_views()[0], explainer.augmented_views()[0]
    assert torch.equal(views, again)
    assert all(not torch.equal(one, other) for at, one in enumerate(views) for other in views[at + 1 :])


def test_views_are_drawn_from_number_1_on():
    image, views = torch.full((1, 4, 4), 0.25), torch.linspace(0, 1, 24).view(24, 1, 1, 1).expand(24, 1, 4, 4)
    (drawn,) = sheets.views_sheet(image, views, "").axes[0].images
    for number, one in enumerate([image, *views]):
        torch.testing.assert_close(tile_of(drawn, number, sheets.VIEWS_IN_A_ROW, (4, 4)), one[0])


NO_LOOKS = {"none": "the run has no augmentation", "mixup": "the run's augmentation, 'mixup', blends"}


@pytest.mark.parametrize("augmentation", NO_LOOKS)
def test_without_an_augmentation_of_single_images_there_are_no_views(augmentation):
    explainer = untrained(*NETWORKS["lenet"], f"augmentation={augmentation}")
    with pytest.raises(NotPossible, match=NO_LOOKS[augmentation]):
        explainer.augmented_views()
