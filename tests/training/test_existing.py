"""Which of several runs of an identity a command means."""

from dataclasses import replace

import pytest

from cnnbench.store.folder import RunFolder, find_runs
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.training.existing import made_with
from tests.support.run_folders import write_run
from tests.support.training import plan_of

OURS = {"cnnbench/training/loop.py": "1"}
RUNS = {"-r3": "third", "-r2": "second", "": "first"}


@pytest.mark.parametrize(
    ("plugin", "meant"),
    [("first", ""), ("second", "-r2"), ("third", "-r3"), ("unknown", "-r3")],
    ids=["first", "second", "newest", "none"],
)
def test_the_newest_run_with_the_same_plugins_is_meant_or_else_the_newest(outputs, plugin, meant):
    for end, code in RUNS.items():
        path = write_run(outputs, 0.9, code=OURS | {"net.py": code})
        path.rename(f"{path}{end}")
    plan = replace(plan_of("data=synthetic"), code={"cnnbench/training/loop.py": "2", "net.py": plugin})
    found = made_with(plan.code, find_runs(outputs, plan.config.identity()))
    assert found.path == outputs / f"{plan.run_path()}{meant}"
    (job,) = SweepFolder.write([plan], "cnnbench -m", 1, None).jobs
    assert job.folder == f"{plan.run_path()}{meant}"


def test_of_runs_with_the_same_plugins_the_newest_is_meant_finished_or_not(outputs):
    for end, status in (("-r2", "stopped"), ("", "completed")):
        path = write_run(outputs, None if end else 0.9, status=status, code=OURS)
        path.rename(f"{path}{end}")
    runs = find_runs(outputs, plan_of("data=synthetic").config.identity())
    assert made_with(OURS, runs).path == RunFolder(runs[0].path).next_rerun().path
