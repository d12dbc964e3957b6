"""A command is killed at random, up to three times, and given again: it ends in the bits of one that never was."""

from collections.abc import Callable, Iterator
from itertools import product
from random import Random

import pytest

from tests.support.campaign import CONFIGURATIONS, PREPARE, WAYS, Campaign
from tests.support.processes import Command, forked_commands

KILLS = 20  # by each test
QUICK = 2
CASES = list(product(CONFIGURATIONS, WAYS))


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Iterator[Callable[..., Command]]:
    with forked_commands(tmp_path_factory.mktemp("commands"), PREPARE) as start:
        yield start


@pytest.fixture
def survives_kills(start, tmp_path, monkeypatch, record_property) -> Callable[..., None]:
    """Return what kills a configuration so often; its folders are this test's own."""

    def survives(configuration: str, way: str, number: int) -> None:
        draw = Random(CASES.index((configuration, way)))
        campaign, kills, runs = Campaign(start, tmp_path, configuration), 0, 0
        while kills < number:
            kills += campaign.survives(draw, WAYS[way])
            runs += 1
            assert runs <= 4 * number, "kills come after the end"
        record_property("kills", kills)
        record_property("runs", runs)

    return survives


@pytest.mark.faults  # every run kills at chosen places: `end_to_end/test_killed_processes`
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_killed_at_random_ends_in_the_same_bits(survives_kills, way):
    survives_kills("an exponential average", way, QUICK)


@pytest.mark.faults
@pytest.mark.timeout(1200)  # minutes where the machine is quiet
@pytest.mark.parametrize(("configuration", "way"), CASES, ids=[f"{name}, {way}" for name, way in CASES])
def test_every_kind_of_run_ends_in_the_same_bits(survives_kills, configuration, way):
    survives_kills(configuration, way, KILLS)
