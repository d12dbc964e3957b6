"""Where a network sees a class: Grad-CAM and saliency, against slow obvious computations."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from cnnbench.analysis.explanation.attribution import gradcam, last_with_maps, saliency
from cnnbench.analysis.explanation.layers import (
    NotPossible,
    convolutions,
)  # fmt: skip
from tests.support.explaining import NETWORKS, TASKS, untrained


@pytest.fixture(autouse=True)
def needs_captum():
    pytest.importorskip("captum")


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
