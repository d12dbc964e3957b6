"""TensorBoard reads the files of a run in the order of their names: each point is there once."""

import time
from pathlib import Path

import pytest

from cnnbench.training import loop
from cnnbench.training.loggers.tensorboard import TensorBoard
from cnnbench.training.trainer import Trainer, carry_out
from tests.conftest import only_run
from tests.support.interruption import PLAIN, Killed, go, read, rows_of, scalars_of, shown_by, stop
from tests.support.training import plan_of


def newest_events(run: Path) -> Path:
    return max(run.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_mtime_ns)


def test_a_run_that_goes_on_before_the_second_is_over_shows_each_point_once(outputs, monkeypatch):
    """Its test point is of a step before the one that the killed session began with."""
    end, begin = Trainer._end, TensorBoard.begin

    def die(self: Trainer, status: str) -> None:
        if status == "completed":  # the result is written, and shown
            raise Killed
        end(self, status)

    def begin_in_the_same_second(self: TensorBoard, *arguments) -> str | None:
        newest_events(run).rename(run / f"events.out.tfevents.{int(time.time()) + 1}.host.9.0")
        return begin(self, *arguments)

    accuracies = iter([0.5, 0.9, 0.4])
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": 1.0, "accuracy": next(accuracies)})
    stop(plan_of(*PLAIN), at_check=12)
    time.sleep(1.1)
    run = only_run(outputs)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end", die)
        with pytest.raises(Killed):
            carry_out(plan_of(*PLAIN))
    monkeypatch.setattr(TensorBoard, "begin", begin_in_the_same_second)
    assert go(*PLAIN) == 0
    assert [session["step"] for session in read(run / "run.json")["sessions"]] == [0, 12, 15]
    assert scalars_of(run)["accuracy/test"][0][0] == 10
    assert scalars_of(run) == shown_by(rows_of(run), read(run / "result.json"))


def test_a_clock_that_went_back_keeps_no_run_waiting(outputs):
    assert go(*PLAIN, "epochs=1") == 0
    run = only_run(outputs)
    newest_events(run).rename(run / f"events.out.tfevents.{int(time.time()) + 10_000}.host.9.0")
    (run / "result.json").unlink()
    began = time.monotonic()
    assert go(*PLAIN, "epochs=1") == 0
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("left", [0, 10, -10], ids=["nothing", "its beginning", "all but the end of its last record"])
def test_a_file_of_events_that_was_cut_is_left_as_it_is_and_each_point_is_there_once(outputs, left):
    stop(plan_of(*PLAIN), at_check=12)
    run = only_run(outputs)
    events = newest_events(run)
    events.write_bytes(events.read_bytes()[:left])
    before = events.read_bytes()
    time.sleep(1.1)
    assert go(*PLAIN) == 0
    assert events.read_bytes() == before
    shown, expected = scalars_of(run), shown_by(rows_of(run), read(run / "result.json"))
    if left < 0:
        assert shown == expected
    assert shown.keys() == expected.keys()
    for tag, points in shown.items():
        assert points == expected[tag][-len(points) :], "what was lost is in metrics.jsonl"


@pytest.mark.parametrize("call", ["opened", "flushed"])
def test_what_was_known_before_is_shown_as_a_whole_though_a_session_is_killed_in_the_middle(
    outputs, monkeypatch, tmp_path, call
):
    """Of a run that goes on from another one, and of TensorBoard that is asked for later."""
    words = (*PLAIN, "logger=[]")
    stop(plan_of(*words), at_check=12)

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if call == "opened":
            patch.setattr(TensorBoard, "_describe", die)
        else:
            patch.setattr(Trainer, "_train", die)
        with pytest.raises(Killed):
            carry_out(plan_of(*PLAIN))
    run = only_run(outputs)
    assert newest_events(run).exists()
    time.sleep(1.1)
    assert go(*PLAIN) == 0
    assert scalars_of(run) == shown_by(rows_of(run), read(run / "result.json"))
