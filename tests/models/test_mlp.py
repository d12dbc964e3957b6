"""The network of dense layers alone."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cnnbench.data.images import DataSpec
from cnnbench.models.build import build_network, check_network, count_parameters
from cnnbench.registry import Selection

SPEC = DataSpec(1, 28, 28, tuple(str(digit) for digit in range(10)))


def mlp(units: list[int], **more: object) -> Selection:
    return Selection("mlp", {"units": units, "activation": "relu", **more})


def layers(network: nn.Module) -> list[tuple[str, str]]:
    named = [(name, type(part).__name__) for name, part in network.named_modules()]
    return [(name, kind) for name, kind in named if "." in name]


@pytest.mark.parametrize(
    ("units", "expected"),
    [([300, 100], 266_610), ([512, 128], 468_874), ([64], 50_890), ([], 7_850), ([5, 4, 3, 2], 4_002)],
    ids=str,
)
def test_sizes(units, expected):
    assert count_parameters(check_network(mlp(units), SPEC))["total"] == expected


def test_scores_are_those_of_the_layers_one_after_another():
    torch.manual_seed(0)
    network = build_network(mlp([6, 5]), SPEC)
    images = torch.randn(3, 1, 28, 28)
    names = ("dense.linear1", "dense.linear2", "head.linear")
    first, second, last = (network.get_parameter(f"{name}.weight") for name in names)
    biases = [network.get_parameter(f"{name}.bias") for name in names]
    for image, scores in zip(images, network(images), strict=True):
        hidden = (first @ image.reshape(-1) + biases[0]).clamp(min=0)
        hidden = (second @ hidden + biases[1]).clamp(min=0)
        torch.testing.assert_close(scores, last @ hidden + biases[2])


def test_dropout_comes_before_dense_layers_but_the_last_and_batch_norm_before_all_but_the_first():
    network = check_network(mlp([6, 5], activation="tanh", dropout=0.5, batchnorm=True), SPEC)
    assert layers(network) == [
        ("dense.dropout1", "Dropout"), ("dense.linear1", "Linear"), ("dense.tanh1", "Tanh"),
        ("dense.dropout2", "Dropout"), ("dense.norm2", "BatchNorm1d"), ("dense.linear2", "Linear"),
        ("dense.tanh2", "Tanh"), ("head.norm", "BatchNorm1d"), ("head.linear", "Linear"),
    ]  # fmt: skip
    linear = check_network(mlp([], dropout=0.5, batchnorm=True), SPEC)
    assert layers(linear) == [("head.linear", "Linear")]


def test_weights_fit_with_and_without_batch_norm():
    plain, normed = (build_network(mlp([6, 5], batchnorm=batchnorm), SPEC) for batchnorm in (False, True))
    missing, unexpected = normed.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[1] for name in missing} == {"norm2", "norm"}


@pytest.mark.parametrize("outputs", [1, 7])
def test_the_head_has_as_many_outputs_as_the_data_ask_for(outputs):
    network = check_network(mlp([6]), replace(SPEC, outputs=outputs))
    assert network.head.linear.out_features == outputs
