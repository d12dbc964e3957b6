"""How fast cnnbench trains, next to the notebooks' loop and the bare network: `python tests/benchmarks/throughput.py`.

All take turns in one process, so that whatever else the machine does slows them alike: the ratios within a round are
worth more than any single speed. Everything runs on the processor; `gpu.py` is for GPUs.
OMP_WAIT_POLICY=ACTIVE measures with threads that wait awake, which is torch's default.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded; what the command does, for all alike

import torch
from PIL import Image
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from torchvision import transforms

from cnnbench.config.compose import Composer
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batches
from cnnbench.models.build import build_network
from cnnbench.optim.schedules import Horizon
from cnnbench.plugins import register_everything
from cnnbench.randomness import generator
from cnnbench.registry import AUGMENTATIONS, Selection
from cnnbench.store import checkpoint
from cnnbench.training.journal import Journal
from cnnbench.training.loggers.base import LoggedRun
from cnnbench.training.loop import Progress, fit
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import TrainingSetup, make_augmentations, make_schedule, set_up_torch, setup
from cnnbench.training.step import evaluate

BATCH = 1024
CPU = torch.device("cpu")
Works = dict[str, Callable[[], object]]
NOTEBOOKS = "(a) the notebooks' loop: DataLoader, PIL, sklearn, add_scalar"
BARE = "(b) the bare network: forward, backward, update on ready batches"
CNNBENCH = "(c) cnnbench: batches, augmentation, metrics, journal"


@dataclass(frozen=True)
class Case:
    """A network on its data; a turn trains `steps` full batches, which takes some seconds on two cores."""

    title: str
    steps: int
    words: str
    synthetic: str  # words for the images, where no real ones are given
    real: str | None = None
    augmentations: tuple[nn.Module, ...] = ()  # of the notebooks' loop; cnnbench's come with its model

    def all_words(self, root: Path | None) -> list[str]:
        """Return the words of a command that trains this network, on real images where their folder is given."""
        data = [f"data={self.real}", f"data.root={root}"] if self.real and root else self.synthetic.split()
        return [*self.words.split(), f"batch_size={BATCH}", "device=cpu", *data]


GRAY = "data=synthetic data.num_train=15360 data.num_test=4096 data.image_size=28 data.channels=1"
COLOUR = "data=synthetic data.num_train=4096 data.num_test=2048 data.num_classes=100"
CROPS = (transforms.RandomCrop(28), transforms.RandomHorizontalFlip())
CASES = {
    "lenet": Case("LeNet on 1x28x28", 30, "model=lenet optimizer=sgd_heavy scheduler=none", GRAY, "mnist"),
    "v4": Case("minialexnet_v4 on 28x28 of 3x32x32", 4, "model=minialexnet_v4", COLOUR, augmentations=CROPS),
}
RECTANGLES: dict[str, Any] = {"scale": [0.02, 0.33], "ratio": [0.3, 3.3]}
AUGMENTED: dict[str, tuple[int, dict[str, dict[str, Any]]]] = {  # name -> crop, settings of each part
    "gather and normalise only": (32, {}),
    "crop": (28, {"crop": {}}),
    "crop, padding 4": (32, {"crop": {"padding": 4}}),
    "resized_crop": (32, {"resized_crop": {"scale": [0.25, 1.0], "ratio": [0.75, 1.3333]}}),
    "flip": (32, {"flip": {"p": 0.5}}),
    "crop and flip": (28, {"crop": {}, "flip": {"p": 0.5}}),
    "vertical_flip": (32, {"vertical_flip": {"p": 0.5}}),
    "rotation": (32, {"rotation": {"degrees": 15.0}}),
    "affine, all of it": (32, {"affine": {"degrees": 10.0, "translate": 0.1, "scale": [0.9, 1.1], "shear": 5.0}}),
    "trivial": (32, {"trivial": {}}),
    "jitter, the first three 0.2": (32, {"jitter": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2}}),
    "jitter, hue 0.05": (32, {"jitter": {"hue": 0.05}}),
    "grayscale, of all": (32, {"grayscale": {"p": 1.0}}),
    "blur, 5x5, of all": (32, {"blur": {"sigma": [0.5, 1.5], "kernel_size": 5, "p": 1.0}}),
    "noise, of all": (32, {"noise": {"std": 0.05, "p": 1.0}}),
    "erasing, of all": (32, {"erasing": {"p": 1.0, **RECTANGLES, "value": 0.0}}),
    "erasing, of all, with noise": (32, {"erasing": {"p": 1.0, **RECTANGLES, "value": "random"}}),
    "cutout, of all": (32, {"cutout": {"size": 8, "p": 1.0}}),
    "mixup, of all": (32, {"mixup": {"p": 1.0, "alpha": 0.2}}),
    "cutmix, of all": (32, {"cutmix": {"p": 1.0, "alpha": 1.0}}),
}


class PilImages(Dataset[tuple[Any, int]]):
    """What torchvision's data sets do: bytes in memory, a PIL image an item."""

    def __init__(self, images: Images, transform: Callable[[Image.Image], Tensor]) -> None:
        self.arrays = images.pixels.permute(0, 2, 3, 1).squeeze(-1).contiguous().numpy()
        self.labels, self.transform = images.labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


class Bench:
    """A case that is set up, each variant with weights of its own; a turn is one epoch."""

    def __init__(self, case: Case, root: Path | None, folder: Path) -> None:
        config = plan_run(Composer(), [*case.all_words(root), "data.val_fraction=0", "epochs=1"]).config
        set_up_torch(CPU, config, os.cpu_count() or 1)
        self.training = with_full_batches(setup(config), case.steps)  # (c)
        data, train = self.training.data, self.training.data.train

        self.folder = folder
        self.test = self.training.batches("test")
        journal = Journal(folder / "metrics.jsonl", Progress())
        (folder / "config.yaml").touch()  # shown by TensorBoard
        journal.begin(config.logger, LoggedRun(folder, "", {}, {}, self.training.task.train_metrics, 0, ()), {})
        self.observer = only_logging(journal)
        self.bare = with_full_batches(setup(config), case.steps)  # (b): network and optimizer alike, the batches of (c)
        self.batches = list(self.bare.train.epoch(torch.arange(len(train)), BATCH))
        self.network = build_network(config.network(), data.spec)  # (a): torch's own defaults
        self.sgd = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.99)
        done = [*case.augmentations, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)]
        self.loader = DataLoader(PilImages(train, transforms.Compose(done)), BATCH, shuffle=True, num_workers=2)
        self.writer = SummaryWriter(folder / "notebooks")

    def train_as_notebooks(self) -> None:
        self.network.train()
        for step, (images, labels) in enumerate(self.loader):
            scores = self.network(images)
            loss = nn.CrossEntropyLoss()(scores, labels)
            loss.backward()
            self.sgd.step()
            self.sgd.zero_grad()
            self.writer.add_scalar("loss/train", loss.item(), step)
            self.writer.add_scalar("accuracy/train", accuracy_score(labels, scores.max(1)[1]), step)

    def train_bare(self) -> None:
        network, optimizer = self.bare.network.train(), self.bare.optimizer
        for batch in self.batches:
            loss = nn.functional.cross_entropy(network(batch.images), batch.labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def train(self) -> None:
        fit(self.training, Progress(), self.observer)  # without validation images, an epoch is its train part

    def save(self) -> None:
        weights = self.training.network.state_dict()  # written twice, as a run does: now, and at its best
        best = {name: tensor.clone() for name, tensor in weights.items()}
        content = {"network": weights, "optimizer": self.training.optimizer.state_dict(), "best": {"weights": best}}
        checkpoint.save(self.folder, 1, content, {}, keep=2)


def with_full_batches(training: TrainingSetup, steps: int) -> TrainingSetup:
    """Return the training on as many full batches, of its images again and again: few have to be generated."""
    config, data, horizon = training.config, training.data, Horizon(1, steps)
    train = data.train[torch.arange(steps * BATCH) % len(data.train)]
    return replace(
        training,
        data=replace(data, train=train),
        train=Batches(train, data.spec, data.mean, data.std, training.device, make_augmentations(config), config.seed),
        order=lambda epoch: training.task.order(train.labels, None, generator(config.seed, "order", epoch)),
        horizon=horizon,
        schedule=make_schedule(config, horizon),
    )


def only_logging(journal: Journal) -> Any:
    """Return an observer that writes rows: no checkpoint is due, nobody stops the training."""
    return SimpleNamespace(
        on_step=lambda row, progress: journal.write(row),
        on_epoch=lambda row, progress, is_best: journal.write(row),
        save_is_due=lambda: False,
        check_stop=lambda: None,
    )


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def take_turns(works: Works, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each work in each round, after one that is not counted."""
    for work in works.values():
        work()  # the first time allocates memory and chooses kernels
    spent = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in spent] for name in works}


def report_case(case: Case, rounds: int, root: Path | None, folder: Path) -> None:
    bench = Bench(case, root, folder)
    training: Works = {NOTEBOOKS: bench.train_as_notebooks, BARE: bench.train_bare, CNNBENCH: bench.train}
    validation = f"a validation pass, {len(bench.test)} images"
    validate = partial(evaluate, bench.training, bench.training.network, bench.test)
    others: Works = {validation: validate, "a checkpoint, on disk": bench.save}
    spent = take_turns(training | others, rounds)
    print(f"\n## {case.title}\n\n| | images/s, median | lowest – highest | ms a step |\n|---|---:|---:|---:|")
    for name in training:
        low, middle, high = (case.steps * BATCH / f(spent[name]) for f in (max, median, min))
        print(f"| {name} | {middle:,.0f} | {low:,.0f} – {high:,.0f} | {1000 * median(spent[name]) / case.steps:.1f} |")
    print("\n| | |\n|---|---:|")
    for name, other in (("c/b", BARE), ("c/a", NOTEBOOKS)):
        ratios = [theirs / ours for theirs, ours in zip(spent[other], spent[CNNBENCH], strict=True)]
        print(f"| {name}, median of {rounds} rounds | {median(ratios):.3f} |")
    for name in others:
        print(f"| {name} | {median(spent[name]):.3f} s |", flush=True)


def report_command(case: Case, root: Path | None, folder: Path) -> None:
    """Print what a whole command takes, from the interpreter's start to the test result, generating images included."""
    command = [sys.executable, "-m", "cnnbench", *case.all_words(root), "epochs=2"]
    took = seconds(partial(subprocess.check_output, command, env=os.environ | {"CNNBENCH_OUTPUTS": str(folder)}))
    result = json.loads(next(folder.rglob("result.json")).read_text())
    images, training = 2 * result["train"]["samples"], result["seconds"]["train"]
    speed = f"{images / took:,.0f} images/s: {took:.1f} s, of which training {training:.1f} s"
    print(f"| whole command, 2 epochs of {images // 2} images | {speed} |", flush=True)


def report_augmentations(rounds: int, device: torch.device = CPU) -> None:
    """Print what a batch costs before the network sees it, the draws of its augmentations included."""

    def make_all(batches: Batches) -> None:
        deque(batches.epoch(order, BATCH), maxlen=0)
        synchronize(device)

    steps = 8
    pixels, order = torch.randint(256, (steps * BATCH, 3, 32, 32), dtype=torch.uint8), torch.randperm(steps * BATCH)
    works: Works = {}
    for name, (crop, settings) in AUGMENTED.items():
        spec = DataSpec(3, crop, crop, ("one", "other"))
        parts = {part: AUGMENTATIONS.build(Selection(part, values)) for part, values in settings.items()}
        works[name] = partial(make_all, Batches(Images(pixels, order), spec, (0.5,) * 3, (0.25,) * 3, device, parts))
    print(f"\n## Preparing a batch of {BATCH} from 3x32x32\n\n| | crop | ms, median |\n|---|---:|---:|")
    for name, spent in take_turns(works, rounds).items():
        print(f"| {name} | {AUGMENTED[name][0]} | {1000 * median(spent) / steps:.2f} |")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    waiting = os.environ["OMP_WAIT_POLICY"].lower()
    return (
        f"{os.cpu_count()} cores, {name}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {waiting} waiting"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--root", type=Path, help="folder that holds MNIST/raw; without it, images are synthetic")
    parser.add_argument("--only", choices=sorted(CASES))
    chosen = parser.parse_args()
    register_everything()
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}, batches of {BATCH}")
    for key in [chosen.only] if chosen.only else CASES:
        with tempfile.TemporaryDirectory() as folder:
            report_case(CASES[key], chosen.rounds, chosen.root, Path(folder))
            if key == "lenet":
                report_command(CASES[key], chosen.root, Path(folder) / "outputs")
    report_augmentations(chosen.rounds)


if __name__ == "__main__":
    main()
