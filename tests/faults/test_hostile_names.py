"""Names of classes and files that would command a terminal, a spreadsheet or a page: everywhere they are text."""

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import cnnbench
from cnnbench.analysis.loading import load_run
from cnnbench.errors import Styled, TrainingError, UserError, listed, one_line, printable
from cnnbench.store.tables import csv_of_frame, csv_of_rows, read_own_csv
from cnnbench.tasks.projector import class_names
from cnnbench.training import console, terminal
from tests.conftest import Outcome, ended, only_run
from tests.support.photographs import TINY_TRAINING, photograph, write_classes
from tests.support.run_folders import write_run

RED, TITLE, CLEAR, LEFT, C1 = "\x1b[31m", "\x1b]0;owned\x07", "\x1b[2J\x1b[H", "\u202egnp.exe", "\x9b31m"
FORMULA, ROW = "=HYPERLINK(1)", "@x|y`z`"
HTML = "<img src=x onerror=alert(1)>"
CLASSES = (f"{RED}red", TITLE, CLEAR, LEFT, C1, FORMULA, ROW, HTML, "two\nlines\rback", "+1", "'=x", "plain")
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
SHOWN = (r"\x1b[31mred", r"\x1b]0;owned\x07", r"\x1b[2J\x1b[H", r"\u202egnp.exe", r"\x9b31m")
SETTINGS = ("data=image_folder", "data.test_fraction=0.4", "data.val_fraction=0.4", "augmentation=none", "report=true")


def trains_with(folder: Path, *words: str) -> list[str]:
    kept = [word for word in TINY_TRAINING if not word.startswith(("report", "augmentation"))]
    return [*kept, *SETTINGS, f"data.folder={folder}", *words]


def unsafe_in(text: str) -> set[str]:
    return set(UNSAFE.findall(text))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Return a folder with photographs of these classes, and with the outputs of a training on them."""
    folder = tmp_path_factory.mktemp("names")
    write_classes(folder / "photos", dict.fromkeys(CLASSES, 5))
    return folder


@pytest.fixture(scope="module")
def run_of(trained) -> Callable[[pytest.CaptureFixture[str]], tuple[Path, Outcome]]:
    done: list[tuple[Path, Outcome]] = []

    def run(capsys):
        if not done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CNNBENCH_OUTPUTS", str(trained / "outputs"))
                outcome = ended("", trains_with(trained / "photos"), capsys)
            done.append((only_run(trained / "outputs"), outcome))
        return done[0]

    return run


# What is printed ------------------------------------------------------------------------------------------------------


def test_whatever_can_command_a_terminal_is_shown():
    controls = [
        chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    ]
    for letter in controls:
        assert printable(f"a{letter}b") == (f"a{letter}b" if letter in "\n\t" else f"a{ascii(letter)[1:-1]}b")
    assert printable("\ud83d") == r"\ud83d"
    for text in ("Straße, 日本, عربى, עברית, 👩‍👩‍👧, ½ × ✓", "a\\x1b", "", "two\nlines\tand a column"):
        assert printable(text) == text
    assert one_line("a\nb\t\x1bc\x85d\u2028e") == r"a b \x1bc d e"
    assert listed(["a\nb", RED]) == r"'a\nb', '\x1b[31m'"


def test_styles_of_ours_stay_and_those_of_names_do_not(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_HYPERLINK", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    link = terminal.linked(Path("a.html"), f"text{RED}")
    console.say(f"{RED}name " + terminal.green(f"{RED}best") + " " + link + C1)
    url = Path("a.html").resolve().as_uri()
    assert capsys.readouterr().out == (
        f"\\x1b[31mname \x1b[32m\\x1b[31mbest\x1b[0m \x1b]8;;{url}\x1b\\text\\x1b[31m\x1b]8;;\x1b\\\\x9b31m\n"
    )
    console.say(f"{terminal.green('lost')}")  # whoever forgets to add sees it at once
    assert unsafe_in(capsys.readouterr().out) == set()
    assert isinstance("a" + Styled("b") + "c", Styled)


def test_a_path_in_a_link_commands_nothing(monkeypatch):
    monkeypatch.setenv("FORCE_HYPERLINK", "1")
    link = terminal.linked(Path(f"{TITLE}.html"))
    assert link.count("\x1b") == 4
    assert "\x07" not in link


@pytest.mark.parametrize("kind", [UserError, TrainingError])
def test_errors_are_printable_wherever_they_are_shown(kind):
    error = kind(f"no such {RED}")
    assert str(error) == r"no such \x1b[31m"
    assert error._render_traceback_() == [rf"{kind.__name__}: no such \x1b[31m"]


def test_a_training_prints_no_control_character(run_of, capsys):
    _, outcome = run_of(capsys)
    assert outcome.code == 0, outcome.err
    assert unsafe_in(outcome.out + outcome.err) == set()


@pytest.mark.parametrize("on_terminal", [True, False])
def test_no_command_prints_one(run_of, trained, capsys, monkeypatch, on_terminal):
    run, _ = run_of(capsys)
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(trained / "outputs"))
    monkeypatch.setenv("NO_COLOR", "1")
    if on_terminal:
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    photo = photograph(Path(f"{TITLE}photo.png"), 3)
    commands = (
        ("data", "info", "image_folder", f"data.folder={trained / 'photos'}"),
        ("data", "list", f"data.folder={trained / 'photos'}"),
        ("evaluate", str(run), "--out", "evaluated"),
        ("predict", str(run), str(photo)),
        ("predict", str(run), str(photo), "--json"),
        ("predict", str(run), "--split", "test", "--index", "0,1,2,3"),
        ("predict", str(run), f"{RED}missing.png"),
        ("explain", str(run), str(photo), "--what", "activations", "--out", f"{RED}drawn"),
        ("report", str(run), "--out", f"{CLEAR}written"),
        ("list", f"name={RED}"),
        ("list", "--in", f"{RED}nowhere"),
        ("resume", f"{C1}nowhere"),
        ("resume", f"{C1}{'x' * 5000}"),
        ("help", RED),
        (f"{TITLE}verb",),
    )
    for verb, *words in commands:
        outcome = ended(verb, words, capsys)
        assert unsafe_in(outcome.out + outcome.err) == set(), (verb, words)
        assert "Traceback" not in outcome.err
    assert r"\x1b[31mred" in ended("data", commands[0][1:], capsys).out


def test_json_of_commands_is_valid_and_has_the_names_as_they_are(run_of, capsys):
    run, _ = run_of(capsys)
    out = ended("predict", [str(run), "--split", "test", "--index", "0", "--top-k", "12", "--json"], capsys).out
    assert {answer["class"] for answer in json.loads(out)[0]["answers"]} == set(CLASSES)


MISTAKES = {
    "a folder with no image": lambda root: (root / f"{RED}empty").mkdir(),
    "a class that only the test part has": lambda root: (
        write_classes(root / "train", {"a": 5, "b": 5}), write_classes(root / "test", {TITLE: 5}, 99),
    ),
    "an image that is none": lambda root: (
        write_classes(root, {"a": 5, "b": 5}), (root / "a" / f"{CLEAR}.png").write_text("no image"),
    ),
    "a link that leads out": lambda root: (
        write_classes(root, {"a": 5, "b": 5}), (root / "a" / f"{LEFT}.png").symlink_to("/etc/passwd"),
    ),
    "an image without a class": lambda root: (
        write_classes(root, {"a": 5, "b": 5}), photograph(root / f"x\ncnnbench: all is well{C1}.png", 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("write", MISTAKES.values(), ids=MISTAKES)
def test_messages_show_names_that_are_wrong(cnnbench, tmp_path, write):
    root = tmp_path / "photos"
    root.mkdir()
    write(root)
    outcome = cnnbench(*trains_with(root))
    assert outcome.code == 2
    assert unsafe_in(outcome.err) == set()
    assert "\ncnnbench: all is well" not in outcome.err


def test_records_of_others_are_listed_as_text(outputs, command_of, monkeypatch):
    labels = {"name": f"{RED}name", "notes": TITLE, "tags": [CLEAR]}
    run = write_run(outputs, 0.5, labels=labels, error=f"{C1}failed{TITLE}", status="failed")
    write_run(outputs, 0.5, "seed=1", labels={"name": "other", "tags": []})
    for words in ([], ["--csv"], ["--json"], ["--sort", "name"]):
        for is_terminal in (True, False):
            monkeypatch.setattr("sys.stdout.isatty", lambda is_terminal=is_terminal: is_terminal)
            outcome = command_of("list", *words)
            assert outcome.code == 0
            assert unsafe_in(outcome.out + outcome.err) == set(), words
    assert r"\x1b[31mname" in command_of("list").out
    assert unsafe_in(command_of("report", str(run)).out) == set()
    assert unsafe_in(repr(load_run(run))) == set()


def test_a_logger_that_fails_with_codes_is_warned_about_as_text(capsys):
    console.warn(f"warning: logger 'x' is disabled: RuntimeError: {TITLE}")
    with console.tolerating("the page"):
        raise RuntimeError(CLEAR)
    console.error(C1)
    console.table(("", ""), [[RED, "a\nb"]])
    captured = capsys.readouterr()
    assert unsafe_in(captured.out + captured.err) == set()
    assert captured.out.count("\n") == 3


# What is written ------------------------------------------------------------------------------------------------------

CELLS = ("=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "\n=1", "＝1", "'=1", "''=1", "'tis", "a=1", "", "naïve", "1-2")


def test_text_is_no_formula_and_numbers_are_numbers():
    text = csv_of_rows([("name", "value"), *((cell, -1.5) for cell in CELLS)])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert all(not cell.startswith(tuple("=+-@\t\r\n＝")) for cell, _ in rows)
    assert {number for _, number in rows[1:]} == {"-1.5"}
    assert [cell for cell, _ in rows[1:]][-4:] == ["a=1", "", "naïve", "1-2"]


def test_own_tables_are_read_back_as_they_were(tmp_path):
    texts = (*[cell for cell in CELLS if cell], "007", "NA", "a\r=1")
    table = pd.DataFrame({"class": texts, "top1": -0.5, "n": range(len(texts))})
    (tmp_path / "t.csv").write_bytes(csv_of_frame(table))
    pd.testing.assert_frame_equal(read_own_csv(tmp_path / "t.csv", "class"), table, check_dtype=False)
    assert list(pd.read_csv(tmp_path / "t.csv", keep_default_na=False)["top1"]) == [-0.5] * len(texts)


def test_every_table_of_a_run_is_harmless_and_its_page_has_the_names(run_of, capsys):
    run, _ = run_of(capsys)
    files = [*run.rglob("*.csv")]
    names = {"metrics.csv", "calibration.csv", "classes.csv", "confusion.csv", "gallery.csv", "predictions.csv"}
    assert {file.name for file in files} == names
    for file in files:
        for row in csv.reader(io.StringIO(file.read_bytes().decode(), newline="")):
            assert not [cell for cell in row if cell.startswith(("=", "+", "@", "\t", "\r", "-")) and not number(cell)]
    read = read_own_csv(run / "evaluation" / "test-best" / "classes.csv", "class")
    assert set(read["class"]) == set(CLASSES)


def number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell) is not None


def test_one_place_writes_csv():
    sources = Path(cnnbench.__file__).parent.rglob("*.py")
    writing = {path.name for path in sources if re.search(r"to_csv\(|csv\.writer\(", path.read_text(encoding="utf-8"))}
    assert writing == {"tables.py"}


def test_names_in_markdown_are_text_in_one_cell(run_of, capsys):
    run, _ = run_of(capsys)
    text = (run / "report.md").read_text(encoding="utf-8")
    assert unsafe_in(text) == set()
    assert r"| @x\|y\`z\` |" in text
    assert r"| \<img src=x onerror=alert(1)> |" in text
    for name in SHOWN:
        assert name.replace("\\", "\\\\").replace("[", r"\[") in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    classes = next(index for index, line in enumerate(tables) if line.startswith("| class "))
    assert set(widths[classes : classes + 2 + len(CLASSES)]) == {widths[classes]}


def test_names_in_pages_and_notebooks_are_text(run_of, capsys):
    run, _ = run_of(capsys)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<img src=x" not in load_run(run)._repr_html_()
    assert unsafe_in(repr(load_run(run).evaluate())) == set()


def test_names_in_the_projector_end_no_line_and_no_column():
    import torch

    assert class_names(torch.arange(3), ["a\tb\nc", RED, "\u2028x"]) == ["a b c", r"\x1b[31m", " x"]


def test_a_file_name_that_is_no_text_is_shown(cnnbench, tmp_path):
    root = write_classes(tmp_path / "photos", {"a": 5, "b": 5})
    try:
        (root / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"no image")
    except OSError:
        pytest.skip("this file system has no such names")
    outcome = cnnbench(*trains_with(root))
    assert outcome.code == 2
    assert r"\udcff.png is no image" in outcome.err
    shutil.rmtree(root)


def test_classes_and_files_whose_names_are_no_text_train_and_are_shown(cnnbench, command_of, tmp_path):
    root = write_classes(tmp_path / "photos", {"a": 16, "b": 16})
    try:
        (root / "a" / "0000.png").rename(root / "a" / os.fsdecode(b"\xff.png"))
        (root / "a").rename(root / os.fsdecode(b"\xe4pfel"))
    except OSError:
        pytest.skip("this file system has no such names")
    training = cnnbench(*[word for word in trains_with(root) if word != "report=false"])
    assert training.code == 0, training.err
    assert "could not write" not in training.out + training.err
    assert command_of("evaluate", "last", "--split", "train").code == 0
    assert load_run("last").classes == (r"\xe4pfel", "b")
    table = (load_run("last").path / "evaluation" / "train-best" / "predictions.csv").read_text(encoding="utf-8")
    assert r"\xe4pfel" in table
    shutil.rmtree(root)
