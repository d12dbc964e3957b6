"""TensorBoard reads the files of a run in the order of their names: each point is there once."""

import time

import pytest

from cnnbench.training.trainer import Trainer, carry_out
from tests.conftest import only_run
from tests.support.interruption import PLAIN, Killed, go, read, rows_of, scalars_of, shown_by
from tests.support.training import plan_of


def test_a_run_that_goes_on_before_the_second_is_over_shows_each_point_once(outputs, monkeypatch):
    end = Trainer._end

    def die(self: Trainer, status: str) -> None:
        if status == "completed":
            raise Killed
        end(self, status)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end", die)  # the result is written, and what TensorBoard shows of it
        with pytest.raises(Killed):
            carry_out(plan_of(*PLAIN))
    run = only_run(outputs)
    (events,) = run.glob("events.out.tfevents.*")
    events.rename(run / f"events.out.tfevents.{int(time.time()) + 1}.host.9.0")  # the second of the session to come
    assert go(*PLAIN) == 0
    assert scalars_of(run) == shown_by(rows_of(run), read(run / "result.json"))


def test_a_clock_that_went_back_keeps_no_run_waiting(outputs):
    assert go(*PLAIN, "epochs=1") == 0
    run = only_run(outputs)
    (events,) = run.glob("events.out.tfevents.*")
    events.rename(run / f"events.out.tfevents.{int(time.time()) + 10_000}.host.9.0")
    (run / "result.json").unlink()
    began = time.monotonic()
    assert go(*PLAIN, "epochs=1") == 0
    assert time.monotonic() - began < 60
