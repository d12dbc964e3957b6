"""Muon: orthogonalised updates for the weights of hidden layers, AdamW for everything else."""

from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from cnnbench.optim.optimizers import Decay, Groups, eager
from cnnbench.registry import OPTIMIZERS


@OPTIMIZERS.register("muon")
def muon(
    groups: Groups,
    *,
    lr: PositiveFloat,
    momentum: Decay,
    ns_steps: Annotated[int, Field(ge=1, lt=100)],
    adjust_lr: Literal["original", "match_rms_adamw"],
    adam_lr: PositiveFloat,
    beta1: Decay,
    beta2: Decay,
    eps: PositiveFloat,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Muon for the weights of hidden layers, AdamW for the rest: biases, norm parameters, and the last dense layer.

    Convolutions are matrices with a row for each output channel. lr: of Muon; adjust_lr: how it depends on the size of
    a matrix. adam_lr: of AdamW; both follow the same schedule. Raises ValueError where nothing is left for Muon.
    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; match_rms_adamw: Liu et al.
    2025, arXiv:2502.16982.
    """
    shared = {"weight_decay": weight_decay}
    hidden = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr}
    rest = {"lr": adam_lr, "betas": (beta1, beta2), "eps": eps, "fused": True}
    return eager(MuonAndAdamW)(groups, shared | hidden, shared | rest)


class MuonAndAdamW(Optimizer):
    """torch.optim.Muon and torch.optim.AdamW as one optimizer, which alone holds groups and state.

    hidden, rest: settings of Muon and of AdamW; those of a group take precedence.
    """

    def __init__(self, groups: Groups, hidden: dict[str, Any], rest: dict[str, Any]) -> None:
        weights = [parameter for group in groups for parameter in group["params"]]
        last_dense = next((weight for weight in reversed(weights) if weight.ndim == 2), None)
        own = _filtered(groups, lambda parameter: parameter.ndim >= 2 and parameter is not last_dense)
        other = _filtered(groups, lambda parameter: parameter.ndim < 2 or parameter is last_dense)
        if not own:
            raise ValueError("needs a hidden layer with weights, and there is none")
        # torch's constructors fill in the settings that a group lacks.
        matrices = [{**group, "params": _matrices(group["params"])} for group in own]
        self._muon = eager(torch.optim.Muon)(matrices, **hidden)
        self._adamw = eager(torch.optim.AdamW)(other, **rest) if other else None
        filled = zip(self._muon.param_groups, own, strict=True)
        all_groups = [{**settings, "params": group["params"]} for settings, group in filled]
        super().__init__(all_groups + (self._adamw.param_groups if self._adamw else []), {})
        self._num_hidden = len(own)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights; return the loss of the closure, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Groups and state are handed over at every step: load_state_dict replaces them.
        own, other = self.param_groups[: self._num_hidden], self.param_groups[self._num_hidden :]
        self._muon.param_groups, self._muon.state = [], defaultdict(dict)
        for group in own:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            matrices = _matrices(weights)
            self._muon.param_groups.append({**group, "params": matrices})
            self._muon.state.update(
                {matrix: self.state[weight] for matrix, weight in zip(matrices, weights, strict=True)}
            )
        self._muon.step()  # type: ignore[no-untyped-call]
        if self._adamw is not None:
            self._adamw.param_groups, self._adamw.state = other, self.state
            self._adamw.step()
        return loss


def _filtered(groups: Groups, condition: Callable[[Parameter], bool]) -> Groups:
    filtered = [{**group, "params": list(filter(condition, group["params"]))} for group in groups]
    return [group for group in filtered if group["params"]]


def _matrices(weights: list[Parameter]) -> list[Tensor]:
    """Return the weights [O, …] as matrices [O, rest] in the same memory, with their gradients."""
    matrices = []
    for weight in weights:
        # Axes in the order of memory, or it would be a copy; the order of columns makes no difference to Muon.
        axes = (0, *sorted(range(1, weight.ndim), key=weight.stride, reverse=True))
        matrix = weight.detach().permute(axes).view(len(weight), -1)
        if weight.grad is not None:
            matrix.grad = weight.grad.permute(axes).reshape(len(weight), -1)
        matrices.append(matrix)
    return matrices
