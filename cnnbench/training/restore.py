"""What of a training has a state, and how it comes back from a checkpoint."""

from collections.abc import Mapping
from typing import Any

from cnnbench.training.loop import Best, Progress
from cnnbench.training.step import Parts


def stateful(parts: Parts) -> dict[str, Any]:
    """Return what has a state beside the network, by the name that it has in a checkpoint."""
    scaler = parts.scaler if parts.scaler.is_enabled() else None
    found = {"optimizer": parts.optimizer, "scaler": scaler, "average": parts.average}
    return {name: part for name, part in found.items() if part is not None}


def restore(parts: Parts, content: Mapping[str, Any]) -> Progress:
    """Take the state from a checkpoint; settings, such as the learning rate, stay those of the configuration."""
    optimizer = parts.optimizer
    state = ("params", "lr")  # the rate of the last step; the loop sets that of the next
    settings = [{key: value for key, value in group.items() if key not in state} for group in optimizer.param_groups]
    parts.network.load_state_dict(content["network"])
    for name, part in stateful(parts).items():
        if name in content:  # a run that goes on from another one may have more than that had
            part.load_state_dict(content[name])
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    return Progress(**content["progress"], best=None if content["best"] is None else Best(**content["best"]))
