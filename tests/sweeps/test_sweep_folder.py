"""The folder of a sweep: written before the first job, recognised when its command is typed again, read exactly."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError, UserError
from cnnbench.store.folder import RunFolder, find_runs
from cnnbench.store.query import runs_named
from cnnbench.store.sweep_files import with_folder
from cnnbench.sweeps import launch
from cnnbench.sweeps.display import Display
from cnnbench.sweeps.folder import SweepFolder, read_plan
from cnnbench.sweeps.launch import Grid, launched, opened
from cnnbench.sweeps.outcome import failed_before
from cnnbench.sweeps.slots import Processes
from cnnbench.sweeps.work import Options, Worker
from cnnbench.training.plan import plan_run
from cnnbench.training.signals import StopRequests
from tests.conftest import TINY, latest
from tests.support.interruption import go
from tests.support.run_folders import write_run

WORDS = tuple(latest([*TINY, "model=mlp", "epochs=1"]))
GRID = Grid((*WORDS, "seed=0,1"))


METRIC = """
from cnnbench import register_metric

@register_metric("mine")
def mine(predictions) -> float:
    return 0.5
"""


@pytest.fixture
def planned(monkeypatch) -> list[int]:
    """Return how many jobs were planned, each time."""
    counts: list[int] = []
    resolve_all = launch.resolve_all
    monkeypatch.setattr(launch, "resolve_all", lambda plans: counts.append(len(plans)) or resolve_all(plans))
    return counts


def test_a_plan_is_read_as_it_was_written():
    words = [
        "model=lenet",
        "data=synthetic",
        "augmentation=pad_crop_flip",
        "tags=[a,b]",
        "optimizer.lr=0.001",
        "seed=0,1",
    ]
    sweep = launched(Grid(tuple(words)), Options())
    for job in sweep.jobs:
        single = plan_run(Composer(), [*words[:-1], f"seed={job.command[-1]}"])
        plan = sweep.plan(job)
        assert (plan.config, plan.command) == (single.config, single.command)
        assert (plan.choices, plan.origins, plan.typed) == (single.choices, single.origins, single.typed)
        assert plan.run_path() == single.run_path() == Path(job.folder)


def test_everything_is_there_before_the_first_job(outputs):
    sweep = launched(GRID, Options())
    assert {path.name for path in sweep.path.iterdir() if not path.name.startswith("known-")} == {
        "sweep.json", "jobs", "claims", "logs",
    }  # fmt: skip
    assert SweepFolder.open(sweep.path) == sweep
    single = GRID.command.replace("-m ", "").removesuffix("0,1")
    assert [job.command for job in sweep.jobs] == [f"{single}0", f"{single}1"]
    assert list(outputs.glob("*/*/*/run.json")) == []


def test_a_sweep_has_the_name_of_its_runs_and_is_found_by_it_and_by_its_hash(outputs, command_of):
    sweep = launched(Grid((*GRID.words, "name=wider net")), Options())
    name, _, begin = sweep.path.name.rpartition("-")
    assert (name, len(begin)) == ("wider-net", 8)
    for word in ("wider net", name, begin, sweep.path.name):
        assert Path(with_folder(word, outputs)).resolve() == sweep.path
        assert Path(with_folder(str(outputs / "sweeps" / word), Path("elsewhere"))).resolve() == sweep.path
    assert "2 waiting, of 2 runs" in command_of("list", "wider net").out
    assert launched(GRID, Options()).path == sweep.path, "one that is there keeps its folder"
    larger = launched(Grid((*GRID.words[:-1], "seed=0,1,2", "name=wider net")), Options())
    assert Path(with_folder("wider net", outputs)).resolve() == larger.path, "it has the jobs of both"
    launched(Grid((*WORDS, "name=wider net", "seed=3")), Options())
    assert "wider-net: several sweeps have this name: wider-net-" in command_of("resume", "wider-net").err
    (outputs / "sweeps" / "last-12345678").mkdir()
    (outputs / "sweeps" / "last-12345678" / "sweep.json").touch()
    assert with_folder("last", outputs) == "last"


def test_the_same_command_is_recognised_and_not_planned_again(planned):
    sweep = launched(GRID, Options())
    assert launched(GRID, Options(jobs=2, retry_failed=True)) == sweep
    assert planned == [2]


@pytest.mark.parametrize("changed", ["words", "yaml", "code", "versions"])
def test_a_command_with_other_words_files_or_code_is_planned_again(changed, planned, monkeypatch, tmp_path):
    own, plugin = tmp_path / "own", tmp_path / "mine.py"
    (own / "model").mkdir(parents=True)
    (own / "model" / "small.yaml").write_text("name: mlp\nunits: [3]\nactivation: relu\n")
    plugin.write_text(METRIC)
    grid = Grid(GRID.words, (str(plugin),), str(own))
    launched(grid, Options())
    if changed == "words":
        grid = Grid((*GRID.words, "name=other"), grid.plugins, grid.config_dir)
    elif changed == "yaml":
        (own / "model" / "small.yaml").write_text("name: mlp\nunits: [4]\nactivation: relu\n")
    elif changed == "code":
        monkeypatch.setattr(launch, "code_hashes", lambda modules: {"a.py": "other"})
    else:
        monkeypatch.setattr("cnnbench.sweeps.folder.versions", lambda: {"torch": "0.1"})
    launched(grid, Options())
    assert planned == [2, 2]


def test_a_sweep_of_runs_with_the_weights_of_another_is_planned_every_time(planned, outputs):
    assert go(*WORDS, "seed=7") == 0
    (source,) = outputs.glob("*/*/*/run.json")
    grid = Grid((*WORDS, f"init.run={source.parent}", "seed=0,1"))
    launched(grid, Options())
    launched(grid, Options())
    assert planned == [2, 2]


def test_threads_stay_as_they_were_when_the_sweep_was_launched(monkeypatch):
    monkeypatch.setattr(launch, "DEFAULT_THREADS", 8)
    words = [word for word in GRID.words if not word.startswith("threads")]
    first = launched(Grid(tuple(words)), Options(jobs=2))
    assert first.threads == 4
    monkeypatch.setattr(SweepFolder, "recognised", lambda key: None)
    assert launched(Grid(tuple(words)), Options(jobs=8)).threads == 4


@pytest.mark.parametrize(("word", "recorded", "expected"), [("", None, 3), ("", 2, None), ("threads=5", 2, 5)])
def test_a_job_has_the_threads_of_its_run_or_else_of_the_sweep_unless_some_are_typed(word, recorded, expected):
    words = [one for one in WORDS if not one.startswith("threads")]
    assert go(*words, "seed=0") == 0
    grid = Grid((*words, *([word] if word else []), "seed=0,1"))
    sweep = SweepFolder.write(launch.resolve_all(grid.plans({})), grid.command, 3, None)
    run = sweep.run_of(sweep.jobs[0])
    run.update(threads=recorded)
    worker = Worker(sweep, StopRequests(), [], Options(), Processes(), Display(sweep))
    assert worker._plan(sweep.jobs[0], run).config.threads == expected


def test_runs_that_had_other_threads_than_new_ones_get_are_named_with_what_to_type(outputs, capsys):
    words = [word for word in WORDS if not word.startswith("threads")]
    run = RunFolder(write_run(outputs, 0.9, *words, "seed=0", threads=7))
    launched(Grid((*words, "seed=0,1")), Options())
    assert "note: 1 run of this sweep had 7 threads, new ones get " in (said := capsys.readouterr().out)
    assert said.endswith("to train all alike, add threads=7\n")
    launched(Grid((*words, "threads=1", "seed=0,3")), Options())
    run.update(threads=launch.DEFAULT_THREADS)
    launched(Grid((*words, "seed=0,2")), Options())
    assert "note:" not in capsys.readouterr().out


def test_a_sweep_that_trains_again_has_runs_and_a_folder_of_its_own(outputs):
    assert go(*WORDS, "seed=0") == go(*WORDS, "seed=1") == 0
    once = launched(GRID, Options())
    again = launched(Grid(GRID.words, rerun=True), Options())
    assert again.path != once.path
    assert [job.folder for job in again.jobs] == [f"{job.folder}-r2" for job in once.jobs]
    assert [sweep.run_of(sweep.jobs[0]) is None for sweep in (once, again)] == [False, True]
    assert launched(Grid(GRID.words, rerun=True), Options()).path == again.path, "it is not finished yet"


def test_the_limit_of_minutes_is_that_of_the_sweep():
    sweep = launched(Grid((*GRID.words, "max_minutes=7")), Options())
    assert sweep.max_minutes == 7
    worker = Worker(sweep, StopRequests(), [], Options(), Processes(), Display(sweep))
    assert worker._plan(sweep.jobs[0], None).config.max_minutes is None
    with pytest.raises(ConfigError, match="is the limit of the whole sweep"):
        launched(Grid((*WORDS, "max_minutes=7,8")), Options())


def test_a_frozen_plan_that_was_changed_is_refused():
    sweep = launched(GRID, Options())
    (path, _) = sorted(sweep.path.glob("jobs/*.json"))
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "config": {**values["config"], "epochs": 2}}))
    with pytest.raises(UserError, match="was changed after it was written"):
        read_plan(path)
    del values["checksum"]
    path.write_text(json.dumps({**values, "config": {**values["config"], "epochs": 2}}))
    with pytest.raises(UserError, match="reads other settings from it"):
        read_plan(path)


def test_the_runs_of_a_sweep_are_found_by_its_folder_and_by_the_list_of_an_earlier_version(outputs):
    assert go(*WORDS, "seed=0") == 0
    sweep = launched(GRID, Options())
    assert [run.path for run in runs_named([str(sweep.path)])] == [outputs / sweep.jobs[0].folder]
    old = outputs / "sweeps" / "1a2b3c4d.json"
    old.write_text(
        json.dumps(
            {"command": "cnnbench -m …", "ended": "", "jobs": [{"folder": sweep.jobs[0].folder}, {"folder": None}]}
        )
    )
    assert [run.path for run in runs_named([str(old)])] == [outputs / sweep.jobs[0].folder]
    with pytest.raises(UserError, match="to continue it, type its command again"):
        opened(str(old))


def test_what_diverged_is_not_tried_again_with_the_same_code(outputs):
    words = [*WORDS, "optimizer.lr=1e30", "epochs=3"]
    with pytest.raises(Exception, match="diverged"):
        go(*words)
    plan = plan_run(Composer(), latest(words))
    (run,) = find_runs(outputs, plan.config.identity())
    plan = replace(plan, code=run.record()["code"])
    outcome = failed_before(run, plan)
    assert outcome is not None
    assert "retry_failed=true" in outcome.reason
    assert failed_before(run, replace(plan, code={"a.py": "other"})) is None
    run.update(error="RuntimeError: out of memory")
    assert failed_before(run, plan) is None


def test_a_finished_run_is_called_what_is_typed_with_its_sweep(cnnbench, outputs):
    run = RunFolder(write_run(outputs, 0.9, *WORDS, labels={"notes": "kept"}))
    done = cnnbench("-m", *WORDS, "name=wider net", "tags=[a,b]")
    assert done.code == 0, done.err
    assert run.record()["labels"] == {"notes": "kept", "name": "wider net", "tags": ["a", "b"]}
