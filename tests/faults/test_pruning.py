"""`cnnbench list --prune` removes nothing outside of the folder that it is asked about, whatever links there are."""

from pathlib import Path

import pytest

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
    assert "1 runs" in outcome.out
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
