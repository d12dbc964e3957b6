"""Files that are valid and not of the right shape: one sentence, and no other run is broken by them."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest

from cnnbench import api, load_run
from cnnbench.errors import UserError
from cnnbench.store.query import runs_below
from tests.support.interruption import PLAIN, finished, read
from tests.support.run_folders import write_run
from tests.support.selection import diagonal, everyday

DEEP = 100_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{key}: &{key} [{','.join([f'*{before}'] * 9)}]\n" for before, key in zip("abcdefgh", "bcdefghi", strict=True)
)
SHAPES = {
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "empty": "{}",
    "nested, in lists": '{"identity": ' + "[" * DEEP + "]" * DEEP + "}",
    "nested, in mappings": '{"a":' * DEEP + "1" + "}" * DEEP,
    "not a number": '{"test": {"accuracy": NaN}, "seconds": NaN}',
    "all keys numbers": None,
    "all keys lists": None,
    "all keys text": None,
}
FILES = ("run.json", "result.json", "split.json", "checkpoints/step-000000015.json", "config.yaml")
WRONG = {"all keys numbers": 5, "all keys lists": [[1]], "all keys text": "x"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return finished(PLAIN, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run(whole, outputs) -> Path:
    shutil.copytree(whole.parents[2], outputs)
    write_run(outputs, 0.9, "seed=5")
    return outputs / whole.relative_to(whole.parents[2])


def damage(path: Path, shape: str) -> None:
    text = SHAPES[shape]
    if text is None:
        values = read(path) if path.suffix == ".json" else {"epochs": 3, "model": {"name": "lenet"}, "data": {}}
        values.pop("checksum", None)
        text = json.dumps(dict.fromkeys(values, WRONG[shape]))
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "shape"), everyday(product(FILES, SHAPES), diagonal(FILES, SHAPES), pytest.mark.faults)
)
def test_a_file_of_the_wrong_shape_is_one_sentence_and_breaks_no_other_run(run, command_of, cnnbench, name, shape):
    damage(run / name, shape)
    listed = command_of("list")
    assert listed.code == 0, listed.err
    assert "2 runs" in listed.out
    assert command_of("list", "--prune").code == 0
    assert len([one for one in runs_below(run.parents[2]) if not one.problem]) >= 1
    assert command_of("report", str(run.parents[2]), "--out", "compared").code == 0
    assert len(api.runs()) == 2
    for outcome in (command_of("evaluate", str(run)), command_of("report", str(run), "--out", "page")):
        assert outcome.code in (0, 2), outcome.err
        assert "Traceback" not in outcome.err
    outcome = cnnbench(*PLAIN)
    assert outcome.code in (0, 2), outcome.err
    assert "Traceback" not in outcome.err


ROWS = (
    "[" * DEEP, "5", "{}", '{"row": "epoch", "epoch": [1], "step": 1}', '{"row": 5, "epoch": 1, "step": 1}',
    '{"row": "epoch", "epoch": 1, "step": 1, "loss/val": "x"}',
)  # fmt: skip


@pytest.mark.parametrize("line", ROWS, ids=range(len(ROWS)))
def test_a_row_of_the_wrong_shape_is_passed_over(run, command_of, line):
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    assert command_of("report", str(run), "--out", "page").code == 0


SWEEPS = (
    "[]", "{}", '{"jobs": 5}', '{"jobs": [5]}', '{"jobs": [{"folder": 5}]}', '{"jobs": [{"folder": "x"}]}', "[" * DEEP,
)  # fmt: skip


@pytest.mark.parametrize("text", SWEEPS, ids=range(len(SWEEPS)))
def test_a_sweep_of_the_wrong_shape_is_one_sentence(run, command_of, text):
    path = run.parents[2] / "sweeps" / "abc.json"
    path.parent.mkdir()
    path.write_text(text)
    outcome = command_of("report", str(path))
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "it has more than 1000000 characters, with what its"),
        ("a: &a [*a]\n", "*a stands for nothing, or for what"),
    ],
    ids=["nine to the ninth", "of itself"],
)
def test_aliases_in_a_configuration_are_not_followed_for_ever(run, command_of, text, problem):
    (run / "config.yaml").write_text(text)
    outcome = command_of("evaluate", str(run))
    assert outcome.code == 2
    assert f"config.yaml cannot be read: {problem}" in outcome.err
    assert command_of("list").code == 0


def test_aliases_in_an_experiment_of_ones_own_are_not_followed_for_ever(command_of, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    path = tmp_path / "conf" / "experiment" / "mine.yaml"
    path.write_text(f"# @package _global_\n{BOMB}")
    outcome = command_of("train", "--config-dir", str(tmp_path / "conf"), "experiment=mine")
    assert outcome.code == 2
    assert f"{path} cannot be read: it has more than 1000000 characters" in outcome.err


def test_aliases_that_stand_for_little_are_fine(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    api.plan("epochs=1", config_dir=tmp_path)


def test_what_is_missing_of_a_record_is_named(run):
    values = read(run / "run.json")
    del values["data"]["mean"]
    (run / "run.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"run\.json is damaged: it says nothing of 'mean'"):
        load_run(run).batches()
