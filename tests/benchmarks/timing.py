"""What the benchmarks share: works that take turns, and a line that says on which machine they do."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from statistics import median

import torch

from cnnbench.store.provenance import cpu_model

Works = dict[str, Callable[[], object]]


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object]) -> float:
    """Return how long a work takes; what sets something up first says it itself, as a float."""
    began = time.perf_counter()
    own = work()
    return own if isinstance(own, float) else time.perf_counter() - began


def take_turns(works: Works, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each work in each round, after one that is not counted."""
    for work in works.values():
        work()  # the first time allocates memory and chooses kernels
    spent = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in spent] for name in works}


def ratio(other: list[float], own: list[float]) -> str:
    """Return how many times as fast one's own work was, median, lowest and highest of the rounds."""
    ratios = [theirs / ours for theirs, ours in zip(other, own, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} – {max(ratios):.2f})"


def machine() -> str:
    found = []
    for name in ("torch", "torchvision", "lightning", "torchmetrics"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    spins = os.environ.get("GOMP_SPINCOUNT", "torch's own")
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {cpu_model()}, load {os.getloadavg()[0]:.1f}, "
        f"python {platform.python_version()}, {', '.join(found)}, {spins} spins"
    )
