"""The parameters of a network as an optimizer takes them: in groups that differ in their settings."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from cnnbench.optim.penalties import penalized

Groups = list[dict[str, Any]]
"""What torch's optimizers take: under "params" a list of parameters, beside it the settings that differ in it."""


def parameter_groups(
    network: nn.Module, decay_norm_and_bias: bool, rates: Mapping[str, float] | None = None, late: Collection[str] = ()
) -> Groups:
    """Return what is trained in a network: one group, or one with and one without weight decay; never an empty one.

    decay_norm_and_bias: whether weight decay shall act on biases and norm parameters too, which have one axis only.
    rates: factors on the learning rate by parameter, where they are not 1; `lr_scale` in a group. late: parameters that
    are trained later than others; they share no group with them, since optimizers begin a group as a whole.
    """
    alike: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            kind = (name in late, (rates or {}).get(name, 1.0))
            # Groups in the order of their last parameters: the last of all is that of the head.
            alike[kind] = [*alike.pop(kind, []), parameter]
    groups: Groups = []
    for (_, factor), trained in alike.items():
        own: Groups = [{"params": trained}]
        if not decay_norm_and_bias:
            thin = [parameter for parameter in trained if parameter.ndim <= 1]
            own = [{"params": penalized(trained)}, {"params": thin, "weight_decay": 0.0}]
        groups += own if factor == 1 else [group | {"lr_scale": factor} for group in own]
    return [group for group in groups if group["params"]]
