"""What a training says: on a terminal of 80 columns, into a pipe, and where nobody reads any more."""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import pytest

from cnnbench.store.folder import RunFolder
from cnnbench.train import main
from cnnbench.training import console
from tests.conftest import TINY, latest, only_run
from tests.support.interruption import read

MY_NET = """
from torch import nn
from cnnbench.registry import MODELS

@MODELS.register("my_net")
def my_net(spec, *, width: int = 8, depth: int = 2):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, spec.num_outputs))
"""


@pytest.fixture
def in_terminal(monkeypatch) -> Callable[..., str]:
    """Return a function that runs the command in a terminal of a given width, and returns what is printed."""

    def run(columns: int, *words: str) -> str:
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        got: list[bytes] = []
        reader = threading.Thread(target=_read, args=(leader, got))
        reader.start()
        with open(follower, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            with pytest.raises(SystemExit) as leaving:
                main(latest((*TINY, *words)))
        reader.join()
        os.close(leader)
        assert leaving.value.code == 0
        return b"".join(got).decode()

    return run


def _read(leader: int, got: list[bytes]) -> None:
    with suppress(OSError):  # nobody has the other end open any more
        while True:
            got.append(os.read(leader, 4096))


def test_a_terminal_has_a_line_an_epoch_that_stays_and_a_bar_that_fits(in_terminal):
    written = in_terminal(80, "epochs=4").replace("\r\n", "\n")
    plain = re.sub(r"\x1b\[\d*m", "", written)
    assert max(len(text) for text in re.split(r"[\r\n]", plain) if "/outputs/" not in text) <= 80
    stays = [line.rpartition("\r")[2] for line in plain.split("\n")]
    assert len([line for line in stays if re.fullmatch(r" +\d/4( +\d\.\d{4}){4}(  best)?", line)]) == 4
    assert len([line for line in stays if line.split()[:3] == ["epoch", "loss", "accuracy"]]) == 1
    bars = re.findall(r"epoch \d/4  loss [^\r\n]+", plain)
    assert bars
    assert all(re.search(r"\| +\d+%  \d\d:\d\d left", bar) and ", " not in bar for bar in bars)
    assert "\x1b[32mbest" in written


def test_colours_are_left_out_where_they_are_disabled(in_terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    written = in_terminal(100)
    assert "best" in written
    assert "\x1b[32m" not in written


def test_a_terminal_that_cannot_move_its_cursor_has_no_bar(in_terminal, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    written = in_terminal(80).replace("\r\n", "\n")
    assert not {"\x1b", "\r", "%"} & {*written}
    assert len(re.findall(r"^ +\d/3( +\d\.\d{4}){4}", written, re.MULTILINE)) == 3


def test_validations_within_an_epoch_are_lines_of_the_same_table(in_terminal):
    written = in_terminal(80, "eval_every=2", "eval_unit=step")
    assert len(re.findall(r" step \d+ +\d\.\d{4} +\d\.\d{4}", written)) > 3


def test_a_pipe_has_a_line_of_text_per_epoch(cnnbench):
    ran = cnnbench(*TINY)
    words = r"^  epoch \d/3  loss [\d.]+  accuracy [\d.]+  val loss [\d.]+  val accuracy"
    assert len(re.findall(words, ran.out, re.MULTILINE)) == 3
    assert not {"\x1b", "\r"} & {*ran.out}
    assert ran.err == ""


OUTPUTS = {
    "a reader that went away": "read, write = os.pipe(); os.dup2(write, 1); os.close(write); os.close(read)",
    "a full disk": "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)",
    "none": "os.close(1); os.close(2); sys.stdout = sys.stderr = None",
}


@pytest.mark.parametrize("first", OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_cannot_be_written_ends_no_training(forked, outputs, first):
    command = forked(TINY, first=first)
    assert (command.ended(), command.said()) == (0, "")
    assert read(only_run(outputs) / "run.json")["status"] == "completed"


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    console.say("classes: été")
    assert written.getvalue() == b"classes: \\xe9t\\xe9\n"


@pytest.mark.parametrize("words", [["--help"], ["help", "architecture"]])
def test_a_verb_escapes_what_its_output_cannot_hold(words, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as leaving:
        main(words)
    assert leaving.value.code == 0
    assert b"\\u2026" in written.getvalue()


@pytest.mark.parametrize("validated", [False, True])
def test_a_pipe_says_after_some_steps_how_long_it_takes_unless_it_was_said(validated, capsys):
    display = console.ProgressDisplay(3, 90, 0, ["loss/train"])
    row, progress = {"step": 15, "epoch": 1, "loss/train": 1.0}, SimpleNamespace(samples_trained=900)
    display.step(row, progress)
    if validated:
        display.epoch(row, progress, False)
    display.step({**row, "step": 25}, progress)
    assert ("to go, after 20 steps" in capsys.readouterr().out) is not validated


def test_the_speed_after_a_resume_is_that_of_this_process(monkeypatch, capsys):
    clock = iter([100.0, 110.0, 110.0])
    monkeypatch.setattr(console, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    display = console.ProgressDisplay(10, 1000, 900, ["loss/train"])
    display.step({"step": 901, "epoch": 10, "loss/train": 1.0}, SimpleNamespace(samples_trained=90_100))
    display.epoch({"step": 950, "epoch": 10, "loss/train": 1.0}, SimpleNamespace(samples_trained=95_100), False)
    assert "500 images/s, about 10 s left" in capsys.readouterr().out


def test_an_epoch_whose_steps_an_earlier_process_made_has_no_speed(capsys):
    display = console.ProgressDisplay(10, 1000, 100, ["loss/train"])
    display.epoch({"step": 100, "epoch": 1, "loss/train": 1.0}, SimpleNamespace(samples_trained=10_000), False)
    assert "images/s" not in capsys.readouterr().out


def test_a_run_that_goes_on_names_its_folder_once_and_not_beside_every_setting(cnnbench, outputs):
    cnnbench(*TINY)
    run = only_run(outputs)
    header = cnnbench("resume", str(run), "epochs=4").out.partition("settings at their defaults")[0]
    assert header.count(run.name) == 1
    assert re.search(r"^  optimizer.lr +[\d.]+ +resumed run$", header, re.MULTILINE)
    assert re.search(r"^  epochs +4 +command line$", header, re.MULTILINE)


def test_epochs_of_a_single_step_are_lines_without_an_estimate_between(monkeypatch, capsys):
    seconds = iter(range(1000))
    monkeypatch.setattr(console, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    display = console.ProgressDisplay(30, 30, 0, ["loss/train"])
    for step in range(1, 31):
        row = {"step": step, "epoch": step, "loss/train": 1.0}
        display.step(row, SimpleNamespace(samples_trained=8 * step))
        display.epoch(row, SimpleNamespace(samples_trained=8 * step), False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 30
    assert re.fullmatch(r"  epoch  1/30  loss 1.0000 +about \d.*", lines[0]), "no speed is known after a single step"
    assert re.search(r"\d images/s, about .* left$", lines[1])


def test_the_header_shows_what_was_chosen_and_every_setting_of_a_plugin(cnnbench, tmp_path):
    (tmp_path / "here" / "my_net.py").write_text(MY_NET)
    shown = cnnbench(*TINY, "epochs=1", "plugins=my_net.py", "model=my_net", "model.width=9").out
    assert re.search(r"^  model\.width +9 +command line$", shown, re.MULTILINE)
    assert re.search(r"^  model\.depth +2 +default$", shown, re.MULTILINE)
    assert "optimizer.nesterov" not in shown
    assert re.search(r"^  batch_size +\d+ ", shown, re.MULTILINE)
    assert "\n  not shown: what is at its default, or cannot change the result; see --cfg job\n" in shown


def test_the_final_table_keeps_names_of_metrics_apart(capsys, tmp_path):
    measured = {"top5": 1.0, "worst_recall_of_all": 0.5, "samples": 20}
    result = {
        "test": measured, "checkpoint": {"epoch": 1, "step": 4, "chosen": "last"}, "images_per_second": 9, "epochs": 1,
        "seconds": {"train": 1, "total": 2},
    }  # fmt: skip
    console.summary(result, RunFolder(tmp_path))
    _, names, test, *_ = capsys.readouterr().out.splitlines()
    assert names.split() == ["top5", "worst_recall_of_all", "images"]
    assert test.split() == ["test", "1.0000", "0.5000", "20"]
    assert [names.index(name) + len(name) for name in names.split()] == [
        test.index(value) + len(value) for value in ("1.0000", "0.5000", "20")
    ]
