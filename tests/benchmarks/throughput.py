"""How fast cnnbench trains, next to others: `python tests/benchmarks/throughput.py [--only NAMES] [--rounds N]`.

The loop of notebooks, Lightning where it is installed, the bare network and cnnbench with all its features take turns
in one process, so that whatever else the machine does slows them alike: the ratios within a round are worth more than
any single speed. Everything runs on the processor; `gpu.py` is for GPUs. Threads wait as those of the command do;
GOMP_SPINCOUNT=300000 measures with torch's default.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read when torch is loaded; what the command does, for all alike

import torch
from peers import Loss, Notebook, PilImages, lightning_epoch
from preparation import make_photographs, report_augmentations, report_photographs
from timing import Works, machine, ratio, seconds, take_turns
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms

from cnnbench.config.compose import Composer
from cnnbench.data.loader import Batches
from cnnbench.optim.schedules import Horizon
from cnnbench.plugins import register_everything
from cnnbench.randomness import generator
from cnnbench.store import checkpoint
from cnnbench.training.journal import Journal
from cnnbench.training.loggers.base import LoggedRun
from cnnbench.training.loop import Progress, fit
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import TrainingSetup, make_augmentations, make_schedule, set_up_torch, setup
from cnnbench.training.step import evaluate

CPU = torch.device("cpu")
NOTEBOOK, LIGHTNING, BARE, CNNBENCH = "notebook", "Lightning", "bare network", "cnnbench"
INFERENCE, EVALUATE = "bare inference", "evaluation"


def classified(outputs: Tensor, _images: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels)


def reconstructed(outputs: Tensor, images: Tensor, _labels: Tensor) -> Tensor:
    return functional.mse_loss(outputs, images)


def compared(outputs: Tensor, _images: Tensor, _labels: Tensor) -> Tensor:
    return functional.triplet_margin_loss(*outputs.view(-1, 3, outputs.shape[1]).unbind(1))


@dataclass(frozen=True)
class Case:
    """A network on its data; a turn trains `steps` full batches, which takes some seconds on two cores."""

    batch: int
    steps: int
    words: str
    data: str  # words for the images; of MNIST, if its folder is given and they are of its shape
    transforms: tuple[Any, ...] = ()  # of the peers; cnnbench's come with the words
    loss: Loss = classified

    def all_words(self, root: Path | None, photographs: Path) -> list[str]:
        """Return the words of a command that trains this network. root: holds MNIST/raw; None: images are synthetic."""
        data = ["data=mnist", f"data.root={root}"] if root and self.data == GRAY else self.data.split()
        folder = [f"data.folder={photographs}"] if self.data == FOLDER else []
        return [*self.words.split(), f"batch_size={self.batch}", "device=cpu", *data, *folder]


GRAY = "data=synthetic data.num_train=15360 data.num_test=4096 data.image_size=28 data.channels=1"
COLOUR = "data=synthetic data.num_train=4096 data.num_test=2048 data.num_classes=100"
FOLDER = "data=image_folder"
LENET = "model=lenet optimizer=sgd_heavy scheduler=none"
V4 = "model=minialexnet_v4"
RESNET = "model=resnet18_cifar optimizer=sgd augmentation=pad_crop_flip"
SQUEEZENET = "model=torchvision model.architecture=squeezenet1_0 optimizer=sgd augmentation=crop_flip"
FLIP = transforms.RandomHorizontalFlip()
CROPS = (transforms.RandomCrop(28), FLIP)
PHOTOGRAPHS = (transforms.Resize(256), transforms.RandomCrop(224), FLIP)
CASES = {
    "mlp-32": Case(32, 600, "model=mlp optimizer=sgd", GRAY),
    "lenet-64": Case(64, 240, LENET, GRAY),
    "lenet-128": Case(128, 160, LENET, GRAY),
    "lenet-1024": Case(1024, 30, LENET, GRAY),
    "v4-64": Case(64, 24, V4, COLOUR, CROPS),
    "v4-1024": Case(1024, 2, V4, COLOUR, CROPS),
    "resnet18-64": Case(64, 2, RESNET, COLOUR, (transforms.RandomCrop(32, 4), FLIP)),
    "squeezenet-32": Case(32, 4, SQUEEZENET, FOLDER, PHOTOGRAPHS),
    "squeezenet-32-decoded-again": Case(32, 4, f"{SQUEEZENET} data.cache=false", FOLDER, PHOTOGRAPHS),
    "autoencoder-64": Case(64, 120, "task=autoencoder model=conv_encoder optimizer=sgd", GRAY, loss=reconstructed),
    "triplet-64": Case(64, 60, "task=triplet model=embedding_net optimizer=sgd", GRAY, loss=compared),
}


class Bench:
    """A case that is set up, each variant with weights of its own; a turn is one epoch."""

    def __init__(self, case: Case, words: list[str], folder: Path) -> None:
        config = plan_run(Composer(), [*words, "data.val_fraction=0", "epochs=1"]).config
        set_up_torch(CPU, config, os.cpu_count() or 1)
        self.case, self.folder = case, folder
        self.training = with_images(setup(config), case.steps * case.batch)
        journal = Journal(folder / "metrics.jsonl", Progress())
        (folder / "config.yaml").touch()  # shown by TensorBoard
        journal.begin(config.logger, LoggedRun(folder, "", {}, {}, self.training.task.train_metrics, 0, ()), {})
        self.observer = only_logging(journal)
        self.test = self.training.batches("test")
        self.bare = setup(config)  # network and optimizer alike, its batches are ready
        self.ready = list(self.training.train.epoch(self.training.order(1), case.batch, 1))
        self.ready_test = list(self.test.epoch(torch.arange(len(self.test)), case.batch))
        self.choose_layout()

    def works(self) -> Works:
        data, case = self.training.data, self.case
        done = transforms.Compose([*case.transforms, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])
        images = PilImages(data.train, self.training.order(1), done)
        loader = DataLoader(images, case.batch, shuffle=True, num_workers=2)
        networks = [copy.deepcopy(self.training.network).to(memory_format=torch.contiguous_format) for _ in range(2)]
        classes = data.spec.num_classes if case.loss is classified else None
        works: Works = {NOTEBOOK: Notebook(networks[0], case.loss, classes is not None, loader, self.folder).train}
        if find_spec("lightning") is not None:
            works[LIGHTNING] = lightning_epoch(networks[1], case.loss, classes, loader, self.folder)
        validate = partial(evaluate, self.training, self.training.network, self.test)
        return works | {
            BARE: self.train_bare, CNNBENCH: self.train, INFERENCE: self.infer_bare, EVALUATE: validate
        }  # fmt: skip

    def train(self) -> None:
        fit(self.training, Progress(), self.observer)  # without validation images, an epoch is its train part

    def train_bare(self) -> None:
        network, optimizer = self.bare.network.train(), self.bare.optimizer
        for batch in self.ready:
            loss = self.case.loss(network(batch.images), batch.images, batch.labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def infer_bare(self) -> None:
        network = self.bare.network.eval()
        with torch.inference_mode():
            for batch in self.ready_test:
                network(batch.images)

    def choose_layout(self) -> None:
        """Give the bare network the layout in memory in which it is faster."""
        spent = {}
        for layout in (torch.contiguous_format, torch.channels_last, torch.contiguous_format):
            self.lay_out(layout)
            self.train_bare()
            spent[layout] = seconds(self.train_bare)
        self.lay_out(min(spent, key=spent.__getitem__))

    def lay_out(self, layout: torch.memory_format) -> None:
        self.bare.network.to(memory_format=layout)  # type: ignore[call-overload]
        self.bare.optimizer.state.clear()
        self.ready, self.ready_test = (
            [replace(batch, images=batch.images.contiguous(memory_format=layout)) for batch in batches]
            for batches in (self.ready, self.ready_test)
        )

    def save(self) -> None:
        weights = self.training.network.state_dict()  # written twice, as a run does: now, and at its best
        best = {name: tensor.clone() for name, tensor in weights.items()}
        content = {"network": weights, "optimizer": self.training.optimizer.state_dict(), "best": {"weights": best}}
        checkpoint.save(self.folder, 1, content, {}, keep=2)


def with_images(training: TrainingSetup, number: int) -> TrainingSetup:
    """Return the training of one epoch on that many of its images, again and again: few have to be made."""
    config, data = training.config, training.data
    horizon = Horizon(1, -(-number // config.batch_size))
    train = data.train[torch.arange(number) % len(data.train)]
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


def report_cases(names: list[str], rounds: int, root: Path | None, photographs: Path) -> None:
    """Print a row for each case: samples/s, and how many times as fast as others cnnbench was."""
    peers = [name for name in (NOTEBOOK, LIGHTNING, BARE) if name != LIGHTNING or find_spec("lightning")]
    columns = [*peers, CNNBENCH, *(f"÷ {name}" for name in peers), f"{EVALUATE} ÷ {INFERENCE}", "checkpoint, ms"]
    print(f"\n## Training, samples/s, and ratios within {rounds} rounds: median (lowest – highest)\n")
    print(f"| network-batch | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            case = CASES[name]
            bench = Bench(case, case.all_words(root, photographs), Path(folder))
            spent = take_turns(bench.works(), rounds)
            rates = [f"{case.steps * case.batch / median(spent[peer]):,.0f}" for peer in (*peers, CNNBENCH)]
            ratios = [ratio(spent[peer], spent[CNNBENCH]) for peer in peers]
            cells = [*rates, *ratios, ratio(spent[INFERENCE], spent[EVALUATE]), f"{1000 * seconds(bench.save):.0f}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def report_command(case: Case, root: Path | None, folder: Path) -> None:
    """Print what a whole command takes, from the interpreter's start to the test result, generating images included."""
    command = [sys.executable, "-m", "cnnbench", *case.all_words(root, folder), "epochs=2"]
    outputs = folder / "outputs"
    took = seconds(partial(subprocess.check_output, command, env=os.environ | {"CNNBENCH_OUTPUTS": str(outputs)}))
    result = json.loads(next(outputs.rglob("result.json")).read_text())
    images, training = 2 * result["train"]["samples"], result["seconds"]["train"]
    print(
        f"\nThe whole command, LeNet, 2 epochs of {images // 2} images: {took:.1f} s, of it training {training:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    others = ("command", "augmentations", "photographs")
    parser.add_argument("--only", nargs="+", choices=[*CASES, *others], default=[*CASES, *others], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--root", type=Path, help="folder that holds MNIST/raw; without it, images are synthetic")
    chosen = parser.parse_args()
    register_everything()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        photographs = Path(scratch, "photographs")
        os.environ["CNNBENCH_CACHE"] = str(Path(scratch, "cache"))
        make_photographs(photographs)
        names = [name for name in chosen.only if name in CASES]
        if names:
            report_cases(names, chosen.rounds, chosen.root, photographs)
        works: dict[str, Callable[[], None]] = {
            "command": partial(report_command, CASES["lenet-1024"], chosen.root, Path(scratch)),
            "augmentations": partial(report_augmentations, chosen.rounds),
            "photographs": partial(report_photographs, chosen.rounds, photographs),
        }
        for name in set(chosen.only) & set(works):
            works[name]()


if __name__ == "__main__":
    main()
