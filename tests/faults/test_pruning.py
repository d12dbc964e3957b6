"""`cnnbench list --prune` removes nothing outside of the folder that it is asked about, whatever links there are.

`--prune-checkpoints` removes nothing that is not finished, or that other runs begin with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cnnbench.analysis.checkpoints import content_of
from cnnbench.errors import UserError
from cnnbench.store import pruning
from cnnbench.store.folder import RunFolder
from cnnbench.store.lock import locked
from cnnbench.store.query import RunSummary
from tests.support.interruption import fingerprints
from tests.support.run_folders import write_run


@pytest.fixture
def elsewhere(outputs, tmp_path) -> Path:
    """Return an interrupted run in another place; there is one in the folder of all runs, too."""
    write_run(outputs, None, "seed=1", status="running")
    return write_run(tmp_path / "elsewhere", None, "seed=2", status="running")


LINKS = {  # parents of a run that are reached by a link, from the folder of all runs
    "to all of them": 3, "to those of some data": 2, "to those of a network": 1, "to the run": 0,
}  # fmt: skip


@pytest.mark.parametrize("above", LINKS.values(), ids=LINKS)
def test_what_a_link_leads_to_is_never_removed(outputs, elsewhere, command_of, above):
    target = [elsewhere, *elsewhere.parents][above]
    link = outputs / Path(*["linked", *elsewhere.parts[-3:]][: 4 - above])
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    before = fingerprints(elsewhere)
    outcome = command_of("list", "--prune", "--yes")
    assert outcome.code == 0, outcome.err
    assert "1 run, " in outcome.out
    assert fingerprints(elsewhere) == before
    assert link.is_symlink()
    assert len(list(outputs.glob("synthetic/*/*"))) == 0


def test_links_within_a_run_are_removed_and_not_what_they_lead_to(outputs, command_of, tmp_path):
    run = write_run(outputs, None, "seed=1", status="running")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("1")
    (run / "link").symlink_to(tmp_path / "precious")
    assert command_of("list", "--prune", "--yes").code == 0
    assert not run.exists()
    assert (tmp_path / "precious" / "file").exists()


def test_a_folder_of_runs_that_is_a_link_itself_can_be_pruned(outputs, command_of, tmp_path):
    run = write_run(outputs, None, "seed=1", status="running")
    (tmp_path / "link").symlink_to(outputs)
    assert command_of("list", "--in", str(tmp_path / "link"), "--prune", "--yes").code == 0
    assert not run.exists()


def test_the_size_of_a_run_counts_its_own_files(outputs, tmp_path):
    run = write_run(outputs, None, "seed=1")
    before = RunSummary(run).size
    (tmp_path / "large").write_bytes(b"0" * 10_000)
    (run / "link").symlink_to(tmp_path / "large")
    (run / "dangling").symlink_to(tmp_path / "nowhere")
    assert RunSummary(run).size == before


def test_a_run_that_finishes_meanwhile_is_not_removed(outputs, command_of, monkeypatch):
    path = write_run(outputs, None, "seed=1", status="stopped")
    prunable = pruning.prunable

    def found_before_it_finishes(*arguments: Any) -> Any:
        found = prunable(*arguments)
        write_run(outputs, 0.9, "seed=1")
        return found

    monkeypatch.setattr(pruning, "prunable", found_before_it_finishes)
    assert command_of("list", "--prune", "--yes").code == 0
    assert (path / "result.json").is_file()


def with_checkpoint(run: Path, **record: object) -> Path:
    """Give a run a checkpoint, and entries in its record; return the folder of the checkpoint."""
    folder = RunFolder(run)
    folder.checkpoints.mkdir()
    for name in ("step-000000010.json", "step-000000010.pt"):
        (folder.checkpoints / name).write_text("{}")
    folder.update(**record)
    return folder.checkpoints


@pytest.fixture
def ranked(outputs) -> dict[float, Path]:
    """Return the checkpoints of finished runs by their accuracy on validation, and under 0 that of one not finished."""
    found = {
        val: with_checkpoint(write_run(outputs, 1 - val, f"seed={seed}", val=val))
        for seed, val in enumerate((0.7, 0.9, 0.6, 0.8))
    }
    for checkpoints in found.values():
        path = checkpoints.parent / "result.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "watched": [["accuracy", True]]}))
    return found | {0: with_checkpoint(write_run(outputs, None, "seed=7", status="stopped"))}


def left(ranked: Mapping[float, Path]) -> list[float]:
    return sorted((val for val, folder in ranked.items() if any(folder.iterdir())), reverse=True)


def test_checkpoints_of_all_but_the_best_on_validation_are_removed_when_that_is_confirmed(ranked, command_of):
    shown = command_of("list", "--prune-checkpoints", "2")
    assert left(ranked) == [0.9, 0.8, 0.7, 0.6, 0]
    assert [line.split()[2:7] for line in shown.out.splitlines()[:2]] == [
        [place, "of", "4", "by", "accuracy/val"] for place in "34"
    ]
    assert "nothing was removed" in shown.out
    assert command_of("list", "--prune-checkpoints", "2", "--yes").code == 0
    assert left(ranked) == [0.9, 0.8, 0]
    removed = RunFolder(ranked[0.6].parent)
    assert removed.is_completed
    assert "checkpoints_removed" in removed.record()
    with pytest.raises(UserError, match="were removed on"):
        content_of(removed, "best")


def test_checkpoints_that_other_runs_begin_with_stay_and_that_is_said(ranked, outputs, command_of):
    identity = RunFolder(ranked[0.6].parent).record()["identity"]
    sweep = outputs / "sweeps" / "one"
    sweep.mkdir(parents=True)
    jobs = [{"folder": None, "identity": "b" * 64, "after": identity}]
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    done = command_of("list", "--prune-checkpoints", "0", "--yes")
    assert left(ranked) == [0.6, 0]
    assert "4 of 4 by accuracy/val, kept: 1 run begins with it" in done.out


def test_checkpoints_of_a_run_that_another_one_continues_stay(ranked, outputs, command_of):
    identity = RunFolder(ranked[0.7].parent).record()["identity"]
    other = RunFolder(write_run(outputs, None, "seed=8", status="stopped"))
    config = {**other.config(), "parent": f"{identity}@10"}
    other.write_config(config, "cnnbench")
    other.update(config=config)
    assert command_of("list", "seed!=8", "--prune-checkpoints", "1", "--yes").code == 0
    assert left(ranked) == [0.9, 0.7, 0]


def test_checkpoints_of_a_run_that_is_worked_on_stay(ranked, command_of):
    with locked(ranked[0.6].parent / ".lock"):
        assert command_of("list", "--prune-checkpoints", "1", "--yes").code == 0
    assert left(ranked) == [0.9, 0.6, 0]
