"""Workers elsewhere: what is submitted for them, how they end, and that a run is the same run with them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cnnbench.cli.catalog import PACKAGE
from cnnbench.config.values import conf_dir
from cnnbench.registry import ENGINES
from cnnbench.store.folder import find_runs
from cnnbench.sweeps import launch
from cnnbench.sweeps.engines import chosen_engine, threads_of_worker
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.launch import Grid, launched
from cnnbench.sweeps.work import Options
from tests.conftest import TINY, latest
from tests.support.launchers import NETWORK

GRID = (*latest([*TINY, "model=mlp", "epochs=1"]), "seed=0,1")
UNTHREADED = tuple(word for word in GRID if word != "threads=1")
COMMANDS = {
    # Runs one task of the array at once, and records what it was given.
    "sbatch": 'echo "$@" >> "$RECORDS/sbatch"; SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=2 SLURM_JOB_ID=7 '
    'bash "${@: -1}" > "$RECORDS/worker" 2>&1; echo "7;cluster"',
    "srun": 'echo "$@" >> "$RECORDS/srun"; [ -z "$CODE" ] || exit $CODE; shift 2; exec "$@"',
    "scontrol": 'echo "$@" >> "$RECORDS/scontrol"',
}


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """Put commands before those of Slurm, and return the folder in which they record what they were given."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, line in COMMANDS.items():
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{line}\n")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORDS", str(folder))
    return folder


def the_sweep(outputs: Path) -> SweepFolder:
    (path,) = outputs.glob("sweeps/*")
    return SweepFolder.open(path)


def the_script(outputs: Path) -> str:
    (path,) = outputs.glob("sweeps/*/slurm-*.sh")
    return path.read_text()


def test_the_script_asks_for_what_was_typed_and_to_be_signalled_and_queued_again(cnnbench, outputs):
    outcome = cnnbench(
        "-m", *UNTHREADED, "engine=slurm", "engine.workers=8", "engine.time=4:00:00", "engine.partition=gpu,long",
        "engine.cpus=6", "engine.gpus=2", "engine.memory=16G", "engine.options=--account=lab --qos=low", "jobs=2",
        "fail_fast=true", "engine.submit=false",
    )  # fmt: skip
    assert outcome.code == 0
    sweep, script = the_sweep(outputs), the_script(outputs)
    assert f"nothing was submitted; to submit its workers: sbatch {sweep.path}/slurm-" in outcome.out
    assert sweep.threads == 3
    lines = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]
    assert set(lines) == {
        f"--job-name=cnnbench-{sweep.path.name}", "--array=1-2", f"--chdir={Path.cwd()}", "--open-mode=append",
        f"--output={sweep.path}/logs/slurm-%A_%a.txt", "--signal=USR1@120", "--cpus-per-task=6", "--time=4:00:00",
        "--partition=gpu,long", "--gres=gpu:2", "--mem=16G", "--requeue", "--account=lab --qos=low",
    }  # fmt: skip
    worker = f"{sys.executable} -m cnnbench resume {sweep.path} jobs=2 fail_fast=true"
    assert f"\nsrun --ntasks=1 --cpus-per-task=6 {worker}\n" in script


def test_a_worker_of_a_few_minutes_is_not_warned_before_it_has_begun(cnnbench, outputs):
    for time, warning in (("1", 20), ("3", 60), ("60", 120)):
        cnnbench("-m", *GRID, "engine=slurm", f"engine.time={time}", "engine.submit=false")
        (script,) = [one for one in outputs.glob("sweeps/*/slurm-*.sh") if f"--time={time}\n" in one.read_text()]
        assert f"--signal=USR1@{warning}\n" in script.read_text()


def test_a_script_that_its_user_edited_is_submitted_and_not_written_again(cnnbench, outputs, slurm, monkeypatch):
    monkeypatch.setenv("CODE", "0")
    cnnbench("-m", *GRID, "engine=slurm")
    (script,) = outputs.glob("sweeps/*/slurm-*.sh")
    script.write_text(f"{script.read_text()}# mine")
    cnnbench("-m", *GRID, "engine=slurm")
    assert script.read_text().endswith("# mine")


def test_a_worker_is_queued_again_where_it_was_stopped_and_has_saved(cnnbench, outputs, slurm):
    cnnbench("-m", *GRID, "engine=slurm", "engine.submit=false")
    (script,) = outputs.glob("sweeps/*/slurm-*.sh")
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "7"}  # as of its last task
    for code in (0, 1, 2, 130, 137, 75):
        assert not (slurm / "scontrol").exists()
        ended = subprocess.run(["bash", script], env={**os.environ, **array, "CODE": str(code)}, check=False)
        assert ended.returncode == code
    assert (slurm / "scontrol").read_text() == "requeue 7_2\n"


def test_a_sweep_is_submitted_and_left_and_shown_when_its_workers_have_finished_it(cnnbench, outputs, slurm):
    words = ("-m", *GRID, "engine=slurm")
    outcome = cnnbench(*words)
    sweep = the_sweep(outputs)
    assert outcome.code == 0
    assert outcome.out.startswith(f"2 runs, 2 to be trained, 1 thread each: {sweep.shown_path}\n")
    assert "submitted 2 workers to Slurm as job 7: " in outcome.out
    for verb in ("list", "resume", "report"):
        assert f"cnnbench {verb} {sweep.shown_path}" in outcome.out
    assert "2 of 2 runs completed" in (slurm / "worker").read_text()
    submitted = (slurm / "sbatch").read_text()
    again = cnnbench(*words)
    assert (again.code, (slurm / "sbatch").read_text()) == (0, submitted)
    assert "2 of 2 runs completed" in again.out


def test_with_an_engine_the_jobs_are_those_of_the_same_words_without_it(cnnbench, outputs, monkeypatch):
    cnnbench("-m", *GRID, "engine=slurm", "engine.submit=false", "engine.gpus=1")
    sweep = the_sweep(outputs)
    monkeypatch.setattr(launch, "plan_all", None)  # it is recognised
    assert launched(Grid(GRID), Options()) == sweep
    assert not any("engine" in path.read_text() for path in sweep.path.glob("jobs/*.json"))


@pytest.mark.parametrize(
    ("words", "options", "threads"),
    [
        (["engine=local"], Options(2), None),
        (["engine=slurm", "engine.cpus=8"], Options(1), 8),
        (["engine=slurm", "engine.cpus=8"], Options(3), 2),
        (["engine=slurm", "engine.cpus=2"], Options(3), 1),
        (["engine=slurm", "engine.cpus=8"], Options(None), 1),
        (["engine=slurm", "engine.cpus=8", "engine.gpus=2"], Options(None), 4),
        (["engine=manual", "engine.cpus=8"], Options(2), 4),
    ],
)
def test_the_runs_of_a_worker_share_its_cores_and_not_those_of_the_machine_that_submits(words, options, threads):
    engine, mistakes = chosen_engine(words)
    assert (threads_of_worker(engine, options), mistakes) == (threads, [])


def test_every_mistake_of_a_sweep_and_its_engine_is_said_at_once(cnnbench, outputs):
    outcome = cnnbench("-m", *GRID, "epoch=3", "engine=slurm", "engine.worker=2", "engine.time=0", "engine.submit=no")
    assert outcome.code == 2
    assert outcome.err.count("\n") == 5
    for line in (
        "epoch=3           no such key; did you mean 'epochs'?",
        "engine.worker=2   no such key; did you mean 'engine.workers'?",
        "engine.time=0     must be minutes, or hours:minutes:seconds; null: no limit",
        "engine.submit=no  must be true or false",
    ):
        assert line in outcome.err
    assert not outputs.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-m", *GRID, "engine=slrum"), "engine=slrum  no such engine; did you mean 'slurm'?"),
        (("-m", *GRID, "engine.cpus=2"), "engine.cpus=2  is for an engine that runs jobs elsewhere"),
        (("-m", *GRID, "engine=slurm", "max_minutes=5"), "max_minutes=5  is for jobs on this machine"),
        ((*GRID[:-1], "engine=slurm"), "engine=slurm  is for a sweep; put -m before it"),
        ((*GRID[:-1], "engine.cpus=2"), "engine.cpus=2  is for a sweep; put -m before it"),
    ],
)
def test_what_no_engine_can_do_is_refused(cnnbench, words, said):
    outcome = cnnbench(*words)
    assert outcome.code == 2
    assert said in outcome.err


def test_without_slurm_or_where_it_refuses_the_script_is_there_to_be_submitted(cnnbench, outputs, slurm, monkeypatch):
    (slurm / "bin" / "sbatch").write_text("#!/bin/bash\necho 'invalid partition' >&2; exit 1\n")
    outcome = cnnbench("-m", *GRID, "engine=slurm")
    assert outcome.code == 2
    assert "nothing was submitted. invalid partition\n" in outcome.err
    monkeypatch.setenv("PATH", str(slurm))
    outcome = cnnbench("-m", *GRID, "engine=slurm")
    assert outcome.code == 2
    (script,) = outputs.glob("sweeps/*/slurm-*.sh")
    assert f"there is no sbatch on this machine. Where there is: sbatch {script}" in outcome.err


def test_an_engine_of_a_plugin_with_a_preset_runs_the_command_of_its_workers(cnnbench, outputs, slurm, tmp_path):
    page = (PACKAGE / "docs" / "cluster.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n([^`]*@register_engine[^`]*)```", page)
    (tmp_path / "pbs.py").write_text(example)
    (slurm / "bin" / "qsub").write_text('#!/bin/bash\necho "$@ < $(cat)" >> "$RECORDS/qsub"\n')
    (slurm / "bin" / "qsub").chmod(0o755)
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "ours.yaml").write_text("name: pbs\nqueue: gpu\n")
    outcome = cnnbench(
        "-m", *GRID, "--config-dir", str(tmp_path), f"plugins={tmp_path / 'pbs.py'}", "engine=ours", "engine.workers=3"
    )
    assert outcome.code == 0, outcome.err
    worker = f"{sys.executable} -m cnnbench resume {the_sweep(outputs).path} jobs=1"
    assert (slurm / "qsub").read_text() == f"-q gpu -l ncpus=4 < {worker}\n" * 2


def test_a_preset_of_a_cluster_has_the_settings_of_its_engine_where_it_states_none(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "ours.yaml").write_text("name: slurm\npartition: gpu\n")
    engine, mistakes = chosen_engine(["engine=ours", "engine.cpus=2"], str(tmp_path))
    assert (engine.name, mistakes) == ("slurm", [])
    stated = yaml.safe_load((conf_dir() / "engine" / "slurm.yaml").read_text())
    assert {"name": "slurm", **engine.settings} == stated | {"partition": "gpu", "cpus": 2}
    assert list(engine.settings) == list(ENGINES["slurm"].schema.model_fields)


def test_a_worker_that_is_started_anywhere_puts_its_runs_where_the_sweep_is(cnnbench, outputs, tmp_path, monkeypatch):
    Path("mine.py").write_text(NETWORK)
    outcome = cnnbench("-m", *GRID, "model=edited", "plugins=mine.py", "engine=manual")
    assert outcome.code == 0
    worker = re.search(r"a worker, which needs 4 cores: (.*)\n", outcome.out)
    assert worker is not None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    launched_in = Path.cwd()
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("CNNBENCH_OUTPUTS")
    outcome = cnnbench(*shlex.split(worker[1])[3:])
    assert outcome.code == 0, outcome.err
    assert f"note: this sweep was launched in {launched_in}, and goes on there\n" in outcome.out
    assert "2 of 2 runs completed" in outcome.out
    assert list(elsewhere.iterdir()) == []
    assert all(find_runs(outputs, job.identity) for job in the_sweep(outputs).jobs)
