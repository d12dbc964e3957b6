"""A run that is asked to stop, by a signal or a limit of time: the step ends, it saves, and says how to continue."""

import os
import signal
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from cnnbench.analysis.reports.page import Page
from cnnbench.data import prepare
from cnnbench.errors import Stopped
from cnnbench.store.checkpoint import load_newest
from cnnbench.tasks import classification
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.training import loop, trainer
from cnnbench.training.signals import SIGNALS, StopRequests
from cnnbench.training.trainer import Trainer
from tests.conftest import TINY, only_run
from tests.support.interruption import WORDS, assert_same, go, outcome_of, read, save_every, shown_by

pytestmark = pytest.mark.usefixtures("one_second_a_session", "undrawn")


def send_after_step_6(patch: pytest.MonkeyPatch, *signals: signal.Signals) -> None:
    on_step = Trainer.on_step

    def patched(self, row, progress) -> None:
        on_step(self, row, progress)
        if row["step"] == 6:
            for number in signals:
                signal.raise_signal(number)

    patch.setattr(Trainer, "on_step", patched)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_lets_the_step_finish_saves_and_says_how_to_go_on(cnnbench, outputs, unbroken, number):
    code = 130 if number == signal.SIGINT else 75
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        send_after_step_6(patch, number)
        outcome = cnnbench(*WORDS)
    run = only_run(outputs)
    assert outcome.code == code
    assert "stopped at step 6 of 15" in outcome.out
    assert f"to continue, type the same command again, or: cnnbench resume {run}" in outcome.out
    assert read(run / "run.json")["status"] == "stopped"
    assert signal.getsignal(number) is before
    assert go(*WORDS) == 0
    assert_same(run, unbroken)


# Where a signal comes, and what a class or module calls there.
PLACES: dict[str, tuple[Any, str]] = {
    "while data are prepared": (prepare, "select_subset"),
    "while the newest checkpoint is read": (Trainer, "_restore"),
    "while batches are validated": (loop, "evaluate"),
    "while samples are shown": (Trainer, "_context"),
    "while the checkpoint is chosen": (trainer, "select_checkpoint"),
    "while the test is measured": (trainer, "measure"),
    "while what it measured is written down": (trainer, "result_record"),
    "while evaluation files are written": (EvalReport, "write"),
    "while the page is written": (Page, "write"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_signal_stops_a_run_wherever_it_is_and_the_same_command_ends_it_in_the_same_bits(
    cnnbench, outputs, unbroken, monkeypatch, place
):
    words = (*WORDS, "report=true") if place in list(PLACES)[-2:] else WORDS
    if place == "while samples are shown":
        monkeypatch.setattr(classification.Classification, "show_every", 2, raising=False)
    with pytest.MonkeyPatch.context() as patch:
        send_before(patch, *PLACES[place])
        outcome = cnnbench(*words)
    assert outcome.code == 75, outcome.out
    assert "SIGTERM" in outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    if place == "while data are prepared":
        assert not list(outputs.rglob("run.json"))
    elif place != "while the page is written":
        assert read(only_run(outputs) / "run.json")["status"] == "stopped"
    shown = []
    monkeypatch.setattr(
        classification.Classification, "log_progress", lambda _, context: shown.append(context.epoch), raising=False
    )
    outcome = cnnbench(*words)
    assert outcome.code == 0, outcome.err
    assert_same(only_run(outputs), unbroken)
    assert (only_run(outputs) / "report.html").is_file() == ("report=true" in words)
    if place == "while samples are shown":
        assert shown == [2]  # of the three epochs: it had come to that


def test_a_test_that_was_logged_and_then_stopped_is_logged_once(cnnbench, outputs, monkeypatch):
    monkeypatch.setattr(loop, "is_better", lambda _metrics, best, _watched: best is None)  # the first stays the best
    words = (*WORDS, "report=true", "regularization.early_stopping.patience=null")
    with pytest.MonkeyPatch.context() as patch:
        send_before(patch, EvalReport, "write")
        assert cnnbench(*words).code == 75
    assert cnnbench(*words).code == 0
    outcome = outcome_of(only_run(outputs))
    assert outcome["result"]["checkpoint"]["epoch"] == 1
    assert outcome["result"]["test_measured"] == 1
    assert outcome["scalars"] == shown_by(outcome["rows"], outcome["result"])


def send_before(patch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Send SIGTERM to this process before something is called for the first time."""
    original, sent = getattr(owner, name), []

    def patched(*arguments: Any, **more: Any) -> Any:
        if not sent:
            sent.append(True)
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("it went on")
        return original(*arguments, **more)

    patch.setattr(owner, name, patched)


def test_a_process_that_was_forked_takes_a_signal_as_before():
    reading, writing = os.pipe()
    with StopRequests() as stop:
        child = os.fork()
        if child == 0:
            os.write(writing, b"!")
            time.sleep(60)
            os._exit(0)
        os.read(reading, 1)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        stop.check()


def test_signals_that_are_ignored_stay_so_and_a_thread_leaves_all_of_them_alone():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    handlers = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def look() -> None:
        with StopRequests():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == handlers


def test_what_is_deferred_is_finished_and_only_the_first_signal_counts():
    with StopRequests() as stop, stop.deferred():
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGUSR2"):
            stop.check()
        with pytest.raises(Stopped, match="SIGUSR2"), stop.at_once():
            pytest.fail("it began")


def test_what_takes_any_exception_for_an_error_does_not_take_a_signal_for_one():
    def swallow() -> None:
        with suppress(Exception):
            signal.raise_signal(signal.SIGTERM)
        pytest.fail("it went on")

    with pytest.raises(Stopped, match="stopped by SIGTERM"), StopRequests():
        swallow()


def test_a_second_ctrl_c_ends_the_run_at_once(cnnbench, outputs, monkeypatch):
    save_every(monkeypatch, 5)
    send_after_step_6(monkeypatch, signal.SIGINT, signal.SIGINT)
    outcome = cnnbench(*WORDS)
    assert outcome.code == 130
    assert "stopped at once; the last checkpoint, of step 5, is kept." in outcome.err
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "stopped"
    assert load_newest(run / "checkpoints", pytest.fail)["progress"]["step"] == 5


@pytest.mark.slow
def test_a_process_that_a_scheduler_ends_exits_with_75_and_can_be_gone_on_with(cnnbench, outputs, start):
    words = (*TINY, "epochs=100000")
    process = start(words)
    for line in process.stdout:
        if "epoch" in line and "/100000" in line:
            process.terminate()
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    run = only_run(outputs)
    record = read(run / "run.json")
    assert record["status"] == "stopped"
    assert f"stopped at step {record['step']} of" in out
    assert "Traceback" not in err
    assert load_newest(run / "checkpoints", pytest.fail)["progress"]["step"] == record["step"]
    outcome = cnnbench(*words, "max_minutes=1e-9")
    assert outcome.code == 75
    assert f"from step {record['step']} of" in outcome.out


def test_a_limit_of_time_pauses_the_run_with_exit_75(outputs, unbroken, capsys):
    assert go(*WORDS, "max_minutes=1e-6") == 75
    assert "stopped at step 1 of 15, by max_minutes" in capsys.readouterr().out
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "stopped"
    assert go(*WORDS, "max_minutes=60") == 0
    assert_same(run, unbroken)


def test_the_first_checkpoint_comes_three_seconds_after_the_start_and_later_ones_keep_their_distance(
    outputs, monkeypatch
):
    clock = iter(range(1000))  # a second passes whenever somebody looks
    saved = []
    save = Trainer.save

    def note(self: Trainer) -> None:
        saved.append((self.progress.step, self.last_save))
        save(self)

    monkeypatch.setattr(Trainer, "save", note)
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    assert go(*WORDS, "checkpoint.every_seconds=8") == 0
    assert [step for step, _ in saved][:2] == [3, 11]
    assert saved[-1][0] == 15
