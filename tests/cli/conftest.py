"""Commands run in this process, a folder for data sets, and tiny files that pass for originals."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.data.mnist import MNIST
from tests.conftest import Outcome, ended
from tests.support.archives import idx, write_idx_set


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: str) -> Outcome:
        return ended("data", words, capsys)

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the contents of tiny files that pass for the originals of MNIST."""
    arrays = write_idx_set(tmp_path / "original")
    contents = {name: idx(array) for name, array in arrays.items()}
    for name, content in contents.items():
        monkeypatch.setitem(MNIST.files, name, hashlib.md5(content).hexdigest())
    return contents


@pytest.fixture
def evaluate(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    return lambda *words: ended("evaluate", [str(word) for word in words], capsys)
