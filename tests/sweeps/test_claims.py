"""Claims: of those that want a job, one gets it; whoever is gone holds none."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from cnnbench.sweeps import claims as module
from cnnbench.sweeps.claims import STALE, Claims, birth, is_alive


@pytest.fixture
def claims(tmp_path) -> Claims:
    return Claims(tmp_path / "claims")


def an_ended_process() -> int:
    return int(
        subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True).stdout
    )


def claim_of_another(claims: Claims, age: float, **changes: object) -> None:
    """Claim `a` as a process of another machine would have, some time ago."""
    held = claims.take("a", claims.number("a"))
    held.path.write_text(json.dumps({**held.values, "host": "elsewhere", "birth": "1", **changes}))
    claims._held.clear()
    os.utime(held.path, (time.time() - age,) * 2)


def test_a_job_is_held_until_it_is_released_and_that_says_how_it_ended(claims):
    held = claims.take("a", 0)
    assert claims.holder("a", claims.number("a")) == f"process {os.getpid()} on {platform.node()}"
    assert claims.holder("b", claims.number("b")) == ""
    claims.release(held, "failed", "no room")
    assert (claims.number("a"), claims.holder("a", 1)) == (1, "")
    assert claims.said("a", 1).items() >= {"outcome": "failed", "reason": "no room"}.items()
    assert claims.take("a", 1).path.name == "a.2"


def test_of_many_that_find_a_stale_claim_one_takes_it_over(tmp_path):
    for number in range(20):
        start, launchers = threading.Barrier(8), [Claims(tmp_path / "claims") for _ in range(8)]

        def take(one, number=number, start=start):
            start.wait()
            return one.take("a", number)

        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(take, launchers))
        assert sum(held is not None for held in taken) == 1, number


@pytest.mark.parametrize(("age", "is_free"), [(STALE / 2, False), (STALE * 2, True)])
def test_a_claim_of_another_machine_is_free_when_its_heartbeat_has_stopped(claims, age, is_free):
    claim_of_another(claims, age)
    assert (claims.holder("a", 1) == "") == is_free


def test_a_claim_of_a_process_of_this_machine_that_is_gone_is_free_at_once(claims):
    claim_of_another(claims, 0, host=platform.node(), process=an_ended_process())
    assert claims.holder("a", 1) == ""


def test_a_claim_of_a_process_whose_number_another_one_has_now_is_free(claims):
    claim_of_another(claims, 0, host=platform.node(), process=os.getpid(), birth="1")
    assert claims.holder("a", 1) == ""


def test_a_process_that_ended_and_that_nobody_has_waited_for_is_gone():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        born = birth(process.pid)
        assert is_alive(process.pid, born)
        process.kill()
        until = time.monotonic() + 30
        while is_alive(process.pid, born):
            assert time.monotonic() < until
            time.sleep(0.01)


def test_on_windows_where_asking_would_be_ctrl_c_every_process_is_taken_to_be_there(monkeypatch):
    monkeypatch.setattr(module, "os", SimpleNamespace(name="nt", kill=lambda *_: pytest.fail("it was interrupted")))
    assert is_alive(an_ended_process())


def test_a_claim_that_was_cut_as_it_was_written_holds_for_as_long_as_a_silent_one(claims, tmp_path):
    (tmp_path / "claims" / "a.1").touch()
    assert claims.holder("a", claims.number("a")) == "another process"
    os.utime(tmp_path / "claims" / "a.1", (time.time() - 2 * STALE,) * 2)
    assert claims.holder("a", 1) == ""


def test_a_held_claim_beats_and_notices_that_it_was_taken_over(claims, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.02)
    held = claims.take("a", 0)
    os.utime(held.path, (0, 0))
    with claims.beating():
        time.sleep(0.3)
        assert not held.is_lost
        assert time.time() - held.path.stat().st_mtime < 10
        held.next_path.touch()
        time.sleep(0.3)
        assert held.is_lost
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]
