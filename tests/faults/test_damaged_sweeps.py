"""Sweeps whose runs were damaged, edited or deleted: each is named, restored or trained again; none is written over."""

import shlex
import shutil
from pathlib import Path

import pytest

from cnnbench.analysis.reports.compared import page_of_sweep
from cnnbench.sweeps.claims import Claims
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.launch import Grid, launched
from cnnbench.sweeps.work import Options
from tests.conftest import TINY, latest
from tests.support.interruption import fingerprints, read
from tests.support.run_folders import write_run

WORDS = tuple(latest((*TINY, "model=mlp", "epochs=1", "logger=[]")))


@pytest.fixture
def sweep(outputs) -> SweepFolder:
    """Return a sweep of runs that another launcher has completed."""
    sweep = launched(Grid((*WORDS, "seeds=3")), Options())
    claims = Claims(sweep.path / "claims")
    for job in sweep.jobs:
        write_run(outputs, 0.9, *shlex.split(job.command)[1:])
        held = claims.take(job.identity, 0)
        assert held is not None
        claims.release(held, "completed")
    return sweep


def folders(sweep: SweepFolder) -> list[Path]:
    return [sweep.outputs / job.folder for job in sweep.jobs]


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "result.json"])
@pytest.mark.parametrize("typed", ["again", "resumed"])
def test_a_run_that_cannot_be_read_is_named_and_not_written_over(sweep, cnnbench, name, typed):
    run, *others = folders(sweep)
    text = (run / name).read_text()
    (run / name).write_text(text.replace("epochs: 1\n", "epochs: 2\n") if name == "config.yaml" else "nonsense")
    before = fingerprints(run)
    words = ("resume", sweep.path.name) if typed == "resumed" else ("-m", *WORDS, "seeds=3")
    outcome = cnnbench(*words)
    assert outcome.code == 1, outcome.err
    assert "2 of 3 runs finished before\n" in outcome.out
    assert f"note: seed=0 is unreadable: {run / name} " in outcome.out
    assert "note: 1 run unreadable" in outcome.out
    assert f"  unreadable: {run / name} " in outcome.out
    assert "  2 of 3 runs completed, 1 unreadable\n" in outcome.out
    assert "started " not in outcome.out
    assert fingerprints(run) == before
    (run / name).write_text(text)
    again = cnnbench(*words)
    assert (again.code, "3 of 3 runs finished before" in again.out) == (0, True)
    assert all(other.is_dir() for other in others)


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("epochs: [")], ids=["removed", "cut"])
def test_the_configuration_of_a_finished_run_is_restored(sweep, cnnbench, damage):
    run, *_ = folders(sweep)
    before = (run / "config.yaml").read_bytes()
    damage(run / "config.yaml")
    outcome = cnnbench("resume", sweep.path.name)
    assert outcome.code == 0, outcome.out
    assert f"warning: {run}: config.yaml could not be read, and was restored." in outcome.out
    assert "3 of 3 runs finished before" in outcome.out
    assert (run / "config.yaml").read_bytes() == before


def test_what_is_deleted_is_trained_or_measured_again(sweep, cnnbench, command_of):
    first, second, _ = folders(sweep)
    for run in (first, second):
        shutil.rmtree(run)
    assert "  1 completed, 2 missing, of 3 runs\n" in command_of("list", sweep.path.name).out
    outcome = cnnbench("resume", sweep.path.name)
    assert outcome.code == 0, outcome.out
    assert "note: 2 runs gone, trained again now" in outcome.out
    before = read(second / "result.json")["test"]
    (second / "result.json").write_text("nonsense")
    assert cnnbench("resume", sweep.path.name).code == 1
    (second / "result.json").unlink()  # as the message says
    again = cnnbench("resume", sweep.path.name)
    assert again.code == 0, again.out
    assert "3 of 3 runs completed" in again.out
    assert read(second / "result.json")["test"] == before


@pytest.mark.parametrize("rates", [2, 3])
def test_a_configuration_whose_run_cannot_be_read_is_not_ranked_and_the_page_says_what_that_does(outputs, rates):
    grid = (*WORDS, f"optimizer.lr={','.join(('0.3', '0.1', '0.2')[-rates:])}", "seeds=3")
    for number, job in enumerate(launched(Grid(grid), Options()).jobs):
        run = write_run(outputs, 0.8 + number / 50, *shlex.split(job.command)[1:], code={"mine.py": "1"})
    (run / "result.json").write_text("nonsense")
    (sweep,) = outputs.glob("sweeps/*")
    page = page_of_sweep(sweep)
    facts, findings, *_ = page.sections
    assert facts.facts["runs"] == f"{3 * rates}: {rates} configurations, 3 seeds each (1 unreadable)"
    assert " / " not in facts.facts["data"]
    assert findings.lines[0].startswith(f"Best on test: lr=0.1, {(0.82, 0.88)[rates - 2]:.4f}")
    assert findings.lines[1].startswith(
        f"Not ranked: lr=0.2; its mean, {(0.87, 0.93)[rates - 2]:.4f}, is over the 2 of 3 seeds that have a"
    )
    said = any(line.startswith("Unreadable or missing runs: p (Holm) leaves out") for line in findings.lines)
    assert said == (rates > 2), "of one comparison alone p is not corrected"
    (skipped,) = page.sections[-1].lines
    assert skipped.count(str(run)) == 1
