"""The same command again: a finished run is shown, one that was started continues, and changes since are reported."""

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from cnnbench.errors import UserError
from cnnbench.plugins import register_everything
from cnnbench.store import provenance
from cnnbench.store.checkpoint import load_newest
from cnnbench.training import resolve, trainer
from cnnbench.training.setup import setup
from cnnbench.training.trainer import carry_out
from tests.conftest import only_run
from tests.support.interruption import PLAIN, child_of, differences, fingerprints, go, read, rows_of, stop
from tests.support.training import plan_of

MY_NET = """
from torch import nn
from cnnbench.registry import MODELS

@MODELS.register("plugged_net")
def plugged_net(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, spec.num_outputs))
"""
STATES = {"finished": lambda: go(*PLAIN), "started": lambda: stop(plan_of(*PLAIN), at_check=4)}


def change_code(monkeypatch) -> str:
    code = provenance.code_hashes()
    changed = code | {"cnnbench/training/loop.py": "0", "my_net.py": "1"}
    del changed["cnnbench/randomness.py"]
    monkeypatch.setattr(provenance, "code_hashes", lambda plugins=(): changed)
    return "code: cnnbench/randomness.py, cnnbench/training/loop.py, my_net.py"


def change_data(monkeypatch) -> str:
    def changed(config, **options):
        training = setup(config, **options)
        object.__setattr__(training.data, "fingerprint", "0")
        return training

    monkeypatch.setattr(resolve, "setup", changed)
    return "data: the content of 'synthetic' has changed"


CHANGES: dict[str, Callable] = {"code": change_code, "data": change_data}


@pytest.mark.parametrize(
    ("state", "change"), [("finished", change_data), ("started", change_data), ("started", change_code)]
)  # fmt: skip
def test_a_run_of_other_data_and_an_unfinished_one_of_other_code_are_not_gone_on_with_unasked(
    outputs, monkeypatch, state, change
):
    STATES[state]()
    run = only_run(outputs)
    before = fingerprints(outputs)
    said = change(monkeypatch)
    with pytest.raises(UserError) as refused:
        go(*PLAIN)
    lines = str(refused.value).splitlines()
    assert lines[:2] == [f"{run} was {state} with code or data that have changed since:", f"  {said}"]
    assert [line.split()[0] for line in lines[3:]] == ["rerun=true", "accept_stale=true"]
    assert fingerprints(outputs) == before


def test_a_finished_run_of_other_code_is_shown_with_a_line_that_says_so(outputs, cnnbench, monkeypatch):
    STATES["finished"]()
    before = fingerprints(outputs)
    said = change_code(monkeypatch)
    outcome = cnnbench(*PLAIN)
    assert outcome.code == 0, outcome.err
    assert f"note: made with other {said}" in outcome.out
    assert outcome.out.splitlines()[-1].startswith(f"  this result was made with other {said}; rerun=true trains again")
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


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_run_of_other_code_or_data_is_trained_for_longer_only_where_that_is_accepted(
    outputs, cnnbench, monkeypatch, change
):
    """Its best validation would be compared with those of another network, or of other images."""
    STATES["finished"]()
    run, before = only_run(outputs), fingerprints(outputs)
    said = change(monkeypatch)
    refused = cnnbench(f"resume={run}", "epochs=4")
    assert refused.code == 2
    assert refused.err.endswith(
        f"  {said}\nto go on all the same:\n  accept_stale=true  trains it for longer with what is there now\n"
    )
    assert fingerprints(outputs) == before
    assert cnnbench(f"resume={run}", "epochs=4", "accept_stale=true").code == 0
    assert read(child_of(run) / "run.json")["accepted"] == [said]


def test_other_data_is_exit_2_and_accept_stale_exit_0(outputs, cnnbench, monkeypatch):
    STATES["finished"]()
    change_data(monkeypatch)
    assert cnnbench(*PLAIN).code == 2
    assert cnnbench(*PLAIN, "accept_stale=true").code == 0


def test_code_that_changed_since_a_run_was_planned_is_not_run(outputs, tmp_path):
    plugin = tmp_path / "here" / "my_net.py"
    plugin.write_text(MY_NET)
    hashes = provenance.code_hashes(register_everything(["my_net.py"]))
    plan = replace(plan_of(*PLAIN), plugins=("my_net.py",), code=hashes)
    plugin.write_text(f"# a comment\n{MY_NET}")
    assert resolve.with_code(plan, provenance.code_hashes(register_everything(["my_net.py"]))) == plan
    plugin.write_text(MY_NET.replace("Flatten", "Identity"))
    with pytest.raises(UserError, match=r"code changed since this run was planned: my_net\.py\. Undo"):
        carry_out(plan)
    assert not outputs.exists()


def test_a_plugin_that_was_renamed_is_the_same_code():
    before = {"cnnbench/a.py": "1", "plug.py": "2"}
    assert provenance.changed_names(before, {"cnnbench/a.py": "1", "net.py": "2"}) == []
    assert provenance.changed_names(before, {"cnnbench/a.py": "1", "net.py": "3"}) == ["net.py", "plug.py"]
    assert provenance.changed_names(before, {"cnnbench/a.py": "2", "net.py": "2"}) == ["cnnbench/a.py"]
    digests = {provenance.code_digest({"code": code}) for code in (before, {"cnnbench/a.py": "1", "net.py": "2"})}
    assert len(digests) == 1


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
    assert cnnbench(*PLAIN, "rerun=true", "max_minutes=1e-9").code == 75
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


def test_a_run_that_failed_is_tried_again_and_its_old_error_is_not_printed(outputs, monkeypatch):
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
    for more in (["threads=2"], [], ["threads=1"], ["threads=2"]):
        assert go(*words, *more) == 0
        (only_run(outputs) / "result.json").unlink()
    assert used == [2, 2, 1, 2]
    said = capsys.readouterr().out
    assert "note: 2 threads before, 1 now: results may not be bit-identical" in said
    assert "cpu, 1 thread, fp32" in said
    torch.set_num_threads(1)


def test_a_damaged_record_is_a_clear_error(cnnbench, outputs):
    stop(plan_of(*PLAIN), at_check=4)
    record = only_run(outputs) / "run.json"
    record.write_text(record.read_text()[:100])
    outcome = cnnbench(*PLAIN)
    assert outcome.code == 2
    assert f"{record} cannot be read" in outcome.err


def test_only_what_computes_is_the_code_of_a_run():
    names = provenance.code_hashes()
    assert "cnnbench/training/loop.py" in names
    others = ("analysis", "cli", "config", "store", "sweeps", "training/console.py", "training/journal.py", "train.py")
    others += ("tasks/charts.py", "tasks/figures.py", "tasks/gallery.py")
    assert not [name for name in names if name.startswith(tuple(f"cnnbench/{other}" for other in others))]


@pytest.mark.parametrize(
    ("changed", "is_same"),
    [
        ("def f(x):\n    # why\n    return x + 1\n", True),
        ('def f(x):\n    """Return more."""\n\n    return (x\n            + 1)\n', True),
        ("def f(x):\n    return x + 2\n", False),
        ("def f(x):\n    return x - 1\n", False),
        ("def f(y):\n    return y + 1\n", False),
        ("def f(x):\n    return 1 + x\n", False),
    ],
    ids=["comment", "docstring and layout", "constant", "operator", "name", "order"],
)
def test_the_hash_of_code_follows_from_what_it_does(changed, is_same):
    before = provenance.syntax_hash("def f(x):\n    return x + 1\n")
    assert (provenance.syntax_hash(changed) == before) is is_same
