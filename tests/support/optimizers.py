"""Optimizers by option, and a small network for them to train."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.optim.optimizers import Groups, parameter_groups
from cnnbench.registry import OPTIMIZERS, Selection
from tests.support.options import settings_of


def build(option: str, groups: Groups, **changed: Any) -> torch.optim.Optimizer:
    """Return the optimizer of an option, with settings changed."""
    own = settings_of("optimizer", option) | changed
    name = own.pop("name")
    made: torch.optim.Optimizer = OPTIMIZERS.build(Selection(name, own), groups=groups)
    return made


def decays(option: str) -> bool:
    """Tell whether an optimizer has weight decay, from which biases and norms can be left out."""
    return "weight_decay" in settings_of("optimizer", option)


def groups_of(option: str, network: nn.Module) -> Groups:
    """Return the parameters of a network in two groups, as a run with this optimizer may have them."""
    if decays(option):
        return parameter_groups(network, decay_norm_and_bias=False)
    first = next(name for name, _ in network.named_parameters())
    return parameter_groups(network, decay_norm_and_bias=True, lr_factors={first: 0.5})


def small_network(channels_last: bool = False, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten(),
        nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3),
    ]  # fmt: skip
    return nn.Sequential(*layers).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def loss_of(network: nn.Module) -> Tensor:
    """Return the loss on the same twelve images of three classes every time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 2, 6, 6, generator=generator)
    return functional.cross_entropy(network(images), torch.arange(12) % 3)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_of(network).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
