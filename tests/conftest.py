"""What all tests share: a folder of runs of their own, one thread, and the commands, in this process or another."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore

from cnnbench.cli.help import DOCS
from cnnbench.config.compose import Composer
from cnnbench.plugins import PREFIX, REGISTRIES, register_everything
from cnnbench.registry import TASKS
from cnnbench.train import main

register_everything()
# A shell lets what it starts in the background ignore these, and what is ignored stays so: see `training.signals`.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
# Their assertions say what differs, as those of tests do.
pytest.register_assert_rewrite("tests.support.campaign", "tests.support.interruption")

# Small and quick: three epochs of four steps, validation, test.
TINY = (
    "data=synthetic", "data.num_train=72", "data.num_test=20", "data.num_classes=3", "data.image_size=16",
    "data.channels=1", "batch_size=16", "epochs=3", "threads=1", "device=cpu", "report=false",
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
    "timm": ("data.image_size=32", "model.architecture=mobilenetv3_small_050"),
    "torchvision": ("data.image_size=32", "model.architecture=squeezenet1_1"),
    "vgg16_cifar": ("data.image_size=32", "model.width=4"),
    **{f"vgg{depth}": ("data.image_size=32", "model.width=4", "model.units=[16]") for depth in (11, 13, 16, 19)},
}

# Settings that some data sets and experiments require.
REQUIRED: dict[str, tuple[str, ...]] = {
    "csv": ("data.folder=photos", "data.train=list.csv"),
    "image_folder": ("data.folder=photos",),
    **{f"transfer_lab/exercise{number}": ("init.experiment=null",) for number in (2, 3, 4)},  # else a run is looked for
}


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skip what needs timm where it is not installed."""
    if find_spec("timm") is None:
        for item in items:
            if "timm" in item.nodeid:
                item.add_marker(pytest.mark.skip("timm is not installed"))


@dataclass
class Outcome:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this test's runs; the working directory is an empty folder next to it."""
    folder = tmp_path / "outputs"
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(folder))
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    return folder


@pytest.fixture(scope="session", autouse=True)
def what_takes_time_and_shows_nothing_is_left_out() -> Iterator[None]:
    """Flush no file, which only a power cut would show, and lay out few points, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr("cnnbench.tasks.figures.TSNE_POINTS", 30)
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave pictures blank, for tests that do not look at them: drawing is most of the time of a page."""
    monkeypatch.setattr("matplotlib.figure.Figure.draw", lambda *_: None)
    monkeypatch.setattr("matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda *_: None)


@pytest.fixture(autouse=True)
def plugins_are_forgotten() -> Iterator[None]:
    """Forget what a test registers: the plugin of one test is none of the next one's in the same process."""
    before = {registry.group: set(registry.components) for registry in REGISTRIES}
    yield
    for registry in REGISTRIES:
        for name in set(registry.components) - before[registry.group]:
            del registry.components[name]
            ConfigStore.instance().repo.get(registry.group, {}).pop(f"{name}.yaml", None)
            for module in [module for module in sys.modules if module.startswith(PREFIX)]:
                del sys.modules[module]


@pytest.fixture(scope="session")
def composer() -> Composer:
    """Return what composes configurations; a test that registers components makes one of its own."""
    return Composer()


def latest(words: Sequence[str]) -> list[str]:
    """Return words in which each setting is given once, as it was given last: a command refuses what is given twice."""
    last = {word.partition("=")[0]: word for word in words if "=" in word}
    kept = [word for word in words if "=" not in word or last[word.partition("=")[0]] == word]
    return list(dict.fromkeys(kept))


def ended(verb: str, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Outcome:
    """Return how a command ends that is run in this process; without a verb it trains."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as leaving:
        main([verb, *words] if verb else words)
    captured = capsys.readouterr()
    code = leaving.value.code
    assert isinstance(code, int)
    return Outcome(code, captured.out, captured.err)


@pytest.fixture
def cnnbench(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return the command, run in this process."""

    def run(*words: str) -> Outcome:
        return ended("", latest(words), capsys)

    return run


@pytest.fixture
def command_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return what runs a verb in this process."""

    def run(verb: str, *words: str) -> Outcome:
        return ended(verb, words, capsys)

    return run


@pytest.fixture
def start() -> Callable[[Sequence[str]], subprocess.Popen[str]]:
    """Return the command as a process of its own, to be killed or waited for."""

    def popen(words: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cnnbench", *latest(words)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
        )  # fmt: skip

    return popen


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Return the command as a process of its own that starts at once: see `tests.support.processes`."""
    from tests.support.processes import forked_commands

    with forked_commands(tmp_path_factory.mktemp("commands")) as start:
        yield start


@pytest.fixture
def one_second_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard orders the files of a run by the second in which they were begun; some tests have many in one."""
    seconds = count(int(time.time()) + 1000)
    clock = SimpleNamespace(time=lambda: next(seconds), sleep=time.sleep, monotonic=time.monotonic)
    monkeypatch.setattr("cnnbench.training.loggers.tensorboard.time", clock)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what a run with everything on ends in; to be compared with those that were interrupted."""
    from tests.support.interruption import WORDS, finished, outcome_of

    return outcome_of(finished(WORDS, tmp_path_factory.mktemp("unbroken")))


@pytest.fixture
def rotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the example of a task in the page on extending, in a file of its own, as a user would have it."""
    path = Path(shutil.copy(DOCS / "examples" / "rotations.py", tmp_path))
    monkeypatch.delitem(TASKS.components, "rotations", raising=False)  # it may have been copied into the package
    return path


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Return a function from a command to the folder of its run, trained once in a session; nobody may write there."""
    from tests.support.interruption import fingerprints, finished

    runs: dict[tuple[str, ...], tuple[Path, dict[str, str]]] = {}

    def once(*words: str) -> Path:
        if words not in runs:
            run = finished(words, tmp_path_factory.mktemp("finished"))
            runs[words] = run, fingerprints(run)
        return runs[words][0]

    yield once
    for words, (run, before) in runs.items():
        assert fingerprints(run) == before, f"a test wrote into the run that all share: {' '.join(words)}"


@pytest.fixture
def copy_of(finished_once: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Return a function from a command to the folder of its run, a copy for this test alone."""
    return lambda *words: Path(shutil.copytree(finished_once(*words), tmp_path / "run"))


@pytest.fixture
def run(copy_of: Callable[..., Path]) -> Path:
    """Return the folder of a small finished run, a copy for this test alone."""
    from tests.support.training import SHARED

    return copy_of(*SHARED)


def only_run(outputs: Path) -> Path:
    """Return the folder of the one run there is."""
    runs = [path.parent for path in outputs.glob("*/*/*/run.json")]
    assert len(runs) == 1, runs
    return runs[0]
