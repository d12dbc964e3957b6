"""Learning-rate schedules: pure functions from the step to a factor, so that there is nothing to save or restore."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from cnnbench.errors import UserError
from cnnbench.registry import SCHEDULERS

Schedule = Callable[[int], float]
"""From the number of steps done to what the first learning rate is multiplied with for the next step."""


@dataclass(frozen=True)
class Horizon:
    """How long a training is."""

    epochs: int
    steps_per_epoch: int

    @property
    def num_steps(self) -> int:
        """Return the number of optimizer updates of the whole training."""
        return self.epochs * self.steps_per_epoch


@SCHEDULERS.register("none")
def none(_horizon: Horizon) -> Schedule:
    """Keep the learning rate as it is."""
    return lambda step: 1.0


@SCHEDULERS.register("step")
def step(
    horizon: Horizon,
    *,
    every: PositiveInt,
    unit: Literal["epoch", "step"],
    gamma: Annotated[float, Field(gt=0, lt=1)],
) -> Schedule:
    """Multiply the learning rate with gamma every so many epochs or steps.

    Raises UserError where the first change lies beyond the end: it would never happen.
    """
    period = every * (horizon.steps_per_epoch if unit == "epoch" else 1)
    if period >= horizon.num_steps:
        end = horizon.epochs if unit == "epoch" else horizon.num_steps
        raise UserError(f"scheduler.every={every}: training ends after {end} {unit}s, before the first change.")
    return lambda step: gamma ** (step // period)


@SCHEDULERS.register("cosine")
def cosine(horizon: Horizon, *, final_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> Schedule:
    """Let the learning rate fall along half a cosine, to `final_fraction` of it at the last step.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    """
    last = max(1, horizon.num_steps - 1)
    return lambda step: final_fraction + (1 - final_fraction) * (1 + math.cos(math.pi * min(step, last) / last)) / 2
