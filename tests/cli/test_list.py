"""`cnnbench list`: runs listed, filtered and pruned."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.store.folder import RunFolder
from tests.conftest import ended
from tests.support.interruption import fingerprints, finished, kill
from tests.support.training import SMALL, plan_of


@pytest.fixture(scope="module")
def several_runs_once(tmp_path_factory) -> Path:
    """Return a folder with two finished runs, one that was killed, and one that was trained again."""
    folder = tmp_path_factory.mktemp("runs")
    words = (*SMALL, "epochs=1")
    finished((*words, "model=lenet"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(folder))
        from tests.support.interruption import go

        assert go(*words, "model=lenet_v2", "optimizer.lr=0.5", "seed=3") == 0
        kill(plan_of(*words, "model=mlp"), after_step=3, saves_every=2)
    (first,) = (path.parent for path in folder.glob("*/lenet/*/run.json"))
    shutil.copytree(first, RunFolder(first).next_rerun().path)
    return folder


@pytest.fixture
def several_runs(several_runs_once, outputs) -> Path:
    return Path(shutil.copytree(several_runs_once, outputs))


@pytest.fixture
def listing(capsys):
    return lambda *words: ended("list", [str(word) for word in words], capsys)


def listed_models(listing, *words: str) -> list[str]:
    runs = json.loads(listing(*words, "--json").out)
    return sorted(Path(one["path"]).parent.name for one in runs)


def test_runs_are_listed_with_their_metrics(several_runs, listing):
    done = listing()
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    head = lines[0].split()
    assert head == [
        "model",
        "lr",
        "seed",
        "status",
        "epoch",
        "accuracy",
        "loss",
        "ece",
        "brier",
        "since",
        "size",
        "run",
    ]
    assert len(lines) == 7
    assert lines[-1].startswith("  4 runs, ")
    for path in several_runs.glob("*/*/*/result.json"):
        (line,) = [line for line in lines if line.endswith(f"/{path.parent.name}")]
        test = json.loads(path.read_text())["test"]
        assert "  completed  " in line
        assert json.loads((path.parent / "run.json").read_text())["ended"][:10] in line
        assert f"  {test['accuracy']:.4f}  {test['loss']:.4f}  " in line
    killed, why = [line for line in lines if "/mlp/" in line]
    assert killed.split()[:5] == ["mlp", "0.05", "0", "failed", "0/1"]
    assert why.endswith(": Killed:")


CONDITIONS = {
    "model=lenet": ["lenet", "lenet"],
    "model=lenet dataset=synthetic dataset.num_classes=3": ["lenet", "lenet"],
    "model=lenet*": ["lenet", "lenet", "lenet_v2"],
    "model=lenet* seed=3": ["lenet_v2"],
    "model.name=lenet": ["lenet", "lenet", "lenet_v2"],
    "optimizer.lr>0.1": ["lenet_v2"],
    "optimizer.lr=0.50": ["lenet_v2"],
    "seed!=3": ["lenet", "lenet", "mlp"],
    "status=completed": ["lenet", "lenet", "lenet_v2"],
    "accuracy>=0": ["lenet", "lenet", "lenet_v2"],
    "accuracy>1": [],
    "accuracy/test<=1": ["lenet", "lenet", "lenet_v2"],
    "deterministic=true epochs=1": ["lenet", "lenet", "lenet_v2", "mlp"],
    "max_minutes=null status!=completed": ["mlp"],
    "seed=null": [],
    "status=failed model=lenet": [],
    "lr>0.1": ["lenet_v2"],
    "accuracy/val>=0 num_train=80": ["lenet", "lenet", "lenet_v2"],
}


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_runs_are_filtered_by_settings_and_results(conditions, several_runs, listing):
    assert listed_models(listing, *conditions.split()) == CONDITIONS[conditions]


@pytest.mark.parametrize(
    "word",
    ["model", "accuracy>high", "=3", "accuracy=>3", "nothing=1", "acuracy>0.9", "accuracy=0.9x", "data>3", "seed=zero"],
)
def test_a_malformed_condition_is_refused(word, several_runs, listing):
    done = listing(word)
    assert done.code == 2
    assert word in done.err
    assert ("type 'accuracy>=3'" in done.err) == (word == "accuracy=>3")
    assert ("--sort model orders runs" in done.err) == (word == "model")
    assert ("did you mean 'accuracy" in done.err) == word.startswith("acu")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lenet", "did you mean 'model=lenet'?"),
        ("mnits", "did you mean 'data=mnist'?"),
        ("accuracy", "; --sort accuracy orders runs."),
        ("zzz", "; conditions are like data=mnist, model=lenet*, accuracy>0.98; --sort accuracy orders runs."),
        ("folder", "; --in folder lists the runs in this folder."),
    ],
)
def test_a_word_that_is_no_condition_is_answered_with_what_works(word, meant, several_runs, listing):
    Path("folder").mkdir()
    done = listing(word)
    assert done.code == 2
    assert f"{word}: there is no such sweep (cnnbench list sweeps); " in done.err
    assert done.err.endswith(f"{meant}\n")


def test_runs_that_cannot_be_read_are_counted_where_a_condition_would_leave_them_out(several_runs, listing):
    (edited,) = several_runs.glob("*/lenet_v2/*/config.yaml")
    edited.write_text(edited.read_text().replace("seed: 3", "seed: 4"))
    left_out = "  1 unreadable run could not be checked against the condition\n"
    assert left_out in listing("seed=3").out
    assert left_out in listing("model=lenet").out
    assert "checked against the conditions" in listing("model=lenet", "seed=0").out
    assert "could not be checked" not in listing("status=completed").out + listing("status=failed", "seed=0").out
    assert "no run has data=mnits; there are 'synthetic'\n" in listing("data=mnits").out
    assert "could not be checked" not in listing().out


def test_a_value_that_no_run_has_is_answered_with_those_that_there_are(several_runs, listing):
    assert "no run has model=lenett; did you mean 'lenet'?" in listing("model=lenett").out
    assert "no run has seed=7; there are '0', '3'\n" in listing("seed=7", "model=lenet").out
    assert "no run has accuracy>1" in listing("accuracy>1").out
    assert "no run has" not in listing("model=lenet", "seed=3").out, "each of these is what some run has"


def test_broken_and_foreign_folders_are_listed_with_the_reason(several_runs, listing):
    broken = several_runs / "data" / "model" / "broken"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text("{")
    foreign = several_runs / "elsewhere"
    foreign.mkdir()
    (foreign / "run.json").write_text("[1]")
    (foreign / "config.yaml").write_text("a: 1")
    done = listing()
    assert done.code == 0
    assert done.out.count("unreadable") == 2
    assert f"{broken / 'run.json'} cannot be read" in done.out
    assert "6 runs" in done.out
    assert listed_models(listing, "status=unreadable") == sorted([several_runs.name, "model"])
    assert "nothing was removed" in listing("--prune").out


def test_a_run_recorded_as_running_is_interrupted_unless_it_is_held(several_runs, listing):
    (path,) = (path.parent for path in several_runs.glob("*/lenet_v2/*/run.json"))
    folder = RunFolder(path)
    folder.update(status="running")
    assert listed_models(listing, "status=stopped") == ["lenet_v2"]
    with folder.lock():
        assert listed_models(listing, "status=running") == ["lenet_v2"]
        assert path.name not in listing("--prune").out
    assert path.name in listing("--prune").out


def test_failed_runs_are_removed_only_where_their_status_is_asked_for(several_runs, listing):
    (failed,) = several_runs.glob("*/mlp/*")
    assert listing("--prune", "--yes").out.endswith(", removed; 1 failed run kept, status=failed names them\n")
    assert "nothing to remove; 1 failed run kept" in listing("status!=completed", "--prune", "--yes").out
    assert failed.is_dir()
    assert "  1 run, " in listing("status=failed", "--prune", "--yes").out
    assert not failed.exists()


@pytest.fixture
def with_interrupted(several_runs) -> Path:
    (path,) = several_runs.glob("*/mlp/*")
    RunFolder(path).update(status="stopped")
    return several_runs


def test_nothing_is_removed_without_confirmation(with_interrupted, listing):
    before = fingerprints(with_interrupted)
    done = listing("--prune")
    assert "not finished" in done.out
    assert "superseded by a rerun" in done.out
    assert "2 runs" in done.out
    assert "nothing was removed: --yes removes them for good" in done.out
    assert fingerprints(with_interrupted) == before


def test_interrupted_and_superseded_runs_are_removed_and_nothing_else(with_interrupted, listing):
    kept = {
        path.name
        for path in with_interrupted.glob("*/lenet*/*")
        if path.name.endswith("-r2") or path.parent.name == "lenet_v2"
    }
    assert len(kept) == 2
    done = listing("--prune", "--yes")
    assert done.code == 0
    assert "2 runs" in done.out
    assert {path.parent.name for path in with_interrupted.rglob("run.json")} == kept
    assert "there is nothing to remove" in listing("--prune", "--yes").out


def test_only_matching_runs_are_removed(with_interrupted, listing):
    listing("model=mlp", "--prune", "--yes")
    assert listed_models(listing) == ["lenet", "lenet", "lenet_v2"]


def test_contradicting_flags_are_refused(several_runs, listing, tmp_path):
    assert "--yes is for --prune" in listing("--yes").err
    assert "--prune and --json exclude each other" in listing("--prune", "--json").err
    assert "--json and --csv exclude each other" in listing("--csv", "--json").err
    done = listing("--in", tmp_path / "nowhere")
    assert (done.code, "there is no such folder" in done.err) == (2, True)


@pytest.mark.parametrize("words", [[], ["--csv"], ["--json", "--sort", "accuracy"]])
def test_a_list_imports_neither_torch_nor_hydra(words, several_runs, outputs):
    code = (
        f"import sys\nfrom cnnbench.train import main\ntry: main(['list', 'model=lenet', *{words}])\n"
        "finally: print({'torch', 'hydra', 'omegaconf', 'numpy', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "set()"
    assert len(lines) > 3


def test_a_sweep_that_is_not_there_is_said_to_be_none(command_of, outputs):
    outputs.mkdir()
    outcome = command_of("list", "outputs/sweeps/nope")
    assert outcome.code == 2
    assert "outputs/sweeps/nope: there is no such sweep (cnnbench list sweeps)" in outcome.err
