"""Run folders of others choose among what is registered, and set values: nothing in them runs."""

import hashlib
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from cnnbench.analysis.loading import load_run
from cnnbench.store.files import CHECKSUM, checksum
from cnnbench.store.reading import read_json, read_yaml
from cnnbench.store.schema import Sweep
from tests.conftest import only_run
from tests.support.archives import Hostile, code_for, laughs
from tests.support.interruption import PLAIN, finished, stop
from tests.support.selection import everyday
from tests.support.training import plan_of


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


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


@pytest.mark.parametrize("name", everyday(FOLDERS, [*FOLDERS][::3], pytest.mark.faults))
@pytest.mark.usefixtures("undrawn")
@pytest.mark.timeout(120)
def test_no_verb_runs_what_a_run_folder_names(theirs, tmp_path, outputs, command_of, canary, name):
    (tmp_path / "here" / "canary.py").write_text(f"open({str(canary)!r}, 'w')\n")
    torch.save(Hostile(canary), tmp_path / "canary.pt")
    for run, verbs in zip(theirs, ({"evaluate", "report", "list", "export", "resume"}, {"resume"}), strict=True):
        there = Path(shutil.copytree(run, outputs / "synthetic" / "lenet" / run.name, dirs_exist_ok=True))
        FOLDERS[name](there, canary)
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
            if name in HARMLESS:
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
