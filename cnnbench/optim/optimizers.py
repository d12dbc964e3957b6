"""Optimizers by name: torch's own, with every setting stated.

`fused` is one pass over the weights; `foreach` is torch's next best, where there is no such kernel on every device.
"""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch.optim import Optimizer

from cnnbench.optim.groups import Groups
from cnnbench.registry import OPTIMIZERS

Decay = Annotated[float, Field(ge=0, lt=1)]


@OPTIMIZERS.register("sgd")
def sgd(
    groups: Groups, *, lr: PositiveFloat, momentum: Decay, weight_decay: NonNegativeFloat = 0.0, nesterov: bool = False
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, fused=True)


@OPTIMIZERS.register("adam")
def adam(
    groups: Groups,
    *,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam. Source: Kingma and Ba 2015, arXiv:1412.6980; amsgrad: Reddi et al. 2018, arXiv:1904.09237."""
    return torch.optim.Adam(
        groups, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True
    )


@OPTIMIZERS.register("adamw")
def adamw(
    groups: Groups,
    *,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019, arXiv:1711.05101."""
    return torch.optim.AdamW(
        groups, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True
    )


@OPTIMIZERS.register("nadam")
def nadam(
    groups: Groups,
    *,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    eps: PositiveFloat,
    momentum_decay: NonNegativeFloat,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adam with Nesterov momentum, which grows with the steps as `momentum_decay` says. Source: Dozat 2016."""
    return torch.optim.NAdam(
        groups,
        lr=lr,
        betas=(beta1, beta2),
        eps=eps,
        weight_decay=weight_decay,
        momentum_decay=momentum_decay,
        foreach=True,
    )


@OPTIMIZERS.register("radam")
def radam(
    groups: Groups,
    *,
    lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Adam that is careful while it has seen few gradients. Source: Liu et al. 2020, arXiv:1908.03265."""
    return torch.optim.RAdam(groups, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, foreach=True)


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    groups: Groups,
    *,
    lr: PositiveFloat,
    alpha: Decay,
    eps: PositiveFloat,
    momentum: Decay = 0.0,
    centered: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Gradients divided by the root of the mean of their squares. Source: Tieleman and Hinton 2012, lecture 6.5.

    centered: by their standard deviation instead (Graves 2013, arXiv:1308.0850).
    """
    return torch.optim.RMSprop(
        groups,
        lr=lr,
        alpha=alpha,
        eps=eps,
        momentum=momentum,
        centered=centered,
        weight_decay=weight_decay,
        foreach=True,
    )


@OPTIMIZERS.register("adagrad")
def adagrad(
    groups: Groups,
    *,
    lr: PositiveFloat,
    eps: PositiveFloat,
    lr_decay: NonNegativeFloat = 0.0,
    initial_accumulator_value: NonNegativeFloat = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Gradients divided by the root of the sum of all their squares. Source: Duchi, Hazan and Singer 2011, JMLR 12.

    lr_decay: after n steps the learning rate is divided by 1 + n x lr_decay, whatever the scheduler does.
    """
    return torch.optim.Adagrad(
        groups,
        lr=lr,
        eps=eps,
        lr_decay=lr_decay,
        initial_accumulator_value=initial_accumulator_value,
        weight_decay=weight_decay,
        foreach=True,  # the fused kernel is missing on Apple's GPUs
    )


@OPTIMIZERS.register("adadelta")
def adadelta(
    groups: Groups, *, lr: PositiveFloat, rho: Decay, eps: PositiveFloat, weight_decay: NonNegativeFloat = 0.0
) -> Optimizer:
    """Steps as long as the steps before, by the root of their mean square. Source: Zeiler 2012, arXiv:1212.5701."""
    return torch.optim.Adadelta(groups, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, foreach=True)
