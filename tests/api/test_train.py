"""A training from Python: which run it is, what it prints, how it ends, and what is called after its epochs."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from cnnbench import api
from cnnbench.analysis.run import Run
from cnnbench.cli.help import DOCS
from cnnbench.errors import ExitCode, Stopped, UserError
from cnnbench.store.files import write_json
from cnnbench.sweeps.work import Worked
from tests.api.conftest import tiny
from tests.conftest import TINY, latest
from tests.support.interruption import rows_of


def test_training_from_python_is_the_same_run_as_the_command(outputs, cnnbench):
    trained = tiny("epochs=1")
    assert trained.result["epochs"] == 1
    assert "finished" in cnnbench(*latest([*TINY, "epochs=1"])).out
    assert tiny("epochs=1").path == trained.path
    assert tiny("epochs=1", "seed=1").path != trained.path
    table = api.runs(f"{outputs}/**")
    assert sorted(table["seed"]) == [0, 1]
    assert table["accuracy/test"].notna().all()
    assert trained.record["command"].startswith("cnnbench data=synthetic")


@pytest.mark.usefixtures("undrawn")
def test_the_example_of_the_documentation_runs(outputs):
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    begin = text.index("import cnnbench\n")
    known: dict[str, Any] = {}
    code = text[begin : text.index("```", begin)]
    small = '{"name": "digits", "subset": {"per_class": 10}}, threads=1'
    exec(code.replace('data="digits"', f"data={small}"), known)
    assert known["run"].path.is_relative_to(outputs)
    assert known["probabilities"].shape == (3, 10)
    assert list(known["table"].columns) == ["model", "seed", "accuracy/test"]
    assert len(known["table"]) == 1 + len(known["sweep"]) == 3


def test_a_training_that_was_stopped_is_not_returned_as_if_it_were_done():
    words = ("model=mlp", "epochs=2")
    message = r"^stopped after step 1; the last checkpoint, of step 1, is kept\.\nTo continue, make the same"
    with pytest.raises(Stopped, match=message) as end:
        tiny(*words, max_minutes=1e-9)
    assert end.value.run is not None
    assert end.value.run.record["status"] == "stopped"
    with pytest.raises(UserError, match="is not finished yet"):
        _ = end.value.run.result
    assert tiny(*words).path == end.value.run.path
    assert tiny(*words).result["epochs"] == 2


def test_ctrl_c_stops_at_a_checkpoint():
    def press(_run: Run, _row: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped, match="stopped after step"):
        tiny("model=mlp", on_epoch=press)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_function_is_called_after_each_epoch_and_can_stop_the_training():
    seen: list[tuple[Path, int, float]] = []

    def look(run: Run, row: Any) -> None:
        assert len(run.metrics.query("row == 'epoch'")) == row["epoch"]
        seen.append((run.path, row["epoch"], row["loss/val"]))
        if row["epoch"] == 2:
            raise Stopped

    with pytest.raises(Stopped, match="stopped after step 10"):
        tiny("model=lenet", on_epoch=look)
    run = tiny("model=lenet", on_epoch=look)
    rows = [row for row in rows_of(run.path) if row["row"] == "epoch"]
    assert seen == [(run.path, row["epoch"], row["loss/val"]) for row in rows]
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("on_epoch", "message"),
    [
        (3, r"^on_epoch=3 is no function\."),
        (lambda run: None, r"^on_epoch is called with the run and the row of an epoch, and takes \(run\)\."),
    ],
    ids=["number", "one argument"],
)
def test_what_cannot_be_called_after_an_epoch_is_refused_before_the_first(on_epoch, message):
    with pytest.raises(UserError, match=message):
        tiny("model=mlp", on_epoch=on_epoch)
    assert api.runs().empty


def test_an_error_in_that_function_is_its_own():
    with pytest.raises(ZeroDivisionError):
        tiny("model=mlp", on_epoch=lambda _run, _row: 1 // 0)
    assert api.runs()["status"].tolist() == ["failed"]


@pytest.mark.parametrize(
    ("progress", "has_lines", "has_bar", "has_summary"),
    [("quiet", False, False, False), ("lines", True, False, True), ("bar", True, True, True),
     ("auto", True, False, True)],
)  # fmt: skip
def test_a_training_shows_as_much_as_it_is_asked_to(capfd, progress, has_lines, has_bar, has_summary):
    api.train(TINY, model="mlp", progress=progress)
    printed = capfd.readouterr()
    assert ("  epoch 3/3  loss" in printed.out) == has_lines
    assert (" left" in printed.err) == has_bar
    assert ("checkpoint  epoch" in printed.out) == has_summary
    assert bool(printed.out) == has_summary
    assert bool(printed.err) == has_bar


def test_how_much_is_printed_is_one_of_four():
    with pytest.raises(UserError, match=r"^progress='loud': must be one of 'auto', 'bar', 'lines', 'quiet'"):
        api.train(TINY, model="mlp", progress="loud")  # type: ignore[arg-type]
    assert api.runs().empty


def test_the_processes_of_a_sweep_are_as_quiet(capfd):
    assert len(api.sweep(TINY, model="mlp", seed=[0, 1], progress="quiet")) == 2
    assert capfd.readouterr().out == ""


def test_what_changed_since_is_said_in_any_case(capsys):
    run = tiny("model=mlp")
    write_json(run.path / "run.json", run.record | {"code": {"cnnbench/models/plain.py": "other"}})
    capsys.readouterr()
    tiny("model=mlp")
    printed = capsys.readouterr()
    assert not printed.out
    assert "note: made with other code: " in printed.err


def test_a_sweep_that_was_stopped_is_not_returned_as_if_it_were_done(monkeypatch):
    monkeypatch.setattr("cnnbench.api.carry_out_sweep", lambda *_: (ExitCode.STOPPED, Worked({})))
    with pytest.raises(Stopped, match="make the same call again"):
        api.sweep(TINY, model="mlp")
