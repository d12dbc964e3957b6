"""The networks: their sizes, the order of their layers, and what they need of the data."""

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from cnnbench.config.compose import Composer
from cnnbench.data.images import DataSpec
from cnnbench.errors import UserError
from cnnbench.models.build import build_network, check_network, count_parameters, pass_through, works
from cnnbench.registry import MODELS, Selection
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import setup
from tests.conftest import SMALL_FORMS
from tests.support.options import settings_of, side_for, texts, walked
from tests.support.selection import diagonal, everyday

TEXTS = texts("model")
SIZED = [name for name, text in TEXTS.items() if " parameters on " in text]
SMALL = walked("model", without=SMALL_FORMS)
REGULARIZED = [name for name in TEXTS if name.startswith(("lenet", "minialexnet"))] + ["mlp"]  # layers in sequences


def preset(name: str, **overrides: Any) -> Selection:
    """Return what an option selects, with settings changed."""
    settings = settings_of("model", name) | overrides
    return Selection(settings.pop("name"), settings)


def spec(channels: int, side: int, num_classes: int) -> DataSpec:
    return DataSpec(channels, side, side, tuple(str(index) for index in range(num_classes)))


def count(selection: Selection, on: DataSpec) -> int:
    return count_parameters(pass_through(selection, on, "meta"))["total"]


def kinds(layers: Iterable[nn.Module]) -> list[str]:
    return [type(layer).__name__ for layer in layers]


@pytest.mark.parametrize(
    ("name", "channels", "side", "num_classes", "expected"),
    [
        ("lenet", 1, 28, 10, 44_426),
        ("lenet_v2", 1, 28, 10, 44_426),
        ("lenet_color", 3, 32, 100, 382_628),
        ("minialexnet", 3, 32, 100, 10_992_900),
        ("minialexnet_v2", 3, 32, 100, 10_992_900),
        ("minialexnet_v3", 3, 28, 100, 7_322_884),
        ("minialexnet_v4", 3, 28, 100, 7_334_116),
        ("minialexnet_v4", 3, 32, 100, 11_007_716),
        ("minialexnet_v4", 3, 28, 10, 7_241_866),
        ("lenet_same", 1, 28, 10, 61_706),
        ("alexnet_lrn", 3, 227, 1000, 62_071_144),
        ("alexnet_bn", 1, 227, 10, 58_301_834),
        ("vgg11", 3, 224, 1000, 132_863_336),
        ("vgg13", 3, 224, 1000, 133_047_848),
        ("vgg16", 3, 224, 1000, 138_357_544),
        ("vgg19", 3, 224, 1000, 143_667_240),
        ("vgg16", 3, 224, 102, 134_678_438),
        ("googlenet_v1", 3, 224, 10, 5_832_378),
        ("resnet18", 3, 224, 1000, 11_689_512),
        ("resnet34", 3, 224, 10, 21_289_802),
        ("resnet34_unpooled", 3, 224, 10, 21_535_626),
        ("resnet50", 3, 224, 1000, 25_557_032),
        ("resnet20_cifar", 3, 32, 10, 272_474),
    ],
)
def test_the_sizes_of_the_published_networks(name, channels, side, num_classes, expected):
    assert count(preset(name), spec(channels, side, num_classes)) == expected


@pytest.mark.parametrize(
    ("name", "settings", "on", "expected"),
    [
        ("vgg11", {"batchnorm": True}, (3, 224, 1000), 132_868_840),
        ("vgg13", {"batchnorm": True}, (3, 224, 1000), 133_053_736),
        ("vgg16", {"batchnorm": True}, (3, 224, 1000), 138_365_992),
        ("vgg19", {"batchnorm": True}, (3, 224, 1000), 143_678_248),
        ("resnet34_unpooled", {"bottleneck": True}, (3, 224, 10), 24_511_626),
        ("torchvision", {"architecture": "alexnet"}, (3, 224, 101), 57_417_637),
        ("torchvision", {"architecture": "vgg16"}, (3, 224, 101), 134_674_341),
        ("torchvision", {"architecture": "googlenet"}, (3, 224, 101), 5_703_429),
        ("torchvision", {"architecture": "googlenet", "auxiliary": True}, (3, 224, 101), 10_240_463),
        ("torchvision", {"architecture": "resnet18"}, (3, 224, 101), 11_228_325),
        ("torchvision", {"architecture": "squeezenet1_0"}, (3, 224, 101), 787_237),
    ],
)
def test_the_sizes_of_published_variants(name, settings, on, expected):
    assert count(preset(name, **settings), spec(*on)) == expected


@pytest.mark.parametrize("name", SIZED)
def test_the_size_that_a_preset_states_is_the_size_it_has(name):
    comment = " ".join(line.lstrip("# ") for line in TEXTS[name].splitlines() if line.startswith("#"))
    pattern = r"(\d[\d ]*) parameters on (?:(\d+)x\d+ of )?(\d)x(\d+)x\d+, (\d+) classes"
    stated, window, channels, side, num_classes = re.search(pattern, comment).groups()
    on = spec(int(channels), int(window or side), int(num_classes))
    assert count(preset(name), on) == int(stated.replace(" ", ""))


def test_the_window_of_the_presets_is_the_one_that_their_size_is_stated_for():
    for name in ("minialexnet_v3", "minialexnet_v4"):
        assert yaml.safe_load(TEXTS[name])["data"]["crop"] * 32 == 28


@pytest.mark.parametrize(
    "option", everyday(["none", "crop", "crop_flip", "crop_flip_jitter", "pad_crop_flip"], ["crop"])
)
def test_the_size_never_changes_with_the_augmentation(option):
    words = ["model=minialexnet_v4", "data=synthetic", f"augmentation={option}"]
    assert setup(plan_run(Composer(), words).config).parameters == {"total": 7_241_866, "trainable": 7_241_866}


@pytest.mark.parametrize(
    ("name", "channels", "num_classes"),
    everyday(product(SMALL, [1, 3], [5, 10, 100]), diagonal(SMALL, [1, 3], [5, 10, 100])),
)
def test_scores_have_the_shape_that_the_data_ask_for(name, channels, num_classes):
    side = side_for(name, at_least=28)
    with torch.device("meta"):
        network = build_network(preset(name), spec(channels, side, num_classes))
        assert network(torch.empty(4, channels, side, side)).shape == (4, num_classes)


def test_images_need_not_be_square():
    on = replace(spec(1, 28, 10), width=40)
    with torch.device("meta"):
        assert build_network(preset("lenet"), on)(torch.empty(4, 1, 28, 40)).shape == (4, 10)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    side = side_for(name, at_least=20)
    torch.manual_seed(0)
    network = build_network(preset(name), spec(1, side, 4))
    network(torch.randn(8, 1, side, side)).square().sum().backward()
    without = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_the_layers_of_minialexnet_v4_are_in_the_published_order():
    network = check_network(preset("minialexnet_v4"), spec(3, 28, 100))
    first, middle = ["Conv2d", "MaxPool2d", "ReLU"], ["BatchNorm2d", "Conv2d", "ReLU"]
    pooled = ["BatchNorm2d", "Conv2d", "MaxPool2d", "ReLU"]
    assert kinds(network.features) == [*first, *pooled, *middle, *middle, *pooled]
    assert kinds(network.dense) == ["Dropout", "BatchNorm1d", "Linear", "ReLU"] * 2
    assert kinds(network.head) == ["BatchNorm1d", "Linear"]
    convs = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [conv.kernel_size[0] for conv in convs] == [5, 5, 3, 3, 3]
    assert [conv.out_channels for conv in convs] == [16, 32, 64, 128, 256]


def test_the_layers_of_lenet_are_in_the_published_order():
    network = check_network(preset("lenet"), spec(1, 28, 10))
    assert kinds(network.features) == ["Conv2d", "AvgPool2d", "Tanh"] * 2
    assert kinds(network.dense) == ["Linear", "Tanh"] * 2
    assert kinds(network.head) == ["Linear"]
    assert kinds(check_network(preset("lenet_v2"), spec(1, 28, 10)).features) == ["Conv2d", "MaxPool2d", "ReLU"] * 2


@pytest.mark.parametrize("name", REGULARIZED)
def test_dropout_comes_before_the_dense_layers_but_the_last(name):
    network = check_network(preset(name, dropout=0.25, batchnorm=False), spec(1, 28, 10))
    num_dense = len(yaml.safe_load(TEXTS[name])["model"]["units"])
    assert [kind for kind in kinds(network.dense) if kind in ("Dropout", "Linear")] == ["Dropout", "Linear"] * num_dense
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.25}
    assert "Dropout" not in [*kinds(network.features), *kinds(network.head)]


@pytest.mark.parametrize("name", [name for name in REGULARIZED if name != "mlp"])
def test_batch_norm_comes_before_every_layer_but_the_first(name):
    network = check_network(preset(name, dropout=0.5, batchnorm=True), spec(1, 28, 10))
    layers = [*network.features, *network.dense, *network.head]
    assert isinstance(layers[0], nn.Conv2d)
    later = [index for index, layer in enumerate(layers) if index and isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(later) >= 4
    for index in later:
        layer, norm = layers[index], layers[index - 1]
        assert isinstance(norm, nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d)
        assert norm.num_features == layer.weight.shape[1]
    assert sum(kind.startswith("BatchNorm") for kind in kinds(layers)) == len(later)


@pytest.mark.parametrize("name", REGULARIZED)
def test_a_network_without_either_has_none(name):
    network = check_network(preset(name, dropout=0.0, batchnorm=False), spec(1, 28, 10))
    assert {kind[:5] for module in network.children() for kind in kinds(module)}.isdisjoint({"Dropo", "Batch"})


@pytest.mark.parametrize("name", SMALL)
def test_for_an_image_that_is_too_small_the_smallest_side_that_works_is_named(name):
    if works(preset(name), spec(3, 2, 10)):
        pytest.skip("none is too small")
    with pytest.raises(UserError) as refused:
        check_network(preset(name), spec(3, 2, 10))
    match = re.search(r"needs images of at least (\d+)x\1, and sees 2x2", str(refused.value))
    side = int(match[1])
    assert count(preset(name), spec(3, side, 10)) > 0
    with pytest.raises(UserError, match=f"at least {side}x{side}, and sees {side - 1}x{side - 1}"):
        check_network(preset(name), spec(3, side - 1, 10))


@pytest.mark.parametrize(
    "words",
    [["data.image_size=15"], ["data.image_size=24", "data.crop=0.5"], ["data.crop=12"]],
    ids=["whole images", "half of the side", "12 pixels"],
)
def test_doing_what_the_error_says_helps(words):
    with pytest.raises(UserError, match="needs images of at least 16x16") as refused:
        setup(plan_run(Composer(), words).config)
    assert "data.image_size" in str(refused.value)
    assert "data.crop" in str(refused.value)
    for way in re.findall(r"data\.\w+=[\d.]*\d", str(refused.value)):
        setup(plan_run(Composer(), [*words, way]).config)


def test_a_network_that_fits_no_data_is_refused_with_the_reason():
    on = spec(3, 32, 10)

    @MODELS.register("validate_output")
    def validate_output(spec):
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, spec.num_classes + 1))

    try:
        with pytest.raises(
            UserError,
            match=r"returns \(2, 11\) for two images; scores \(`spec\.num_outputs`\) of shape \(2, 10\) are needed",
        ):
            check_network(Selection("validate_output", {}), on)
    finally:
        del MODELS.components["validate_output"]


def test_weights_that_are_not_trained_are_counted_apart():
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    network[0].requires_grad_(False)
    assert count_parameters(network) == {"total": 13, "trainable": 4}
