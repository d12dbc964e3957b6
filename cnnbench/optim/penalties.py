"""L1 and L2 as terms of the loss."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


def penalized(parameters: Iterable[Parameter]) -> list[Parameter]:
    """Return the weights among trained parameters: no biases and no norm parameters, which have one axis only."""
    return [parameter for parameter in parameters if parameter.requires_grad and parameter.ndim > 1]


def penalty(weights: Iterable[Parameter], l1: float, l2: float) -> Tensor:
    """Return l1 x the sum of |w| + l2 x the sum of w^2 over all weights, as a scalar with gradient."""
    total = torch.zeros(())
    for weight in weights:
        if l1:
            total = total + l1 * weight.abs().sum().to(total)
        if l2:
            total = total + l2 * weight.square().sum().to(total)
    return total
