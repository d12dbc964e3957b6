"""YAML files of others, and words, choose among what is registered, and set values: nothing in them runs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.config.growth import check_yaml, endless_reference
from tests.conftest import TINY, Outcome, only_run
from tests.support.archives import code_for, laughs


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


REFUSED = {
    "_target_": ["model: {_target_: os.system, command: CODE}"],
    "_target_, alone": ["_target_: os.system", "_args_: [CODE]"],
    "_target_, in an option": ["optimizer: {name: sgd, lr: {_target_: os.system, command: CODE}}"],
    "_target_, of Hydra's own": ["x: {_target_: hydra.utils.call, config: {_target_: os.system, command: CODE}}"],
    "target": ["model: {target: os.system, params: {command: CODE}}"],
    "class_path": ["optimizer: {class_path: os.system, init_args: {command: CODE}}"],
    "_instantiator": ["_instantiator: os.system", "args: CODE"],
    "a path as a name": ["model: {name: os.system}"],
    "a function as an optimizer": ["optimizer: {name: torch.optim.SGD}"],
    "code as a metric": ["task: {metrics: [os.system]}"],
    "a tag of Python": ["notes: !!python/object/apply:os.system ['CODE']"],
    "a tag of Python, a module": ["notes: !!python/module:antigravity"],
    "a tag of Python, a name": ["notes: !!python/name:os.system"],
    "a plugin": ["plugins: CODE.py"],
    "a launcher": ["defaults: [{override /hydra/launcher: evil}]"],
    "a function in a reference": ["notes: ${oc.env:HOME}"],
    "another search path": ["hydra: {searchpath: ['file:///tmp']}"],
}

IGNORED = {
    "logging": [
        "hydra:", "  job_logging:", "    version: 1", "    root: {handlers: [x]}",
        "    handlers: {x: {'()': os.system, command: CODE}}",
    ],
    "logging, by class": [
        "hydra:", "  hydra_logging:", "    version: 1", "    root: {handlers: [x]}",
        "    handlers: {x: {class: 'logging.FileHandler', filename: CANARY}}",
    ],
    "callbacks": ["hydra:", "  callbacks: {x: {_target_: os.system, command: CODE}}"],
    "launcher": ["hydra:", "  launcher: {_target_: os.system}"],
    "sweeper": ["hydra:", "  sweeper: {_target_: os.system}"],
    "folders of runs": ["hydra:", "  run: {dir: CANARY}", "  sweep: {dir: CANARY}", "  output_subdir: CANARY"],
    "the working directory": ["hydra:", "  job: {chdir: true, env_set: {PATH: CANARY}}"],
}  # fmt: skip


@pytest.fixture
def given(tmp_path, canary, cnnbench) -> Callable[..., Outcome]:
    """Return how a command ends with an experiment of these lines from somebody else."""

    def run(lines: list[str], *words: str) -> Outcome:
        folder = tmp_path / "theirs" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        text = "\n".join(["# @package _global_", *lines])
        (folder / "theirs.yaml").write_text(text.replace("CODE", code_for(canary)).replace("CANARY", str(canary)))
        return cnnbench(*TINY, "epochs=1", "experiment=theirs", "--config-dir", str(folder.parent), *words)

    return run


@pytest.mark.parametrize("lines", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(
    "words", [(), pytest.param(("-m", "seed=0,1"), marks=pytest.mark.faults)], ids=["one run", "a sweep"]
)
def test_an_experiment_that_names_code_is_refused(given, canary, outputs, lines, words):
    outcome = given(lines, *words)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert not canary.exists()
    assert not outputs.exists()


@pytest.mark.parametrize(
    "text",
    [
        "_target_: pathlib.Path.touch\n_args_: [CANARY]\n",
        "name: lenet\nmaps: [6, 16]\nunits: [84]\nactivation: relu\npool: max\n_target_: pathlib.Path.touch\n",
        "name: torchvision.models.resnet18\n",
    ],
    ids=["target alone", "target next to a name", "name of a function"],
)
def test_an_option_that_names_code_is_refused(cnnbench, tmp_path, canary, outputs, text):
    (tmp_path / "theirs" / "model").mkdir(parents=True)
    (tmp_path / "theirs" / "model" / "evil.yaml").write_text(text.replace("CANARY", str(canary)))
    outcome = cnnbench("model=evil", "--config-dir", str(tmp_path / "theirs"))
    assert (outcome.code, outcome.out) == (2, "")
    assert "no such model" in outcome.err or "_target_" in outcome.err
    assert "Traceback" not in outcome.err
    assert not canary.exists()
    assert not outputs.exists()


@pytest.mark.parametrize(
    "word",
    ["model._target_=pathlib.Path.touch", "+model._target_=os.system", "optimizer.name=torch.optim.SGD",
     "model={_target_: os.system}", "_target_=os.system", "hydra.callbacks.x._target_=os.system"],
)  # fmt: skip
def test_code_that_is_typed_is_refused(cnnbench, outputs, word):
    outcome = cnnbench(word)
    assert (outcome.code, outcome.out) == (2, "")
    assert word in outcome.err
    assert "Traceback" not in outcome.err
    assert not outputs.exists()


def test_plugins_in_a_file_are_refused_with_the_word_that_would_import_them(given, tmp_path, canary):
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"open({str(canary)!r}, 'w')\n")
    outcome = given([f"plugins: {plugin}"])
    assert outcome.code == 2
    assert f"plugins={plugin}" in outcome.err
    assert not canary.exists()


@pytest.mark.parametrize("lines", IGNORED.values(), ids=IGNORED)
def test_what_configures_hydra_in_an_experiment_is_not_executed(given, canary, outputs, lines):
    outcome = given(lines)
    assert outcome.code == 0, outcome.err
    assert not canary.exists()
    assert "canary" not in (only_run(outputs) / "config.yaml").read_text().partition("\n")[2]


ENDLESS = {
    "aliases": (laughs(30), "it has more than 1000000 characters, with what its aliases stand for"),
    "aliases of long text": (
        [f"a: &a {'x' * 10_000}", f"b: [{', '.join(['*a'] * 200)}]"],
        "it has more than 1000000 characters",
    ),
    "an alias of itself": (["a: &a [*a]"], r"\*a stands for nothing, or for what it is itself in"),
    "deep": (["a: " + "[" * 500 + "]" * 500], "it is nested more than 50 levels deep"),
    "very deep": (["a: " + "[" * 100_000], "exceeded maximum nesting depth|more than 50 levels"),
    "deep blocks": (["a:", *(" " * depth + "- " * 60 + "x" for depth in (1,))], "more than 50 levels"),
    "references": (
        ["r0: haha", *(f"r{number}: ${{r{number - 1}}}${{r{number - 1}}}" for number in range(1, 40))],
        r"r\d+ refers to settings that refer to others, more often than can be written down",
    ),
    "references to mappings": (
        ["r0: {a: 1}", *(f"r{n}: {{a: '${{r{n - 1}}}', b: '${{r{n - 1}}}'}}" for n in range(1, 40))],
        r"r\d+ refers to settings that refer to others",
    ),
    "references into mappings": (
        ["r0: {a: [ha]}", *(f"r{n + 1}: {{a: ['${{r{n}.a[0]}}${{..b}}'], b: '${{r{n}.a[0]}}'}}" for n in range(40))],
        r"r\d+ refers to settings that refer to others",
    ),
    "a long chain": (
        ["r0: ha", *(f"r{number}: ${{r{number - 1}}}" for number in range(1, 1500))],
        "RecursionError raised while resolving",
    ),
    "references in a grid": (
        ["r0: '1,2'", *(f"r{n}: '${{r{n - 1}}},${{r{n - 1}}}'" for n in range(1, 40)),
         "hydra: {sweeper: {params: {seed: '${r39}'}}}"],
        "refers to settings that refer to others",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "reason"), ENDLESS.values(), ids=ENDLESS)
@pytest.mark.timeout(100)
def test_a_file_that_would_fill_the_memory_is_refused(given, outputs, lines, reason):
    outcome = given(lines)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert re.search(reason, outcome.err), outcome.err
    assert not outputs.exists()


@pytest.mark.parametrize("name", ["model/theirs.yaml", "experiment/theirs.yaml"])
def test_a_file_that_is_no_yaml_is_named(cnnbench, command_of, tmp_path, name):
    path = tmp_path / "theirs" / name
    path.parent.mkdir(parents=True)
    path.write_text("a: [1\nb: ]: }")
    outcome = cnnbench(f"{path.parent.name}=theirs", "--config-dir", str(tmp_path / "theirs"))
    assert outcome.code == 2
    assert f"{path} cannot be read: " in outcome.err
    listed = command_of("options", "model", "--config-dir", str(tmp_path / "theirs"))
    assert "Traceback" not in listed.err


def test_usual_files_grow_as_they_like():
    check_yaml("a: &a [1, 2]\nb: *a\nc: {<<: &m {x: 1}, y: *m}\n" + "\n".join(f"k{n}: {n}" for n in range(20_000)))
    assert endless_reference({"a": "${b}", "b": "${c.d[0]}", "c": {"d": ["x", "${..a}"]}, "e": "${e}", "f": 3}) == ""
