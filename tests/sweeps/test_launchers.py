"""Several launchers on one sweep, killed and given again: no job is lost, none is trained twice, the bits stay."""

import json
import os
import platform
import signal
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from random import Random

import pytest

from cnnbench.store.lock import locked
from cnnbench.sweeps.claims import SILENT, STALE, Claims
from cnnbench.sweeps.display import Display
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.launch import Grid, launched
from cnnbench.sweeps.outcome import COMPLETED, NOT_STARTED, elsewhere
from cnnbench.sweeps.slots import Processes
from cnnbench.sweeps.work import Options, Worker
from cnnbench.training.signals import StopRequests
from tests.conftest import TINY, latest
from tests.support.interruption import read
from tests.support.launchers import (
    A_COMMENT,
    CODE,
    NETWORK,
    Launcher,
    assert_same_sweep,
    completed,
    wait_until,
    working,
)
from tests.support.run_folders import write_run

SMALL = tuple(latest([*TINY, "model=mlp", "epochs=1"]))
LONG = (*SMALL, "epochs=40", "checkpoint.every_seconds=0")
ABLATION = ("regularization.dropout=0,0.5", "regularization.batchnorm=false,true")

Launch = Callable[..., Launcher]


@pytest.fixture
def launch(tmp_path):
    launchers = []

    def start(*words: str) -> Launcher:
        launchers.append(Launcher(latest(words), tmp_path / f"said-{len(launchers)}.txt"))
        return launchers[-1]

    yield start
    for one in launchers:
        one.kill_all()


@pytest.fixture
def network(tmp_path) -> Path:
    path = tmp_path / "edited.py"
    path.write_text(NETWORK)
    return path


def swept(network: Path, *grid: str) -> tuple[str, ...]:
    return ("-m", *LONG, f"plugins={network}", "model=edited", *grid)


def undisturbed(launch: Launch, words: tuple[str, ...], outputs: Path, monkeypatch) -> Path:
    """Return the outputs of the same sweep that nothing came in the way of."""
    folder = outputs.parent / "undisturbed"
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(folder))
    once = launch(*words, "jobs=2")
    assert once.ended() == 0, once.said()
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(outputs))
    return folder


def test_launchers_share_a_sweep_and_take_over_from_one_that_is_killed(launch, cnnbench, network, outputs, tmp_path):
    words = latest(swept(network, "regularization.dropout=0,0.5", "seeds=2", "epochs=15"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNBENCH_OUTPUTS", str(tmp_path / "undisturbed"))
        for job in product(("regularization.dropout=0", "regularization.dropout=0.5"), ("seed=0", "seed=1")):
            assert cnnbench(*latest(swept(network, *job, "epochs=15"))[1:]).code == 0
    first = launch(*words)
    wait_until(lambda: list(outputs.glob("*/*/*/checkpoints/*.json")))
    first.kill()
    network.write_text(A_COMMENT + NETWORK)
    others = launch(*words), launch(*words)
    assert [one.ended() for one in others] == [0, 0], [one.said() for one in others]
    assert any("4 of 4 runs completed" in one.said() for one in others)
    assert_same_sweep(outputs, tmp_path / "undisturbed")
    assert first.is_gone()
    assert list(outputs.rglob("*.tmp")) == []


@pytest.mark.faults
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("number", range(2))
def test_a_sweep_of_three_launchers_that_is_killed_at_random_ends_in_the_same_bits(
    launch, network, outputs, monkeypatch, number
):
    words, draw = swept(network, *ABLATION, "seeds=6"), Random(number)
    expected = undisturbed(launch, words, outputs, monkeypatch)

    def share_until(done: int) -> list[Launcher]:
        launchers = [launch(*words) for _ in range(3)]
        wait_until(lambda: completed(outputs) >= done and working(outputs), 200)
        time.sleep(draw.uniform(0, 2))
        return launchers

    launchers = share_until(2)
    os.kill(draw.choice(working(outputs) or [launchers[0].process.pid]), signal.SIGKILL)  # a job
    network.write_text(A_COMMENT + NETWORK)
    wait_until(lambda: completed(outputs) >= 5, 200)
    draw.choice(launchers).kill()  # a launcher
    wait_until(lambda: completed(outputs) >= 8, 200)
    time.sleep(draw.uniform(0, 2))
    for one in launchers:  # everything
        one.kill_all()
    assert completed(outputs) < 24
    before = completed(outputs)
    network.write_text(A_COMMENT + NETWORK + CODE)
    (sweep,) = outputs.glob("sweeps/*")
    refused = launch("resume", str(sweep))
    assert refused.ended() == 1
    assert "code changed since this run was planned: edited.py" in refused.said()
    assert completed(outputs) == before
    network.write_text(NETWORK)
    again = [launch(*words), launch("resume", str(sweep), "jobs=2"), launch(*words)]
    codes = [one.ended() for one in again]
    assert codes == [0, 0, 0], "\n".join(one.said() for one in again)
    assert any("24 of 24 runs completed" in one.said() for one in again)
    assert_same_sweep(outputs, expected)
    assert list(outputs.rglob("*.tmp")) == []


def of_another_machine(sweep: SweepFolder, index: int) -> Path:
    """Claim a job as a launcher on another machine would, and return its claim."""
    identity = sweep.jobs[index].identity
    held = Claims(sweep.path / "claims").take(identity, 0)
    held.path.write_text(json.dumps({**held.values, "host": "node7", "process": 123}))
    return held.path


def test_a_job_held_on_another_machine_is_elsewhere_and_no_failure(cnnbench, outputs):
    sweep = launched(Grid((*SMALL, "seed=0,1")), Options())
    claim = of_another_machine(sweep, 0)
    os.utime(claim, (2**32, 2**32))  # however long this takes, it was heard of just now
    outcome = cnnbench("-m", *SMALL, "seed=0,1")
    assert outcome.code == 0
    assert "1 of 2 runs completed" in outcome.out
    assert "nothing is left to begin here: others work on 1 run (process 123 on node7)" in outcome.out
    assert "  elsewhere: process 123 on node7  " in outcome.out
    os.utime(claim, (0, 0))  # it has not been heard of for long
    outcome = cnnbench("resume", str(sweep.path))
    assert outcome.code == 0
    assert "2 of 2 runs completed" in outcome.out


def test_what_a_machine_held_that_is_gone_is_waited_for_and_trained(cnnbench, monkeypatch):
    sweep = launched(Grid((*SMALL, "seed=0,1")), Options())
    heard = of_another_machine(sweep, 0).stat().st_mtime_ns
    ages = [SILENT + 1]  # of the claim, whenever it is looked at
    monkeypatch.setattr("cnnbench.sweeps.claims.file_system_time", lambda _: heard + int(ages[-1] * 1e9))
    is_silent = Claims.is_silent

    def looked_at_once(self: Claims, *claim: object) -> bool:
        found = is_silent(self, *claim)
        ages.append(STALE + 1)
        return found

    monkeypatch.setattr(Claims, "is_silent", looked_at_once)
    outcome = cnnbench("resume", str(sweep.path))
    assert "2 of 2 runs completed" in outcome.out


def test_a_run_that_another_process_holds_is_elsewhere(cnnbench, outputs, monkeypatch):
    monkeypatch.setattr("cnnbench.sweeps.work.WAITS_FOR_ORPHANS", 0.5)
    assert cnnbench(*SMALL, "seed=0").code == 0
    (record,) = outputs.glob("*/*/*/run.json")
    (record.parent / "result.json").unlink()
    with locked(record.parent / ".lock"):
        outcome = cnnbench("-m", *SMALL, "seed=0,1")
    assert outcome.code == 0
    assert "nothing is left to begin here: others work on 1 run" in outcome.out
    assert "1 of 2 runs completed" in outcome.out


def test_what_failed_in_another_launcher_meanwhile_is_not_tried_by_all(cnnbench, outputs, monkeypatch):
    sweep = launched(Grid((*SMALL, "seed=0,1")), Options())
    claims = Claims(sweep.path / "claims")
    number = Claims.number

    def claimed_meanwhile(self, identity):
        seen = number(self, identity)
        if identity == sweep.jobs[1].identity and seen == 0:
            claims.release(claims.take(identity, 0), "failed", "no room for it")
        return seen

    monkeypatch.setattr(Claims, "number", claimed_meanwhile)
    outcome = cnnbench("-m", *SMALL, "seed=0,1")
    assert outcome.code == 1
    assert "    no room for it" in outcome.out
    assert not (outputs / sweep.jobs[1].folder).exists()


def test_the_claim_of_a_job_says_who_did_it(cnnbench, outputs):
    assert cnnbench("-m", *SMALL, "seed=0,1", "jobs=2").code == 0
    (sweep,) = outputs.glob("sweeps/*")
    claims = [read(path) for path in sweep.glob("claims/*")]
    expected = {"host": platform.node(), "process": os.getpid(), "outcome": "completed"}
    assert [claim.items() >= expected.items() for claim in claims] == [True, True]
    assert {read(path)["threads"] for path in outputs.glob("*/*/*/run.json")} == {1}
    assert "2 runs, 2 at a time" in cnnbench("resume", sweep.name).out, "as it was started"
    assert "2 runs, 1 thread each" in cnnbench("resume", sweep.name, "jobs=1").out
    (first, second) = (path.parent for path in outputs.glob("*/*/*/run.json"))
    first.rename(first.with_name("the baseline"))
    second.rename(outputs.parent / "elsewhere")
    again = cnnbench("resume", sweep.name).out
    assert f" was completed, but {second} is gone\n" in again
    assert "note: 1 run gone, trained again now" in again
    assert "1 of 2 runs finished before" in again


def test_a_sweep_that_fails_fast_starts_no_other_job(cnnbench, outputs):
    words = ("-m", *SMALL, "optimizer.lr=1e30,0.1", "epochs=3", "seed=0,1")
    outcome = cnnbench(*words, "fail_fast=true")
    assert outcome.code == 1
    assert len(list(outputs.glob("*/*/*/run.json"))) == 1
    assert "the training diverged" in outcome.out
    assert outcome.out.count("\n  not started") == 3
    assert "  0 of 4 runs completed, 1 failed, 3 not started\n" in outcome.out
    assert cnnbench(*words, "fail_fast=true").out.count("\n  not started") == 2, (
        "what is known to diverge stops nothing"
    )
    again = cnnbench(*words, "fail_fast=true")
    assert again.code == 1
    assert "2 of 4 runs completed" in again.out
    sessions = [len(read(path)["sessions"]) for path in outputs.glob("*/*/*/run.json")]
    assert sessions == [1] * 4, "what diverged is not tried again with the same code"
    assert cnnbench(*words, "retry_failed=true").code == 1
    assert sorted(len(read(path)["sessions"]) for path in outputs.glob("*/*/*/run.json")) == [1, 1, 2, 2]


def test_what_other_launchers_have_ended_counts_and_what_they_left_is_not_elsewhere(outputs):
    sweep = launched(Grid((*SMALL, "seed=0,1,2,3")), Options())
    mine, others = (Worker(sweep, StopRequests(), [], Options(), Processes(), Display(sweep)) for _ in range(2))
    mine.seen = dict.fromkeys((job.identity for job in sweep.jobs), 0)
    for job, outcome in zip(sweep.jobs, ("completed", "failed", "stopped"), strict=False):
        others.claims.release(others.claims.take(job.identity, 0), outcome, "for lack of room")
    assert mine._outcome_now(sweep.jobs[1]).reason == "for lack of room"
    assert mine._num_done() == 2
    mine.outcomes[sweep.jobs[3].identity] = elsewhere("process 1 on node7")
    assert mine._outcome_now(sweep.jobs[3]) == NOT_STARTED, "its launcher was killed"
    write_run(outputs, None, *sweep.jobs[3].command.split()[1:], status="stopped")
    assert mine._outcome_now(sweep.jobs[3]).text == "stopped"
    mine.outcomes[sweep.jobs[3].identity] = COMPLETED
    assert mine._num_done() == 3


def test_what_another_launcher_ends_is_said_once_and_counted_one_by_one_also_where_no_slot_is_free(outputs, capsys):
    sweep = launched(Grid((*SMALL, "seed=0,1,2,3")), Options())
    worker = Worker(sweep, StopRequests(), [], Options(), Processes(), Display(sweep))
    worker.seen = dict.fromkeys((job.identity for job in sweep.jobs), 0)
    worker.display.begin(4, worker._num_done, [], {})
    for job in sweep.jobs[1:3]:
        write_run(outputs, 0.9, *job.command.split()[1:])
        worker.claims.release(worker.claims.take(job.identity, 0), "completed")
    left = worker._fill([*sweep.jobs])
    assert left == [sweep.jobs[0], sweep.jobs[3]]
    lines = [line.partition("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert lines == ["[1/4]", "[2/4]"]
    assert worker._fill(left) == left


def test_a_sweep_has_its_minutes_and_can_be_continued(cnnbench, outputs):
    words = ("-m", *SMALL, "epochs=100000", "seed=0,1", "max_minutes=0.03")
    outcome = cnnbench(*words)
    assert outcome.code == 75
    assert "the same command again runs what is missing" in outcome.out
    assert {read(path)["status"] for path in outputs.glob("*/*/*/run.json")} == {"stopped"}


def test_several_ranks_are_refused_for_one_run_and_share_a_sweep(cnnbench, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    outcome = cnnbench(*SMALL)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "4 processes were started for one run" in outcome.err
    assert cnnbench("-m", *SMALL, "seed=0").code == 0


def test_what_cannot_change_in_a_sweep_that_is_continued_is_refused(cnnbench):
    sweep = launched(Grid((*SMALL, "seed=0,1")), Options())
    for word in (str(sweep.path), sweep.path.name):
        outcome = cnnbench("resume", word, "epochs=5", "rerun=true")
        assert outcome.code == 2
        assert "epochs=5    cannot change in a sweep that is continued" in outcome.err
        assert "rerun=true  is for the command of a sweep" in outcome.err
