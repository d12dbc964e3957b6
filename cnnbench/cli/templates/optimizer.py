"""An optimizer: has a setting `lr`, which schedules scale. One of torch's can be returned as it is."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch.optim import Optimizer

from cnnbench.optim.optimizers import Groups
from cnnbench.registry import OPTIMIZERS


class SignDescent(Optimizer):
    """Steps of one length along the sign of the averaged gradient (signSGD, arXiv:1802.04434)."""

    def __init__(self, groups: Groups, **settings: Any) -> None:
        super().__init__(groups, settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the weights by their gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]  # saved in checkpoints
                average = state.setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(average.sign(), alpha=group["lr"])


@OPTIMIZERS.register("my_optimizer")
def my_optimizer(
    groups: Groups,
    *,
    lr: PositiveFloat = 0.001,
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Sign descent."""
    return SignDescent(groups, lr=lr, momentum=momentum, weight_decay=weight_decay)
