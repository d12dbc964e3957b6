"""Which run is meant by a word: a folder, `last`, a part of a path, a name."""

import os
from pathlib import Path

import pytest

from cnnbench.analysis.loading import load_run
from cnnbench.errors import UserError
from cnnbench.store.folder import RunFolder
from cnnbench.store.lookup import run_named
from cnnbench.store.query import read_run, runs_named
from cnnbench.training.plan import folder_name
from tests.conftest import TINY, only_run
from tests.support.interruption import read
from tests.support.run_folders import write_run

NAMES = ("digits/lenet/epochs4-ec85f338", "digits/lenet/epochs4-ec85f338-r2", "mnist/mlp/default-0a1b2c3d")


@pytest.fixture
def runs(outputs: Path) -> dict[str, Path]:
    """Return three empty runs, of which the second was worked on last."""
    for time, name in ((20, NAMES[0]), (30, NAMES[1]), (10, NAMES[2])):
        folder = RunFolder(outputs / name)
        labels = {"name": "my baseline"} if "mlp" in name else {"notes": "my baseline"}
        folder.create({}, "cnnbench", {"identity": "0", "labels": labels})
        os.utime(folder.record_file, (time, time))
    return {name: outputs / name for name in NAMES}


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("last", 1),
        ("0a1b", 2),
        ("mnist", 2),
        ("mlp/default", 2),
        ("-r2", 1),
        ("ec85f338", 0),
        ("net/epochs4-ec85f338", 0),
        ("my baseline", 2),
    ],
)
def test_a_word_means_one_run(runs, word, name):
    assert run_named(word).path == runs[NAMES[name]]
    assert [run.path for run in runs_named([word])] == [runs[NAMES[name]]]


def test_a_folder_comes_before_what_has_its_name(runs, tmp_path):
    RunFolder(tmp_path / "here" / "last").create({}, "cnnbench", {})
    assert run_named("last").path == tmp_path / "here" / "last"
    assert run_named(str(runs[NAMES[2]])).path == runs[NAMES[2]]


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        (
            "epochs4",
            "epochs4: 2 runs have this name or path; type more of the path of one of them:\n  digits/lenet/epochs4-",
        ),
        ("lenet_v9", "lenet_v9: there is no such folder, and no run below .* has this name or path."),
        ("/", "is no run folder: it has no run.json"),
    ],
)
def test_a_word_that_means_none_or_several_is_refused(runs, word, problem):
    with pytest.raises(UserError, match=problem):
        run_named(word)


def test_there_is_no_last_run_before_the_first():
    with pytest.raises(UserError, match=r"last: there are no runs in .* yet"):
        load_run("last")


def test_a_command_that_went_on_with_the_last_run_names_it(cnnbench, outputs):
    assert cnnbench(*TINY, "epochs=1").code == 0
    run = only_run(outputs)
    outcome = cnnbench("resume=last", "epochs=2")
    assert outcome.code == 0, outcome.err
    (longer,) = (path for path in run.parent.iterdir() if path != run)
    assert read(longer / "run.json")["command"] == f"cnnbench resume={run} epochs=2"


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("1e+3", "lr1e3"), ("1E+03", "lr1E03"), ("1e-3", "lr1e-3"), ("-0.5", "lr-0.5"), ("+2", "lr2"), ("007", "lr007"),
        ("null", "lr-null"), ("true", "lr-true"), ("[1,2]", "lr-1-2"), ("inf", "lrinf"),
    ],
)  # fmt: skip
def test_a_number_in_a_folders_name_stays_that_number(typed, named):
    assert folder_name({"optimizer.lr": typed}, "0123456789") == f"{named}-01234567"


@pytest.mark.parametrize("status", ["paused", "preempted", "interrupted"])
def test_a_run_that_an_earlier_version_stopped_is_stopped(outputs, status):
    path = write_run(outputs, None, status=status)
    assert RunFolder(path).record()["status"] == "stopped"
    assert read_run(path).values["status"] == "stopped"
    assert RunFolder(path).update(name="kept")["status"] == "stopped"
