"""The README and the pages of documentation: their links lead somewhere, and what they say to type exists."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cnnbench.cli.catalog import all_options
from cnnbench.cli.help import DOCS
from cnnbench.cli.parse import VERBS, verb_named
from cnnbench.cli.reference import reference
from cnnbench.config.validate import CONTROLS
from cnnbench.plugins import REGISTRIES
from tests.conftest import TINY, only_run
from tests.support.photographs import photograph

ROOT = DOCS.parents[1]
EXAMPLES = DOCS / "examples"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES]
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Registered by the examples of the pages.
OWN = {"my_net", "ours", "pbs", "engine.queue", "photos", "data.side", "rotations", "task.turns"}
OWN |= {"sign_descent", "straight", "darker", "[worst_recall]", "worst_recall", "[csv_log]", "small_lenet"}
OF_PYTHON = ("settings", "architecture", "python")  # where key=value is an argument too, or generated


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def examples_in(path: Path) -> Iterator[str]:
    """Yield the commands of a page's examples for a shell."""
    for language, code in CODE.findall(text_of(path)):
        if language == "sh":
            yield from re.findall(r"^cnnbench\b.*", code.replace("\\\n", " "), re.MULTILINE)


def commands_in(path: Path) -> Iterator[str]:
    """Yield the commands of a page's examples, and the commands and settings in backticks."""
    yield from examples_in(path)
    spans = re.findall(r"`([^`]+)`", CODE.sub("", text_of(path)))
    yield from (" ".join(span.split()) for span in spans if span.startswith("cnnbench "))
    yield from (f"cnnbench {span}" for span in spans if re.fullmatch(r"(-m )?[a-z_]+(\.[\w.]+)?=[^\"']+", span))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_each_link_leads_to_a_file_and_a_heading(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text_of(path)))
    for target in targets:
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_begins_with_its_title_and_a_sentence_on_what_is_in_it(path):
    title, first, *_ = text_of(path).split("\n\n")
    assert re.fullmatch(r"# \S.*", title)
    assert re.fullmatch(r"[A-Z][^.]+[.:]( .*)?", first, re.DOTALL)
    assert "](" not in first.partition(". ")[0], "it is printed by cnnbench help"


def test_the_readme_is_short_and_links_each_page():
    text = text_of(ROOT / "README.md")
    assert len(text.encode()) <= 10_000
    assert [page.name for page in PAGES if f"(cnnbench/docs/{page.name})" not in text] == []


def test_the_examples_are_the_same_on_their_page_and_in_their_files():
    shown = [code for language, code in CODE.findall(text_of(DOCS / "extending.md")) if language == "python"]
    assert sorted(shown) == sorted(text_of(path) for path in EXAMPLES.glob("*.py"))


def test_the_examples_fit_together(cnnbench, outputs, monkeypatch, tmp_path):
    for registry in REGISTRIES:  # as before, afterwards
        monkeypatch.setattr(registry, "components", dict(registry.components))
    for number in range(20):
        photograph(tmp_path / "photos" / f"{'cat' if number % 2 else 'dog'}_{number}.jpg", number)
    plugins = ",".join(str(path) for path in EXAMPLES.glob("*.py"))
    words = ("model=my_net", "data=photos", f"data.root={tmp_path}", "task=rotations", "batch_size=4", "dry_run=true")
    ended = cnnbench(f"plugins=[{plugins}]", *words)
    assert ended.code == 0, ended.err
    assert "cat" in ended.out
    parts = ("optimizer=sign_descent", "scheduler=straight", "augmentation=darker", "logger=[csv_log]")
    metric = ("task.metrics=[worst_recall]", "task.watch=worst_recall")
    ended = cnnbench(f"plugins=[{plugins}]", *TINY, *parts, *metric)
    assert (ended.code, "warning" in ended.out) == (0, False), ended.err
    run = only_run(outputs)
    lines = [line.split(",") for line in (run / "log.csv").read_text().splitlines()]
    rates = [float(value) for _, name, value in lines if name == "step/lr"]
    assert rates == pytest.approx([0.001 * (1 - step / len(rates)) for step in range(len(rates))])
    assert 0 <= json.loads((run / "result.json").read_text())["val"]["worst_recall"] <= 1


def test_the_notebook_of_a_session_has_no_outputs():
    cells = json.loads(text_of(EXAMPLES / "laboratory.ipynb"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


def test_the_page_of_settings_is_what_the_code_says():
    again = "write it again: python -m cnnbench.cli.reference > cnnbench/docs/settings.md"
    assert text_of(DOCS / "settings.md") == reference(), again


@pytest.mark.parametrize("path", [path for path in TEXTS if path.stem not in OF_PYTHON], ids=lambda path: path.stem)
def test_each_command_can_be_typed(path):
    options = all_options()
    settings = re.findall(r"^(?:\||###) `([\w.]+)", text_of(DOCS / "settings.md"), re.MULTILINE)
    engines = [yaml.safe_load(text_of(file)) for file in (ROOT / "conf" / "engine").glob("*.yaml")]
    keys = {*options, *settings, *CONTROLS, *OWN, "seeds", *(f"engine.{key}" for engine in engines for key in engine)}
    for command in commands_in(path):
        words = shlex.split(command, comments=True)[1:]
        verb = words.pop(0) if words and words[0] in VERBS else "train"
        if words and "…" not in command and "--help" not in words:
            verb_named(verb).parse(words)
        for word in words if verb in ("train", "resume") else []:
            key, equals, value = word.partition("=")
            if equals and "…" not in key:
                assert key in keys or key.startswith("optimizer.lr_scale."), command
            if key in options and "…" not in value and value != "NAME":
                assert set(value.split(",")) <= {*options[key], *OWN}, command


def test_help_of_a_page_that_is_called_like_a_command_prints_the_page(cnnbench):
    outcome = cnnbench("help", "data")
    assert "usage:" not in outcome.out
    assert outcome.out.count("\n") > 100
