"""Trainings without a run around them: the plan of a command, its training, the loop, and what it tells."""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from cnnbench.config.compose import Composer
from cnnbench.data.loader import Batch
from cnnbench.errors import Stopped
from cnnbench.training.loop import Progress, fit
from cnnbench.training.plan import Plan, plan_run
from cnnbench.training.setup import TrainingSetup, set_up_torch, setup
from tests.conftest import TINY, latest

SMALL = tuple(latest((*TINY, "data.num_train=80")))  # 72 images train, three epochs: four batches of 16, and one of 8

# The run of tests of what is done with finished ones: colour, a crop of what there is, few maps.
SHARED = (
    *SMALL, "model=lenet_v2", "model.maps=[4,6]", "model.units=[12]", "data.channels=3", "data.image_size=20",
    "data.crop=16", "data.num_test=40", "augmentation=crop_flip_jitter",
)  # fmt: skip


class Recorder:
    """Records its calls; asks for no checkpoint, and for a stop after `stop_after` steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []
        self.validations: list[dict[str, Any]] = []
        self.bests: list[bool] = []
        self.saves = 0
        self.stop_after = stop_after

    def on_step(self, row: dict[str, Any], progress: Progress) -> None:
        self.steps.append(row)

    def on_epoch(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        self.epochs.append(row)
        self.bests.append(is_best)

    def on_validation(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        self.validations.append(row)

    def save_is_due(self) -> bool:
        return False

    def save(self) -> None:
        self.saves += 1

    def stopping_at_once(self) -> AbstractContextManager[None]:
        return nullcontext()

    def check_stop(self) -> None:
        if self.stop_after is not None and len(self.steps) >= self.stop_after:
            raise Stopped


@lru_cache
def plan_of(*words: str) -> Plan:
    """Return the plan of a command; composing it takes a while, and is done once."""
    return plan_run(Composer(), latest(words))


def prepared(*words: str) -> TrainingSetup:
    """Return the setup of the training of a command, before its first step."""
    training = setup(plan_of(*words).config)
    set_up_torch(training.device, training.config, 1)
    return training


def trained(*words: str) -> tuple[TrainingSetup, Recorder, Progress]:
    """Return the same at its end, and what was reported meanwhile."""
    training = prepared(*words)
    recorder, progress = Recorder(), Progress()
    fit(training, progress, recorder)
    return training, recorder, progress


def first_batch(training: TrainingSetup) -> Batch:
    return next(iter(training.train.epoch(training.order(1), training.config.batch_size, 1)))


def weights_of(training: TrainingSetup) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in training.network.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Tell whether two networks have the same weights and buffers, to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
