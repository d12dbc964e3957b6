"""A run that is asked to stop, by a signal or a limit of time: the step ends, it saves, and says how to continue."""

import signal

import pytest

from cnnbench.store.checkpoint import load_newest
from cnnbench.training.trainer import Trainer
from tests.conftest import TINY, only_run
from tests.support.interruption import WORDS, assert_same, go, read, save_every

pytestmark = pytest.mark.usefixtures("one_second_a_session")


def send_after_step_6(patch: pytest.MonkeyPatch, *signals: signal.Signals) -> None:
    on_step = Trainer.on_step

    def patched(self, row, progress) -> None:
        on_step(self, row, progress)
        if row["step"] == 6:
            for number in signals:
                signal.raise_signal(number)

    patch.setattr(Trainer, "on_step", patched)


SIGNALS = {
    "SIGINT": (signal.SIGINT, 130, "paused"),
    "SIGTERM": (signal.SIGTERM, 143, "preempted"),
    "SIGUSR1": (signal.SIGUSR1, 138, "preempted"),
}


@pytest.mark.parametrize(("number", "code", "status"), SIGNALS.values(), ids=SIGNALS)
def test_a_signal_lets_the_step_finish_saves_and_says_how_to_go_on(cnnbench, outputs, unbroken, number, code, status):
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        send_after_step_6(patch, number)
        outcome = cnnbench(*WORDS)
    run = only_run(outputs)
    assert outcome.code == code
    assert f"{status} at step 6 of 15" in outcome.out
    assert f"to go on, type the same command again, or: cnnbench resume {run}" in outcome.out
    assert read(run / "run.json")["status"] == status
    assert signal.getsignal(number) is before
    assert go(*WORDS) == 0
    assert_same(run, unbroken)


def test_a_second_ctrl_c_ends_the_run_at_once(cnnbench, outputs, monkeypatch):
    save_every(monkeypatch, 5)
    send_after_step_6(monkeypatch, signal.SIGINT, signal.SIGINT)
    outcome = cnnbench(*WORDS)
    assert outcome.code == 130
    assert "stopped at once; the last checkpoint is kept" in outcome.err
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "paused"
    assert load_newest(run / "checkpoints", pytest.fail)["progress"]["step"] == 5


@pytest.mark.slow
def test_a_process_that_a_scheduler_ends_exits_with_143_and_can_be_gone_on_with(cnnbench, outputs, start):
    words = (*TINY, "epochs=100000")
    process = start(words)
    for line in process.stdout:
        if "epoch" in line and "/100000" in line:
            process.terminate()
            break
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    run = only_run(outputs)
    record = read(run / "run.json")
    assert record["status"] == "preempted"
    assert f"preempted at step {record['step']} of" in out
    assert "Traceback" not in err
    assert load_newest(run / "checkpoints", pytest.fail)["progress"]["step"] == record["step"]
    outcome = cnnbench(*words, "max_minutes=1e-9")
    assert outcome.code == 0
    assert f"from step {record['step']} of" in outcome.out


def test_a_limit_of_time_pauses_the_run_with_exit_0(outputs, unbroken, capsys):
    assert go(*WORDS, "max_minutes=1e-6") == 0
    assert "paused at step 1 of 15" in capsys.readouterr().out
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "paused"
    assert go(*WORDS, "max_minutes=60") == 0
    assert_same(run, unbroken)
