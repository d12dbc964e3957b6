"""Runs are found by their identity, whatever their folders are called; keys are compared by value and type."""

import json
import shutil

import pytest

from cnnbench.errors import UserError
from cnnbench.store.folder import RunFolder, find_runs, names_by_hash
from cnnbench.store.lookup import finished_runs_of, run_named
from cnnbench.store.matching import keys_that_differ
from cnnbench.store.query import runs_named
from tests.support.run_folders import write_run


@pytest.mark.parametrize("at_once", [False, True], ids=["one", "many"])
def test_a_run_is_found_by_its_identity_and_so_are_those_trained_again(at_once, outputs):
    path = write_run(outputs, 0.9)
    identity = RunFolder(path).record()["identity"]
    again = path.with_name(f"{path.name}-r2")
    renamed = outputs / "other" / "model" / f"my-{identity[:8]}-copy"
    other = path.with_name(f"other-{identity[:8]}")
    for copy in (again, renamed, other):
        shutil.copytree(path, copy)
    (other / "run.json").write_text(json.dumps({"identity": f"{identity[:8]}{'0' * 56}"}))  # begins alike
    path.with_name(f"empty-{identity[:8]}").mkdir()
    mine = outputs / "paper" / "figures" / "baseline-20261127"
    shutil.copytree(path, mine)
    damaged = mine.with_name("damaged")
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    found = find_runs(outputs, identity, names_by_hash(outputs) if at_once else None)
    assert [run.path for run in found] == [mine, *sorted([path, renamed]), again]


def test_a_run_is_found_by_the_name_that_its_user_gave_it(outputs):
    path = write_run(outputs, 0.9, "name=trial1")
    given_later = write_run(outputs, 0.9, "seed=1", labels={"name": "trial2"})
    lenet = write_run(outputs, 0.9, "seed=2", "name=lenet")
    for word, run in {"trial1": path, "trial2": given_later, "lenet": lenet}.items():
        assert run_named(word).path == run
        assert [one.path for one in runs_named([word])] == [run]
    other = RunFolder(write_run(outputs, 0.9, "seed=3", "name=trial1"))
    other.update(status="running", started="2026-11-27T04:10:00Z", ended=None)
    with pytest.raises(UserError, match="trial1: 2 runs have this name or path; type more of the path of one") as it:
        run_named("trial1")
    assert f"{other.path.relative_to(outputs)}  (running, 2026-11-27T04:10:00Z)" in str(it.value)
    with pytest.raises(UserError, match=r"trial: there is no such folder, and no run below .* has this name"):
        run_named("trial")


def test_last_is_the_run_that_was_trained_last_whatever_was_written_into_others_since(outputs):
    killed, resumed, old = (write_run(outputs, 0.9, f"seed={seed}") for seed in range(3))
    RunFolder(killed).update(started="2026-11-27T04:10:00Z", status="running")
    RunFolder(resumed).update(
        started="2026-11-27T04:00:00Z", ended="2026-11-27T04:01:00Z", sessions=[{"time": "2026-11-27T04:12:00Z"}]
    )
    RunFolder(old).update(started="2026-11-27T04:02:00Z", ended="2026-11-27T04:11:00Z")
    assert run_named("last").path == resumed
    RunFolder(old).record_damage("config.yaml could not be read, and was restored")
    assert run_named("last").path == resumed
    RunFolder(killed).end("completed")
    assert run_named("last").path == killed
    (resumed / "run.json").write_text("{")
    assert run_named("last").path == killed


def test_finished_runs_of_an_experiment_are_found_next_to_damaged_ones(outputs):
    path = write_run(outputs, 0.9, choices={"experiment": "one"})
    write_run(outputs, 0.9, "seed=1", choices={"experiment": "another"})
    write_run(outputs, None, "seed=2", choices={"experiment": "one"}, status="failed")
    (outputs / "data" / "model" / "damaged").mkdir(parents=True)
    (outputs / "data" / "model" / "damaged" / "run.json").write_text('{"experiment": "one"')
    assert [run.path for run in finished_runs_of(outputs, "one")] == [path]


def test_equal_numbers_of_different_types_differ():
    settings = [{"a": 1, "b": [1], "c": 2.0}, {"a": True, "b": [1], "c": 2.0}, {"d": None}]
    assert keys_that_differ(settings) == {"a": True, "b": False, "c": False, "d": False}
