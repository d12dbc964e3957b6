"""Real signals to real processes: whatever asks a command to end lets it save, and its exit code says what to do."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench import train
from cnnbench.store.checkpoint import steps_in
from cnnbench.training.signals import SIGNALS
from tests.conftest import TINY, latest, only_run
from tests.support.interruption import read
from tests.support.processes import Command

LONG = latest((*TINY, "model=mlp", "epochs=100000"))


@pytest.fixture
def start(forked) -> Callable[..., Command]:
    return forked


def has_rows(outputs: Path) -> bool:
    return any(path.stat().st_size for path in outputs.rglob("metrics.jsonl"))


@pytest.mark.parametrize(
    "number",
    [pytest.param(one, marks=() if one == signal.SIGHUP else pytest.mark.faults, id=one.name) for one in SIGNALS],
)
def test_a_signal_lets_a_training_save_and_its_exit_code_says_that_it_can_go_on(start, outputs, number):
    command = start(LONG)
    command.wait_until(lambda: has_rows(outputs))
    command.send(number)
    is_ctrl_c = number == signal.SIGINT
    assert command.ended() == (130 if is_ctrl_c else 75), command.said()
    run = only_run(outputs)
    record = read(run / "run.json")
    assert record["status"] == "stopped"
    assert steps_in(run / "checkpoints")[-1] == record["step"] > 0
    assert f"by {'Ctrl-C' if is_ctrl_c else number.name}" in command.said()
    assert not list(run.rglob("*.tmp"))


def test_a_second_ctrl_c_ends_it_at_once_wherever_it_is(start, outputs, tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(SLOW)
    command = start(latest([*LONG, f"plugins={slow}", "model=slow"]))
    command.wait_until((tmp_path / "asleep").exists)
    command.send(signal.SIGINT)
    time.sleep(0.3)
    assert read(only_run(outputs) / "run.json")["status"] == "running"
    command.send(signal.SIGINT)
    assert command.ended() == 130
    assert "stopped at once; there is no checkpoint yet." in command.said()
    assert read(only_run(outputs) / "run.json")["status"] == "stopped"


SLOW = '''
import time
from pathlib import Path
import torch
from torch import nn
from cnnbench.registry import MODELS

class Slow(nn.Linear):
    def forward(self, features):
        if self.training and torch.is_grad_enabled() and len(features) == 16:
            Path(__file__).with_name("asleep").touch()
            time.sleep(600)
        return super().forward(features)

@MODELS.register("slow")
def slow(spec) -> nn.Module:
    """One dense layer that falls asleep in training."""
    return nn.Sequential(nn.Flatten(), Slow(spec.channels * spec.height * spec.width, spec.num_classes))
'''


def test_a_hang_up_that_nohup_ignores_stays_ignored(start, outputs):
    command = start(LONG, ignored=[signal.SIGHUP])
    command.wait_until(lambda: has_rows(outputs))
    command.send(signal.SIGHUP)
    before = (only_run(outputs) / "metrics.jsonl").stat().st_size
    command.wait_until(lambda: (only_run(outputs) / "metrics.jsonl").stat().st_size > before)
    command.send(signal.SIGTERM)
    assert command.ended() == 75
    assert read(only_run(outputs) / "run.json")["status"] == "stopped"


def test_signals_that_go_on_coming_change_nothing_about_how_it_ends(start, outputs):
    command = start(LONG)
    command.wait_until(lambda: has_rows(outputs))
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGUSR1, signal.SIGTERM) * 2000:
            try:
                os.kill(command.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0.005)
        os._exit(0)
    assert command.ended() == 75, command.said()
    os.waitpid(pid, 0)
    assert read(only_run(outputs) / "run.json")["status"] == "stopped"
    assert "Traceback" not in command.said()
    assert "Exception" not in command.said()


# Sweeps ---------------------------------------------------------------------------------------------------------------

TO = {
    "a hang-up of the terminal": (os.killpg, signal.SIGHUP, 75),
    "Ctrl-C in the terminal": (os.killpg, signal.SIGINT, 130),
    "a scheduler that warns every process": (os.killpg, signal.SIGUSR1, 75),
    "a scheduler that warns the first process": (os.kill, signal.SIGUSR2, 75),
    "kill": (os.kill, signal.SIGTERM, 75),
    "kill -INT": (os.kill, signal.SIGINT, 130),
    "kill -9": (os.kill, signal.SIGKILL, -9),
}


@pytest.mark.faults
@pytest.mark.parametrize(("send", "number", "code"), TO.values(), ids=TO)
def test_a_sweep_that_is_ended_leaves_no_process_and_its_job_has_saved(start, outputs, send, number, code):
    command = start(["-m", *LONG, "seed=0,1"])
    command.wait_until(lambda: has_rows(outputs))
    send(command.pid, number)
    assert command.ended() == code, command.said()
    command.wait_until(lambda: not command.has_group(), 30)
    run = only_run(outputs)
    record = read(run / "run.json")
    assert record["status"] == "stopped"
    assert steps_in(run / "checkpoints")[-1] == record["step"]
    if code > 0:
        assert "not started" in command.said()
        assert "Traceback" not in command.said()


@pytest.mark.faults
def test_a_signal_to_a_job_alone_stops_its_sweep(start, outputs):
    command = start(["-m", *LONG, "seed=0,1"])
    command.wait_until(lambda: has_rows(outputs))
    os.kill(read(only_run(outputs) / "run.json")["sessions"][-1]["process"], signal.SIGTERM)
    assert command.ended() == 75, command.said()
    assert "  stopped " in command.said()
    assert "not started" in command.said()


# The first second -----------------------------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.parametrize("delay", [0.3, 0.6, 1.0, 2.0, 3.0])
def test_a_signal_in_the_first_seconds_ends_it_without_a_traceback(outputs, delay):
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnbench", *LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(delay)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode in (75, -signal.SIGTERM), err  # the latter before Python has come to our code
    assert "Traceback" not in err


def reworded_by_a_library(_words, _stop):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException as error:  # noqa: BLE001 - as pydantic does while it builds a model, at import
        raise ValueError(f"Error building `model` serializer:\n  {type(error).__name__}: ") from None


def test_a_signal_that_a_library_makes_an_error_of_its_own_of_stops_as_any_other(monkeypatch, capsys):
    monkeypatch.setattr(train, "run_command", reworded_by_a_library)
    with pytest.raises(SystemExit) as ended:
        train.main(["list"])
    assert (ended.value.code, capsys.readouterr().err) == (75, "cnnbench list: stopped by SIGTERM.\n")


def test_an_error_after_a_signal_is_not_taken_for_the_signal(monkeypatch):
    def fail(_words, stop):
        stop.signal = signal.SIGTERM
        raise ZeroDivisionError

    monkeypatch.setattr(train, "run_command", fail)
    with pytest.raises(ZeroDivisionError):
        train.main(["list"])
