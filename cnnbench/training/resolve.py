"""What is checked before anything is trained or written: that the parts of a run fit each other and the data."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.optim import Optimizer

from cnnbench.augmentation.base import Augmentation
from cnnbench.config.rules import too_patient
from cnnbench.config.schema import RunConfig
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batches
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.errors import ConfigError, Mistake
from cnnbench.models.build import check_network, count_parameters
from cnnbench.models.head import NamedParts, trace_head
from cnnbench.optim.freezing import FreezePlan, plan_freezing
from cnnbench.optim.optimizers import parameter_groups
from cnnbench.optim.schedules import Horizon, Schedule, scaled_from, warmed_up
from cnnbench.registry import AUGMENTATIONS, OPTIMIZERS, SCHEDULERS, TASKS
from cnnbench.store.provenance import processor_flags
from cnnbench.tasks.base import Task, check_task


@dataclass(frozen=True)
class Ready:
    """What the checks have found out, so that a run need not find it out again."""

    data: PreparedData
    task: Task
    spec: DataSpec  # what the model is built for: of the data, with the outputs that the task asks for
    horizon: Horizon
    parameters: dict[str, int]
    device: torch.device
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, torch.Size] = field(default_factory=dict)  # of the network's weights and buffers
    named: NamedParts = field(default_factory=NamedParts)  # found where anything names one
    training: FreezePlan = field(default_factory=FreezePlan)


def preflight(config: RunConfig) -> Ready:
    """Return what a run starts from. Raises UserError (ConfigError for settings) where it could not be carried out."""
    device = find_device(config.device)
    if config.precision in ("tf32", "fp16") and device.type != "cuda":
        problem = f"needs an NVIDIA GPU, and the run would be on '{device}'; use fp32 or bf16 here"
        raise ConfigError([Mistake(f"precision={config.precision}", problem)])
    data = prepare(config.data)
    task: Task = TASKS.build(config.objective(), data.spec)
    spec = replace(data.spec, outputs=task.num_outputs)
    task.validate(config)
    network = check_network(config.network(), spec, config.head, task)
    names_parts = config.freeze.what or config.optimizer.lr_scale or config.source
    named = trace_head(network, spec) if names_parts else NamedParts()
    training = plan_freezing(config, network, named)
    num_train = len(data.train)
    if config.batch_size > num_train:
        problem = f"exceeds the {num_train} training images; use at most {num_train}"
        raise ConfigError([Mistake(f"batch_size={config.batch_size}", problem)])
    mistakes = [Mistake(f"augmentation.{name}", problem) for name, problem in _sample(config, data).problems().items()]
    smallest = num_train % config.batch_size or config.batch_size
    has_norm = any(isinstance(part, nn.BatchNorm1d) for part in network.modules())
    if smallest == 1 and has_norm:
        problem = f"makes a batch of one of {num_train} images, too few for batch norm; change it by one"
        mistakes.append(Mistake(f"batch_size={config.batch_size}", problem))
    if config.regularization.dropout and not any(isinstance(part, nn.Dropout) for part in network.modules()):
        problem = f"has no effect: '{config.model.name}' has no dense layer before the last as it is set"
        mistakes.append(Mistake(f"regularization.dropout={config.regularization.dropout}", problem))
    if config.accumulate > smallest:
        problem = f"makes more parts than the smallest batch has images, which is {smallest}"
        mistakes.append(Mistake(f"accumulate={config.accumulate}", problem))
    elif config.accumulate > 1 and has_norm and smallest // config.accumulate < 2:
        problem = f"makes parts of one image, too few for batch norm; the smallest batch has {smallest}"
        mistakes.append(Mistake(f"accumulate={config.accumulate}", problem))
    steps_per_epoch = -(-num_train // config.batch_size)
    num_steps = config.epochs * steps_per_epoch
    if config.eval_unit == "step":
        for key, patience, problem in too_patient(config, num_steps, f"{num_steps} steps"):
            mistakes.append(Mistake(f"{key}={patience}", problem))
    if mistakes:
        raise ConfigError(mistakes)
    horizon = horizon_of(config, steps_per_epoch)
    make_schedule(config, horizon)
    try:
        make_optimizer(config, network, training)
    except ValueError as error:
        raise ConfigError([Mistake(f"optimizer.name={config.optimizer.name}", str(error))]) from error
    notes = (*data.notes, *_precision_notes(config, device))
    check_task(config.task.name, task, network, data, min(2, config.batch_size))
    training.set_train_mode(network, 1)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    return Ready(data, task, spec, horizon, count_parameters(network), device, notes, shapes, named, training)


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


def _precision_notes(config: RunConfig, device: torch.device) -> tuple[str, ...]:
    if config.precision != "bf16" or device.type != "cpu" or {"avx512_bf16", "amx_bf16", "bf16"} & processor_flags():
        return ()
    return ("precision=bf16: this processor has no arithmetic for it; it is emulated, and slower than fp32",)


def make_augmentations(config: RunConfig) -> Mapping[str, Augmentation]:
    """Return the configured augmentations by name, in the order in which they act."""
    return {part.name: AUGMENTATIONS.build(part) for part in config.augmentation}


def horizon_of(config: RunConfig, steps_per_epoch: int) -> Horizon:
    """Return how long the training is. Raises UserError where warming up takes all of it."""
    return Horizon(config.epochs, steps_per_epoch, config.scheduler.warmup, config.scheduler.warmup_unit)


def make_schedule(config: RunConfig, horizon: Horizon) -> Schedule:
    """Return the configured learning-rate schedule. Raises UserError where it could have no effect."""
    schedule: Schedule = SCHEDULERS.build(config.scheduler.part, horizon)
    schedule = warmed_up(schedule, horizon.warmup_steps) if horizon.warmup else schedule
    freeze = config.freeze
    if freeze.epochs is None or freeze.then_lr is None:
        return schedule
    return scaled_from(schedule, horizon.in_steps(freeze.epochs, "epoch"), freeze.then_lr)


def make_optimizer(config: RunConfig, network: nn.Module, training: FreezePlan) -> Optimizer:
    """Return the configured optimizer of what is trained, sooner or later. Raises ValueError where that is too little.

    What never is gets no gradients from here on.
    """
    if training.epochs is None:
        training.set_train_mode(network, 1)
    decay = config.optimizer.decay_norm_and_bias
    groups = parameter_groups(network, decay, training.lr_factors, training.unfrozen_later)
    optimizer: Optimizer = OPTIMIZERS.build(config.optimizer.part, groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"] * group.get("lr_scale", 1)
    return optimizer


def _sample(config: RunConfig, data: PreparedData) -> Batches:
    one = data.train[torch.zeros(1, dtype=torch.int64)]
    return Batches(one, data.spec, data.mean, data.std, torch.device("cpu"), make_augmentations(config))
