"""Damaged files of a run: restored or passed over where more is known, and said; the rest is one sentence."""

import shutil
from pathlib import Path

import pytest

from cnnbench.analysis.loading import load_run
from cnnbench.errors import UserError
from cnnbench.store.checkpoint import steps_in
from cnnbench.training.plan import plan_resume
from cnnbench.training.trainer import carry_out
from tests.conftest import only_run
from tests.faults.test_edited_files import OTHER, change
from tests.support.interruption import PLAIN, child_of, fingerprints, finished, go, kill, read, rows_of
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("undrawn")

DAMAGES = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "emptied": lambda path: path.write_bytes(b""),
    "removed": lambda path: path.unlink(),
    "a list": lambda path: path.write_text("[1, 2]"),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    """Return the outputs of a run that was killed after a step, with the checkpoints of the two steps before."""
    outputs = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(outputs))
        kill(plan_of(*PLAIN), after_step=9, saves_every=1)
    return outputs


@pytest.fixture
def run(killed, outputs) -> Path:
    shutil.copytree(killed, outputs)
    run = only_run(outputs)
    assert steps_in(run / "checkpoints") == [7, 8]
    return run


# The newest manifest --------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(run) -> Path:
    """Return that run, with a newest manifest that was cut."""
    DAMAGES["cut"](run / "checkpoints" / "step-000000008.json")
    return run


@pytest.mark.parametrize("by", ["the same command", "resume"])
def test_a_run_with_a_damaged_manifest_goes_on_from_the_one_before(damaged, capsys, by):
    assert (go(*PLAIN) if by == "the same command" else carry_out(plan_resume(str(damaged), []))) == 0
    said = capsys.readouterr().out
    assert "step-000000008.json cannot be read" in said
    assert "from step 7 of 15" in said
    assert read(damaged / "run.json")["status"] == "completed"


def test_the_network_of_the_one_before_is_opened(damaged, capsys):
    assert load_run(damaged).epoch_of("last") == 1
    load_run(damaged).model("last")
    assert capsys.readouterr().err.count("step-000000008.json cannot be read") == 1


def test_more_epochs_and_other_trainings_begin_with_the_one_before(damaged, outputs):
    longer = plan_resume(str(damaged), ["epochs=4"])
    assert longer.config.parent.endswith("@7")
    assert "step-000000008.json cannot be read" in " ".join(longer.notes)
    assert carry_out(longer) == 0
    assert "step-000000008.json cannot be read" in " ".join(read(child_of(damaged) / "result.json")["notes"])
    other = plan_of(*OTHER, f"init.run={damaged}", "init.checkpoint=last")
    assert other.config.source.endswith("@last-7")
    shutil.rmtree(child_of(damaged))
    assert carry_out(other) == 0
    assert "step-000000008.json cannot be read" in " ".join(read(child_of(damaged) / "result.json")["notes"])


def test_damaged_content_is_passed_over_by_all_of_them_too(run):
    DAMAGES["cut"](run / "checkpoints" / "step-000000008.pt")
    assert plan_resume(str(run), ["epochs=4"]).config.parent.endswith("@7")
    assert plan_of(*OTHER, f"init.run={run}", "init.checkpoint=last").config.source.endswith("@last-7")


def test_where_none_is_whole_nothing_begins_with_it(run):
    for path in (run / "checkpoints").glob("*.json"):
        DAMAGES["cut"](path)
    for opening in (
        lambda: go(*PLAIN),
        lambda: plan_resume(str(run), ["epochs=4"]),
        lambda: load_run(run).model("last"),
        lambda: plan_of(*OTHER, f"init.run={run}", "init.checkpoint=last"),
    ):
        with pytest.raises(UserError, match=r"no checkpoint is whole\. Type rerun=true"):
            opening()


# Configuration and split ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", ["config.yaml", "split.json"])
def test_a_run_that_goes_on_restores_what_cannot_be_read_and_says_so(outputs, run, capsys, name, damage):
    before = (run / name).read_bytes()
    damage(run / name)
    assert go(*PLAIN) == 0
    assert (run / name).read_bytes() == before
    sentence = f"{name} could not be read, and was restored"
    assert f"warning: {run}: {sentence}." in capsys.readouterr().out
    assert read(run / "run.json")["damage"] == [sentence]
    assert sentence in read(run / "result.json")["notes"]


def test_the_configuration_of_a_run_of_before_is_restored_by_its_command(outputs, run):
    before = (run / "config.yaml").read_bytes()
    change(run / "run.json", config=None)
    DAMAGES["cut"](run / "config.yaml")
    with pytest.raises(UserError, match=r"config\.yaml is damaged: .* To restore it, type: cnnbench data="):
        plan_resume(str(run), [])
    assert go(*PLAIN) == 0
    assert load_run(run).config.identity() == read(run / "run.json")["identity"]
    assert len((run / "config.yaml").read_bytes()) >= len(before) - 10


def test_resume_restores_the_configuration_of_a_finished_run(cnnbench, command_of, outputs):
    run = finished(PLAIN, outputs)
    before = fingerprints(run)
    DAMAGES["cut"](run / "config.yaml")
    refused = command_of("evaluate", str(run))
    assert refused.code == 2
    assert f"To restore it, type: cnnbench resume {run}" in refused.err
    assert "config.yaml is damaged" in command_of("list").out
    assert command_of("resume", str(run)).code == 0
    after = fingerprints(run)
    assert {name for name in before if before[name] != after[name]} == {"run.json"}
    assert command_of("evaluate", str(run)).code == 0


def test_a_run_whose_rows_go_on_is_whole_after_all_that(run):
    DAMAGES["removed"](run / "config.yaml")
    assert go(*PLAIN) == 0
    assert [row["step"] for row in rows_of(run) if row["row"] == "step"] == list(range(1, 16))
