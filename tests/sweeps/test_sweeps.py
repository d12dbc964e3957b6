"""Sweeps: every job is the run that the single command would be, and none can spoil the others."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from cnnbench import api
from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError, ExitCode
from cnnbench.store.folder import RunFolder
from cnnbench.store.provenance import code_hashes
from cnnbench.sweeps.display import summarize
from cnnbench.sweeps.expand import plan_all, resolve_all
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.outcome import NOT_STARTED
from cnnbench.sweeps.outcome import outcome_of as outcome_of_job
from cnnbench.sweeps.slots import JobEnd, Processes
from cnnbench.training.plan import command_line, plan_run
from cnnbench.training.signals import StopRequests
from tests.conftest import TINY
from tests.support.interruption import PLAIN, differences, fingerprints, go, outcome_of, read
from tests.support.run_folders import write_run

# A network that misbehaves, but only in its own process.
MOODY = '''
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from cnnbench.registry import MODELS

@MODELS.register("moody")
def moody(spec, *, mood: str) -> nn.Module:
    """One dense layer, in a mood once it is trained."""
    return nn.Sequential(nn.Flatten(), Moody(spec.channels * spec.height * spec.width, spec.num_classes, mood))

class Moody(nn.Linear):
    def __init__(self, inputs, outputs, mood):
        super().__init__(inputs, outputs)
        self.mood = mood

    def forward(self, features):
        if self.training and torch.is_grad_enabled() and not Path(__file__).with_name("cured").exists():
            if self.mood == "raises":
                raise RuntimeError("not in the mood")
            if self.mood == "exits":
                sys.exit(0)
            if self.mood == "vanishes":
                os._exit(0)
            if self.mood == "kills":
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(features)
'''


@pytest.fixture(scope="module")
def shared_outputs(tmp_path_factory) -> Iterator[Path]:
    """Return the outputs of all sweeps here: the server that jobs are forked from has the environment of its start."""
    forkserver._forkserver._stop()
    yield tmp_path_factory.mktemp("sweeps") / "outputs"
    forkserver._forkserver._stop()


@pytest.fixture(autouse=True)
def outputs(outputs, shared_outputs, monkeypatch) -> Path:
    shutil.rmtree(shared_outputs, ignore_errors=True)
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(shared_outputs))
    return shared_outputs


def runs_below(outputs: Path) -> dict[str, Path]:
    """Return the folder of each run by its name below the outputs."""
    return {str(path.parent.relative_to(outputs)): path.parent for path in outputs.glob("*/*/*/run.json")}


def plans_of(*words: str, folders: tuple[str, ...] = ()) -> list:
    return plan_all(Composer(folders), words)


# What a job is --------------------------------------------------------------------------------------------------------


def test_a_job_is_the_same_run_in_the_same_folder_with_the_same_bits_as_the_single_command(cnnbench, outputs):
    words = (*PLAIN, "regularization.dropout=0.5")
    outcome = cnnbench("-m", *words, "regularization.batchnorm=false,true")
    assert outcome.code == 0, outcome.err
    assert "2 of 2 runs completed" in outcome.out
    jobs = {name: outcome_of(run) for name, run in runs_below(outputs).items()}
    assert len(jobs) == 2
    shutil.rmtree(outputs)
    assert go(*words, "regularization.batchnorm=true") == 0
    ((name, run),) = runs_below(outputs).items()
    assert differences(jobs.pop(name), outcome_of(run)) == []


GRID = ("regularization.batchnorm=true,false", "data.crop=null,0.875", "optimizer=sgd,adam")


def test_the_plans_of_a_grid_are_those_of_the_single_commands():
    plans = plans_of("model=lenet", "data=synthetic", *GRID)
    assert len({plan.config.identity() for plan in plans}) == len(plans) == 8
    composer = Composer()
    for plan in plans[::3]:
        single = plan_run(composer, plan.command.split()[1:])
        assert single.config == plan.config
        assert dict(single.named_by) == dict(plan.named_by)
        assert single.command == plan.command


def test_the_jobs_of_a_sweep_are_prepared_without_their_device(monkeypatch):
    monkeypatch.setattr("cnnbench.training.setup.find_device", lambda config: torch.device("meta"))
    seen = []
    monkeypatch.setattr("cnnbench.sweeps.expand.initial_weights", seen.append)
    resolve_all(plan_all(Composer(), [*PLAIN, "regularization.dropout=0.1,0.2", "seed=0,1"]))
    assert [str(training.device) for training in seen] == ["cpu", "cpu"]
    assert {str(weight.device) for training in seen for weight in training.network.parameters()} == {"cpu"}


def test_jobs_that_are_the_same_run_are_run_once(capsys):
    plans = resolve_all(plans_of(*TINY, "seed=1,1", "regularization.dropout=null,0.5,0.50"))
    assert [plan.config.regularization.dropout for plan in plans] == [None, 0.5]
    assert capsys.readouterr().out.count(" is the same run as cnnbench ") == 4
    assert len(resolve_all(plans_of(*TINY, "num_workers=0,2"))) == 1


def test_a_sweep_of_one_run_says_why_there_is_no_comparison_and_what_was_not_tested(cnnbench, outputs):
    words = ("-m", *PLAIN, "epochs=1", "logger=[]", "regularization.dropout=null,0.0")
    done = cnnbench(*words, "report=true", "test=false")
    assert done.code == 0, done.err
    assert "no comparison: only one run is completed\n" in done.out
    assert "cnnbench evaluate" not in done.out
    again = cnnbench(*words, "report=false").out
    assert "no comparison" not in again
    (run,) = outputs.glob("*/*/*/run.json")
    assert f"test not measured of 1 run; to measure it: cnnbench evaluate {run.parent}\n" in again
    assert cnnbench("evaluate", str(run.parent)).code == 0
    assert "cnnbench evaluate" not in cnnbench(*words, "report=false").out


@pytest.fixture
def own_experiments(tmp_path) -> str:
    folder = tmp_path / "own"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "ablation.yaml").write_text(
        "# @package _global_\n"
        "epochs: 2\n"
        "hydra:\n  sweeper:\n    params:\n      seed: 3,4\n      regularization.dropout: 0.1,0.2\n"
    )
    return str(folder)


def test_an_experiment_may_bring_a_grid_and_what_is_typed_wins(own_experiments):
    plans = plans_of(*TINY, "experiment=ablation", folders=(own_experiments,))
    values = [(plan.config.seed, plan.config.regularization.dropout) for plan in plans]
    assert values == [(3, 0.1), (3, 0.2), (4, 0.1), (4, 0.2)]
    plans = plans_of(*TINY, "experiment=ablation", "seed=7", folders=(own_experiments,))
    assert [(plan.config.seed, plan.config.regularization.dropout) for plan in plans] == [(7, 0.1), (7, 0.2)]


def test_the_command_of_a_job_is_what_would_be_typed(outputs):
    words = ["data=synthetic", "name=wider", "notes=dropout x norm, it's for longer", "tags=[lab3,wide]"]
    (plan, _) = plans_of(*words, "seed=0,1")
    assert plan.command == command_line([*words, "seed=0"])
    assert plan_run(Composer(), shlex.split(plan.command)[1:]).config == plan.config
    assert plan.config.notes == "dropout x norm, it's for longer"


def test_a_text_of_several_values_is_one_in_each_job():
    commands = [plan.command for plan in plans_of("data=synthetic", "name='one','other'")]
    assert commands == [f"cnnbench data=synthetic {shlex.quote(word)}" for word in ("name='one'", "name='other'")]


def test_the_command_of_a_job_names_the_files_that_it_needs(cnnbench, tmp_path, own_experiments):
    plugin = tmp_path / "moody.py"
    plugin.write_text(MOODY)
    words = ("--config-dir", own_experiments, f"plugins={plugin}", "model=moody", "model.mood=fine", "data=synthetic")
    outcome = cnnbench("-m", *words, "seed=0,1", "dry_run=true")
    assert outcome.code == 0, outcome.err
    assert f"[2/2] {command_line([*words, 'seed=1'])}\n" in outcome.out
    assert api.plan(["model=moody", "model.mood=fine", "data=synthetic"], plugins=str(plugin)).command == command_line(
        words[2:]
    )


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_the_mistakes_of_all_jobs_are_reported_before_any_starts(cnnbench, outputs):
    outcome = cnnbench("-m", *TINY, "model=lenet,lenett", "optimizer.lr=0.1,fast", "epoch=3")
    assert outcome.code == 2
    assert "3 mistakes in the configuration, nothing was started" in outcome.err
    for word, problem in (("model=lenett", "did you mean 'lenet'"), ("optimizer.lr=fast", "must be a number"),
                          ("epoch=3", "did you mean 'epochs'")):  # fmt: skip
        assert re.search(rf"{re.escape(word)} .*{problem}", outcome.err)
    assert not outputs.exists()


def test_what_does_not_fit_the_data_is_reported_for_all_jobs_before_any_starts(cnnbench, outputs, own_experiments):
    words = ("experiment=ablation", "seed=0", "batch_size=5000", "data.image_size=16,8")
    outcome = cnnbench("-m", "--config-dir", own_experiments, *TINY, *words)
    assert outcome.code == 2
    assert "nothing was started." in outcome.err
    messages = outcome.err.split("\n  in: ")
    assert re.search(r"batch_size=5000 +exceeds the 65 training images; use at most 65$", messages[0])
    assert "needs images of at least 16x16, and sees 8x8" in messages[1]
    for commands, side in ((messages[1], 16), (messages[2], 8)):
        for dropout in (0.1, 0.2):  # the grid of the experiment
            assert re.search(rf"cnnbench .*dropout={dropout} .*data\.image_size={side}\n", f"{commands}\n")
    assert not outputs.exists()


def test_a_grid_that_cannot_be_expanded_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"optimizer\.lr="):
        plans_of(*TINY, "optimizer.lr=choice(0.1,fast)")


def test_an_error_in_the_code_of_a_plugin_says_in_which_job_it_was(monkeypatch):
    def broken(training):
        raise AttributeError("no such thing")

    monkeypatch.setattr("cnnbench.sweeps.expand.initial_weights", broken)
    with pytest.raises(AttributeError) as raised:
        resolve_all(plans_of("data=synthetic", "seed=3,4"))
    assert raised.value.__notes__ == ["nothing was started.\n  in: cnnbench data=synthetic seed=3"]


def test_a_job_that_has_not_begun_is_listed_with_the_folder_that_it_would_have(capsys):
    plans = plans_of("data=synthetic", "regularization.dropout=0.25", "seed=3,4")
    sweep = SweepFolder.write(plans, "cnnbench -m …", threads=1, max_minutes=None)
    summarize(sweep, {job.identity: NOT_STARTED for job in sweep.jobs})
    lines = capsys.readouterr().out.splitlines()
    for plan in plans:
        assert any(line.startswith("  not started") and line.endswith(str(plan.run_path())) for line in lines)


# Jobs that go wrong ---------------------------------------------------------------------------------------------------


def test_a_job_that_raises_exits_or_is_killed_leaves_the_others_and_the_same_command_does_what_is_missing(
    cnnbench, outputs, tmp_path
):
    plugin = tmp_path / "moody.py"
    plugin.write_text(MOODY)
    words = ("-m", *PLAIN[:-2], "model=moody", "model.mood=raises,exits,vanishes,kills,fine", f"plugins={plugin}")
    outcome = cnnbench(*words)
    assert outcome.code == 1
    lines = {line.split("  ")[1]: line for line in outcome.out.splitlines() if "moody/" in line and "  " in line}
    summary = "\n".join(lines.values())
    assert "1 of 5 runs completed" in outcome.out
    assert "failed: RuntimeError: not in the mood" in summary
    assert re.search(r"failed: sys\.exit\(0\) was called .* by forward in .*moody\.py:\d+", summary)
    assert "failed: its process ended with exit code 0, without a result" in summary
    assert "killed by SIGKILL: it was out of memory" in summary

    runs = {json.loads((run / "run.json").read_text())["command"].partition("mood=")[2].split()[0]: run
            for run in runs_below(outputs).values()}  # fmt: skip
    assert {mood: read(run / "run.json")["status"] for mood, run in runs.items()} == {
        "raises": "failed", "exits": "failed", "vanishes": "failed", "kills": "interrupted", "fine": "completed",
    }  # fmt: skip
    assert "out of memory" in read(runs["kills"] / "run.json")["error"]
    assert [mood for mood, run in runs.items() if (run / "result.json").exists()] == ["fine"]
    (record,) = (read(path) for path in (outputs / "sweeps").glob("*/sweep.json"))
    assert {job["folder"] for job in record["jobs"]} == set(runs_below(outputs))

    before = fingerprints(runs["fine"])
    (tmp_path / "cured").touch()
    again = cnnbench(*words)
    assert again.code == 0, again.out
    assert "5 of 5 runs completed" in again.out
    assert fingerprints(runs["fine"]) == before
    assert set(runs_below(outputs).values()) == set(runs.values())
    assert all(read(run / "run.json")["status"] == "completed" for run in runs.values())


def test_a_job_that_is_killed_before_it_begins_to_train_is_recorded_too(outputs, monkeypatch):
    run = write_run(outputs, None, "seed=3", status="running")
    assert "sessions" not in read(run / "run.json")
    assert outcome_of_job(RunFolder(run), JobEnd(-signal.SIGKILL, "", 123)).text.startswith("killed by SIGKILL")
    assert read(run / "run.json")["status"] == "interrupted"
    monkeypatch.delattr(signal, "SIGKILL")  # as on Windows
    assert outcome_of_job(RunFolder(run), JobEnd(-signal.SIGTERM, "", 123)).text == "killed by SIGTERM"


def test_a_finished_job_of_other_code_is_shown_and_an_unfinished_one_is_not_gone_on_with(cnnbench, outputs):
    assert [go(*PLAIN, f"seed={seed}") for seed in (0, 1)] == [0, 0]
    for run in map(RunFolder.open, runs_below(outputs).values()):
        run.update(code={"my_net.py": "another"})
        if run.config()["seed"] == 1:
            run.result_file.unlink()
            run.update(status="paused")
    outcome = cnnbench("-m", *PLAIN, "seed=0,1")
    assert outcome.code == 1
    assert "1 of 2 runs completed" in outcome.out
    assert re.search(r"not continued: .* was started with code or data that have changed since", outcome.out)


def test_a_sweep_that_is_stopped_saves_its_job_and_starts_no_other(cnnbench, outputs):
    def stop_when_it_trains() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not any(path.stat().st_size for path in outputs.rglob("metrics.jsonl")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    words = ("-m", *TINY, "epochs=100000", "seed=0,1")
    thread = threading.Thread(target=stop_when_it_trains)
    thread.start()
    outcome = cnnbench(*words)
    thread.join()
    assert outcome.code == 75
    assert "stopped; the same command again runs what is missing" in outcome.out
    assert re.search(r"preempted .*\n  not started", outcome.out)
    ((_, run),) = runs_below(outputs).items()
    record = read(run / "run.json")
    assert record["status"] == "preempted"
    assert read(max((run / "checkpoints").glob("*.json")))["step"] == record["step"]


def waits(_stop: StopRequests) -> ExitCode:
    time.sleep(60)
    return ExitCode.FINISHED


def test_a_job_that_is_stopped_as_it_starts_is_stopped_and_not_failed(tmp_path):
    process = Processes().start(waits, tmp_path / "log")
    process.stop(signal.SIGTERM)  # there before it listens
    outcome = outcome_of_job(None, process.ended())
    assert (outcome.kind, outcome.reason) == ("stopped", "")
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_sweep_from_python_takes_the_hashes_of_its_code_once_for_all_jobs(outputs, monkeypatch):
    taken = []
    monkeypatch.setattr("cnnbench.api.carry_out_sweep", lambda sweep, *_: (0, taken.append(sweep)))
    assert len(api.sweep([*TINY, "model=mlp", "seed=0,1"])) == 0
    (sweep,) = taken
    assert [sweep.plan(job).code for job in sweep.jobs] == [code_hashes()] * 2


def test_the_jobs_of_a_second_sweep_have_the_environment_of_that_time(tmp_path, monkeypatch):
    for name in ("first", "second"):  # of one process, whose jobs are started by the same server
        monkeypatch.setenv("CNNBENCH_OUTPUTS", str(tmp_path / name))
        assert len(api.sweep([*TINY, "model=mlp", "seed=0,1"])) == 2


@pytest.mark.slow
def test_jobs_end_in_the_same_bits_where_no_process_can_be_forked(cnnbench, outputs, tmp_path, monkeypatch):
    monkeypatch.setattr("cnnbench.sweeps.slots.METHOD", "spawn")  # as on Windows and macOS
    plugin = tmp_path / "moody.py"
    plugin.write_text(MOODY)
    words = (*PLAIN, f"plugins={plugin}", "model=moody")
    assert cnnbench("-m", *words, "model.mood=raises,fine", "jobs=2").code == 1
    runs = {read(run / "run.json")["status"]: run for run in runs_below(outputs).values()}
    assert set(runs) == {"failed", "completed"}
    of_sweep = outcome_of(runs["completed"])
    shutil.rmtree(outputs)
    assert cnnbench(*words, "model.mood=fine").code == 0
    ((_, run),) = runs_below(outputs).items()
    assert differences(of_sweep, outcome_of(run)) == []


def test_a_script_without_a_guard_can_sweep(tmp_path, outputs):
    """Processes that import the script which starts them would start the sweep again."""
    script = tmp_path / "script.py"
    words = [*TINY, "model=mlp", "seed=0,1"]
    script.write_text(f"import cnnbench\nprint(*cnnbench.sweep({words!r})['status'])\n")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout.splitlines()[-1] == "completed completed"
