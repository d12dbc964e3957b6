"""What is checked before anything is trained or written: that the parts of a run fit each other and the data."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from cnnbench.augmentation.base import Augmentation
from cnnbench.config import RunConfig
from cnnbench.data.batches import Batches
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.errors import ConfigError, Mistake
from cnnbench.models.build import check_network, count_parameters
from cnnbench.optim.schedules import Horizon, Schedule
from cnnbench.registry import AUGMENTATIONS, OPTIMIZERS, SCHEDULERS


@dataclass(frozen=True)
class Ready:
    """What the checks have found out, so that a run need not find it out again."""

    data: PreparedData
    horizon: Horizon
    parameters: dict[str, int]
    device: torch.device


def preflight(config: RunConfig) -> Ready:
    """Return what a run starts from. Raises UserError (ConfigError for settings) where it could not be carried out."""
    device = find_device(config.device)
    data = prepare(config.data)
    network = check_network(config.network(), data.spec)
    num_train = len(data.train)
    if config.batch_size > num_train:
        problem = f"exceeds the {num_train} training images; use at most {num_train}"
        raise ConfigError([Mistake(f"batch_size={config.batch_size}", problem)])
    mistakes = [Mistake(f"augmentation.{name}", problem) for name, problem in _sample(config, data).problems().items()]
    smallest = num_train % config.batch_size or config.batch_size
    if smallest == 1 and any(isinstance(part, nn.BatchNorm1d) for part in network.modules()):
        problem = f"makes a batch of one of {num_train} images, too few for batch norm; change it by one"
        mistakes.append(Mistake(f"batch_size={config.batch_size}", problem))
    if config.regularization.dropout and not any(isinstance(part, nn.Dropout) for part in network.modules()):
        problem = f"has no effect: '{config.model.name}' has no dense layer before the last as it is set"
        mistakes.append(Mistake(f"regularization.dropout={config.regularization.dropout}", problem))
    if mistakes:
        raise ConfigError(mistakes)
    horizon = Horizon(config.epochs, -(-num_train // config.batch_size))
    make_schedule(config, horizon)
    try:
        OPTIMIZERS.build(config.optimizer.part, [nn.Parameter(torch.zeros(1))])
    except ValueError as error:
        raise ConfigError([Mistake(f"optimizer.name={config.optimizer.name}", str(error))]) from error
    return Ready(data, horizon, count_parameters(network), device)


def find_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is a CUDA GPU where there is one, else the processor."""
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    there = ["cpu", *(["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))] if has_cuda else [])]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name not in there:
        raise ConfigError([Mistake(f"device={name}", f"is not on this machine; there are {', '.join(there)}")])
    return torch.device(name)


def make_augmentations(config: RunConfig) -> Mapping[str, Augmentation]:
    """Return the configured augmentations by name, in the order in which they act."""
    return {part.name: AUGMENTATIONS.build(part) for part in config.augmentation}


def make_schedule(config: RunConfig, horizon: Horizon) -> Schedule:
    """Return the configured learning-rate schedule. Raises UserError where it could have no effect."""
    schedule: Schedule = SCHEDULERS.build(config.scheduler.part, horizon)
    return schedule


def _sample(config: RunConfig, data: PreparedData) -> Batches:
    one = data.train[torch.zeros(1, dtype=torch.int64)]
    return Batches(one, data.spec, data.mean, data.std, torch.device("cpu"), make_augmentations(config))
