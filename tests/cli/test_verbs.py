"""The verbs of `cnnbench`: which there are, how they are typed, and how a word that is none of them is answered."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.cli.help import ABOUT_PAGES, DOCS, in_columns, topics
from cnnbench.cli.parse import VERBS, verb_named
from cnnbench.errors import ExitCode
from tests.conftest import TINY, only_run


def test_each_verb_says_what_it_does_how_it_is_typed_and_what_it_takes(cnnbench, command_of):
    for name in VERBS:
        text = cnnbench(name, "--help").out
        first, usage, *_ = text.split("\n\n")
        assert first.endswith(".")
        assert usage.startswith(f"usage: cnnbench {name}")
        assert re.search(rf"^  cnnbench {name}|cnnbench completion", text, re.MULTILINE), "an example"
        for argument in verb_named(name).arguments:
            assert f"\n  {argument.shown()}" in text
        assert name in topics() or command_of("help", name).out == text


def test_every_flag_of_an_example_exists(cnnbench):
    for name in VERBS:
        flags = {flag for argument in verb_named(name).arguments for flag in argument.names if argument.is_flag}
        examples = re.findall(rf"^  cnnbench {name} .*", verb_named(name).about, re.MULTILINE)
        assert set(re.findall(r" (--?[a-z][a-z-]*)", "\n".join(examples))) <= flags | {"--help"}


UNKNOWN = {
    "evalute outputs/RUN": "no such command 'evalute'; did you mean 'evaluate'?",
    "lst": "did you mean 'list'?",
    "eval last": "no such command 'eval'; did you mean 'evaluate'?",
    "compare a b": "no such command 'compare'; type cnnbench report RUN RUN. See",
    "show last": "type cnnbench report RUN.",
    "test last": "type cnnbench evaluate RUN.",
    "delete last": "type cnnbench list --prune to see what can be removed, or delete the run's folder.",
    "last": "no such command 'last'; a run is continued with cnnbench resume last.",
    "dry_run": "no such command 'dry_run'; did you mean 'dry_run=true'?",
    "lr-find": "did you mean 'lr_find=true'?",
    "LeNet": "did you mean 'model=lenet'?",
    "lenet": "did you mean 'model=lenet'?",
    "lenett": "did you mean 'model=lenet'?",
    "digits": "did you mean 'data=digits'?",
    "cnn_lab/lenet_mnist": "did you mean 'experiment=cnn_lab/lenet_mnist'?",
    "lenet_mnist": "did you mean 'experiment=cnn_lab/lenet_mnist'?",
    "experiment_name": "did you mean 'experiment=…'?",
    "dropout": "did you mean 'regularization=dropout' or 'regularization.dropout=…'?",
    "none": "did you mean 'augmentation=none' or 'regularization=none' or 'scheduler=none'?",
    "epochs 3": "did you mean 'epochs=3'?",
    "lr 0.1": "did you mean 'optimizer.lr=0.1'?",
    "model resnet18": "; type model=resnet18.",
    "model": "type model=OPTION, one of those that cnnbench options model lists.",
    "zzz": "no such command 'zzz'. See cnnbench --help.",
    "x" * 3000: "no file name can be that long",
}


@pytest.mark.parametrize("words", UNKNOWN, ids=lambda words: words[:20])
def test_a_first_word_that_is_no_verb_is_answered_with_what_was_meant(cnnbench, tmp_path, words):
    outcome = cnnbench(*words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert UNKNOWN[words] in outcome.err
    assert outcome.err.startswith("cnnbench: ")
    assert len(outcome.err.splitlines()) == 1
    assert len(outcome.err) < 400
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.mark.parametrize("words", ["list", "data=digits model=mlp", "-m data=digits seed=0,1"])
def test_a_working_directory_that_was_removed_is_said(cnnbench, words):
    Path.cwd().rmdir()
    outcome = cnnbench(*words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert "the folder in which this command was started has been removed; go to another one: cd" in outcome.err


def test_a_run_folder_needs_a_verb(cnnbench, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    outcome = cnnbench(str(tmp_path / "run"))
    assert outcome.code == 2
    assert f"cnnbench resume {tmp_path / 'run'}" in outcome.err


MISSING = {
    "explain": "cnnbench explain: RUN is missing: folder of a run, its name, a part of its path, or last, the",
    "predict": "cnnbench predict: RUN is missing",
    "evaluate": "cnnbench evaluate: RUN is missing",
    "resume": "cnnbench resume: RUN is missing",
    "report": "cnnbench report: RUN|SWEEP|FOLDER is missing",
    "resume epochs=20 last": "cnnbench resume: RUN: comes before 'epochs=20': folder of a run, its name, a part of",
    "evaluate data.folder=photos": "cnnbench evaluate: RUN: comes before 'data.folder=photos'",
    "predict photo.jpg": "cnnbench predict: RUN: comes before 'photo.jpg', which is a file: folder of a run",
    "explain photo.jpg last": "cnnbench explain: RUN: comes before 'photo.jpg', which is a file",
    "export outputs/RUN": "cnnbench export: --format FORMAT is missing: safetensors, onnx, torch_export.",
    "new modle my_net": "cnnbench new: KIND: there is no 'modle'; did you mean 'model'?",
    "new my_net": "cnnbench new: KIND: comes before the name: cnnbench new model my_net, or model, data, ",
    "data lsit": "did you mean 'list'?",
    "export last --format ONNX": "--format: there is no 'ONNX'; did you mean 'onnx'?",
    "evaluate last --split validation": "--split: there is no 'validation'; did you mean 'val'?",
    "evaluate last --split x": "--split: there is no 'x'; there are 'test', 'val', 'train'.",
    "data": "cnnbench data: list|info|prepare|cache is missing",
    "new model": "cnnbench new: NAME is missing",
    "evaluate outputs/RUN --spilt val": "--spilt val: no such argument; did you mean '--split'?",
    "evaluate outputs/RUN outputs/OTHER": "outputs/OTHER: no such argument.",
    "resume last --config-dir presets": "no such argument; a run has all of its settings, and needs no YAML files.",
    "report --last": "--last: no such argument; type cnnbench report last.",
    "predict --last photo.jpg": "--last: no such argument; type cnnbench predict last.",
    "resume last -cd presets": "no such argument; a run has all of its settings, and needs no YAML files.",
    "explain outputs/RUN --filter one": "--filter: invalid int value: 'one'",
    "predict outputs/RUN --index 1-3": "--index: must be whole numbers separated by commas, such as 13,43,53",
}


@pytest.mark.parametrize("words", MISSING)
def test_what_is_missing_or_means_nothing_is_said_in_one_line(cnnbench, words):
    Path("photo.jpg").touch()
    outcome = cnnbench(*words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert MISSING[words] in outcome.err
    assert outcome.err.endswith(f" See cnnbench {words.split()[0]} --help.\n")
    assert "IMAGE is missing" not in outcome.err
    assert len(outcome.err.splitlines()) == 1


NEAR = {
    "evaluate lst": "has this name or path; did you mean 'last'?",
    "evaluate dgits": "did you mean 'digits'?",
    "resume outputs/sweeps/abaltion": "did you mean 'outputs/sweeps/ablation'?",
    "resume abaltion": "did you mean 'ablation'?",
    "report outputs/digit": "did you mean 'outputs/digits'?",
    "list --in output": "outputs'?",
    "options model lenett": "no option of 'model' matches 'lenett'; did you mean 'lenet'?",
    "data=image_folder data.folder=my_photo": "did you mean data.folder=my_photos?",
    "train last": "last  is not of the form key=value; a run is continued with cnnbench resume last",
    "help epochs": "there is no page 'epochs'; type cnnbench help settings, which has it.",
    "help optimizer.lr": "type cnnbench help settings, which has it.",
    "help lenet": "there is no page 'lenet'; type cnnbench options model lenet.",
}


@pytest.mark.parametrize("words", NEAR)
def test_a_name_that_is_nearly_right_is_answered_with_what_was_meant(cnnbench, monkeypatch, words):
    monkeypatch.setenv("CNNBENCH_OUTPUTS", "outputs")
    for folder in ("outputs/digits/lenet/default-1a2b3c4d", "outputs/sweeps/ablation-1a2b3c4d", "my_photos"):
        Path(folder).mkdir(parents=True)
    Path("my_net.py").touch()
    outcome = cnnbench(*words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert NEAR[words] in outcome.err


def test_a_verb_in_another_place_is_answered_with_where_it_belongs(cnnbench):
    message = cnnbench("model=lenet", "evaluate", "epoch=3").err
    assert "  evaluate  is a command, which comes first: cnnbench evaluate …" in message
    assert "did you mean 'epochs'?" in message


def test_train_is_what_a_command_without_a_verb_does(cnnbench):
    words = ["model=lenet_v2", "seed=3", "--cfg", "job"]
    assert cnnbench("train", *words).out == cnnbench(*words).out != ""


def test_resume_as_a_verb_and_as_a_setting_are_the_same(cnnbench, outputs):
    assert cnnbench(*TINY, "epochs=1").code == 0
    run = only_run(outputs)
    shown = [cnnbench(*words, "num_workers=1", "--cfg", "job") for words in (["resume", str(run)], [f"resume={run}"])]
    assert shown[0].out == shown[1].out != ""
    refused = [cnnbench(*words, "seed=1").err for words in (["resume", str(run)], [f"resume={run}"])]
    assert refused[0].removeprefix("cnnbench resume: ") == refused[1].removeprefix("cnnbench: ")
    assert "finished" in cnnbench("resume", str(run)).out
    assert cnnbench("resume", str(run), "epochs=2").code == 0
    assert len(list(outputs.glob("*/*/*/result.json"))) == 2


def test_a_mistake_is_said_by_the_verb_that_was_typed(cnnbench):
    assert cnnbench("evaluate", "nowhere").err.startswith("cnnbench evaluate: nowhere: there is no such folder")
    assert cnnbench("train", "epoch=3").err.startswith("cnnbench train: 1 mistake")
    assert cnnbench("resume", "nowhere").err.startswith("cnnbench resume: nowhere: there is no such folder")


def test_ctrl_c_is_no_traceback(cnnbench, monkeypatch, outputs):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    outputs.mkdir()
    monkeypatch.setattr("cnnbench.store.index.listed", interrupt)
    outcome = cnnbench("list")
    assert (outcome.code, outcome.err) == (130, "cnnbench list: stopped.\n")


@pytest.mark.parametrize("words", [["--help"], ["help", "settings"]], ids=" ".join)
def test_a_reader_that_goes_away_is_no_mistake(words, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # what is kept back is written at the end
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "cnnbench", *words], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


class TestHelp:
    """Pages of documentation."""

    def test_the_pages_are_listed_in_a_line_each(self, cnnbench):
        lines = cnnbench("help").out.splitlines()
        pages = [line.split()[0] for line in lines if re.match("  [a-z]", line)]
        others = sorted({path.stem for path in DOCS.glob("*.md")} - {"tutorial"})
        assert pages == ["tutorial", *others]
        assert "Where everything is" in " ".join(lines)

    def test_a_page_is_printed_for_a_terminal(self, cnnbench):
        text = cnnbench("help", "architecture").out
        assert text.startswith("# Architecture\n")
        assert max(len(line) for line in text.splitlines()) <= 80
        assert "training.resolve.resolve_run_dir" in text
        assert "|" not in re.sub(r"`[^`]*`", "", text), "tables are lists"

    def test_code_of_a_page_stays_as_it_is(self):
        code = f"```sh\ncnnbench model=lenet\n\n| {'long ' * 20}\n```"
        assert "\n".join(in_columns(f"Text.\n\n{code}\n\nMore.")) == f"Text.\n\n{code}\n\nMore.\n"

    def test_a_page_is_printed_with_the_words_of_pictures_and_without_addresses(self):
        page = "See [runs](runs.md#find).\n\n![Curves](curves.svg)\n\n```\nx[0](1)\n```"
        assert "\n".join(in_columns(page)) == "See runs.\n\n(picture: Curves)\n\n```\nx[0](1)\n```\n"

    def test_a_page_that_is_not_there_is_named(self, cnnbench):
        outcome = cnnbench("help", "architcture")
        assert (outcome.code, outcome.out) == (2, "")
        assert "no page 'architcture'; did you mean 'architecture'?" in outcome.err

    @pytest.mark.parametrize(
        ("words", "page"),
        [
            ("sweep", "runs"), ("sweeps", "runs"), ("multirun", "runs"), ("Slurm", "cluster"), ("gpu", "cluster"),
            ("plugin", "extending"), ("custom model", "extending"), ("metrics", "evaluation"), ("error", "reliability"),
        ],
    )  # fmt: skip
    def test_words_that_are_no_page_lead_to_the_one_about_them(self, cnnbench, words, page):
        assert f"type cnnbench help {page}." in cnnbench("help", *words.split()).err

    def test_words_lead_to_pages_that_there_are(self):
        assert set(ABOUT_PAGES) <= set(topics())


def test_the_exit_codes_of_the_documentation_are_those_of_the_program(command_of):
    page = command_of("help", "reliability").out
    codes = {int(code) for code in re.findall(r"^(\d+)$", page, re.MULTILINE)}
    assert codes == set(ExitCode)
