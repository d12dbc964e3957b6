"""Commands that are killed for good at random, given again until they complete, and compared with undisturbed ones."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.conftest import TINY, latest, only_run
from tests.support.interruption import differences, finished, outcome_of, read
from tests.support.photographs import write_own
from tests.support.processes import Command

Start = Callable[..., Command]

# 72 images train: three epochs of five steps. A checkpoint after every step, so that there is much to be disturbed.
BASE = (*TINY, "data.num_train=80", "model=lenet_v2", "checkpoint.every_seconds=0")
CODES = ("model=embedding_net", "model.maps=[4,6]", "model.units=[12]", "model.dimensions=5")
DRAWS = ("augmentation=pad_crop_flip", "regularization.dropout=0.2")
PAGE = "report=true"

# RUN stands for a run that was finished before.
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "a classifier with its page": (*BASE, *DRAWS, PAGE, "regularization.batchnorm=true"),
    "an autoencoder": (*BASE, PAGE, "model=conv_encoder", "model.maps=[8,4]", "task=autoencoder", "task.show_every=1"),
    "pairs": (*BASE, *CODES, "task=siamese", "task.show_every=1"),
    "triplets": (*BASE, *CODES, PAGE, "task=triplet", "task.show_every=2"),
    "triplets that are mined": (*BASE, *CODES, "task=triplet", "task.mining=semihard"),
    "an exponential average": (*BASE, *DRAWS, "regularization.average.kind=ema", "checkpoint.keep=1"),
    "an average of epochs": (*BASE, PAGE, "regularization.average.kind=swa", "regularization.average.start=0.3"),
    "the three best, averaged": (
        *BASE, *DRAWS, PAGE, "checkpoint.average=3", "checkpoint.keep=1", "eval_every=2", "eval_unit=step",
    ),
    "phases": (*BASE, *DRAWS, "freeze.what=features", "freeze.epochs=1", "freeze.then_lr=0.1"),
    "a fold": (*BASE, "data.folds=4", "data.fold=1", "data.label_noise=0.2", "data.sampling=balanced"),
    "bf16": (*BASE, *DRAWS, "precision=bf16"),
    "photographs": (
        *(word for word in BASE if not word.startswith("data")), PAGE, "data=image_folder", "data.folder=own",
        "data.image_size=20", "data.crop=16", "batch_size=8", "augmentation=crop_flip_jitter",
    ),
    "batches in parts": (*BASE, "accumulate=2", "optimizer=adamw", "regularization.clip.norm=0.1", "num_workers=2"),
    "early stopping and plateau": (
        *BASE, "epochs=4", "scheduler=plateau", "scheduler.patience=1", "scheduler.min_delta=0.9", "eval_every=2",
        "eval_unit=step", "regularization.early_stopping.patience=4", "regularization.early_stopping.min_delta=0.9",
    ),
    "mixup": (*BASE, "augmentation=mixup", "regularization.label_smoothing=0.1", "tested=last"),
    "weights of another run": (*BASE, *DRAWS, "init.run=RUN"),
    "more epochs": ("resume=RUN", "epochs=5"),
    "checkpoints that are rare": (*BASE, *DRAWS, "checkpoint.every_seconds=0.2", "checkpoint.keep=1"),
}  # fmt: skip

PREPARE = f"""
import threading
from contextlib import redirect_stdout
from tempfile import TemporaryDirectory
from tqdm.std import TqdmDefaultWriteLock, tqdm
from tests.support.killing import at_call, end_at_once
tqdm.monitor_interval = 0  # no thread that could be in the middle of something when a command is forked
with TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
    os.environ["CNNBENCH_OUTPUTS"] = folder
    api.train({list(latest((*BASE, PAGE)))}, progress="quiet")
tqdm.monitor_interval = 10
assert threading.active_count() == 1, threading.enumerate()
del tqdm._lock, TqdmDefaultWriteLock.mp_lock  # all commands would share it, and one that is killed would keep it
"""
"""A whole run, so that nothing is left that each command would import and read again."""


class Undisturbed:
    """What a run ends in that nothing came in the way of."""

    def __init__(self, run: Path) -> None:
        self._outcome, self._files = outcome_of(run), files_of(run)
        assert self._outcome["result"].pop("test_measured") == 1

    def assert_same(self, run: Path, kills: int) -> None:
        """Compare a run with it that was killed so often at most."""
        outcome, record = outcome_of(run), read(run / "run.json")
        assert 1 <= outcome["result"].pop("test_measured") <= 1 + kills  # what is killed in its test measures again
        assert differences(outcome, self._outcome) == []
        for points in outcome["scalars"].values():
            assert len({step for step, _ in points}) == len(points)
        assert (record["status"], record.get("damage")) == ("completed", None)
        assert files_of(run) == self._files


class Campaign:
    """One configuration, which is carried out from the beginning each time, in the folders of its test, and disturbed.

    undisturbed: what it ends in; seconds, calls: how long that takes, with how many calls that change files.
    """

    def __init__(self, start: Start, folder: Path, configuration: str) -> None:
        self._start, self._outputs, self._cache = start, folder / "outputs", folder / "cache"
        self._counted = folder / "calls"
        write_own(folder / "data")
        words = latest(CONFIGURATIONS[configuration])
        if any(word.endswith("=RUN") for word in words):
            before = finished(latest([*BASE, "seed=7"]), folder / "before")
            words = [word.replace("=RUN", f"={before}") for word in words]
        self.words = words
        began = time.monotonic()
        self.complete()
        self.seconds = time.monotonic() - began
        self.calls = int(self._counted.read_text())
        self.undisturbed = Undisturbed(only_run(self._outputs))

    def start(self, call: int = 0) -> Command:
        """Start the command. call: before which of its calls that change files it is killed; 0: before none."""
        roots = json.dumps([str(self._outputs), str(self._cache)])
        return self._start(self.words, first=f"end_at_once(); at_call({call}, {roots}, {str(self._counted)!r})")

    def complete(self) -> None:
        """Carry it out to its end."""
        command = self.start()
        assert command.ended() == 0, command.said()
        assert "Traceback" not in command.said()

    def survives(self, draw: Random, kill: "Kill") -> int:
        """Kill a run up to three times, complete it, and compare it; return how often it was killed before its end."""
        shutil.rmtree(self._outputs, ignore_errors=True)
        shutil.rmtree(self._cache, ignore_errors=True)
        kills, where = 0, []
        for _ in range(draw.randint(1, 3)):
            was_killed, place = kill(self, draw)
            where.append(place)
            if not was_killed:
                break
            kills += 1
        try:
            self.complete()
            self.undisturbed.assert_same(only_run(self._outputs), kills)
            assert leftovers(self._outputs) == leftovers(self._cache) == []
        except AssertionError as error:
            error.add_note(f"killed {', '.join(where)}")
            raise
        return kills


Kill = Callable[[Campaign, Random], tuple[bool, str]]
"""Kills a command, and tells whether that came before its end, and where it was."""


def at_an_instant(campaign: Campaign, draw: Random) -> tuple[bool, str]:
    """Kill a command at any instant, from its first to its last."""
    seconds = draw.uniform(0, campaign.seconds)
    return campaign.start().killed_after(seconds), f"after {seconds:.3f} of {campaign.seconds:.3f} s"


def at_a_call(campaign: Campaign, draw: Random) -> tuple[bool, str]:
    """Kill a command before any of its calls that change files."""
    call = draw.randint(1, campaign.calls)
    return campaign.start(call).ended() < 0, f"at call {call} of {campaign.calls}"


WAYS: dict[str, Kill] = {"at an instant": at_an_instant, "at a call": at_a_call}


def leftovers(folder: Path) -> list[Path]:
    """Return what was written half below a folder, and not removed."""
    return list(folder.rglob("*.tmp"))


def files_of(run: Path) -> set[str]:
    """Return the names of the files of a run, but for what differs from session to session."""
    files = (path for path in run.rglob("*") if path.is_file() and not path.name.startswith("events.out."))
    return {str(path.relative_to(run)).replace("-2.pt", ".pt") for path in files}
