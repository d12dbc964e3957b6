"""A sweep whose jobs are killed, and that is killed itself, is given again, and ends in the runs that it would have."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.conftest import latest
from tests.support.campaign import BASE, DRAWS, Undisturbed, leftovers
from tests.support.interruption import read
from tests.support.processes import Command, forked_commands

SWEEP = ["-m", *latest((*BASE, *DRAWS)), "seed=0,1,2"]
KILLS = 9  # by each test


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Iterator[Callable[..., Command]]:
    with forked_commands(tmp_path_factory.mktemp("commands")) as start:
        yield start


def runs_in(outputs: Path) -> dict[int, Path]:
    """Return the folders of runs by seed."""
    paths = outputs.glob("*/*/*/run.json")
    return {read(path)["config"]["seed"]: path.parent for path in paths}


def workers(outputs: Path) -> set[int]:
    """Return the processes that work on runs, or did."""
    texts = [path.read_text() for path in outputs.glob("*/*/*/.lock")]
    return {int(found[1]) for text in texts if (found := re.match(r"process (\d+) on", text))}


def kill_jobs(command: Command, outputs: Path, draw: Random, seconds: float) -> int:
    """Kill each job after up to so many seconds; return how many the sweep says were killed."""
    seen = workers(outputs)
    for _ in range(3):
        command.wait_until(lambda: workers(outputs) - seen or not command.is_running())
        for job in workers(outputs) - seen:
            time.sleep(draw.uniform(0, seconds))
            with suppress(ProcessLookupError):
                os.kill(job, signal.SIGKILL)
            seen.add(job)
    code, said = command.ended(), command.said()
    summary = said[said.rindex("\n\n") :]
    killed = summary.count("killed by SIGKILL")
    assert code == (1 if killed else 0), said
    assert f"{3 - killed} of 3 runs completed" in summary
    return killed


def kill_sweep(command: Command, seconds: float) -> int:
    """Kill the sweep itself, and wait until its job has saved; return whether that came before its end."""
    killed = command.killed_after(seconds)
    command.wait_until(lambda: not command.has_group(), 60)
    return int(killed)


@pytest.mark.faults
@pytest.mark.timeout(1200)  # minutes where the machine is quiet
@pytest.mark.parametrize("number", range(4))
def test_a_sweep_whose_processes_are_killed_ends_in_the_same_runs(start, outputs, number, record_property):
    began = time.monotonic()
    assert start(SWEEP).ended() == 0
    seconds = time.monotonic() - began
    undisturbed = {seed: Undisturbed(run) for seed, run in runs_in(outputs).items()}
    lasts = max(read(run / "result.json")["seconds"]["total"] for run in runs_in(outputs).values())
    draw, kills, runs = Random(1000 + number), 0, 0
    while kills < KILLS:
        shutil.rmtree(outputs)
        jobs = kill_jobs(start(SWEEP), outputs, draw, lasts)
        sweeps = kill_sweep(start(SWEEP), draw.uniform(0, seconds))
        command = start(SWEEP)
        assert command.ended() == 0, command.said()
        for seed, run in runs_in(outputs).items():
            undisturbed[seed].assert_same(run, jobs + sweeps)
        (sweep,) = outputs.glob("sweeps/*/sweep.json")
        assert {outputs / job["folder"] for job in read(sweep)["jobs"]} == set(runs_in(outputs).values())
        assert leftovers(outputs) == []
        kills, runs = kills + jobs + sweeps, runs + 3
    record_property("kills", kills)
    record_property("runs", runs)
