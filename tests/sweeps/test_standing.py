"""`cnnbench list` of a sweep: how its jobs stand, from its folder and its runs, also while launchers work on it."""

import csv
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnnbench.analysis.reports.comparison import compare
from cnnbench.store.folder import RunFolder
from cnnbench.store.lock import locked
from cnnbench.store.query import runs_named
from cnnbench.store.sweep_files import MISSING
from cnnbench.sweeps.claims import Claims
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.launch import Grid
from cnnbench.sweeps.standing import Standing, standings
from tests.conftest import TINY, latest
from tests.support.run_folders import replace_epochs, write_run

SEEDS = ("finished", "training", "stopped", "diverged", "refused", "waiting")
WORDS = tuple(latest((*TINY, "model=mlp", "epochs=4")))


@pytest.fixture
def sweep(outputs, command_of) -> SweepFolder:
    """Return a sweep with a job in each state, by seed; the one that trains is this process's."""
    plans = Grid((*WORDS, f"seeds={len(SEEDS)}")).plans({})
    folder = SweepFolder.write(plans, f"cnnbench -m {' '.join(WORDS)} seeds={len(SEEDS)}", 1, None)
    claims = Claims(folder.path / "claims")
    states = [("completed", 0.9), ("running", None), ("stopped", None), ("failed", None)]
    for job, (status, accuracy) in zip(folder.jobs, states, strict=False):
        words = job.command.split()[1:]
        record = {"error": "DivergedError: the loss is not finite"} if status == "failed" else {}
        path = write_run(outputs, accuracy, *words, status=status, **record)
        assert path == outputs / job.folder
    replace_epochs(outputs / folder.jobs[1].folder, loss_train=[1.0])
    held = claims.take(folder.jobs[1].identity, 0)
    assert held is not None
    refused = claims.take(folder.jobs[4].identity, 0)
    assert refused is not None
    claims.release(refused, "failed", "no photographs in folder/x\nput some there")
    return folder


def standing_of(sweep: SweepFolder) -> Standing:
    (found,) = standings([sweep.path / "sweep.json"], sweep.outputs)
    return found


def test_each_job_stands_as_its_run_and_its_claims_say(sweep):
    found = standing_of(sweep)
    states = [(job.label, job.state, job.reason.partition("\n")[0]) for job in found.jobs]
    assert states == [
        ("seed=0", "completed", ""),
        ("seed=1", "running", ""),
        ("seed=2", "stopped", ""),
        ("seed=3", "failed", "the loss is not finite"),
        ("seed=4", "failed", "no photographs in folder/x"),
        ("seed=5", "waiting", ""),
    ]
    assert found.jobs[1].holder == f"process {os.getpid()} on {platform.node()}"
    assert found.counts == {"completed": 1, "running": 1, "stopped": 1, "failed": 2, "waiting": 1}


def test_the_time_left_is_that_of_what_is_not_trained_yet(sweep):
    edit(sweep.outputs / sweep.jobs[0].folder / "result.json", seconds={"total": 60.0})
    # One of four epochs of the job that trains is done, three of the one that stopped, none of the one that waits.
    assert standing_of(sweep).seconds_left == pytest.approx(60 * (0.75 + 0.25 + 1))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_job_whose_launcher_was_killed_is_stopped_and_one_that_saves_is_running(sweep):
    run = RunFolder(sweep.outputs / sweep.jobs[1].folder)
    shutil.rmtree(sweep.path / "claims")
    assert standing_of(sweep).jobs[1].state == "stopped"
    with locked(run.path / ".lock"):
        assert standing_of(sweep).jobs[1].state == "running"
    assert standing_of(sweep).seconds_left is None  # nobody works on it


def test_a_run_that_was_renamed_counts_and_one_that_is_gone_is_missing(sweep, outputs, command_of):
    run = sweep.outputs / sweep.jobs[0].folder
    claims = Claims(sweep.path / "claims")
    held = claims.take(sweep.jobs[0].identity, 0)
    assert held is not None
    claims.release(held, "completed")
    run.rename(run.with_name("my baseline"))
    assert standing_of(sweep).jobs[0].state == "completed"
    run.with_name("my baseline").rename(outputs.parent / "elsewhere")
    missing = standing_of(sweep).jobs[0]
    assert (missing.state, missing.reason) == ("missing", MISSING)
    assert command_of("list", sweep.path.name).out.count(f"seed=0  {MISSING}\n") == 1
    (planned, *_) = runs_named([str(sweep.path)], with_planned=True)
    assert (planned.record["status"], planned.error) == ("missing", MISSING)


def test_a_run_that_cannot_be_read_has_a_state_of_its_own_and_counts_in_its_configuration(sweep, command_of):
    damaged = sweep.outputs / sweep.jobs[0].folder
    Claims(sweep.path / "claims").take(sweep.jobs[0].identity, 0)
    claim = next((sweep.path / "claims").glob(f"{sweep.jobs[0].identity}.1"))
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "ended": "now", "outcome": "completed"}))
    write_run(sweep.outputs, 0.8, *sweep.jobs[1].command.split()[1:])
    (damaged / "result.json").write_text("nonsense")
    (one, *_) = standing_of(sweep).jobs
    assert one.state == "unreadable"
    assert f"{damaged / 'result.json'} cannot be read" in one.reason
    assert f"unreadable  seed=0  {damaged / 'result.json'} cannot be read" in command_of("list", sweep.path.name).out
    (row,) = compare(runs_named([str(sweep.path)], with_planned=True)).rows
    assert row.lost["unreadable"] == 1
    assert f"{damaged / 'result.json'} cannot be read" in command_of("report", sweep.path.name).out


@pytest.mark.parametrize("way", ["folder", "name"])
def test_a_sweep_is_listed_with_what_to_type_next(way, sweep, command_of, monkeypatch):
    monkeypatch.chdir(sweep.outputs.parent)
    done = command_of("list", "outputs/sweeps/" * (way == "folder") + sweep.path.name)
    assert done.code == 0, done.err
    assert "  1 completed, 1 running, 1 stopped, 2 failed, 1 waiting" in done.out
    assert f"running     seed=1  epoch 1/4  process {os.getpid()} on " in done.out
    assert "failed      seed=4  no photographs in folder/x\n" in done.out
    assert f"cnnbench resume outputs/sweeps/{sweep.path.name}\n" in done.out


def test_the_page_of_a_sweep_is_written_by_its_name(sweep, command_of):
    done = command_of("report", sweep.path.name)
    assert done.code == 0, done.err
    assert (sweep.path / "report.html").is_file()


def test_a_sweep_is_listed_for_programs(sweep, command_of):
    said = json.loads(command_of("list", sweep.path.name, "--json").out)
    assert (said["completed"], said["failed"], len(said["jobs"])) == (1, 2, len(SEEDS))
    rows = list(csv.DictReader(command_of("list", sweep.path.name, "--csv").out.splitlines()))
    assert [row["state"] for row in rows] == [job["state"] for job in said["jobs"]]


def test_the_runs_of_a_sweep_are_listed_by_conditions_and_in_an_order(sweep, outputs, command_of):
    write_run(outputs, 0.8, "seed=9")
    runs = json.loads(command_of("list", sweep.path.name, "status!=failed", "--sort", "seed", "--json").out)
    assert [Path(run["path"]) for run in runs] == [outputs / job.folder for job in sweep.jobs[:3]]
    assert command_of("list", sweep.path.name, "sweeps").code == 2


def test_all_sweeps_are_listed(sweep, outputs, command_of):
    old = outputs / "sweeps" / "old.json"
    old.write_text(json.dumps({"command": "cnnbench -m seed=0", "jobs": [{"folder": sweep.jobs[0].folder}]}))
    lines = command_of("list", "sweeps").out.splitlines()
    assert command_of("list", str(outputs / "sweeps")).out.splitlines() == lines
    assert [line.split()[0] for line in lines] == ["old", sweep.path.name, "2"]
    assert "1 completed: cnnbench -m seed=0" in lines[0]
    assert "1 completed" in command_of("list", str(old)).out
    assert not (outputs / "sweeps" / "claims").exists()


def test_a_list_of_sweeps_imports_neither_torch_nor_hydra(sweep):
    code = (
        f"import sys\nfrom cnnbench.train import main\ntry: main(['list', '{sweep.path.name}'])\n"
        "finally: print({'torch', 'hydra', 'omegaconf', 'numpy', 'pandas'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
