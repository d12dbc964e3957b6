"""The page of a running sweep: by a process of its own, seldom, and never in the way of a job."""

import os
import re
from types import SimpleNamespace

import pytest

from cnnbench.analysis.reports.compared import page_of_sweep
from cnnbench.store.folder import RunFolder
from cnnbench.sweeps import live
from cnnbench.sweeps.launch import Grid, launched
from cnnbench.sweeps.live import LivePage
from cnnbench.sweeps.work import Options
from tests.conftest import TINY, latest
from tests.support.run_folders import write_run


class Started:
    """A process that lasts until it is ended."""

    def __init__(self, task) -> None:
        self.task, self.was_killed = task, False
        self.sentinel, self._end = os.pipe()

    def end(self) -> None:
        os.write(self._end, b"-")

    def kill(self) -> None:
        self.was_killed = True
        self.end()

    def ended(self) -> None:
        for end in (self.sentinel, self._end):
            os.close(end)


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(live, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def page(tmp_path, clock):
    started: list[Started] = []

    def start(task, log):
        started.append(Started(task))
        return started[-1]

    page = LivePage(SimpleNamespace(path=tmp_path), lambda *_: tmp_path, SimpleNamespace(start=start))
    page.started = started
    yield page
    page.close()


def number_after(page, clock, seconds: float) -> int:
    clock.now += seconds
    page.update()
    return len(page.started)


def test_the_page_is_written_some_time_after_the_start_and_then_where_jobs_ended(page, clock):
    assert number_after(page, clock, live.FIRST - 1) == 0, "a short sweep needs none"
    assert number_after(page, clock, 1) == 1
    page.changed()
    assert number_after(page, clock, 1) == 1, "one at a time"
    page.started[0].end()
    assert number_after(page, clock, 1) == 1
    assert number_after(page, clock, live.EVERY - 3) == 1
    assert number_after(page, clock, 1) == 2
    page.started[1].end()
    page.update()
    assert number_after(page, clock, 10 * live.EVERY) == 2, "no job has ended since"


def test_one_that_takes_long_is_written_less_often_and_one_that_hangs_is_killed(page, clock):
    number_after(page, clock, live.FIRST)
    clock.now += 9
    page.started[0].end()
    page.update()
    page.changed()
    assert number_after(page, clock, 89) == 1, "a tenth of the time"
    assert number_after(page, clock, 1) == 2
    number_after(page, clock, live.LONGEST + 1)
    assert page.started[1].was_killed


def test_nothing_is_written_after_the_end(page, clock):
    number_after(page, clock, live.FIRST)
    page.close()
    assert page.started[0].was_killed


def test_a_disk_that_is_full_is_no_matter_of_the_sweep(tmp_path, capsys):
    def write(*_):
        raise OSError(28, "No space left on device")

    assert live._write(tmp_path, write, False, None) == 0
    assert "could not write the page of the sweep" in capsys.readouterr().out


def test_a_page_says_how_far_a_sweep_is_and_loads_itself_until_it_has_ended(outputs, tmp_path):
    sweep = launched(Grid((*latest([*TINY, "model=mlp", "epochs=1"]), "seed=0,1,2")), Options())
    for job, accuracy in zip(sweep.jobs, (0.9, 0.8, None), strict=True):
        html = page_of_sweep(sweep.path, is_running=True).html(tmp_path)
        assert '<meta http-equiv="refresh" content="30">' in html
        if accuracy is not None:
            written = write_run(tmp_path / "made", accuracy)
            folder = RunFolder(sweep.outputs / job.folder)
            folder.path.parent.mkdir(parents=True, exist_ok=True)
            written.rename(folder.path)
            plan = sweep.plan(job)
            folder.create(plan.config.to_dict(), plan.command, folder.record() | {"identity": job.identity})
    assert re.search(r"2 of 3 runs completed \(1 not started\)\. Written 20\d\d-", html)
    assert "1 not started" in page_of_sweep(sweep.path).markdown()
    assert "refresh" not in page_of_sweep(sweep.path).html(tmp_path)


def test_a_job_that_failed_before_it_had_a_folder_is_a_run_without_a_result(outputs, tmp_path):
    from cnnbench.sweeps.claims import Claims

    sweep = launched(Grid((*latest([*TINY, "model=mlp", "epochs=1"]), "seed=0,1")), Options())
    claims = Claims(sweep.path / "claims")
    held = claims.take(sweep.jobs[0].identity, 0)
    claims.release(held, "failed", "there are no such data")
    page = page_of_sweep(sweep.path)
    assert page.sections[0].content["status"].tolist() == ["failed", "not started"]
