"""The same command again: a finished run is shown, one that began goes on, and what has changed since is told."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from cnnbench.errors import UserError
from cnnbench.store import provenance
from cnnbench.store.checkpoint import load_newest
from cnnbench.training import trainer
from cnnbench.training.trainer import carry_out
from tests.conftest import only_run
from tests.support.interruption import PLAIN, differences, fingerprints, go, read, rows_of, stop
from tests.support.training import plan_of

STATES = {"finished": lambda: go(*PLAIN), "began": lambda: stop(plan_of(*PLAIN), at_check=4)}


def change_sources(monkeypatch) -> str:
    sources = provenance.sources()
    changed = sources | {"cnnbench/training/loop.py": "0", "my_net.py": "1"}
    del changed["cnnbench/errors.py"]
    monkeypatch.setattr(provenance, "sources", lambda outside=(): changed)
    return "sources: cnnbench/errors.py, cnnbench/training/loop.py, my_net.py"


def change_data(monkeypatch) -> str:
    prepare = trainer.preflight

    def changed(config):
        ready = prepare(config)
        object.__setattr__(ready.data, "fingerprint", "0")
        return ready

    monkeypatch.setattr(trainer, "preflight", changed)
    return "data: the content of 'synthetic' is another one"


CHANGES: dict[str, Callable] = {"sources": change_sources, "data": change_data}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("state", STATES)
def test_a_run_of_other_code_or_data_is_not_shown_or_gone_on_with_unasked(outputs, monkeypatch, state, change):
    STATES[state]()
    run = only_run(outputs)
    before = fingerprints(outputs)
    said = change(monkeypatch)
    with pytest.raises(UserError) as refused:
        go(*PLAIN)
    lines = str(refused.value).splitlines()
    assert lines[:2] == [f"{run} {state} with other code or data than there is now:", f"  {said}"]
    assert [line.split()[0] for line in lines[3:]] == ["rerun=true", "accept_stale=true"]
    assert fingerprints(outputs) == before


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("state", STATES)
def test_what_changed_can_be_accepted(outputs, monkeypatch, capsys, state, change):
    STATES[state]()
    said = change(monkeypatch)
    capsys.readouterr()
    assert carry_out(replace(plan_of(*PLAIN), accept_stale=True)) == 0
    assert ("finished" in capsys.readouterr().out) is (state == "finished")
    record = read(only_run(outputs) / "run.json")
    assert record["status"] == "completed"
    assert record.get("accepted") == (None if state == "finished" else [said])


def test_a_stale_run_is_exit_2_and_accept_stale_exit_0(outputs, cnnbench, monkeypatch):
    STATES["finished"]()
    change_sources(monkeypatch)
    assert cnnbench(*PLAIN).code == 2
    assert cnnbench(*PLAIN, "accept_stale=true").code == 0


def test_rerunning_trains_beside_and_overwrites_nothing(outputs, capsys):
    assert go(*PLAIN) == 0
    original = only_run(outputs)
    before = fingerprints(original)
    for number in (2, 3):
        assert carry_out(replace(plan_of(*PLAIN), rerun=True)) == 0
        assert fingerprints(original) == before
        again = original.with_name(f"{original.name}-r{number}")
        assert read(again / "result.json")["identity"] == read(original / "result.json")["identity"]
        contents = [load_newest(run / "checkpoints", pytest.fail) for run in (original, again)]
        for content in contents:
            content["progress"].pop("train_seconds")
        assert differences(*contents) == []
        assert rows_of(again) == rows_of(original)
    assert len(list(outputs.glob("*/*/*/run.json"))) == 3
    capsys.readouterr()
    assert go(*PLAIN) == 0
    shown = capsys.readouterr().out
    assert "finished" in shown
    assert f"{original.name}-r3" in shown


def test_a_rerun_that_was_interrupted_is_what_the_command_goes_on_with(cnnbench, outputs):
    assert go(*PLAIN) == 0
    original = only_run(outputs)
    assert cnnbench(*PLAIN, "rerun=true", "max_minutes=1e-9").code == 0
    assert not (original.with_name(f"{original.name}-r2") / "result.json").exists()
    assert go(*PLAIN) == 0
    assert (original.with_name(f"{original.name}-r2") / "result.json").exists()
    assert len(list(outputs.glob("*/*/*/run.json"))) == 2


@pytest.mark.parametrize("word", ["rerun=yes", "accept_stale=1", "rerun="])
def test_what_to_do_with_a_run_is_true_or_false(cnnbench, outputs, word):
    outcome = cnnbench(*PLAIN, word)
    assert outcome.code == 2
    assert re.search(rf"{word} +must be true or false", outcome.err)
    assert not outputs.exists()


def test_a_run_that_failed_is_tried_again_and_its_old_error_is_not_told(outputs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            go(*PLAIN)
    run = only_run(outputs)
    record = read(run / "run.json")
    assert (record["status"], record["error"]) == ("failed", "ZeroDivisionError: division by zero")
    assert go(*PLAIN) == 0
    record = read(run / "run.json")
    assert record["status"] == "completed"
    assert "error" not in record


def test_the_number_of_threads_is_kept_when_a_run_goes_on(outputs, capsys, monkeypatch):
    words = [word for word in PLAIN if not word.startswith("threads")]
    used: list[int] = []
    monkeypatch.setattr(trainer, "fit", lambda *_: used.append(torch.get_num_threads()))
    for more in (["threads=2"], [], ["threads=1"]):
        assert go(*words, *more) == 0
        (only_run(outputs) / "result.json").unlink()
    assert used == [2, 2, 1]
    assert "note: 2 threads before, 1 now: the last bits may differ" in capsys.readouterr().out
    torch.set_num_threads(1)


def test_a_damaged_record_is_a_clear_error(cnnbench, outputs):
    stop(plan_of(*PLAIN), at_check=4)
    record = only_run(outputs) / "run.json"
    record.write_text(record.read_text()[:100])
    outcome = cnnbench(*PLAIN)
    assert outcome.code == 2
    assert f"{record} cannot be read" in outcome.err


def test_what_only_looks_at_runs_is_no_code_that_they_were_made_with():
    names = provenance.sources()
    assert "cnnbench/training/loop.py" in names
    assert not [name for name in names if name.startswith("cnnbench/analysis/")]
