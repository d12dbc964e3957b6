"""Optimizers by name: torch's own with every setting stated; the parameter groups they take; L1 and L2 penalties."""

from collections.abc import Collection, Iterable, Mapping
from inspect import unwrap
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from cnnbench.registry import OPTIMIZERS

Groups = list[dict[str, Any]]
"""Parameter groups as torch's optimizers take them: "params", and the settings in which a group differs."""

Decay = Annotated[float, Field(ge=0, lt=1)]
Kind = TypeVar("Kind", bound=type[Optimizer])


def _torch_optimizer(kind: type[Optimizer], settings: dict[str, Any], **implementation: Any) -> Optimizer:
    """Return torch's optimizer; settings: all arguments of the factory that was called.

    implementation: `fused` is one pass over the weights; `foreach` the next best, where no fused kernel exists on every
    device.
    """
    groups = settings.pop("groups")
    if "beta1" in settings:
        settings["betas"] = (settings.pop("beta1"), settings.pop("beta2"))
    return eager(kind)(groups, **settings, **implementation)


def eager(kind: Kind) -> Kind:
    """Return an optimizer that makes the same steps without torch's compiler, whose import takes 1.5 s.

    torch wraps these methods, only to keep its compiler out of them.
    """
    wrapped = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: unwrap(getattr(kind, name)) for name in wrapped}
    methods["step"] = torch.no_grad()(unwrap(kind.step))
    return type(kind.__name__, (kind,), methods)  # type: ignore[return-value]


@OPTIMIZERS.register("sgd")
def sgd(
    groups: Groups, *, lr: PositiveFloat, momentum: Decay, weight_decay: NonNegativeFloat = 0.0, nesterov: bool = False
) -> Optimizer:
    """Stochastic gradient descent with momentum."""
    return _torch_optimizer(torch.optim.SGD, locals(), fused=True)


@OPTIMIZERS.register("adam")
def adam(
    groups: Groups, *, lr: PositiveFloat, beta1: Decay, beta2: Decay, eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0, amsgrad: bool = False,
) -> Optimizer:  # fmt: skip
    """Adam. Source: Kingma and Ba 2015, arXiv:1412.6980; amsgrad: Reddi et al. 2018, arXiv:1904.09237."""
    return _torch_optimizer(torch.optim.Adam, locals(), fused=True)


@OPTIMIZERS.register("adamw")
def adamw(
    groups: Groups, *, lr: PositiveFloat, beta1: Decay, beta2: Decay, eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0, amsgrad: bool = False,
) -> Optimizer:  # fmt: skip
    """Adam with decoupled weight decay. Source: Loshchilov and Hutter 2019, arXiv:1711.05101."""
    return _torch_optimizer(torch.optim.AdamW, locals(), fused=True)


@OPTIMIZERS.register("nadam")
def nadam(
    groups: Groups, *, lr: PositiveFloat, beta1: Decay, beta2: Decay, eps: PositiveFloat,
    momentum_decay: NonNegativeFloat, weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:  # fmt: skip
    """Adam with Nesterov momentum, which grows over the steps at the rate `momentum_decay`. Source: Dozat 2016."""
    return _torch_optimizer(torch.optim.NAdam, locals(), foreach=True)


@OPTIMIZERS.register("radam")
def radam(
    groups: Groups, *, lr: PositiveFloat, beta1: Decay, beta2: Decay, eps: PositiveFloat,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:  # fmt: skip
    """Adam with a rectified variance, for small first steps. Source: Liu et al. 2020, arXiv:1908.03265."""
    return _torch_optimizer(torch.optim.RAdam, locals(), foreach=True)


@OPTIMIZERS.register("rmsprop")
def rmsprop(
    groups: Groups, *, lr: PositiveFloat, alpha: Decay, eps: PositiveFloat, momentum: Decay = 0.0,
    centered: bool = False, weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:  # fmt: skip
    """Gradients divided by the root of the mean of their squares. Source: Tieleman and Hinton 2012, lecture 6.5.

    centered: by their standard deviation instead (Graves 2013, arXiv:1308.0850).
    """
    return _torch_optimizer(torch.optim.RMSprop, locals(), foreach=True)


@OPTIMIZERS.register("adagrad")
def adagrad(
    groups: Groups, *, lr: PositiveFloat, eps: PositiveFloat, lr_decay: NonNegativeFloat = 0.0,
    initial_accumulator_value: NonNegativeFloat = 0.0, weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:  # fmt: skip
    """Gradients divided by the root of the sum of all their squares. Source: Duchi, Hazan and Singer 2011, JMLR 12.

    lr_decay: after n steps the learning rate is divided by 1 + n x lr_decay, on top of the schedule.
    """
    return _torch_optimizer(torch.optim.Adagrad, locals(), foreach=True)  # the fused kernel is missing on Apple's GPUs


@OPTIMIZERS.register("adadelta")
def adadelta(
    groups: Groups, *, lr: PositiveFloat, rho: Decay, eps: PositiveFloat, weight_decay: NonNegativeFloat = 0.0
) -> Optimizer:
    """Steps scaled by the root mean square of earlier steps. Source: Zeiler 2012, arXiv:1212.5701."""
    return _torch_optimizer(torch.optim.Adadelta, locals(), foreach=True)


def parameter_groups(
    network: nn.Module,
    decay_norm_and_bias: bool,
    lr_factors: Mapping[str, float] | None = None,
    unfrozen_later: Collection[str] = (),
) -> Groups:
    """Return the trainable parameters of a network in groups of equal settings, none of them empty.

    decay_norm_and_bias: whether weight decay acts on biases and norm parameters too. lr_factors: by parameter, where
    they are not 1; a group has its factor under `lr_scale`. unfrozen_later: parameters whose training starts later;
    they share no group with others, since an optimizer starts a group as a whole.
    """
    alike: dict[tuple[bool, float], list[Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            kind = (name in unfrozen_later, (lr_factors or {}).get(name, 1.0))
            # Groups in the order of their last parameters: the last of all is that of the head.
            alike[kind] = [*alike.pop(kind, []), parameter]
    groups: Groups = []
    for (_, factor), parameters in alike.items():
        split: Groups = [{"params": parameters}]
        if not decay_norm_and_bias:
            norms_and_biases = [parameter for parameter in parameters if parameter.ndim <= 1]
            split = [{"params": penalized(parameters)}, {"params": norms_and_biases, "weight_decay": 0.0}]
        groups += split if factor == 1 else [group | {"lr_scale": factor} for group in split]
    return [group for group in groups if group["params"]]


def penalized(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return the trainable weights, without biases and norm parameters, which are the ones of a single axis."""
    return [parameter for parameter in parameters if parameter.requires_grad and parameter.ndim > 1]


def penalty(weights: Iterable[Parameter], l1: float, l2: float) -> Tensor:
    """Return l1 x the sum of |w| + l2 x the sum of w^2 over all weights, as a scalar with gradient, where they are."""
    terms = []
    for weight in weights:
        if l1:
            terms.append(l1 * weight.abs().sum())
        if l2:
            terms.append(l2 * weight.square().sum())
    return sum(terms, torch.zeros(()))  # on a GPU too: one number joins what is there without waiting for the device
