"""The parameters of a network as an optimizer takes them: in groups that differ in their settings."""

from typing import Any

from torch import nn

from cnnbench.optim.penalties import penalized

Groups = list[dict[str, Any]]
"""What torch's optimizers take: under "params" a list of parameters, beside it the settings that differ in it."""


def parameter_groups(network: nn.Module, decay_norm_and_bias: bool) -> Groups:
    """Return what is trained in a network: one group, or one with and one without weight decay; never an empty one.

    decay_norm_and_bias: whether weight decay shall act on biases and norm parameters too, which have one axis only.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: Groups = [{"params": trained}]
    if not decay_norm_and_bias:
        thin = [parameter for parameter in trained if parameter.ndim <= 1]
        groups = [{"params": penalized(trained)}, {"params": thin, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
