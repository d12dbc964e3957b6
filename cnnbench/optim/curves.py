"""Learning-rate schedules that fall smoothly, from the end of the warm-up to the last step."""

import math
from collections.abc import Sequence

from pydantic import PositiveFloat, PositiveInt

from cnnbench.errors import UserError
from cnnbench.optim.schedules import Fraction, Horizon, PositiveFraction, Schedule, Unit
from cnnbench.registry import SCHEDULERS


@SCHEDULERS.register("cosine")
def cosine(horizon: Horizon, *, final_fraction: Fraction = 0.0) -> Schedule:
    """Let the learning rate fall along half a cosine, to `final_fraction` of it at the last step.

    It begins after the warm-up. Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    """
    last = max(1, horizon.num_main_steps - 1)
    return lambda step, scores: half_cosine(1.0, final_fraction, min(horizon.main_step(step), last), last)


@SCHEDULERS.register("cosine_restarts")
def cosine_restarts(
    horizon: Horizon, *, period: PositiveInt, unit: Unit, multiplier: PositiveInt = 1, final_fraction: Fraction = 0.0
) -> Schedule:
    """Let the learning rate fall along half a cosine, and start anew at the full rate after every period.

    period: of the first fall, in epochs or steps after the warm-up; each later one is `multiplier` times as long as the
    one before it. final_fraction: where a fall would arrive at the step that starts anew. Raises UserError where none
    does before the end. Source: Loshchilov and Hutter 2017, arXiv:1608.03983.
    """
    first = horizon.in_steps(period, unit)
    if first >= horizon.num_main_steps:
        end = horizon.told_in(unit, horizon.num_main_steps)
        raise UserError(
            f"scheduler.period={period}: training ends {end} after the warm-up, before the first restart; "
            "give less, or take scheduler=cosine."
        )
    if first == multiplier == 1:
        raise UserError(f"scheduler.period={period}: with a restart at every step the learning rate never falls.")

    def factor(step: int, scores: Sequence[float]) -> float:
        done, length = horizon.main_step(step), first
        if multiplier == 1:
            done %= length
        while done >= length:
            done, length = done - length, length * multiplier
        return half_cosine(1.0, final_fraction, done, length)

    return factor


@SCHEDULERS.register("polynomial")
def polynomial(horizon: Horizon, *, power: PositiveFloat, final_fraction: Fraction = 0.0) -> Schedule:
    """Let the learning rate fall as (1 - t)^power, t from 0 to 1, to `final_fraction` of it at the last step.

    It begins after the warm-up; with a power of 1 it is a straight line.
    """
    last = max(1, horizon.num_main_steps - 1)

    def factor(step: int, scores: Sequence[float]) -> float:
        left: float = max(0.0, 1 - horizon.main_step(step) / last) ** power
        return final_fraction + (1 - final_fraction) * left

    return factor


@SCHEDULERS.register("exponential")
def exponential(horizon: Horizon, *, gamma: PositiveFraction, unit: Unit) -> Schedule:
    """Let the learning rate fall by the same factor from step to step, which makes gamma after each epoch or step.

    It begins after the warm-up. A fall at once at the end of each epoch is the schedule `step`, every epoch.
    """
    period = horizon.in_steps(1, unit)
    return lambda step, scores: gamma ** (horizon.main_step(step) / period)


def half_cosine(start: float, end: float, done: float, length: float) -> float:
    """Return where half a cosine from start to end is, after `done` (0 to length) of its length."""
    return end + (start - end) * (1 + math.cos(math.pi * done / length)) / 2
