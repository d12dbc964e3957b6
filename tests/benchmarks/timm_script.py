"""Next to timm's own training script: `python tests/benchmarks/timm_script.py TRAIN_PY [--rounds N]`.

TRAIN_PY: `train.py` of timm's repository; timm itself has to be installed. The same network, photographs, batches and
optimizer, whole processes in turns, without augmentation (the script's crops and jitter are others than ours), with two
workers; images/s as each counts them itself, the last of two epochs of the script, all of cnnbench.
"""

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from preparation import make_photographs
from timing import machine, ratio
from torch import nn
from torchvision.models import squeezenet1_0

from cnnbench.data.images import DataSpec
from cnnbench.models.resnet import resnet

BATCH, EPOCHS = 32, 2
NETWORKS = {  # name -> words for the same network here, side of its images
    "squeezenet1_0": ("model=torchvision model.architecture=squeezenet1_0", 224),
    "resnet18_cifar": ("model=resnet18_cifar", 32),
}
WITHOUT = [  # what the script does by default, and cnnbench does not
    "--no-aug", "--smoothing", "0", "--weight-decay", "0", "--warmup-epochs", "0", "--sched", "cosine",
    "--opt", "momentum", "--lr", "0.01", "--workers", "2",
    "--train-interpolation", "bilinear", "--interpolation", "bilinear",
]  # fmt: skip


def timm_rate(script: Path, network: str, size: int, images: Path, folder: Path) -> float:
    """Return the images/s that the script prints at the end of its last epoch."""
    shape = ["--input-size", "3", str(size), str(size), "--num-classes", "2", "--device", "cpu"]
    folders = [
        "--data-dir",
        str(images),
        "--train-split",
        "train",
        "--val-split",
        "validation",
        "--output",
        str(folder),
    ]
    settings = ["--model", network, "--batch-size", str(BATCH), "--epochs", str(EPOCHS), *shape, *folders, *WITHOUT]
    said = subprocess.run(
        [sys.executable, __file__, "--as-timm", str(script), *settings], capture_output=True, text=True, check=True
    )
    rates = re.findall(r"Train: (\d+) .*?\(\s*[\d.]+s,\s*([\d.]+)/s\)", said.stdout + said.stderr)
    return float([rate for epoch, rate in rates if int(epoch) == EPOCHS - 1][-1])


def cnnbench_rate(words: str, size: int, images: Path, folder: Path, *more: str) -> float:
    """Return the images/s of a whole training."""
    data = ["data=image_folder", f"data.folder={images}", f"data.image_size={size}", f"batch_size={BATCH}"]
    settings = [*words.split(), *data, f"epochs={EPOCHS}", "optimizer=sgd", "optimizer.lr=0.01", "device=cpu", *more]
    outputs = {"CNNBENCH_OUTPUTS": str(folder), "CNNBENCH_CACHE": str(folder / "cache")}
    subprocess.run(
        [sys.executable, "-m", "cnnbench", *settings], check=True, capture_output=True, env=os.environ | outputs
    )
    result = json.loads(next(folder.rglob("result.json")).read_text())
    return float(EPOCHS * result["train"]["samples"] / result["seconds"]["train"])


def report(script: Path, rounds: int, images: Path) -> None:
    columns = ("timm's script", "cnnbench", "cnnbench, decoding again", "÷", "÷, decoding again")
    print(f"\n| network | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for network, (words, size) in NETWORKS.items():
        turns: dict[str, list[float]] = {"timm": [], "ours": [], "again": []}
        for _ in range(rounds):
            for name, rate in (
                ("timm", partial(timm_rate, script, network, size, images)),
                ("ours", partial(cnnbench_rate, words, size, images)),
                ("again", lambda folder: cnnbench_rate(words, size, images, folder, "data.cache=false")),  # noqa: B023
            ):
                with tempfile.TemporaryDirectory() as folder:
                    turns[name].append(rate(Path(folder)))
        inverse = {name: [1 / rate for rate in rates] for name, rates in turns.items()}
        cells = [f"{median(rates):,.1f}" for rates in turns.values()]
        ratios = [ratio(inverse["timm"], inverse[name]) for name in ("ours", "again")]
        print(f"| {network}-{BATCH}, {size}×{size} | {' | '.join([*cells, *ratios])} |", flush=True)


def run_script(script: str) -> None:
    """Run timm's script in this process, with networks that timm itself does not have."""
    from timm.models import register_model

    def known(build: Any) -> None:
        def entry(pretrained: bool = False, num_classes: int = 2, **_: Any) -> nn.Module:
            network: nn.Module = build(num_classes)
            network.num_classes = num_classes  # type: ignore[assignment]
            return network

        entry.__name__ = build.__name__
        entry.__module__ = __name__
        register_model(entry)

    def squeezenet(num_classes: int) -> nn.Module:
        return squeezenet1_0(num_classes=num_classes)

    def cifar(num_classes: int) -> nn.Module:
        spec = DataSpec(3, 32, 32, tuple(map(str, range(num_classes))))
        return resnet(spec, blocks=[2, 2, 2, 2], bottleneck=False, width=64, stem="cifar")

    squeezenet.__name__, cifar.__name__ = NETWORKS
    known(squeezenet)
    known(cifar)
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", type=Path, metavar="TRAIN_PY")
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for seed, (split, number) in enumerate({"train": 320, "validation": 64, "test": 64}.items()):
            make_photographs(Path(folder, split), number, seed)
        report(chosen.script.resolve(), chosen.rounds, Path(folder))


if __name__ == "__main__":
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    torch.manual_seed(0)
    run_script(sys.argv[2]) if sys.argv[1:2] == ["--as-timm"] else main()
