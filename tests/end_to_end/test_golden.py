"""What must never change unasked: which run a command means, its weights to the last bit, and what old folders hold."""

import json
import shutil
from pathlib import Path

import pytest
from torch import Tensor

from cnnbench.analysis.loading import load_run
from cnnbench.store.checkpoint import load_newest
from cnnbench.training.plan import plan_run
from tests.conftest import only_run
from tests.support.golden import GOLDEN, PRETRAINED, RUNS, TRAININGS, differing
from tests.support.interruption import finished
from tests.support.selection import everyday

IDENTITIES: dict[str, str] = json.loads((GOLDEN / "identities.json").read_text())


def weights_of_run(run: Path) -> dict[str, Tensor]:
    """Return the weights and buffers that a run ended in, and those that were best on validation."""
    content = load_newest(run / "checkpoints", pytest.fail)
    assert content is not None
    found = {f"last.{name}": tensor.contiguous() for name, tensor in content["network"].items()}
    return found | {f"best.{name}": tensor.contiguous() for name, tensor in content["best"]["weights"].items()}


@pytest.mark.parametrize("command", everyday(IDENTITIES, [*IDENTITIES][::4]))
def test_no_command_means_another_run_than_before(composer, command):
    assert plan_run(composer, command.split()).config.identity() == IDENTITIES[command]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_ends_in_the_weights_that_it_always_ended_in(tmp_path, name):
    more = []
    if name == "transfer":
        more = [f"init.run={finished(PRETRAINED, tmp_path / 'pretrained')}"]
    run = finished([*TRAININGS[name], *more], tmp_path / name)
    assert differing(weights_of_run(run), name) == []


@pytest.fixture(params=["finished", "killed"])
def old_run(request, outputs) -> Path:
    """Return a copy of a run folder that an earlier version wrote."""
    shutil.copytree(RUNS / request.param, outputs)
    return only_run(outputs)


def test_a_folder_of_an_earlier_version_is_read(old_run):
    run = load_run(old_run)
    assert run.record["identity"] == run.config.identity()
    assert run.model("last") is not None
    assert len(run.metrics) == len((old_run / "metrics.jsonl").read_text().splitlines())


def test_a_folder_of_an_earlier_version_is_evaluated_and_reported(old_run, tmp_path, command_of):
    for command, *words in (
        ("evaluate", "--out", str(tmp_path / "evaluation")),
        ("report", "--out", str(tmp_path / "page")),
        ("predict", "--split", "test", "--index", "0,1"),
    ):
        outcome = command_of(command, str(old_run), *words)
        assert outcome.code == 0, outcome.err
    assert (tmp_path / "evaluation" / "classes.csv").is_file()
    assert (tmp_path / "page" / "report.html").is_file()


def test_the_same_command_finds_a_finished_folder_of_an_earlier_version(cnnbench, outputs):
    shutil.copytree(RUNS / "finished", outputs)
    before = (only_run(outputs) / "result.json").read_bytes()
    outcome = cnnbench(*TRAININGS["classifier"], "accept_stale=true")
    assert outcome.code == 0, outcome.err
    assert "finished" in outcome.out
    assert (only_run(outputs) / "result.json").read_bytes() == before


@pytest.mark.parametrize("by", ["the same command", "its folder"])
def test_a_killed_folder_of_an_earlier_version_goes_on_to_the_same_weights(cnnbench, outputs, by):
    shutil.copytree(RUNS / "killed", outputs)
    words = TRAININGS["classifier"] if by == "the same command" else [f"resume={only_run(outputs)}"]
    outcome = cnnbench(*words, "accept_stale=true")
    assert outcome.code == 0, outcome.err
    assert "from step 8 of 15" in outcome.out
    run = only_run(outputs)
    assert differing(weights_of_run(run), "classifier") == []
    old, new = (json.loads((folder / "result.json").read_text()) for folder in (only_run(RUNS / "finished"), run))
    for split in ("train", "val", "test"):  # more may be measured today
        assert {name: new[split][name] for name in old[split]} == pytest.approx(old[split])
