"""`cnnbench report`: pages, Markdown, CSV, and what is refused."""

import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from cnnbench.analysis.reports.comparison import compare
from cnnbench.store.query import runs_named
from tests.conftest import ended
from tests.support.interruption import fingerprints
from tests.support.run_folders import write_dropout_runs, write_run


@pytest.fixture
def several_runs(outputs) -> Path:
    return write_dropout_runs(outputs)


@pytest.fixture
def report(capsys):
    return lambda *words: ended("report", [str(word) for word in words], capsys)


def test_unfinished_runs_are_rows_and_unreadable_ones_are_named_and_skipped(several_runs, report):
    write_run(several_runs, None, "seed=9", status="stopped")
    broken = several_runs / "synthetic" / "lenet" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    (several_runs / "notes.txt").write_text("mine")
    done = report(several_runs)
    assert done.code == 0, done.err
    skipped = done.out[done.out.index("Skipped:") :]
    assert skipped.count(str(several_runs / "synthetic")) == 1
    assert re.search(r"dropout=0: .*; 1 stopped", done.out)
    assert f"{broken / 'run.json'} cannot be read" in done.out


def test_a_sweep_is_the_runs_that_it_made(several_runs, report):
    folders = [str(path.parent.relative_to(several_runs)) for path in sorted(several_runs.glob("*/*/*/run.json"))][:2]
    (several_runs / "sweeps").mkdir()
    sweep = several_runs / "sweeps" / "1a2b3c4d.json"
    sweep.write_text(json.dumps({"jobs": [{"folder": folder} for folder in [*folders, None]]}))
    assert len(runs_named([str(sweep)])) == 2
    assert report(sweep).code == 0
    sweep.write_text("[]")
    assert "is not a sweep" in report(sweep).err


@pytest.mark.parametrize(
    ("words", "text"),
    [("nowhere", "there is no such folder, and no run below"), ("{several_runs} --metric top9", "they have")],
)
def test_what_cannot_be_reported_is_refused(words, text, several_runs, report):
    done = report(*words.format(several_runs=several_runs).split())
    assert (done.code, text in done.err) == (2, True)


def test_nothing_finished_is_nothing_to_report(outputs, report):
    write_run(outputs, None, status="stopped")
    write_run(outputs, None, "seed=1", status="stopped")
    done = report(outputs)
    assert (done.code, "no finished run to report on" in done.err) == (2, True)


def test_a_report_touches_no_run(several_runs, report):
    before = fingerprints(several_runs / "synthetic")
    assert report(several_runs).code == 0
    assert fingerprints(several_runs / "synthetic") == before
    (folder,) = (several_runs / "reports").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["report.csv", "report.html", "report.md", "report.tex"]


def test_the_files_hold_the_same_table(several_runs, report, tmp_path):
    report(several_runs, "--out", tmp_path / "out")
    expected = compare(runs_named([str(several_runs)])).table()
    table = pd.read_csv(tmp_path / "out" / "report.csv", dtype={"regularization.dropout": str})
    assert table["accuracy"].tolist() == pytest.approx(expected["accuracy"].tolist())
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("| dropout |"))
    assert lines[head].startswith(
        "| dropout | n | test accuracy | std | training accuracy | epochs to 0.2673 | seconds |"
    )
    assert lines[head + 2].startswith("| 0 | 3 | 0.8967 |")
    assert {"accuracy", "low", "high", "Δ", "Δ low", "Δ high", "p (uncorrected)", "p (Holm)"} <= set(table)


def test_nothing_but_a_page_of_the_same_is_overwritten(several_runs, report, tmp_path):
    out = tmp_path / "out"
    assert report(several_runs, "--out", out).code == 0
    assert report(several_runs, "--out", out).code == 0, "the same again"
    before = fingerprints(out)
    done = report(several_runs / "synthetic", "--out", out)
    assert (done.code, done.out) == (2, "")
    assert f"--out {out}: has report.html, report.md, report.csv of something else" in done.err
    assert fingerprints(out) == before
    (tmp_path / "note.txt").touch()
    assert (
        "note.txt: is a file; give a folder, as --out note_page"
        in report(several_runs, "--out", tmp_path / "note.txt").err
    )
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "report.tex").write_text("mine")
    (tmp_path / "paper_2").touch()
    taken = report(several_runs, "--out", tmp_path / "paper").err
    assert taken.endswith(f"of something else; give a free one, as --out {tmp_path}/paper_3\n")
    (tmp_path / "paper" / "report.tex").rename(tmp_path / "paper" / "main.tex")
    assert report(several_runs, "--out", tmp_path / "paper").code == 0


class Page(HTMLParser):
    """What of a page a browser would fetch or run, and what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts = 0
        self.cells: list[Mapping[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        if tag in ("link", "img", "iframe", "object", "embed", "base"):
            self.fetched.append(tag)
        self.fetched += [
            f"{tag} {key}={value}"
            for key, value in attrs
            if key in ("src", "href", "xlink:href") and not str(value).startswith("#")
        ]
        self.cells += [given] if tag == "td" else []


def test_a_page_is_self_contained_and_escapes_its_text(several_runs, report, tmp_path):
    hostile = '<script>alert("1")</script>'
    reference = {"metric": "accuracy", "value": 0.5, "split": "test", "source": hostile, "remark": hostile * 50}
    for path in several_runs.glob("*/*/*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"references": [reference]}))
    assert report(several_runs, "--out", tmp_path / "out").code == 0
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.fetched == []
    assert page.scripts == 1
    assert "&lt;script&gt;alert(" in text
    assert text.count("<figure") == 1  # there are no losses in these rows
    assert "url(http" not in text
    sorted_by = [cell for cell in page.cells if "data-value" in cell]
    assert len(sorted_by) == 2 * 11  # the numbers of configurations, and of what is published
    numbers = [cell["data-value"] for cell in sorted_by if cell.get("class") is None]
    assert any(number and float(number) == pytest.approx(2.78 / 3) for number in numbers)


def test_two_hundred_runs_are_reported_on_within_seconds(outputs, report):
    path = write_run(outputs, 0.9)
    text = (path / "config.yaml").read_text()
    rows = [{"row": "epoch", "epoch": n, "step": n, "loss/train": 1 / n, "accuracy/val": 0.5} for n in range(1, 151)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for seed in range(1, 200):
        copy = path.parent / f"copy-{seed}"
        copy.mkdir()
        for name in ("run.json", "result.json"):
            (copy / name).write_text((path / name).read_text())
        (copy / "config.yaml").write_text(
            text.replace("seed: 0", f"seed: {seed}").replace("lr: 0.05", f"lr: 0.{seed % 9 + 1}")
        )
        (copy / "metrics.jsonl").write_text(lines)
    done = report(outputs)
    assert done.code == 0, done.err
    assert "page:" in done.out
