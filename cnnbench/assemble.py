"""From a checked configuration to everything that a training is made of."""

import os

import torch

from cnnbench.config import RunConfig
from cnnbench.data.batches import Batches
from cnnbench.loop import Parts
from cnnbench.models.build import build_network
from cnnbench.preflight import Ready, make_augmentations, make_schedule
from cnnbench.randomness import seed_layers
from cnnbench.registry import OPTIMIZERS, TASKS

DEFAULT_THREADS = torch.get_num_threads()  # before anything sets it: one a core that this process may use


def make_parts(config: RunConfig, ready: Ready) -> Parts:
    """Return everything that a training is made of, at its very beginning."""
    data, device = ready.data, ready.device
    seed_layers(config.seed, "weights", 0, torch.device("cpu"))
    network = build_network(config.network(), data.spec).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = OPTIMIZERS.build(config.optimizer.part, [weight for weight in network.parameters() if weight.requires_grad])
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    train = Batches(data.train, data.spec, data.mean, data.std, device, make_augmentations(config), config.seed)
    val = plain_batches(ready, "val") if len(data.val) else None
    task = TASKS.build(config.objective(), data.spec)
    return Parts(
        config, task, network, optimizer, make_schedule(config, ready.horizon), ready.horizon, train, val, device
    )


def set_up_torch(device: torch.device, threads: int, deterministic: bool) -> None:
    """Make arithmetic repeatable: so many threads, full precision, and on a GPU deterministic kernels."""
    torch.set_num_threads(threads)
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = not deterministic
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def plain_batches(ready: Ready, split: str) -> Batches:
    """Return the batches of a split without augmentation, the window in the middle: for measuring."""
    data = ready.data
    return Batches(getattr(data, split), data.spec, data.mean, data.std, ready.device)
