"""A name, notes and tags: whatever a user wants to remember about a run, of which nothing changes a result."""

import json
import re

import pytest

from cnnbench.training.plan import plan_words
from tests.conftest import TINY, only_run
from tests.support.interruption import read

SHORT = (*(word for word in TINY if not word.startswith("epochs=")), "epochs=1")


def labels(outputs):
    return read(only_run(outputs) / "run.json")["labels"]


def test_labels_are_recorded_and_change_neither_run_nor_folder(cnnbench, outputs):
    shown = cnnbench(*SHORT, "name=baseline", "notes=wider, it's for ${you}", "tags=[lab3,wide]")
    assert shown.code == 0, shown.err
    assert "[lab3, wide] " in shown.out
    assert labels(outputs) == {"name": "baseline", "notes": "wider, it's for ${you}", "tags": ["lab3", "wide"]}
    assert plan_words([*SHORT, "name=x"]).config.identity() == plan_words(SHORT).config.identity()
    assert "baseline" not in str(only_run(outputs))


@pytest.mark.parametrize("by", ["the same command", "resume"])
def test_labels_of_a_finished_run_can_be_changed(cnnbench, outputs, by):
    assert cnnbench(*SHORT, "name=first", "tags=lab3").code == 0
    before = (only_run(outputs) / "result.json").read_bytes()
    words = SHORT if by == "the same command" else ("resume=last",)
    outcome = cnnbench(*words, "notes=the one to hand in", "tags=[final]")
    assert outcome.code == 0, outcome.err
    assert labels(outputs) == {"name": "first", "notes": "the one to hand in", "tags": ["final"]}
    assert (only_run(outputs) / "result.json").read_bytes() == before
    assert cnnbench(*SHORT).code == 0
    assert labels(outputs)["tags"] == ["final"]


@pytest.mark.parametrize(
    ("condition", "is_found"),
    [("name=base*", True), ("tags=wide", True), ("tags=wid", False), ("tags!=wide", False), ("notes=*first*", True)],
)
def test_runs_are_listed_by_their_labels(cnnbench, command_of, condition, is_found):
    assert cnnbench(*SHORT, "name=baseline", "notes=my first", "tags=[lab3,wide]").code == 0
    listed = command_of("list", condition, "--json")
    assert (listed.code, len(json.loads(listed.out))) == (0, int(is_found))


def test_a_page_begins_with_the_labels(cnnbench, outputs):
    words = [word for word in SHORT if not word.startswith("report=")]
    assert cnnbench(*words, "name=<b>base", "notes=my first", "tags=[lab3,wide]").code == 0
    page = (only_run(outputs) / "report.html").read_text()
    assert "&lt;b&gt;base" in page
    assert re.search(r"<dt>tags</dt>\s*<dd[^>]*>lab3, wide<", page)
