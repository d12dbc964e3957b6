"""Commands that are refused, with the messages, and commands that are accepted."""

import pytest

from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError
from cnnbench.training.plan import Plan, plan_run
from cnnbench.training.resolve import resolve


def accepted(composer: Composer, *words: str) -> Plan:
    """Return the plan of a command that nothing is wrong with, a look at the data included."""
    return resolve(plan_run(composer, words))[0]


def mistakes_in(composer: Composer, *words: str, sees_data: bool = True) -> dict[str, str]:
    """Return the problems of a refused command, by what they quote; sees_data: also those that only data show."""
    with pytest.raises(ConfigError) as refused:
        accepted(composer, *words) if sees_data else plan_run(composer, words)
    return {mistake.given: mistake.problem for mistake in refused.value.mistakes}
