"""Training leaves the process as it was, and is not changed by what is set in it."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from cnnbench import api, load_run
from cnnbench.analysis.run import Run
from cnnbench.errors import TrainingError, UserError
from cnnbench.training.signals import SIGNALS
from tests.api.conftest import tiny, weights
from tests.conftest import TINY, latest
from tests.support.training import same

DROPOUT = (*TINY, "model=minialexnet_v2", "data.image_size=32")  # a network that draws from torch's own generator


def state_of_process() -> dict[str, Any]:
    """Return what belongs to the process, or to its user."""
    parts = (cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn)  # type: ignore[attr-defined]
    return {
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy": [str(part) for part in np.random.get_state()],
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32),
        "precision": (torch.get_float32_matmul_precision(), *(part.fp32_precision for part in parts)),
        "signals": {number: signal.getsignal(number) for number in SIGNALS},
        "environment": dict(os.environ),
        "directory": Path.cwd(),
    }


@pytest.fixture
def own_settings() -> Iterator[None]:
    """Settings of a user's own, none of which is torch's default."""
    torch.manual_seed(11)
    random.seed(12)
    np.random.seed(13)
    torch.rand(3)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)
    cudnn.benchmark = True
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    with torch.no_grad():
        yield
    signal.signal(signal.SIGUSR1, before)
    cudnn.benchmark = False
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(1)


def in_thread(function: Callable[[], Run]) -> Run:
    """Return what a function returns in a thread of its own."""
    results: list[Run] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    (result,) = results
    return result


def diverged() -> None:
    with pytest.raises(TrainingError):
        tiny("model=mlp", "optimizer.lr=1e30")


def refused() -> None:
    with pytest.raises(UserError):
        tiny("model=mlp", "batch_size=5000")


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize(
    "use",
    [
        lambda _: tiny(*DROPOUT, "epochs=1"),
        lambda _: in_thread(lambda: tiny(*DROPOUT, "epochs=1")),
        lambda _: diverged(),
        lambda _: refused(),
        lambda _: api.sweep(TINY, model="mlp", epochs=1, seed=[0], progress="quiet"),
        lambda run: run.model(),
        lambda run: run.data("val"),
        lambda run: run.evaluate(),
        lambda run: run.explain(what="kernels,tsne"),
        lambda run: run.export("safetensors"),
    ],
    ids=["train", "train in a thread", "diverged", "refused", "sweep", "model", "data", "evaluate", "explain",
         "export"],
)  # fmt: skip
def test_the_process_is_as_it_was(run, use):
    import_module("sklearn")  # which sets variables of the environment, once
    before = state_of_process()
    use(run)
    after = state_of_process()
    assert [key for key in before if before[key] != after[key]] == []


def test_flags_for_a_gpu_are_given_back_too():
    from cnnbench.training.setup import set_up_torch
    from cnnbench.training.torch_state import borrowed_torch

    config = api.plan(TINY).config.model_copy(update={"precision": "tf32"})
    before = state_of_process()
    with borrowed_torch():
        set_up_torch(torch.device("cuda"), config, 2)
        assert cudnn.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
        assert state_of_process() != before
    assert state_of_process() == before


def test_gpus_that_a_training_woke_up_are_seeded_as_their_user_said(monkeypatch):
    from cnnbench.training.torch_state import borrowed_torch

    torch.manual_seed(41)
    awake, seeds = [False], []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: awake[0])
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeds.append(seed) if awake[0] else None)
    with borrowed_torch():
        pass
    assert seeds == []
    with borrowed_torch():
        awake[0] = True
        torch.default_generator.manual_seed(5)
    assert seeds == [41]
    states = [torch.zeros(16, dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", seeds.append)
    with borrowed_torch():
        pass
    assert seeds[1] is states


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Return the weights of a training in a process where nobody has set anything."""
    code = f"import cnnbench; print(cnnbench.train({latest(DROPOUT)!r}, progress='quiet').path)"
    environment = os.environ | {"CNNBENCH_OUTPUTS": str(tmp_path_factory.mktemp("alone"))}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return weights(load_run(ran.stdout.strip()))


@pytest.mark.thorough
@pytest.mark.usefixtures("own_settings")
def test_the_settings_of_its_user_do_not_change_the_bits_of_a_training(alone):
    assert same(weights(tiny(*DROPOUT)), alone)


def test_a_training_in_a_thread_has_the_same_bits(alone):
    assert same(weights(in_thread(lambda: tiny(*DROPOUT))), alone)


def test_trainings_in_two_threads_take_turns(alone):
    runs: list[Run] = []
    words = (DROPOUT, (*DROPOUT, "seed=1"))
    threads = [threading.Thread(target=lambda some=some: runs.append(tiny(*some))) for some in words]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (first,) = [run for run in runs if run.config.seed == 0]
    assert len(runs) == 2
    assert same(weights(first), alone)


def test_a_training_in_the_midst_of_another_does_not_disturb_it(alone):
    inner: list[Run] = []

    def train_another(run: Run, _row: Any) -> None:
        inner.append(tiny("model=mlp", "seed=3", "epochs=1"))
        torch.rand(7)
        run.data("val")

    assert same(weights(tiny(*DROPOUT, on_epoch=train_another)), alone)
    assert len(inner) == 3
