"""A setting may refer to another one; nothing that is read from outside gets into a configuration."""

import pytest

from cnnbench.config.files import outside_reference
from tests.support.mistakes import accepted, mistakes_in

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)


@pytest.fixture
def experiment(tmp_path, cnnbench):
    """Return what a command with an experiment of these lines answers."""

    def run(*lines: str, words=("--cfg", "job")):
        folder = tmp_path / "conf" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "theirs.yaml").write_text("\n".join(["# @package _global_", *lines]), encoding="utf-8")
        return cnnbench("experiment=theirs", "--config-dir", str(folder.parent), *words)

    return run


def test_a_setting_may_refer_to_another_one(composer, experiment):
    assert accepted(composer, "data=synthetic", "seed=${epochs}", "epochs=3").config.seed == 3
    assert "seed: 7" in experiment("epochs: 7", "seed: ${epochs}").out


@pytest.mark.parametrize(
    "word",
    [
        "notes='${oc.env:SECRET}'", "model=${oc.env:SECRET}", "optimizer.lr=${oc.env:SECRET}", "tags=[a,'${now:%Y}']",
        "++model.extra={a:['${oc.decode:${oc.env:SECRET}}']}",
    ],
)  # fmt: skip
def test_a_word_that_reads_from_outside_is_refused(word, composer):
    (problem,) = mistakes_in(composer, word, sees_data=False).values()
    assert problem.startswith("is refused: a setting may refer to another one")


@pytest.mark.parametrize(
    "lines",
    [
        ["notes: ${oc.env:SECRET}"],
        ['notes: "\\x24{oc.env:SECRET}"'],
        ["tags: [a, {b: '${oc.env:SECRET}'}]"],
        ["defaults:", "  - override /model: ${oc.env:SECRET}"],
        ["hydra:", "  sweeper:", "    params:", "      seed: 1,${oc.env:SECRET}"],
        ["hydra:", "  job:", "    name: ${oc.env:SECRET}"],
    ],
)
@pytest.mark.parametrize("words", [("--cfg", "job"), ("-m", "--cfg", "job")], ids=["one run", "a sweep"])
def test_a_file_that_reads_from_outside_is_refused(lines, words, experiment):
    answer = experiment(*lines, words=words)
    assert answer.code == 2
    assert "experiment/theirs.yaml in " in answer.err
    assert "is refused: a setting may refer to another one" in answer.err
    assert SECRET not in answer.out + answer.err


def test_notes_are_text_whatever_they_contain(composer):
    assert accepted(composer, "data=synthetic", "notes=costs ${oc.env:SECRET}").config.notes == "costs ${oc.env:SECRET}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("${a.b[0].c-d}", ""), ("$a {b} $", ""), (r"\${now:x}", ""), (r"\\${now:x}", "${now:x}"),
        ("a ${b} ${now:x}", "${now:x}"), ("${a${b}}", "${a}"), ("${", "${"), (["", {"a": ("",)}], ""), (3, ""),
    ],
)  # fmt: skip
def test_only_plain_references_are_harmless(text, found):
    assert outside_reference(text) == found
