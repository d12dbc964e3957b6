"""A process that is killed at any of its calls to the system, from its first file to its last: no run is lost."""

import signal

import pytest

from tests.conftest import only_run
from tests.end_to_end.test_killed_processes import kill_at  # noqa: F401 - a fixture
from tests.support.interruption import WORDS, assert_same, go, read

pytestmark = pytest.mark.usefixtures("one_second_a_session")
CALLS = range(1, 240, 6)


@pytest.mark.faults
@pytest.mark.parametrize("call", CALLS)
def test_a_run_that_is_killed_at_a_call_goes_on_to_the_same_bits(outputs, unbroken, kill_at, call):  # noqa: F811
    words = (*WORDS, "checkpoint.every_seconds=0", "checkpoint.keep=1")
    if kill_at(call, outputs, words) != -signal.SIGKILL:
        pytest.skip("a run makes fewer calls than that")
    assert go(*words) == 0
    run = only_run(outputs)
    assert "damage" not in read(run / "run.json")
    measured = read(run / "result.json")["test_measured"]
    assert measured in (1, 2)  # it may have been killed after the test
    assert_same(run, unbroken | {"result": unbroken["result"] | {"test_measured": measured}})
