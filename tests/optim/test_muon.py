"""Muon: hidden weights go to torch's Muon as matrices, the rest to its AdamW."""

import copy

import pytest
import torch
from torch import nn

from cnnbench.optim.optimizers import parameter_groups
from cnnbench.plugins import register_everything
from tests.support.optimizers import build, loss_of, small_network, train

register_everything()


def grouped(network: nn.Module) -> list[list[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    optimizer = build("muon", parameter_groups(network, True))
    return [[names[id(part)] for part in group["params"]] for group in optimizer.param_groups]


def test_hidden_weights_are_the_first_group_and_the_last_dense_layer_is_not_among_them():
    hidden, rest = grouped(small_network())
    assert hidden == ["0.weight", "2.weight", "5.weight"]
    assert rest == ["0.bias", "3.weight", "3.bias", "5.bias", "7.weight", "7.bias"]


def test_without_a_dense_layer_all_weights_are_hidden():
    assert grouped(nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Conv2d(2, 2, 1, bias=False))) == [
        ["0.weight", "1.weight"]
    ]


def test_without_a_hidden_layer_it_is_refused():
    with pytest.raises(ValueError, match="needs a hidden layer with weights, and there is none"):
        grouped(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


@pytest.mark.parametrize("adjust_lr", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_torchs_muon_and_torchs_adamw(nesterov, adjust_lr):
    ours, theirs = small_network(), small_network()
    optimizer = build(
        "muon", parameter_groups(ours, True), lr=0.03, momentum=0.8, ns_steps=4, weight_decay=0.125,
        nesterov=nesterov, adjust_lr=adjust_lr, adam_lr=0.002, beta1=0.8, beta2=0.9, eps=1e-3,
    )  # fmt: skip
    hidden = [theirs[index].weight for index in (0, 2, 5)]
    matrices = [nn.Parameter(weight.detach().reshape(len(weight), -1).clone()) for weight in hidden]
    muon = torch.optim.Muon(
        matrices, lr=0.03, momentum=0.8, nesterov=nesterov, ns_steps=4, weight_decay=0.125, adjust_lr_fn=adjust_lr
    )
    rest = [part for part in theirs.parameters() if all(part is not weight for weight in hidden)]
    adamw = torch.optim.AdamW(rest, lr=0.002, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.125, fused=True)
    for _ in range(4):
        train(ours, optimizer, 1)
        theirs.zero_grad()
        loss_of(theirs).backward()
        for matrix, weight in zip(matrices, hidden, strict=True):
            matrix.grad = weight.grad.reshape(matrix.shape)
        muon.step()
        adamw.step()
        with torch.no_grad():
            for matrix, weight in zip(matrices, hidden, strict=True):
                weight.copy_(matrix.view_as(weight))
    for got, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(got, expected)


def test_the_layout_in_memory_changes_nothing_but_rounding_and_stays_as_it_is():
    plain, last = small_network(), small_network(channels_last=True)
    places = [part.data_ptr() for part in last.parameters()]
    for network in (plain, last):
        train(network, build("muon", parameter_groups(network, True)), 1)
    for one, other in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)  # bfloat16 within; a step is 0.02
    assert places == [part.data_ptr() for part in last.parameters()]
    assert last[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert not last[2].weight.is_contiguous()


def test_a_gradient_in_another_layout_than_its_weight_is_the_same_gradient():
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        network = small_network(channels_last=True)
        optimizer = build("muon", parameter_groups(network, True))
        loss_of(network).backward()
        for index in (0, 2):
            network[index].weight.grad = network[index].weight.grad.contiguous(memory_format=layout)
        optimizer.step()
        results.append(network[2].weight.detach().clone())
    assert torch.equal(*results)


def test_weights_without_a_gradient_stay():
    network = small_network()
    before = copy.deepcopy(network)
    optimizer = build("muon", parameter_groups(network, True))
    loss_of(network).backward()
    network[2].weight.grad = network[7].weight.grad = None
    optimizer.step()
    stayed = {name for name, part in network.named_parameters() if torch.equal(part, before.get_parameter(name))}
    assert stayed == {"2.weight", "7.weight"}
    optimizer.zero_grad()
    assert all(part.grad is None for part in network.parameters())


def test_a_closure_is_called():
    network = small_network()
    optimizer = build("muon", parameter_groups(network, True))

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(network)
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    assert optimizer.step(closure) < first
