"""From a checked configuration to everything that a training is made of."""

import os
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from cnnbench.config.schema import RunConfig
from cnnbench.data.loader import Batches
from cnnbench.data.prepare import PreparedData
from cnnbench.data.sampling import class_weights
from cnnbench.models.build import build_network
from cnnbench.optim.average import WeightAverage, measure_norms
from cnnbench.optim.optimizers import penalized
from cnnbench.randomness import generator, seed_layers
from cnnbench.tasks.base import Task
from cnnbench.training.init import Start, find_start
from cnnbench.training.resolve import Ready, make_augmentations, make_optimizer, make_schedule, preflight
from cnnbench.training.step import Parts

DEFAULT_THREADS = torch.get_num_threads()  # before anything sets it: one a core that this process may use


def make_parts(config: RunConfig, ready: Ready, start: Start | None = None) -> Parts:
    """Return everything that a training is made of, at its very beginning."""
    data, device, penalties = ready.data, ready.device, config.regularization
    seed_layers(config.seed, "weights", 0, torch.device("cpu"))
    network = build_network(config.network(), ready.spec, config.head, ready.task)
    if start is not None:
        start.enter(network)
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(config, network, ready.training)
    train = Batches(data.train, data.spec, data.mean, data.std, device, make_augmentations(config), config.seed)
    parts = Parts(
        config=config,
        task=ready.task,
        network=network,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(device.type, enabled=config.precision == "fp16"),
        average=_make_average(config, ready, network, train),
        schedule=make_schedule(config, ready.horizon),
        horizon=ready.horizon,
        train=train,
        order=_make_order(config, ready.task, data),
        val=plain_batches(ready, "val") if len(data.val) else None,
        device=device,
        penalized=penalized(network.parameters()) if penalties.l1 or penalties.l2 else [],
        training=ready.training,
    )
    parts.enter(1)
    return parts


def _make_average(config: RunConfig, ready: Ready, network: nn.Module, train: Batches) -> WeightAverage | None:
    settings = config.regularization.average
    if settings.kind == "none":
        return None

    def refresh(averaged: nn.Module, step: int) -> None:
        seed_layers(config.seed, "average", step, train.device)
        ready.training.set_train_mode(averaged, -(-step // ready.horizon.steps_per_epoch))
        batches = train.epoch(torch.arange(len(train)), config.batch_size)
        measure_norms(averaged, (batch.images for batch in batches))

    return WeightAverage(settings, network, config.epochs, refresh)


def _make_order(config: RunConfig, task: Task, data: PreparedData) -> Callable[[int], Tensor]:
    weights = class_weights(config.data.sampling, data.spec.counts)
    return lambda epoch: task.order(data.train.labels, weights, generator(config.seed, "order", epoch))


def prepare_trial(config: RunConfig) -> tuple[Ready, Parts]:
    """Return what a training is made of, to try it out; arithmetic is set up for it."""
    ready = preflight(config)
    start = find_start(config, ready)
    set_up_torch(ready.device, config, config.threads or DEFAULT_THREADS)
    notes = ready.notes if start is None else (*ready.notes, *start.record["notes"])
    return replace(ready, notes=notes), make_parts(config, ready, start)


def set_up_torch(device: torch.device, config: RunConfig, threads: int) -> None:
    """Make arithmetic repeatable: so many threads, the configured precision, and on a GPU deterministic kernels."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        tf32, deterministic = config.precision == "tf32", config.deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def plain_batches(ready: Ready, split: str) -> Batches:
    """Return the batches of a split without augmentation, the window in the middle: for measuring."""
    data = ready.data
    return Batches(getattr(data, split), data.spec, data.mean, data.std, ready.device)
