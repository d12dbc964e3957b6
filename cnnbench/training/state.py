"""What a checkpoint holds of a training, and a training that is put back to where a checkpoint left it."""

from collections.abc import Mapping
from typing import Any

from cnnbench.config.run_config import RunConfig
from cnnbench.training.loop import Best, Progress
from cnnbench.training.setup import TrainingSetup


def snapshot(training: TrainingSetup, progress: Progress) -> dict[str, Any]:
    """Return the content of a checkpoint: tensors and plain values."""
    best, *runners_up = [dict(vars(one)) for one in progress.ranked] if progress.ranked else [None]
    return {
        "network": training.network.state_dict(),
        **{name: part.state_dict() for name, part in _stateful(training).items()},
        "progress": {key: value for key, value in vars(progress).items() if key != "ranked"},
        "best": best,
    } | ({"runners_up": runners_up} if runners_up else {})


def restore(training: TrainingSetup, content: Mapping[str, Any]) -> Progress:
    """Take the state from a checkpoint; settings, such as the learning rate, stay those of the configuration."""
    optimizer = training.optimizer
    state = ("params", "lr")  # the rate of the last step; the loop sets that of the next
    settings = [{key: value for key, value in group.items() if key not in state} for group in optimizer.param_groups]
    training.network.load_state_dict(content["network"])
    for name, part in _stateful(training).items():
        if name in content:  # a run that continues another one may have more than that had
            part.load_state_dict(content[name])
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    ranked = [Best(**one) for one in (content["best"], *content.get("runners_up", ())) if one is not None]
    return Progress(**content["progress"], ranked=ranked)


def restore_parent(training: TrainingSetup, content: Mapping[str, Any], parent: RunConfig) -> Progress:
    """Take the state from a checkpoint of the run that a longer one continues. parent: its configuration."""
    progress = restore(training, content)
    progress.stopped_early, progress.waited = False, 0
    if training.config.checkpoint.average is not None:  # of how many the parent kept more, its identity does not say
        del progress.ranked[parent.checkpoint.average or 1 :]
    return progress


def _stateful(training: TrainingSetup) -> dict[str, Any]:
    """Return what has a state besides the network, by its name in a checkpoint."""
    scaler = training.scaler if training.scaler.is_enabled() else None
    candidates = {"optimizer": training.optimizer, "scaler": scaler, "average": training.average}
    return {name: part for name, part in candidates.items() if part is not None}
