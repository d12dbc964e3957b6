"""Which weights of a network are penalized, which are trained, and on which weight decay acts."""

import copy

import pytest
import torch
from torch import nn

from cnnbench.optim.optimizers import parameter_groups, penalized, penalty
from tests.support.optimizers import build, decays
from tests.support.options import walked


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.BatchNorm1d(3))
    for parameter in layers.parameters():
        nn.init.normal_(parameter)
    return layers


class TestPenalties:
    """L1 and L2 over weights: no biases, no norm parameters."""

    def test_only_weights_are_penalized(self, network):
        chosen = penalized(network.parameters())
        assert [id(weight) for weight in chosen] == [id(network[0].weight), id(network[3].weight)]

    def test_weights_that_are_not_trained_are_not_penalized(self, network):
        network[0].requires_grad_(False)
        assert [id(weight) for weight in penalized(network.parameters())] == [id(network[3].weight)]

    @pytest.mark.parametrize(("l1", "l2"), [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25), (0.0, 0.0)])
    def test_the_penalty_is_the_sum_over_weights(self, network, l1, l2):
        expected = 0.0
        for weight in (network[0].weight, network[3].weight):
            for value in weight.flatten().tolist():
                expected += l1 * abs(value) + l2 * value**2
        assert penalty(penalized(network.parameters()), l1, l2).item() == pytest.approx(expected, rel=1e-5)

    def test_the_gradient_reaches_weights_only(self, network):
        penalty(penalized(network.parameters()), 0.5, 0.25).backward()
        for module in (network[0], network[3]):
            expected = 0.5 * module.weight.sign() + 2 * 0.25 * module.weight
            torch.testing.assert_close(module.weight.grad, expected)
            assert module.bias.grad is None
        assert all(parameter.grad is None for norm in (network[1], network[4]) for parameter in norm.parameters())


class TestGroups:
    """What of a network is trained, and on what weight decay acts."""

    def test_all_that_is_trained_is_one_group(self, network):
        network[0].bias.requires_grad_(False)
        (group,) = parameter_groups(network, decay_norm_and_bias=True)
        expected = [parameter for name, parameter in network.named_parameters() if name != "0.bias"]
        assert list(group) == ["params"]
        assert list(map(id, group["params"])) == list(map(id, expected))

    def test_biases_and_norms_are_a_group_without_decay(self, network):
        network[3].weight.requires_grad_(False)
        weights, thin = parameter_groups(network, decay_norm_and_bias=False)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        assert [names[id(part)] for part in weights["params"]] == ["0.weight"]
        assert "weight_decay" not in weights
        assert [names[id(part)] for part in thin["params"]] == [
            "0.bias", "1.weight", "1.bias", "3.bias", "4.weight", "4.bias"
        ]  # fmt: skip
        assert thin["weight_decay"] == 0.0

    def test_no_group_is_empty(self, network):
        (only,) = parameter_groups(nn.Conv2d(1, 2, 3, bias=False), decay_norm_and_bias=False)
        assert list(only) == ["params"]
        (only,) = parameter_groups(nn.BatchNorm2d(2), decay_norm_and_bias=False)
        assert only["weight_decay"] == 0.0
        assert parameter_groups(nn.ReLU(), decay_norm_and_bias=True) == []

    @pytest.mark.parametrize("name", walked("optimizer"))
    def test_biases_and_norms_without_decay_stay_where_there_is_no_gradient(self, network, name):
        if not decays(name):
            pytest.skip("it has no weight decay")
        before = copy.deepcopy(network)
        optimizer = build(name, parameter_groups(network, decay_norm_and_bias=False), weight_decay=0.5)
        for parameter in network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for old, new in zip(before.parameters(), network.parameters(), strict=True):
            assert torch.equal(old, new) == (old.ndim == 1)
