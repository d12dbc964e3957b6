"""Learning-rate schedules that fall at once, and stay: at steps named beforehand, or where validation stands still."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from cnnbench.errors import UserError
from cnnbench.optim.schedules import Fraction, Horizon, PositiveFraction, Schedule, Unit
from cnnbench.registry import SCHEDULERS


@SCHEDULERS.register("step")
def step(horizon: Horizon, *, every: PositiveInt, unit: Unit, gamma: PositiveFraction) -> Schedule:
    """Multiply the learning rate with gamma every so many epochs or steps.

    They are counted from the very beginning, warm-up included. Raises UserError where the first change lies beyond
    the end: it would never happen.
    """
    period = horizon.in_steps(every, unit)
    if period >= horizon.num_steps:
        end = horizon.told_in(unit, horizon.num_steps)
        raise UserError(f"scheduler.every={every}: training ends after {end}, before the first change.")
    return lambda step, scores: gamma ** (step // period)


@SCHEDULERS.register("multistep")
def multistep(
    horizon: Horizon,
    *,
    milestones: Annotated[list[PositiveInt], Field(min_length=1)],
    unit: Unit,
    gamma: PositiveFraction,
) -> Schedule:
    """Multiply the learning rate with gamma after each of the milestones.

    milestones: numbers of epochs or steps done, counted from the very beginning, warm-up included. Raises UserError
    where they do not rise, or where one is not reached before the end: nothing would happen there.
    """
    if any(later <= earlier for earlier, later in pairwise(milestones)):
        raise UserError(f"scheduler.milestones={milestones}: each must come after the one before.")
    falls = [horizon.in_steps(milestone, unit) for milestone in milestones]
    if falls[-1] >= horizon.num_steps:
        end = horizon.told_in(unit, horizon.num_steps)
        raise UserError(
            f"scheduler.milestones={milestones}: training ends after {end}, so that nothing happens at "
            f"{milestones[-1]}; leave it out, or train for longer."
        )
    return lambda step, scores: gamma ** bisect_right(falls, step)


@SCHEDULERS.register("plateau", watches=True)
def plateau(
    _horizon: Horizon,
    *,
    patience: PositiveInt,
    gamma: PositiveFraction,
    min_delta: NonNegativeFloat = 0.0,
    cooldown: NonNegativeInt = 0,
    min_fraction: Fraction = 0.0,
) -> Schedule:
    """Multiply the learning rate with gamma whenever validation has not improved for `patience` evaluations.

    They are counted as early stopping counts them (torch's `patience` is less by one), from the very beginning.
    min_delta: a score has to be better than the best by more than that. cooldown: evaluations after a reduction that
    are not counted. min_fraction: of the first learning rate, the least there is. A score that is NaN is no
    improvement.
    """

    def factor(_step: int, scores: Sequence[float]) -> float:
        best, waited, resting, reductions = -math.inf, 0, 0, 0
        for score in scores:
            if score > best + min_delta:  # never true of NaN
                best, waited = score, 0
            else:
                waited += 1
            if resting:
                resting, waited = resting - 1, 0
            if waited == patience:
                reductions, waited, resting = reductions + 1, 0, cooldown
        return max(gamma**reductions, min_fraction)

    return factor
