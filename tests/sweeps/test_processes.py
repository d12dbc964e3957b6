"""Processes of a sweep: one that fails, exits or is stopped leaves the others, and is told apart by how it ended."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from cnnbench import api
from cnnbench.errors import ExitCode
from cnnbench.store.folder import RunFolder
from cnnbench.store.provenance import code_hashes
from cnnbench.sweeps.outcome import outcome_of as outcome_of_job
from cnnbench.sweeps.slots import JobEnd, Processes
from cnnbench.training.signals import StopRequests
from tests.conftest import TINY
from tests.support.interruption import PLAIN, differences, fingerprints, go, outcome_of, read
from tests.support.run_folders import runs_below, write_run

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
        trains = self.training and torch.is_grad_enabled() and len(features) > 3  # it is tried with fewer
        if trains and not Path(__file__).with_name("cured").exists():
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
        "raises": "failed", "exits": "failed", "vanishes": "failed", "kills": "stopped", "fine": "completed",
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
    assert read(run / "run.json")["status"] == "stopped"
    monkeypatch.delattr(signal, "SIGKILL")  # as on Windows
    assert outcome_of_job(RunFolder(run), JobEnd(-signal.SIGTERM, "", 123)).text == "killed by SIGTERM"


def test_a_finished_job_of_other_code_is_shown_and_an_unfinished_one_is_not_gone_on_with(cnnbench, outputs):
    assert [go(*PLAIN, f"seed={seed}") for seed in (0, 1)] == [0, 0]
    for run in map(RunFolder.open, runs_below(outputs).values()):
        run.update(code={"my_net.py": "another"})
        if run.config()["seed"] == 1:
            run.result_file.unlink()
            run.update(status="stopped")
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
    assert re.search(r"stopped .*\n  not started", outcome.out)
    ((_, run),) = runs_below(outputs).items()
    record = read(run / "run.json")
    assert record["status"] == "stopped"
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


def multiplies(server: Path, _stop: StopRequests) -> ExitCode:
    server.write_text(str(os.getppid()))
    return ExitCode.FINISHED if torch.ones(2, 2).mm(torch.ones(2, 2)).sum() == 8 else ExitCode.FAILED


def server_of_a_job(folder):
    process = Processes().start(partial(multiplies, folder / "server"), folder / "log")
    assert process.ended().code == 0, (folder / "log").read_text()
    return int((folder / "server").read_text())


@pytest.mark.faults
def test_jobs_begin_though_the_server_was_killed_or_began_in_a_folder_that_is_removed(tmp_path, monkeypatch):
    os.kill(server_of_a_job(tmp_path), signal.SIGKILL)
    gone = tmp_path / "gone"
    gone.mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(gone)
        Processes().warm_up()
    gone.rmdir()  # before the server imports torch: there MKL would end it
    server = server_of_a_job(tmp_path)
    assert Path(f"/proc/{server}/cwd").readlink() == Path("/")
    os.kill(server, signal.SIGKILL)
    assert server_of_a_job(tmp_path) != server


def test_the_server_outlasts_ctrl_c_while_it_imports_and_its_jobs_stop_by_it(tmp_path):
    os.kill(server_of_a_job(tmp_path), signal.SIGKILL)
    time.sleep(0.2)
    Processes().warm_up()
    server = forkserver._forkserver._forkserver_pid
    for _ in range(10):
        os.kill(server, signal.SIGINT)
        time.sleep(0.05)
    assert server_of_a_job(tmp_path) == server
    process = Processes().start(waits, tmp_path / "log")
    process.stop(signal.SIGINT)
    assert process.ended().code == ExitCode.INTERRUPTED


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


@pytest.mark.thorough
def test_a_script_without_a_guard_can_sweep(tmp_path, outputs):
    """Processes that import the script which starts them would start the sweep again."""
    script = tmp_path / "script.py"
    words = [*TINY, "model=mlp", "seed=0,1"]
    script.write_text(f"import cnnbench\nprint(*cnnbench.sweep({words!r})['status'])\n")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ran.stdout.splitlines()[-1] == "completed completed"
