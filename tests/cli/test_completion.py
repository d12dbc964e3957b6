"""`cnnbench completion`: what Tab makes of a line, asked for as shells do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.cli.completion import LINE, SCRIPTS
from cnnbench.cli.parse import VERBS, verb_named
from cnnbench.config.schema import GROUPS


@pytest.fixture
def complete(cnnbench, monkeypatch) -> Callable[[str], list[str]]:
    """Return what the last word of a line after `cnnbench` may become."""

    def answers(line: str) -> list[str]:
        monkeypatch.setenv(LINE, f"cnnbench {line}")
        outcome = cnnbench("completion", "bash")
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out.split()

    return answers


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[str]:
    """Return the paths of two runs below ./outputs."""
    monkeypatch.delenv("CNNBENCH_OUTPUTS")
    folders = ["outputs/digits/lenet/a-1", "outputs/digits/mlp/b-2"]
    for folder in folders:
        Path(folder).mkdir(parents=True)
        Path(folder, "run.json").touch()
    return folders


def test_a_first_word_is_a_verb_a_group_or_a_setting(complete):
    found = complete("")
    assert found[: len(VERBS)] == list(VERBS)
    assert {f"{group}=" for group in GROUPS} | {"epochs=", "resume="} <= set(found)
    assert complete("ev") == ["evaluate", "eval_every=", "eval_unit="]


def test_options_of_a_group_are_completed(complete):
    presets = [f"model=minialexnet{suffix}" for suffix in ("", "_v2", "_v3", "_v4")]
    assert complete("model=mini") == presets
    assert complete("train seed=1 model=mini") == presets
    assert complete("-m model=lenet,minialexnet_v") == [f"model=lenet,minialexnet_v{number}" for number in (2, 3, 4)]
    assert complete("experiment=cnn_lab/lenet_m") == ["experiment=cnn_lab/lenet_mnist"]


def test_settings_of_what_is_chosen_are_completed(complete):
    assert {"optimizer.lr=", "optimizer.nesterov=", "optimizer.layer_decay="} <= set(complete("optimizer."))
    assert "optimizer.beta1=" not in complete("optimizer.")
    assert "optimizer.beta1=" in complete("optimizer=adam optimizer.")
    assert {"model.blocks=", "model.stochastic_depth="} <= set(complete("model=resnet18 model."))
    assert complete("model=lenet ep") == ["epochs="]
    assert complete("regularization.cl") == ["regularization.clip.norm=", "regularization.clip.value="]
    assert complete("dry_run=") == ["dry_run=true", "dry_run=false"]


def test_a_plugin_that_is_named_is_completed_without_being_imported(complete, cnnbench):
    assert cnnbench("new", "model", "my_net").code == 0
    with Path("my_net.py").open("a") as file:
        file.write("raise RuntimeError\n")
    assert complete("plugins=") == ["plugins=my_net.py"]
    assert complete("plugins=my_net.py model=my") == ["model=my_net"]
    assert complete("plugins=my_net.py model=my_net model.") == ["model.width="]


@pytest.mark.parametrize("line", ["evaluate ", "explain ", "export ", "predict ", "resume ", "report "])
def test_run_folders_are_completed(complete, runs, line):
    assert complete(line) == [*runs, "last"]
    assert complete(f"{line}outputs/digits/m") == runs[1:]


def test_run_folders_are_completed_where_settings_take_them(complete, runs):
    assert complete("resume=outputs/") == [f"resume={run}" for run in runs]
    assert complete("init.run=outputs/digits/l") == [f"init.run={runs[0]}"]


def test_what_verbs_take_is_completed(complete):
    for verb in VERBS:
        flags = {name for one in verb_named(verb).arguments if one.is_flag for name in one.names}
        assert set(complete(f"{verb} -")) == flags | {"--help"}
    assert complete("evaluate x --split ") == ["test", "val", "train"]
    assert complete("export x --format o") == ["onnx"]
    assert complete("evaluate x --data cif") == ["cifar10", "cifar100"]
    assert complete("data ") == ["list", "info", "prepare", "cache"]
    assert complete("data info fash") == ["fashion_mnist"]
    assert complete("options mo") == ["model"]
    assert complete("new sch") == ["scheduler"]
    assert complete("help arch") == ["architecture"]
    assert complete("completion ") == list(SCRIPTS)


def test_nothing_is_offered_for_names_of_files(complete):
    assert complete("predict x photo") == []
    assert complete("evaluate x --out ") == []
    assert complete("evaluate 'unfinished") == []


def test_files_of_an_own_folder_are_options(complete, tmp_path):
    (tmp_path / "own" / "model").mkdir(parents=True)
    (tmp_path / "own" / "model" / "small.yaml").write_text("name: lenet\n")
    assert complete(f"--config-dir {tmp_path}/own model=sm") == ["model=small"]


def test_nothing_heavy_is_imported():
    code = "import sys; from cnnbench.train import main\ntry: main()\nfinally: print(sorted(sys.modules))"
    environment = os.environ | {LINE: "cnnbench optimizer=adam optimizer."}
    words = [sys.executable, "-c", code, "completion", "bash"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert "optimizer.beta1=" in done.stdout
    imported = done.stdout.splitlines()[-1]
    assert not any(f"'{heavy}'" in imported for heavy in ("torch", "hydra", "pydantic", "numpy", "yaml"))


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """Return a folder with the command, at the front of the path."""
    command = tmp_path / "bin" / "cnnbench"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cnnbench "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return command.parent


BASH = """
eval "$(cnnbench completion bash)"
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDBREAKS=$2
compopt() { echo "no space"; }
_cnnbench cnnbench
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
autoload -Uz compinit && compinit -D
eval "$(cnnbench completion zsh)"
compadd() { print -r -- "$@" }
words=(${(z)1}) CURRENT=$#words
_cnnbench
"""
FISH = """
cnnbench completion fish | source
complete -C $argv[1]
"""


def in_shell(shell: str, script: str, *words: str) -> list[str]:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    ends = [] if shell == "fish" else [shell]
    done = subprocess.run([shell, "-c", script, *ends, *words], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cnnbench eva", ["evaluate", "eval_every=", "eval_unit="]),
        ("cnnbench model=lenet_s", ["lenet_same"]),
        ("cnnbench -m model=lenet_s", ["lenet_same"]),
        ("cnnbench optimizer.mom", ["no space", "optimizer.momentum="]),
        ("cnnbench evaluate x --split v", ["val"]),
    ],
)
@pytest.mark.usefixtures("installed")
def test_bash_completes(line, found):
    assert in_shell("bash", BASH, line, " \t\n\"'><=;|&(:") == found


@pytest.mark.usefixtures("installed")
def test_bash_completes_whole_words_where_it_does_not_break_them_at_an_equals_sign():
    assert in_shell("bash", BASH, "cnnbench model=lenet_s", " \t\n") == ["model=lenet_same"]


@pytest.mark.usefixtures("installed")
def test_zsh_completes():
    assert in_shell("zsh", ZSH, "cnnbench model=lenet_s") == ["-S  --", "-- model=lenet_same"]


@pytest.mark.usefixtures("installed")
def test_fish_completes():
    assert in_shell("fish", FISH, "cnnbench model=lenet_s") == ["model=lenet_same"]
