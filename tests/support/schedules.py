"""Learning-rate schedules by name, and the factors that they give step by step."""

import math
from typing import Any

from cnnbench.optim.schedules import Horizon, Schedule
from cnnbench.registry import SCHEDULERS, Selection

HORIZON = Horizon(epochs=6, steps_per_epoch=5)
NAN = math.nan


def schedule(name: str, horizon: Horizon = HORIZON, **settings: Any) -> Schedule:
    made: Schedule = SCHEDULERS.build(Selection(name, settings), horizon=horizon)
    return made


def factors(name: str, horizon: Horizon = HORIZON, **settings: Any) -> list[float]:
    """Return the factor of every step of a training in which nothing was measured."""
    made = schedule(name, horizon, **settings)
    return [made(step, ()) for step in range(horizon.num_steps)]
