"""Configurations and run folders of others choose among what is registered, and set values: nothing in them runs."""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from cnnbench.analysis.run import load_run
from cnnbench.config.growth import check_yaml, endless_reference
from cnnbench.store.files import CHECKSUM, checksum
from cnnbench.store.reading import read_json, read_yaml
from cnnbench.store.schema import Sweep
from tests.conftest import TINY, Outcome, only_run
from tests.support.archives import Hostile
from tests.support.interruption import PLAIN, finished, stop
from tests.support.training import plan_of


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


def code_for(canary: Path) -> str:
    return f"touch {canary}"


# YAML files of options and experiments --------------------------------------------------------------------------------

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
@pytest.mark.parametrize("words", [(), ("-m", "seed=0,1")], ids=["one run", "a sweep"])
def test_an_experiment_that_names_code_is_refused(given, canary, outputs, lines, words):
    outcome = given(lines, *words)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert not canary.exists()
    assert not outputs.exists()


@pytest.mark.parametrize("lines", IGNORED.values(), ids=IGNORED)
def test_what_configures_hydra_in_an_experiment_is_not_executed(given, canary, outputs, lines):
    outcome = given(lines)
    assert outcome.code == 0, outcome.err
    assert not canary.exists()
    assert "canary" not in (only_run(outputs) / "config.yaml").read_text().partition("\n")[2]


def laughs(times: int) -> list[str]:
    lines = ["a0: &a0 [ha, ha]"]
    return [*lines, *(f"a{number}: &a{number} [*a{number - 1}, *a{number - 1}]" for number in range(1, times))]


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
        ["r0: ha", *(f"r{number}: ${{r{number - 1}}}" for number in range(1, 3000))],
        "RecursionError raised while resolving",
    ),
    "references in a grid": (
        ["r0: '1,2'", *(f"r{n}: '${{r{n - 1}}},${{r{n - 1}}}'" for n in range(1, 40)),
         "hydra: {sweeper: {params: {seed: '${r39}'}}}"],
        "refers to settings that refer to others",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "reason"), ENDLESS.values(), ids=ENDLESS)
@pytest.mark.timeout(30)
def test_a_file_that_would_fill_the_memory_is_refused_in_a_moment(given, outputs, lines, reason):
    began = time.monotonic()
    outcome = given(lines)
    assert time.monotonic() - began < 10
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


# Run folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> tuple[Path, Path]:
    """Return a finished run and one that was stopped, of somebody else."""
    whole = finished(PLAIN, tmp_path_factory.mktemp("finished"))
    part = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(part))
        stop(plan_of(*PLAIN), at_check=7)
    return whole, only_run(part)


def seal(path: Path, values: dict) -> None:
    values = {key: value for key, value in values.items() if key != CHECKSUM}
    path.write_text(json.dumps({**values, CHECKSUM: checksum(values)}))


def in_config(change: Callable[[dict], None]) -> Callable[[Path, Path], None]:
    """Change the configuration, and the copy of it in the record, so that they agree."""

    def write(run: Path, canary: Path) -> None:
        values = yaml.safe_load((run / "config.yaml").read_text())
        change(values)
        text = yaml.safe_dump(values).replace("CODE", code_for(canary))
        (run / "config.yaml").write_text(text)
        record = json.loads((run / "run.json").read_text()) | {"config": yaml.safe_load(text)}
        record.pop(CHECKSUM, None)
        (run / "run.json").write_text(json.dumps(record))

    return write


def in_record(**more) -> Callable[[Path, Path], None]:
    def write(run: Path, canary: Path) -> None:
        record = json.loads((run / "run.json").read_text())
        record.pop(CHECKSUM, None)
        (run / "run.json").write_text(json.dumps(record | more).replace("CODE", code_for(canary)))

    return write


def in_manifest(**more) -> Callable[[Path, Path], None]:
    def write(run: Path, canary: Path) -> None:
        for path in (run / "checkpoints").glob("*.json"):
            seal(path, json.loads(path.read_text()) | json.loads(json.dumps(more).replace("CODE", code_for(canary))))

    return write


def in_content(change: Callable[[dict, Path], object]) -> Callable[[Path, Path], None]:
    """Change what the checkpoints hold, with manifests that vouch for it."""

    def write(run: Path, canary: Path) -> None:
        for path in (run / "checkpoints").glob("*.pt"):
            content = torch.load(path, weights_only=True)
            torch.save(change(content, canary) or content, path)
            payload = path.read_bytes()
            said = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
            seal(path.with_suffix(".json"), json.loads(path.with_suffix(".json").read_text()) | said)

    return write


INSTANCE = {"_target_": "os.system", "command": "CODE"}
SPELLINGS = {
    "_target_": "os.system", "target": "os.system", "class_path": "os.system", "_instantiator": "os.system",
    "init_args": {"command": "CODE"}, "params": {"command": "CODE"}, "__reduce__": ["os.system", ["CODE"]],
}  # fmt: skip

FOLDERS = {
    "config: _target_ in a model": in_config(lambda config: config["model"].update(INSTANCE)),
    "config: a model alone": in_config(lambda config: config.update(model=INSTANCE)),
    "config: a path as a name": in_config(lambda config: config["model"].update(name="os.system")),
    "config: a metric": in_config(lambda config: config["task"].update(metrics=["os.system"])),
    "config: a logger": in_config(lambda config: config.update(logger=["os.system"])),
    "config: a data set": in_config(lambda config: config["data"].update(name="os.system")),
    "config: an augmentation": in_config(lambda config: config.update(augmentation={"os.system": INSTANCE})),
    "config: every spelling": in_config(lambda config: config.update(SPELLINGS)),
    "config: a plugin": in_config(lambda config: config.update(plugins=["CODE.py"])),
    "config: hydra": in_config(lambda config: config.update(hydra={"callbacks": {"x": INSTANCE}})),
    "config: a tag of Python": lambda run, canary: (run / "config.yaml").write_text(
        f"notes: !!python/object/apply:os.system ['{code_for(canary)}']"
    ),
    "config: aliases": lambda run, _: (run / "config.yaml").write_text("\n".join(laughs(30))),
    "record: every spelling": in_record(**SPELLINGS),
    "record: choices": in_record(choices=SPELLINGS),
    "record: a plugin": in_record(plugins=["canary.py", "CODE.py"]),
    "record: loggers": in_record(loggers={"os.system": "CODE"}),
    "record: deep": lambda run, _: (run / "run.json").write_text('{"a":' * 100_000),
    "manifest: every spelling": in_manifest(**SPELLINGS),
    "manifest: a file elsewhere": in_manifest(file="../../../canary.pt"),
    "checkpoint: every spelling": in_content(lambda content, _: content | SPELLINGS | {"hyper_parameters": SPELLINGS}),
    "checkpoint: a network with a target": in_content(lambda content, _: content["network"].update(SPELLINGS)),
    "checkpoint: progress with a target": in_content(lambda content, _: content["progress"].update(SPELLINGS)),
    "checkpoint: an optimizer that is none": in_content(lambda content, _: content | {"optimizer": SPELLINGS}),
    "checkpoint: a best one that is none": in_content(lambda content, _: content | {"best": SPELLINGS}),
    "checkpoint: a pickle": in_content(lambda content, canary: content | {"rng": Hostile(canary)}),
}  # fmt: skip
HARMLESS = {
    "record: every spelling", "record: a plugin", "record: loggers", "manifest: every spelling",
    "checkpoint: every spelling",
}  # fmt: skip


@pytest.mark.parametrize("payload", FOLDERS.values(), ids=FOLDERS)
@pytest.mark.usefixtures("undrawn")
@pytest.mark.timeout(120)
def test_no_verb_runs_what_a_run_folder_names(theirs, tmp_path, outputs, command_of, canary, request, payload):
    (tmp_path / "here" / "canary.py").write_text(f"open({str(canary)!r}, 'w')\n")
    torch.save(Hostile(canary), tmp_path / "canary.pt")
    kind = request.node.callspec.id
    for run, verbs in zip(theirs, ({"evaluate", "report", "list", "export", "resume"}, {"resume"}), strict=True):
        there = Path(shutil.copytree(run, outputs / "synthetic" / "lenet" / run.name, dirs_exist_ok=True))
        payload(there, canary)
        for verb in sorted(verbs):
            words = {
                "list": [],
                "export": [str(there), "--format", "safetensors", "--out", str(tmp_path / "network.safetensors")],
            }.get(verb, [str(there)])
            outcome = command_of(verb, *words)
            assert not canary.exists(), verb
            assert "Traceback" not in outcome.err
            assert outcome.code in (0, 2), (verb, outcome.err)
            if outcome.code == 2:
                assert str(there) in outcome.err, (verb, outcome.err)
            if kind in HARMLESS:
                assert outcome.code == 0, (verb, outcome.err)
        shutil.rmtree(there)


@pytest.mark.parametrize(
    "payload", ["config: a path as a name", "checkpoint: a pickle", "checkpoint: a network with a target"]
)
def test_weights_of_such_a_run_begin_no_training(theirs, tmp_path, cnnbench, canary, payload):
    there = Path(shutil.copytree(theirs[0], tmp_path / "theirs"))
    FOLDERS[payload](there, canary)
    outcome = cnnbench(*PLAIN, f"init.run={there}", "init.checkpoint=last", "epochs=1")
    assert not canary.exists()
    assert outcome.code in (0, 2)
    assert "Traceback" not in outcome.err


def test_the_payloads_would_run_if_they_were_believed(canary, tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"rng": Hostile(canary)}, path)
    torch.load(path, weights_only=False)
    assert canary.exists()
    canary.rmdir()
    yaml.unsafe_load(f"!!python/object/apply:os.system ['{code_for(canary)}']")
    assert canary.exists()


read_sweep = partial(read_json, schema=Sweep)


@pytest.mark.parametrize(("read", "text"), [(read_sweep, '{"a":' * 900 + "1" + "}" * 900), (read_yaml, "a: &a [*a]")])
def test_files_that_lead_recursion_astray_are_damaged(tmp_path, read, text):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(Exception, match=r"cannot be read: it is nested|stands for nothing"):
        read(path)


def test_an_unknown_name_in_a_run_is_answered_with_what_there_is(theirs, tmp_path):
    there = Path(shutil.copytree(theirs[0], tmp_path / "theirs"))
    in_config(lambda config: config["model"].update(name="lenett"))(there, tmp_path)
    with pytest.raises(Exception, match=r"did you mean 'lenet'\?"):
        load_run(there)
