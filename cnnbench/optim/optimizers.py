"""Optimizers by name: torch's own, with every setting stated."""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch.nn import Parameter
from torch.optim import Optimizer

from cnnbench.registry import OPTIMIZERS

Decay = Annotated[float, Field(ge=0, lt=1)]


@OPTIMIZERS.register("sgd")
def sgd(
    parameters: Iterable[Parameter],
    *,
    lr: PositiveFloat,
    momentum: Decay,
    weight_decay: NonNegativeFloat = 0.0,
    nesterov: bool = False,
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True
    )


@OPTIMIZERS.register("adam")
def adam(
    parameters: Iterable[Parameter],
    *,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adam. Source: Kingma and Ba 2015, arXiv:1412.6980."""
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)


@OPTIMIZERS.register("adamw")
def adamw(
    parameters: Iterable[Parameter],
    *,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019, arXiv:1711.05101."""
    return torch.optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)
