"""Rows and results that were lost or changed: that is said and recorded, and what follows from them not computed."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.analysis.reports.page import Page
from cnnbench.analysis.reports.single import page_of
from cnnbench.errors import UserError
from cnnbench.store.checkpoint import load_newest
from cnnbench.store.files import write_sealed
from cnnbench.store.folder import RunFolder
from cnnbench.store.query import runs_below
from cnnbench.training.plan import plan_resume
from cnnbench.training.trainer import carry_out
from tests.conftest import only_run
from tests.faults.test_edited_files import change
from tests.support.interruption import PLAIN, child_of, differences, finished, go, kill, read, rows_of, stop
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("undrawn")

WORDS = (*PLAIN, "reach=0.01")


def without_line(number: int) -> Callable[[bytes], bytes]:
    return lambda content: b"".join(line for index, line in enumerate(content.splitlines(True)) if index != number)


def flip_a_digit(content: bytes) -> bytes:
    at = content.index(b'"loss/train": 1.') + len(b'"loss/train": 1.')
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def verdicts(page: Page) -> str:
    return next(str(section) for section in page.sections if section.title == "Findings")


LOSSES = {  # by what is left of the file, what is said of it; eight steps and an epoch were saved
    "cut in its middle": (lambda content: content[: len(content) // 2], r"metrics\.jsonl: \d of 9 rows are lost"),
    "cut to nothing": (lambda content: b"", "9 of 9 rows are lost"),
    "its first row": (without_line(0), "1 of 9 rows are lost"),
    "its epoch": (without_line(5), "1 of 9 rows are lost"),
    "the row of the checkpoint": (without_line(8), "1 of 9 rows are lost"),
    "a digit": (flip_a_digit, "its rows are not those that were written"),
    "a brace": (lambda content: content.replace(b"{", b"[", 1), "1 of 9 rows are lost"),
    "no text any more": (lambda content: content.replace(b"{", b"\xff", 1), "1 of 9 rows are lost"),
    "a row twice": (lambda content: content.splitlines(True)[0] + content, "its rows are not those"),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(outputs))
        stop(plan_of(*WORDS), at_check=9)
    return outputs


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return finished(WORDS, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run(stopped, outputs) -> Path:
    """Return a run that was stopped after eight of fifteen steps."""
    shutil.copytree(stopped, outputs)
    run = only_run(outputs)
    assert len(rows_of(run)) == 9
    return run


@pytest.mark.parametrize(("loss", "said"), LOSSES.values(), ids=LOSSES)
def test_what_is_lost_of_the_rows_is_said_and_recorded_and_the_training_goes_on(run, whole, capsys, loss, said):
    file = run / "metrics.jsonl"
    file.write_bytes(loss(file.read_bytes()))
    assert go(*WORDS) == 0
    record, result, page = read(run / "run.json"), read(run / "result.json"), page_of(RunFolder(run))
    (damage,) = record["damage"]
    assert damage.endswith(", up to step 8")
    for place in (capsys.readouterr().out, damage, " ".join(result["notes"]), verdicts(page)):
        assert re.search(said, place)
    contents = [load_newest(folder / "checkpoints", pytest.fail) for folder in (run, whole)]
    for content in contents:
        content["progress"].pop("train_seconds")
    assert differences(*contents) == []
    assert result["test"] == read(whole / "result.json")["test"]


def test_what_follows_from_lost_rows_is_not_computed(run, whole):
    assert read(whole / "result.json")["reached"]["epoch"] == 1
    (run / "metrics.jsonl").write_text("")
    assert go(*WORDS) == 0
    result = read(run / "result.json")
    assert result["reached"] is None
    assert "when accuracy reached 0.01 is not known: rows of metrics.jsonl are lost" in result["notes"]
    assert result["checkpoint"] == read(whole / "result.json")["checkpoint"]


def test_a_loss_is_recorded_once_though_the_run_is_killed_before_its_next_checkpoint(run):
    (run / "metrics.jsonl").unlink()
    kill(plan_of(*WORDS), after_step=9, saves_every=1000)
    assert go(*WORDS) == 0
    assert len(read(run / "run.json")["damage"]) == 1


def test_rows_after_the_checkpoint_are_no_loss(outputs, whole):
    kill(plan_of(*WORDS), after_step=9, saves_every=4)
    run = only_run(outputs)
    with (run / "metrics.jsonl").open("rb+") as file:
        file.truncate((run / "metrics.jsonl").stat().st_size - 30)
    assert go(*WORDS) == 0
    assert "damage" not in read(run / "run.json")
    assert rows_of(run) == rows_of(whole)


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_run_that_continues_one_with_lost_rows_says_so(run, is_finished):
    if is_finished:
        assert go(*WORDS) == 0
    (run / "metrics.jsonl").write_bytes(without_line(0)((run / "metrics.jsonl").read_bytes()))
    assert carry_out(plan_resume(str(run), ["epochs=4"])) == 0
    child = child_of(run)
    assert "1 of" in read(child / "run.json")["damage"][0]
    assert read(child / "result.json")["reached"] is None


def test_a_run_of_before_knows_nothing_of_its_rows(run):
    change(run / "checkpoints" / "step-000000008.json", rows=None, checksum=None)
    (run / "metrics.jsonl").unlink()
    assert go(*WORDS) == 0
    assert "damage" not in read(run / "run.json")


# Finished runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def done(whole, outputs) -> Path:
    shutil.copytree(whole.parents[2], outputs)
    return only_run(outputs)


def test_the_page_of_a_finished_run_says_that_rows_are_lost(done):
    assert "metrics.jsonl" not in verdicts(page_of(RunFolder(done)))
    (done / "metrics.jsonl").write_bytes(without_line(0)((done / "metrics.jsonl").read_bytes()))
    assert "metrics.jsonl: 1 of 18 rows are lost" in verdicts(page_of(RunFolder(done)))


CHANGED = "result.json was changed after it was written: its checksum does not match"


def test_a_changed_result_is_said_wherever_it_is_read(done, cnnbench, command_of):
    result = read(done / "result.json")
    change(done / "result.json", test=result["test"] | {"accuracy": 0.5})
    for outcome in (cnnbench(*WORDS), command_of("report", str(done))):
        assert outcome.code == 2
        assert CHANGED in outcome.err
    assert CHANGED in command_of("list").out
    assert [CHANGED in run.problem for run in runs_below(done)] == [True]
    with pytest.raises(UserError, match=CHANGED):
        RunFolder(done).result()
    outcome = command_of("evaluate", str(done))
    assert outcome.code == 0, outcome.err
    assert CHANGED in outcome.out


def test_without_its_result_the_same_command_measures_again(done):
    before = read(done / "result.json")
    (done / "result.json").unlink()
    assert go(*WORDS) == 0
    assert read(done / "result.json")["test"] == before["test"]
    assert read(done / "result.json")["test_measured"] == 2


def test_an_evaluation_that_differs_from_the_result_says_so(done, command_of):
    result = read(done / "result.json")
    assert "note:" not in command_of("evaluate", str(done)).out
    write_sealed(done / "result.json", result | {"test": result["test"] | {"accuracy": 0.123}})
    said = f"note: accuracy is {result['test']['accuracy']:.6g}, and 0.123 in result.json"
    assert said in command_of("evaluate", str(done)).out
    assert said in command_of("evaluate", str(done), "--checkpoint", result["checkpoint"]["kind"]).out
    assert "note:" not in command_of("evaluate", str(done), "--split", "val").out
