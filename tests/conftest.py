"""What all tests share: a folder of runs of their own, one thread, and the command, in this process or another."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cnnbench.registry import register_everything
from cnnbench.train import main

# Small and quick: three epochs of four steps, validation, test.
TINY = (
    "data=synthetic", "data.num_train=72", "data.num_test=20", "data.num_classes=3", "data.image_size=16",
    "data.channels=1", "batch_size=16", "epochs=3", "threads=1", "device=cpu",
)  # fmt: skip

# What makes a large network small enough for a test, and images large enough for the network, by preset.
_SMALL_ALEXNET = ("data.image_size=67", "model.maps=[4,8,8,8,8]", "model.units=[16,16]")
SMALL_FORMS: dict[str, tuple[str, ...]] = {
    "alexnet_bn": _SMALL_ALEXNET,
    "alexnet_lrn": _SMALL_ALEXNET,
    "googlenet_cifar": ("data.image_size=16",),
    "googlenet_v1": ("data.image_size=32",),
    **{f"resnet{kind}": ("data.image_size=32", "model.width=4") for kind in ("18", "34", "34_unpooled", "50")},
    **{f"resnet{kind}_cifar": ("data.image_size=16", "model.width=4") for kind in ("18", "20")},
    "torchvision": ("data.image_size=32", "model.architecture=squeezenet1_1"),
    "vgg16_cifar": ("data.image_size=32", "model.width=4"),
    **{f"vgg{depth}": ("data.image_size=32", "model.width=4", "model.units=[16]") for depth in (11, 13, 16, 19)},
}

# What some data sets have to be told before anything else.
REQUIRED: dict[str, tuple[str, ...]] = {
    "csv": ("data.folder=photos", "data.train=list.csv"),
    "image_folder": ("data.folder=photos",),
}


@dataclass
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this test's runs; the working directory is an empty folder beside it."""
    folder = tmp_path / "outputs"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(folder))
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    register_everything()
    return folder


@pytest.fixture
def cnnbench(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return the command, run in this process."""

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def start() -> Callable[[Sequence[str]], subprocess.Popen[str]]:
    """Return the command as a process of its own, to be killed or waited for."""

    def popen(words: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cnnbench", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
        )  # fmt: skip

    return popen


def only_run(outputs: Path) -> Path:
    """Return the folder of the one run there is."""
    runs = [path.parent for path in outputs.glob("*/*/*/run.json")]
    assert len(runs) == 1, runs
    return runs[0]
