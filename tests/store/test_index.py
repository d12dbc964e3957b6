"""The index of what is listed: the same runs with it and without it, whatever was changed meanwhile."""

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cnnbench.errors import NotWrittenError
from cnnbench.store import index
from cnnbench.store.index import listed
from cnnbench.store.query import RunSummary, folders_below, runs_below
from tests.support.run_folders import write_run


@pytest.fixture(autouse=True)
def used_at_once(monkeypatch):
    """Let an index be written of a few runs, however new they are."""
    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(index, "SETTLED", -(10**12))


@pytest.fixture
def runs(outputs) -> dict[str, Path]:
    """Return runs by name, of which there is an index."""
    paths = {
        "finished": write_run(outputs, 0.9, "seed=1", val=0.8),
        "other": write_run(outputs, 0.7, "seed=2", val=0.6),
        "failed": write_run(outputs, None, "seed=3", status="failed", error="TrainingError: no room"),
    }
    read(outputs)
    assert known(outputs) == set(paths.values())
    return paths


def read(outputs: Path) -> list[RunSummary]:
    return listed(folders_below(outputs), outputs)


def known(outputs: Path) -> set[Path]:
    """Return the runs that are read from the index."""
    return {run.path for run in read(outputs) if run.known is not None}


def plain(runs: list[RunSummary]) -> list[object]:
    return [
        (run.path, run.values, run.error, run.is_finished, run.test_metrics, run.epochs_done, run.size) for run in runs
    ]


def assert_true(outputs: Path) -> None:
    for _ in range(2):  # of the second time, the index has what the first one read
        assert plain(read(outputs)) == plain(runs_below(outputs))


def test_runs_are_the_same_with_an_index_and_without(runs, outputs):
    assert_true(outputs)
    (outputs / ".index").unlink()
    assert_true(outputs)


def edited(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def unseen(path: Path, **values: object) -> None:
    """Edit a file without a change of its size, nor of its time."""
    before, text = path.stat(), path.read_text()
    key, value = next(iter(values.items()))
    path.write_text(text.replace(json.dumps(json.loads(text)[key]), json.dumps(value), 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def exchanged(one: Path, other: Path) -> None:
    scratch = one.with_name("scratch")
    one.rename(scratch)
    other.rename(one)
    scratch.rename(other)


CHANGES: dict[str, Callable[[dict[str, Path]], object]] = {
    "a result is edited": lambda runs: edited(runs["finished"] / "result.json", epochs=7, test={"accuracy": 0.1}),
    "a status is edited": lambda runs: edited(runs["failed"] / "run.json", status="paused"),
    "an edit leaves time and size": lambda runs: unseen(runs["finished"] / "run.json", started="999999"),
    "a configuration is edited": lambda runs: (runs["other"] / "config.yaml").write_text("seed: 3\n"),
    "a configuration is lost": lambda runs: (runs["other"] / "config.yaml").unlink(),
    "a result is lost": lambda runs: (runs["finished"] / "result.json").unlink(),
    "a run is removed": lambda runs: shutil.rmtree(runs["failed"]),
    "a run is renamed": lambda runs: runs["other"].rename(runs["other"].with_name("renamed")),
    "a run is copied": lambda runs: shutil.copytree(runs["other"], runs["other"].with_name("copy")),
    "a run is copied over another": lambda runs: shutil.copytree(runs["other"], runs["finished"], dirs_exist_ok=True),
    "runs are exchanged": lambda runs: exchanged(runs["finished"], runs["other"]),
    "a run is damaged": lambda runs: (runs["finished"] / "run.json").write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_is_read_again(change, runs, outputs):
    change(runs)
    assert_true(outputs)


def test_a_run_that_ends_is_listed_with_its_result(runs, outputs):
    path = write_run(outputs, None, "seed=4", status="running")
    assert_true(outputs)
    assert path not in known(outputs)
    write_run(outputs, 0.5, "seed=4")
    assert_true(outputs)
    assert path in known(outputs)


def test_what_has_just_been_written_is_not_trusted(outputs, monkeypatch):
    monkeypatch.setattr(index, "SETTLED", 2 * 10**9)
    write_run(outputs, 0.9)
    read(outputs)
    assert known(outputs) == set()
    assert not (outputs / ".index").exists()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[:-5],
    "empty": lambda content: b"",
    "of another version": lambda content: b"0" + content,
    "edited": lambda content: content.replace(b"completed", b"completes"),
    "something else": lambda content: b"\xff\n[]",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_index_counts_for_nothing(damage, runs, outputs):
    file = outputs / ".index"
    file.write_bytes(damage(file.read_bytes()))
    assert_true(outputs)
    assert known(outputs) == set(runs.values())  # it was written again


def test_where_nothing_can_be_written_runs_are_read(runs, outputs, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise NotWrittenError(outputs / ".index", OSError(28, "No space left on device"))

    edited(runs["finished"] / "run.json", status="failed")
    monkeypatch.setattr(index, "write_atomically", refuse)
    assert_true(outputs)
    monkeypatch.setattr(index, "file_system_time", lambda _: os.stat("/nonexistent"))
    assert_true(outputs)


def test_several_may_write_it_at_once(runs, outputs):
    (outputs / ".index").unlink()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, [outputs] * 24))
    assert all(plain(one) == plain(runs_below(outputs)) for one in found)
    assert known(outputs) == set(runs.values())


def test_a_stray_record_hides_no_runs_below_it(runs, outputs):
    shutil.copy(runs["finished"] / "run.json", outputs)
    shutil.copy(runs["finished"] / "run.json", runs["finished"].parent)
    assert {run.path for run in read(outputs)} == {*runs.values(), outputs, runs["finished"].parent}


def test_a_list_of_a_part_keeps_what_is_known_of_the_rest(runs, outputs):
    (part := outputs / "part" / "model").mkdir(parents=True)
    shutil.copytree(runs["other"], part / "copy")
    listed(folders_below(outputs / "part"), outputs)
    assert known(outputs) == {*runs.values(), part / "copy"}
