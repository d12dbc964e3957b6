"""Files that were edited, or copied from another run: said wherever the run is opened, and never gone on with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnbench.analysis.loading import load_run
from cnnbench.errors import UserError
from cnnbench.store import checkpoint
from cnnbench.store.files import checksum
from cnnbench.store.folder import find_runs, outputs_dir
from cnnbench.store.query import runs_below
from cnnbench.training.plan import plan_resume
from cnnbench.training.trainer import carry_out
from tests.conftest import only_run
from tests.support.interruption import PLAIN, fingerprints, finished, go, read, stop
from tests.support.training import plan_of

pytestmark = pytest.mark.usefixtures("undrawn")

OTHER = (*PLAIN, "optimizer.lr=0.02")


def began(*words: str) -> Path:
    """Return the folder of a run that was stopped in its first epoch."""
    stop(plan_of(*words), at_check=4)
    (run,) = find_runs(outputs_dir(), plan_of(*words).config.identity())
    return run.path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (old, text)
    path.write_text(text.replace(old, new))


def change(path: Path, **values) -> None:
    """Change entries of a JSON file, None removing one."""
    kept = {key: value for key, value in (read(path) | values).items() if value is not None}
    path.write_text(json.dumps(kept))


# The configuration ----------------------------------------------------------------------------------------------------

OPENING: dict[str, Callable[[Path], object]] = {
    "the same command": lambda run: go(*PLAIN),
    "resume": lambda run: carry_out(plan_resume(str(run), [])),
    "more epochs": lambda run: plan_resume(str(run), ["epochs=9"]),
    "evaluate and all that opens it": load_run,
    "weights for another": lambda run: plan_of(*OTHER, f"init.run={run}", "init.checkpoint=last"),
}


@pytest.mark.parametrize("opening", OPENING)
@pytest.mark.parametrize("has_copy", [True, False], ids=["", "of before, without a second copy"])
def test_a_run_whose_configuration_was_edited_is_refused(outputs, opening, has_copy):
    if opening == "weights for another" and not has_copy:
        pytest.skip("its weights are known by its identity; its learning rate does not matter")
    run = began(*PLAIN)
    edit(run / "config.yaml", "lr: 0.05", "lr: 0.15")
    if not has_copy:
        change(run / "run.json", config=None)
    before = fingerprints(outputs)
    with pytest.raises(UserError) as refused:
        OPENING[opening](run)
    assert f"{run / 'config.yaml'} " in str(refused.value)
    assert ("optimizer.lr was 0.05, and is 0.15" in str(refused.value)) is has_copy
    assert ("the configuration of another run" in str(refused.value)) is not has_copy
    assert fingerprints(outputs) == before


def test_a_command_says_in_one_message_what_was_edited_and_what_to_do(cnnbench, command_of, outputs):
    run = began(*PLAIN)
    edit(run / "config.yaml", "lr: 0.05", "lr: 0.15")
    edit(run / "config.yaml", "epochs: 3\n", "")
    for outcome in (cnnbench(*PLAIN), command_of("resume", str(run)), command_of("evaluate", str(run))):
        assert outcome.code == 2
        assert outcome.err.startswith(("cnnbench: ", "cnnbench resume: ", "cnnbench evaluate: "))
        changes = "epochs was 3, and is not there; optimizer.lr was 0.05, and is 0.15."
        assert outcome.err.splitlines()[0].endswith(f"{run / 'config.yaml'} was edited after the run began: {changes}")
        assert f"cnnbench resume {run} KEY=VALUE" in outcome.err


def test_what_cannot_change_a_result_may_be_edited(outputs):
    run = began(*PLAIN)
    edit(run / "config.yaml", "num_workers: 0", "num_workers: 1")
    edit(run / "config.yaml", "keep: 2", "keep: 3")
    assert carry_out(plan_resume(str(run), [])) == 0
    assert read(run / "run.json")["status"] == "completed"


def test_a_listing_shows_the_edited_run_as_a_problem_and_the_others(command_of, outputs):
    run, other = began(*PLAIN), began(*OTHER)
    edit(run / "config.yaml", "lr: 0.05", "lr: 0.15")
    assert {one.path: bool(one.problem) for one in runs_below(outputs)} == {run: True, other: False}
    listed = command_of("list")
    assert listed.code == 0
    assert "optimizer.lr was 0.05, and is 0.15" in listed.out
    assert other.name in listed.out


def test_a_run_of_a_plugin_whose_default_changed_was_not_edited(outputs, tmp_path, cnnbench):
    plugin = tmp_path / "here" / "my_net.py"
    text = (
        "from torch import nn\nfrom cnnbench.registry import MODELS\n\n\n@MODELS.register('my_net')\n"
        "def my_net(spec, *, width: int = 4):\n"
        "    sizes = spec.channels * spec.height * spec.width\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(sizes, width), nn.Linear(width, spec.num_outputs))\n"
    )
    plugin.write_text(text)
    words = [word for word in PLAIN if not word.startswith(("model", "scheduler"))]
    assert cnnbench(*words, "model=my_net", "plugins=my_net.py", "epochs=1").code == 0
    plugin.write_text(text.replace("width: int = 4", "width: int = 5"))
    assert load_run(only_run(outputs), ["my_net.py"]).config.model.settings["width"] == 4


# Files of another run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Return a finished run of another learning rate."""
    return finished(OTHER, tmp_path_factory.mktemp("other"))


def replace_by(other: Path, run: Path, name: str) -> None:
    if (run / name).is_dir():
        shutil.rmtree(run / name)
        shutil.copytree(other / name, run / name)
    else:
        shutil.copy(other / name, run / name)


@pytest.mark.parametrize("is_named", [True, False], ids=["named in the manifest", "of before, named in the content"])
@pytest.mark.parametrize("opening", ["the same command", "resume", "evaluate", "more epochs", "weights for another"])
def test_checkpoints_of_another_run_are_not_gone_on_with(outputs, other, is_named, opening):
    run = began(*PLAIN)
    replace_by(other, run, "checkpoints")
    manifest = max((run / "checkpoints").glob("*.json"))
    assert read(manifest)["identity"] == read(other / "run.json")["identity"]
    if not is_named:
        if opening in ("more epochs", "weights for another"):
            pytest.skip("the content is not read when they are planned")
        values = read(manifest)
        del values["identity"], values["checksum"]
        manifest.write_text(json.dumps(values))
    ways = OPENING | {"evaluate": lambda run: load_run(run).model("last")}
    with pytest.raises(
        UserError, match=r"step-000000015\.(json|pt) belongs to another run: its identity is"
    ) as refused:
        ways[opening](run)
    assert str(read(run / "run.json")["identity"])[:8] in str(refused.value)
    assert not (run / "result.json").exists()
    assert checkpoint.steps_in(run / "checkpoints") == checkpoint.steps_in(other / "checkpoints")


def test_the_result_of_another_run_is_not_shown(cnnbench, command_of, outputs, other):
    run = finished(PLAIN, outputs)
    replace_by(other, run, "result.json")
    assert f"{run / 'result.json'} is the result of another run than run.json" in cnnbench(*PLAIN).err
    assert "is the result of another run" in command_of("list").out
    assert command_of("evaluate", str(run)).code == 0


def test_a_split_of_another_run_is_not_used(outputs, other):
    run = finished(PLAIN, outputs)
    change(run / "split.json", sha256="0" * 64, checksum=None)
    with pytest.raises(UserError, match=r"split\.json is not the split that run\.json names"):
        load_run(run).spec  # noqa: B018


def test_an_edited_split_is_noticed_by_its_checksum(outputs):
    run = finished(PLAIN, outputs)
    assert read(run / "split.json")["checksum"] == checksum(read(run / "split.json"))
    change(run / "split.json", val=[1, 2, 3])
    with pytest.raises(UserError, match=r"split\.json was changed after it was written: its checksum does not match"):
        load_run(run).spec  # noqa: B018


@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_a_record_and_a_configuration_that_do_not_belong_together_are_refused(outputs, other, name):
    run = began(*PLAIN)
    replace_by(other, run, name)
    with pytest.raises(UserError, match=r"optimizer\.lr was 0\.0\d, and is 0\.0\d"):
        carry_out(plan_resume(str(run), []))
    assert [bool(one.problem) for one in runs_below(outputs)] == [True]


def test_a_folder_that_holds_another_run_is_not_taken_for_a_new_one(outputs, other):
    run = began(*PLAIN)
    shutil.rmtree(run)
    shutil.copytree(other, run)
    before = fingerprints(run)
    with pytest.raises(UserError, match=f"{run} holds another run, of identity .*; move it away"):
        go(*PLAIN)
    assert fingerprints(run) == before
