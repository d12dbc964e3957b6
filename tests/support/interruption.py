"""Runs that are stopped, killed and continued, and what each of them ended in, to the last bit."""

import hashlib
import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.api import write_page
from cnnbench.errors import ExitCode, Stopped
from cnnbench.plugins import register_everything
from cnnbench.store.checkpoint import load_newest
from cnnbench.training.loop import Progress
from cnnbench.training.plan import Plan
from cnnbench.training.signals import StopRequests
from cnnbench.training.trainer import Trainer, carry_out
from tests.conftest import latest, only_run
from tests.support.training import SMALL, plan_of

# 72 images train: three epochs of five steps, the last batch smaller. Everything that has a state or draws is on.
WORDS = tuple(
    latest(
        (
            *SMALL, "model=lenet_v2", "data.channels=3", "data.image_size=20", "data.crop=16",
            "augmentation=crop_flip_jitter", "regularization.dropout=0.3", "regularization.batchnorm=true",
            "regularization.early_stopping.patience=2",
        )
    )
)  # fmt: skip
PLAIN = (*SMALL, "model=lenet_v2", "scheduler=none")

Scalars = dict[str, list[list[float]]]  # step and value of each point, by tag


def go(*words: str) -> int:
    """Carry out a command, without the time that composing it takes every time."""
    return carry_out(plan_of(*words), write_page)


def finished(words: Sequence[str], folder: Path) -> Path:
    """Return the folder of a run that nothing came in the way of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(folder))
        torch.set_num_threads(1)
        register_everything()
        assert go(*words) == 0
    return only_run(folder)


# Interrupted, in this process -----------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing is saved when it comes."""


def save_every(patch: pytest.MonkeyPatch, steps: int) -> None:
    patch.setattr(Trainer, "save_is_due", lambda self: self.progress.step % steps == 0)


def stop(plan: Plan, at_check: int) -> None:
    """Carry out a plan until it asks for so manieth time whether to stop; it saves then."""
    calls = count(1)

    def check_stop(_: StopRequests) -> None:
        if next(calls) == at_check:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopRequests, "check", check_stop)
        assert carry_out(plan) in (ExitCode.STOPPED, ExitCode.FINISHED)  # it may have ended before


def kill(plan: Plan, after_step: int, saves_every: int) -> None:
    """Carry out a plan until after a step; nothing is saved then, but was every few steps before."""
    on_step = Trainer.on_step

    def die(self: Trainer, row: dict[str, Any], progress: Progress) -> None:
        on_step(self, row, progress)
        if row["step"] == after_step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        save_every(patch, saves_every)
        patch.setattr(Trainer, "on_step", die)
        with pytest.raises(Killed):
            carry_out(plan)


# What a run ended in --------------------------------------------------------------------------------------------------


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places in which nested values differ in any bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return [f"{where}: {list(one)} and {list(other)}"]
        return [found for key in one for found in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            found for index in range(len(one)) for found in differences(one[index], other[index], f"{where}/{index}")
        ]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    return [] if one == other else [f"{where}: {one!r} and {other!r}"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scalars_of(run: Path) -> Scalars:
    """Return what TensorBoard shows of a run."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [[event.step, event.value] for event in events.Scalars(tag)] for tag in sorted(events.Tags()["scalars"])
    }


def shown_by(rows: list[dict[str, Any]], result: dict[str, Any]) -> Scalars:
    """Return what TensorBoard shall show of rows and result."""
    scalars: Scalars = {}
    for row in rows:
        for key, value in row.items():
            if key not in ("row", "epoch", "step"):
                tag = f"step/{key.removesuffix('/train')}" if row["row"] == "step" else key
                scalars.setdefault(tag, []).append([row["step"], float(np.float32(value))])
    for name in set(result["test"]) - {"samples"}:
        scalars[f"{name}/test"] = [[result["checkpoint"]["step"], float(np.float32(result["test"][name]))]]
    return dict(sorted(scalars.items()))


def outcome_of(run: Path) -> dict[str, Any]:
    """Return everything that shall not depend on interruptions."""
    content = load_newest(run / "checkpoints", pytest.fail)
    assert content is not None
    content["progress"].pop("train_seconds")
    result = read(run / "result.json")
    for timed in ("seconds", "images_per_second", "checksum"):
        result.pop(timed)
    return {"checkpoint": content, "rows": rows_of(run), "result": result, "scalars": scalars_of(run)}


def assert_same(run: Path, unbroken: dict[str, Any]) -> None:
    """Compare a run that was interrupted with the outcome of an unbroken one."""
    outcome = outcome_of(run)
    assert differences(outcome, unbroken) == []
    assert outcome["scalars"] == shown_by(outcome["rows"], outcome["result"])
    assert read(run / "run.json")["status"] == "completed"
    assert not list(run.rglob("*.tmp"))


def child_of(parent: Path) -> Path:
    """Return the folder of the run that continues another one."""
    runs = [path.parent for path in parent.parents[2].glob("*/*/*/run.json")]
    (child,) = [run for run in runs if run != parent]
    return child


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder, but for locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
