"""A finished run to look at, trainings in short, and no component left registered."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cnnbench import api, load_run
from cnnbench.analysis.run import Run
from cnnbench.plugins import REGISTRIES
from tests.conftest import TINY, latest


@pytest.fixture(autouse=True)
def nothing_is_registered() -> Iterator[None]:
    before = [(registry, dict(registry.components)) for registry in REGISTRIES]
    yield
    for registry, components in before:
        registry.components = components


@pytest.fixture(scope="package")
def finished_once(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(tmp_path_factory.mktemp("finished")))
        torch.set_num_threads(1)
        return api.train([*TINY, "model=lenet"], progress="quiet").path


@pytest.fixture
def run(finished_once, tmp_path) -> Run:
    return load_run(shutil.copytree(finished_once, tmp_path / "run"))


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.model("last").state_dict()


def tiny(*words: str, **options: Any) -> Run:
    return api.train(latest([*TINY, *words]), progress="quiet", **options)
