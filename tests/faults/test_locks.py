"""One process at a time works on a run; asking whether one does keeps nobody from starting."""

import errno
import os
import subprocess
import sys

import pytest

from cnnbench.errors import UserError
from cnnbench.store.folder import RunFolder

ASK = """
import sys
from pathlib import Path
from cnnbench.store.folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
print("asking", flush=True)
while True:
    run.is_held()
"""


@pytest.fixture
def idle_run(tmp_path) -> RunFolder:
    """Return a run that was worked on before, by nobody now."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with run.lock():
        pass
    return run


def test_no_start_is_refused_because_others_ask_who_is_working(idle_run):
    askers = [
        subprocess.Popen([sys.executable, "-c", ASK, str(idle_run.path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        for asker in askers:
            assert asker.stdout is not None
            assert asker.stdout.readline() == "asking\n"
        for _ in range(1000):
            with idle_run.lock():
                pass
    finally:
        for asker in askers:
            asker.kill()
            asker.communicate()


def test_who_asks_is_not_taken_for_one_who_works(idle_run):
    with idle_run.path.joinpath(".lock").open("a") as file:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(file, fcntl.LOCK_SH)  # as another `is_held` does for a moment
        assert not idle_run.is_held()


def test_a_run_that_is_worked_on_is_refused_at_once_and_says_by_whom(idle_run):
    with idle_run.lock():
        assert idle_run.is_held()
        with pytest.raises(UserError, match=r"is being worked on by process \d+ on "), idle_run.lock():
            pass
    assert not idle_run.is_held()


def test_where_a_file_system_has_no_locks_a_run_goes_on_without(idle_run, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("cnnbench.store.lock.fcntl.flock", flock)
    with idle_run.lock():
        assert not idle_run.is_held()


def test_where_a_system_has_no_locks_nothing_is_open_in_a_run_that_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("cnnbench.store.lock.fcntl", None)  # as on Windows
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with run.lock(), run.lock():
        assert not run.is_held()
        run.path.rmdir()
