"""Code of others that ends the program: the run fails, and a message says where; nothing counts as finished."""

from pathlib import Path

import pytest

from cnnbench import api
from cnnbench.errors import TrainingError
from tests.conftest import TINY, latest, only_run
from tests.support.interruption import read

LEAVER = '''
import sys
import torch
from torch import nn
from cnnbench.registry import MODELS

class Leaver(nn.Linear):
    has_learnt = False  # what tries a network before a training does that on a copy

    def forward(self, features):
        if self.training == {in_training} and torch.is_grad_enabled() == {in_training} and len(features) > 3:
            if self.has_learnt or {in_training}:
                sys.exit({code})
        self.has_learnt = self.has_learnt or (torch.is_grad_enabled() and len(features) > 3)  # as it is tried with
        return super().forward(features)

@MODELS.register("leaver")
def leaver(spec) -> nn.Module:
    """One dense layer that leaves."""
    return nn.Sequential(nn.Flatten(), Leaver(spec.channels * spec.height * spec.width, spec.num_classes))
'''
WORDS = latest((*TINY, "model=leaver"))


def leaver(tmp_path: Path, code: str, in_training: bool = True) -> str:
    path = tmp_path / "leaver.py"
    path.write_text(LEAVER.format(code=code, in_training=in_training))
    return f"plugins={path}"


@pytest.mark.parametrize("code", ["0", "1", "", "'no more'"])
@pytest.mark.parametrize("in_training", [True, False], ids=["in a step", "in validation"])
def test_a_model_that_exits_fails_its_run_and_a_message_says_where(cnnbench, outputs, tmp_path, code, in_training):
    outcome = cnnbench(*WORDS, leaver(tmp_path, code, in_training))
    assert outcome.code == 1
    place = f"by forward in {tmp_path / 'leaver.py'}:13"
    assert f"sys.exit({code}) was called in the middle of it, {place}" in outcome.err
    assert "There is no checkpoint yet." in outcome.err
    record = read(only_run(outputs) / "run.json")
    assert record["status"] == "failed"
    assert f"sys.exit({code})" in record["error"]


def test_a_model_that_exits_where_it_is_made_fails_before_anything_is_written(cnnbench, outputs, tmp_path):
    plugin = leaver(tmp_path, "0")
    path = tmp_path / "leaver.py"
    path.write_text(path.read_text().replace("    return nn.Sequential", "    sys.exit(0)\n    return nn.Sequential"))
    for words in (WORDS, ["-m", *WORDS, "seed=0,1"], [*WORDS, "dry_run=true"]):
        outcome = cnnbench(*words, plugin)
        assert outcome.code == 1
        assert "sys.exit(0) was called" in outcome.err
    assert not list(outputs.rglob("run.json"))


def test_from_python_it_is_an_error_and_not_the_end_of_the_notebook(tmp_path):
    with pytest.raises(TrainingError, match=r"sys\.exit\(0\) was called"):
        api.train(WORDS, plugins=leaver(tmp_path, "0").partition("=")[2])


def test_a_failure_names_the_checkpoint_that_is_kept(cnnbench, outputs, tmp_path):
    words = (*WORDS, "checkpoint.every_seconds=0")
    outcome = cnnbench(*words, leaver(tmp_path, "1", in_training=False))
    assert outcome.code == 1
    assert "The last checkpoint, of step 5, is kept." in outcome.err
