"""Torch's process-wide state, borrowed for as long as cnnbench computes, and restored afterwards."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.backends import cuda, cudnn, mkldnn

_ONE_AT_A_TIME = threading.RLock()
"""Random generators and the number of threads belong to the process: trainings in two threads take turns."""
CPU = torch.device("cpu")
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
EXACT = "highest"
NEW = "fp32_precision"


@contextmanager
def borrowed_torch() -> Iterator[None]:
    """Compute as in a new process: with torch's defaults, whatever its user has set, and without side effects.

    Also a decorator. Generators, threads, flags and default dtype are restored at the end, even after an error. While
    this lasts, other threads of the process do see what is set here.
    """
    with _ONE_AT_A_TIME:
        give_back = list(_snapshot())
        try:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)
            _multiply_exactly()
            with torch.inference_mode(mode=False), torch.enable_grad():
                yield
        finally:
            for restore in give_back:
                restore()


def _snapshot() -> Iterator[Callable[[], object]]:
    """Yield what restores the state as it is now, part by part."""
    yield from _precisions()
    yield _kept(torch.get_rng_state, torch.set_rng_state)
    yield _gpu_generators()
    if torch.backends.mps.is_available():
        yield _kept(torch.mps.get_rng_state, torch.mps.set_rng_state)
    yield _kept(torch.get_num_threads, torch.set_num_threads)
    yield _kept(torch.get_default_dtype, torch.set_default_dtype)
    yield _kept(torch.get_default_device, lambda device: torch.set_default_device(device if device != CPU else None))
    yield _kept(lambda: cudnn.benchmark, partial(setattr, cudnn, "benchmark"))
    yield _kept(_deterministic, lambda flags: torch.use_deterministic_algorithms(flags[0], warn_only=flags[1]))
    filling: Any = torch.utils.deterministic
    yield _kept(lambda: filling.fill_uninitialized_memory, partial(setattr, filling, "fill_uninitialized_memory"))
    yield _kept(lambda: os.environ.get(CUBLAS), _set_workspace)


def _kept(get: Callable[[], Any], put: Callable[[Any], object]) -> Callable[[], object]:
    value = get()
    return lambda: put(value)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_workspace(value: str | None) -> None:
    os.environ.pop(CUBLAS, None)
    if value is not None:
        os.environ[CUBLAS] = value


def _gpu_generators() -> Callable[[], object]:
    """Return what restores the generators of GPUs, without initialising these: that takes memory and a second."""
    if _gpus_are_initialised():
        return _kept(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all)
    seed = torch.initial_seed()  # by `torch.manual_seed`, it counts for GPUs too; nothing can have been drawn there yet

    def restore() -> None:
        if _gpus_are_initialised():
            torch.cuda.manual_seed_all(seed)

    return restore


def _gpus_are_initialised() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _precisions() -> Iterator[Callable[[], object]]:
    """Yield what restores how float32 is multiplied.

    torch has an old and a new way to say that; reading the old one fails once the new one was used.
    """
    old = (
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (lambda: cudnn.allow_tf32, partial(setattr, cudnn, "allow_tf32")),
    )
    for get, put in old:
        try:
            yield _kept(get, put)
        except RuntimeError:
            continue
    for library, names in ((cuda, "matmul"), (cudnn, "conv rnn"), (mkldnn, "matmul conv rnn")):
        for part in (getattr(library, name) for name in names.split()):
            yield _kept(partial(getattr, part, NEW), partial(_set_if_other, part))


def _set_if_other(part: Any, precision: str) -> None:
    """Set the precision of a kind of operation, unless it follows from a setting for all of them."""
    if getattr(part, NEW) != precision:
        setattr(part, NEW, precision)


def _multiply_exactly() -> None:
    """Multiply float32 in float32, on CPUs too, until a run says otherwise."""
    try:
        is_exact = torch.get_float32_matmul_precision() == EXACT
    except RuntimeError:
        is_exact = False
    if not is_exact:
        torch.set_float32_matmul_precision(EXACT)
