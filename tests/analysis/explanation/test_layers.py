"""Maps of layers and kernels of the first one, against slow obvious computations."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cnnbench.analysis.explanation.layers import (
    NotPossible,
    first_kernels,
    maps_of,
    maps_of_layer,
    spread,
)  # fmt: skip
from tests.support.explaining import NETWORKS, untrained


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


def test_kernels_are_the_weights_of_the_first_layer(explainer):
    found = first_kernels(explainer.network, explainer.images[:1])
    assert (found.layer, found.size, found.is_colour) == ("features.conv1", "4 kernels of 3x5x5", True)
    assert torch.equal(found.weights, explainer.network.features.conv1.weight)


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
