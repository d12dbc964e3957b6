"""From a configuration to everything that a training consists of, built once.

The loop, a dry run, the learning-rate finder and evaluation use the same objects. What has to be tried before that is
tried on a copy of the network.
"""

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cnnbench.augmentation.base import Augmentation, check_augmentations
from cnnbench.config.rules import evaluated_too_rarely
from cnnbench.config.run_config import RunConfig
from cnnbench.config.schema import DataConfig
from cnnbench.config.validate import as_word
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batches
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.data.split import class_weights
from cnnbench.errors import ConfigError, Mistake, SettingError, counted
from cnnbench.models.build import check_network, count_parameters
from cnnbench.models.head import NamedParts, trace_head
from cnnbench.optim.average import WeightAverage, mean_of, measure_norms
from cnnbench.optim.checks import build_optimizer, build_schedule
from cnnbench.optim.freezing import FreezePlan, plan_freezing
from cnnbench.optim.optimizers import parameter_groups, penalized
from cnnbench.optim.schedules import Horizon, Schedule, scaled_from, warmed_up
from cnnbench.randomness import generator, seed_layers
from cnnbench.registry import AUGMENTATIONS
from cnnbench.store.provenance import cpu_flags
from cnnbench.tasks.base import Task, build_task, check_task, needs_several_samples
from cnnbench.training.remarks import Remark, Trial, remarks_before

DEFAULT_THREADS = torch.get_num_threads()  # before anything sets it: one for each core that this process may use
NVIDIA_ONLY = ("tf32", "fp16")
Refresh = Callable[[nn.Module, int], None]


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that a training is made of.

    spec: what the network is built for: that of the data, with the outputs that the task asks for.
    scaler: of the losses of a training in fp16, whose gradients would vanish; else it does nothing.
    average: of the weights, where that is what is evaluated. refresh: measures the batch-norm statistics of averaged
    weights on training images; from the network and the step after which it was averaged.
    measured: splits that are measured in the course of the training: `val`, by which the best epoch is chosen, and
    others that are only watched.
    parameters: how many the network has, `total`, and how many are trained in the first epoch, `trainable`.
    order: from an epoch to its rows in the order in which they are trained on, int64 [N].
    penalized: weights that l1 and l2 act on, while they are trained.
    freeze: which weights are trained in which epoch. head: the layers that are built for the classes.
    compiled: the network as steps of whole batches call it, with the same layers and weights; None: it is not compiled.
    notes: on data and precision. remarks: on combinations that work, and are often not what was meant.
    """

    config: RunConfig
    data: PreparedData
    task: Task
    spec: DataSpec
    network: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    refresh: Refresh
    schedule: Schedule
    horizon: Horizon
    train: Batches
    measured: Mapping[str, Batches]
    order: Callable[[int], Tensor]
    device: torch.device
    parameters: dict[str, int]
    penalized: list[nn.Parameter] = field(default_factory=list)
    freeze: FreezePlan = field(default_factory=FreezePlan)
    head: NamedParts = field(default_factory=NamedParts)
    compiled: nn.Module | None = None
    notes: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    def batches(self, split: str) -> Batches:
        """Return the batches of a split for measuring: without augmentation, the crop in the middle."""
        data = self.data
        return Batches(getattr(data, split), data.spec, data.mean, data.std, self.device)

    def displayed_metrics(self) -> list[str]:
        """Return which metrics of an epoch are displayed, as `loss/train`, `accuracy/val`; others are in the rows."""
        task = self.task
        displayed = {*task.train_metrics, *task.own_metrics, *(name for name, _ in task.watched)}
        evaluated = [name for name in task.eval_metrics if name in displayed]
        measured = [f"{name}/{split}" for split in self.measured for name in evaluated]
        return [*(f"{name}/train" for name in task.train_metrics), *measured]

    def set_train_mode(self, epoch: int) -> None:
        """Put the network into training mode as it is in an epoch, counted from 1."""
        self.freeze.set_train_mode(self.network, epoch)

    def evaluated(self, step: int) -> nn.Module:
        """Return the network that is evaluated and kept: the trained one, or the average of its weights."""
        if self.average is None or not self.average.has_begun:
            return self.network
        return self.average.network_at(step)

    def averaged(self, states: Sequence[Mapping[str, Tensor]], step: int) -> nn.Module:
        """Return another network, with the mean of some weights, the last of them kept after a step."""
        network = copy.deepcopy(self.network)
        network.load_state_dict(mean_of(states))
        self.refresh(network, step)
        return network


def setup(
    config: RunConfig,
    place: torch.device | None = None,
    prepared: Callable[[DataConfig], PreparedData] = prepare,
) -> TrainingSetup:
    """Build everything for a configuration, as it is before the first step.

    place: where it is built; None: on the configured device. prepared: returns the data. Raises ConfigError for
    settings that do not fit each other, the data or this machine, UserError for data, networks and tasks that do not
    work.
    """
    configured = find_device(config)  # it has to be there, wherever this is built
    device = configured if place is None else place
    data = prepared(config.data)
    task = build_task(config, data.spec)
    spec = replace(data.spec, outputs=task.num_outputs)
    seed_layers(config.seed, "weights", 0, torch.device("cpu"))
    network = check_network(config.network(), spec, config.head, task).train()
    range_notes = _check_batches(config, data, network)
    needs_head = config.freeze.what or config.optimizer.lr_scale or config.source
    head = trace_head(network, spec) if needs_head else NamedParts()
    freeze = plan_freezing(config, network, head)
    horizon = make_horizon(config, -(-len(data.train) // config.batch_size))
    schedule = make_schedule(config, horizon)
    trial = copy.deepcopy(network)
    freeze.set_train_mode(trial, config.epochs)  # with the batch norms that are ever trained
    _check_smallest_batch(config, task, trial, data)
    with torch.random.fork_rng(devices=()):
        number = 3 if len(task.eval_metrics) == 2 else 2  # as many rows as columns would hide that they are exchanged
        check_task(config.task.name, task, trial, data, min(number, config.batch_size))
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config, network, freeze)
    augmentations = make_augmentations(config)
    train = Batches(data.train, data.spec, data.mean, data.std, device, augmentations, config.seed)
    freeze.set_train_mode(network, 1)
    refresh = _make_refresh(config, freeze, horizon, train)
    return TrainingSetup(
        config=config,
        data=data,
        task=task,
        spec=spec,
        network=network,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        average=_make_average(config, network, refresh),
        refresh=refresh,
        schedule=schedule,
        horizon=horizon,
        train=train,
        measured=_measured_splits(config, data, device),
        order=_make_order(config, task, data),
        device=device,
        parameters=count_parameters(network),
        penalized=penalized(network.parameters()) if config.regularization.l1 or config.regularization.l2 else [],
        freeze=freeze,
        head=head,
        notes=(*data.notes, *range_notes, *_notes(config, configured)),
        remarks=remarks_before(Trial(config, task, data, trial)),
    )


def _check_batches(config: RunConfig, data: PreparedData, network: nn.Module) -> list[str]:
    """Return notes. Raises ConfigError where batches, augmentations or dropout do not fit the images or network."""
    number, size, accumulate = len(data.train), config.batch_size, config.accumulate
    if size > number:
        problem = f"exceeds the {number} training images; use at most {number}"
        raise SettingError(f"batch_size={size}", problem, {"batch_size": number})
    few = data.train[torch.arange(min(3, number))]  # of two, one that is left would be broadcast
    batches = Batches(few, data.spec, data.mean, data.std, torch.device("cpu"), make_augmentations(config))
    notes = check_augmentations(batches.augmentations, few.take(torch.arange(len(few))) / 255, batches.margin)
    mistakes = [Mistake(f"augmentation.{name}", problem) for name, problem in batches.problems().items()]
    smallest = number % size or size
    if config.regularization.dropout and not any(isinstance(layer, nn.Dropout) for layer in network.modules()):
        problem = f"has no effect: '{config.model.name}' has no dense layer before the last as it is set"
        mistakes.append(Mistake(f"regularization.dropout={config.regularization.dropout}", problem))
    if accumulate > smallest:
        problem = f"makes more parts than the smallest batch has images, which is {smallest}"
        mistakes.append(Mistake(f"accumulate={accumulate}", problem))
    if config.eval_unit == "step":
        steps = config.epochs * -(-number // size)
        for broken in evaluated_too_rarely(config, steps, counted(steps, "step")):
            mistakes.append(Mistake(as_word(broken.key, broken.value), broken.problem, broken.instead))
    if mistakes:
        raise ConfigError(mistakes)
    return notes


def _check_smallest_batch(config: RunConfig, task: Task, network: nn.Module, data: PreparedData) -> None:
    """Raise SettingError where a batch, or a part of one, is too small for the batch norms that are trained."""
    number, size, accumulate = len(data.train), config.batch_size, config.accumulate
    smallest = number % size or size
    # Which measure statistics on single images.
    is_refreshed = config.regularization.average.kind == "swa" or config.checkpoint.average is not None
    if smallest // accumulate > 1 or not needs_several_samples(task, network, data, is_refreshed):
        return
    if smallest == 1:
        problem = f"makes a batch of one of {number} images, too few for batch norm; change it by one"
        raise SettingError(f"batch_size={size}", problem, {"batch_size": size - 1} if size > 2 else None)
    problem = f"makes parts of one image, too few for batch norm; the smallest batch has {smallest}"
    raise SettingError(f"accumulate={accumulate}", problem)


def find_device(config: RunConfig) -> torch.device:
    """Return the configured device; `auto` is a CUDA GPU where there is one, else the processor.

    Raises ConfigError for a device that is not there, or that does not compute in the configured precision.
    """
    has_cuda = torch.cuda.is_available()
    present = ["cpu", *(["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))] if has_cuda else [])]
    if torch.backends.mps.is_available():
        present.append("mps")
    if config.device not in ("auto", *present):
        raise SettingError(f"device={config.device}", f"is not on this machine; there are {', '.join(present)}")
    device = torch.device(("cuda" if has_cuda else "cpu") if config.device == "auto" else config.device)
    if config.precision in NVIDIA_ONLY and device.type != "cuda":
        problem = f"needs an NVIDIA GPU, and the run would be on '{device}'; use fp32 or bf16 here"
        raise SettingError(f"precision={config.precision}", problem)
    return device


def set_up_torch(device: torch.device, config: RunConfig, threads: int) -> None:
    """Make arithmetic repeatable: number of threads, configured precision, and on a GPU deterministic kernels."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        tf32, deterministic = config.precision == "tf32", config.deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def make_augmentations(config: RunConfig) -> Mapping[str, Augmentation]:
    """Return the configured augmentations by name, in the order in which they act."""
    return {part.name: AUGMENTATIONS.build(part) for part in config.augmentation}


def make_horizon(config: RunConfig, steps_per_epoch: int) -> Horizon:
    """Return how long the training is. Raises ConfigError where the warm-up takes all of it."""
    scheduler = config.scheduler
    return Horizon(config.epochs, steps_per_epoch, scheduler.warmup, scheduler.warmup_unit)


def make_schedule(config: RunConfig, horizon: Horizon) -> Schedule:
    """Return the configured learning-rate schedule. Raises ConfigError where it could have no effect."""
    schedule = build_schedule(config.scheduler.part, horizon)
    schedule = warmed_up(schedule, horizon.warmup_steps) if horizon.warmup else schedule
    freeze = config.freeze
    if freeze.epochs is None or freeze.then_lr is None:
        return schedule
    return scaled_from(schedule, horizon.in_steps(freeze.epochs, "epoch"), freeze.then_lr)


def make_optimizer(config: RunConfig, network: nn.Module, freeze: FreezePlan) -> Optimizer:
    """Return the configured optimizer of all parameters that are ever trained; the others get no gradients.

    Raises ConfigError where that is too little.
    """
    if freeze.epochs is None:
        freeze.set_train_mode(network, 1)
    groups = parameter_groups(network, config.optimizer.decay_norm_and_bias, freeze.lr_factors, freeze.unfrozen_later)
    optimizer = build_optimizer(config.optimizer.part, groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"] * group.get("lr_scale", 1)
    return optimizer


def _make_refresh(config: RunConfig, freeze: FreezePlan, horizon: Horizon, train: Batches) -> Refresh:
    def refresh(averaged: nn.Module, step: int) -> None:
        seed_layers(config.seed, "average", step, train.device)
        freeze.set_train_mode(averaged, -(-step // horizon.steps_per_epoch))
        batches = train.epoch(torch.arange(len(train)), config.batch_size)
        measure_norms(averaged, (batch.images for batch in batches))

    return refresh


def _make_average(config: RunConfig, network: nn.Module, refresh: Refresh) -> WeightAverage | None:
    settings = config.regularization.average
    return None if settings.kind == "none" else WeightAverage(settings, network, config.epochs, refresh)


def _make_order(config: RunConfig, task: Task, data: PreparedData) -> Callable[[int], Tensor]:
    weights = class_weights(config.data.sampling, data.spec.counts)
    return lambda epoch: task.order(data.train.labels, weights, generator(config.seed, "order", epoch))


def _measured_splits(config: RunConfig, data: PreparedData, device: torch.device) -> Mapping[str, Batches]:
    images = {name: getattr(data, name) for name in ("val", config.data.monitor) if name}
    return {name: Batches(part, data.spec, data.mean, data.std, device) for name, part in images.items() if len(part)}


def _notes(config: RunConfig, device: torch.device) -> Iterator[str]:
    if config.data.monitor:
        yield (
            f"data.monitor={config.data.monitor}: these images are measured in the course of the training too; nothing "
            "is chosen by them"
        )
    if config.precision == "bf16" and device.type == "cpu" and not {"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags():
        yield "precision=bf16: this processor has no arithmetic for it; it is emulated, and slower than fp32"
