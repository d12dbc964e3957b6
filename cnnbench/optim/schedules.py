"""Learning-rate schedules: pure functions of step and validation scores, without a state to save or restore."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cnnbench.errors import SettingError
from cnnbench.registry import SCHEDULERS

Schedule = Callable[[int, Sequence[float]], float]
"""From the number of steps done and the scores of all evaluations so far to the factor on the initial learning rate for
the next step. Scores: the watched metric on validation, oriented so that higher is better; may be NaN."""

Unit = Literal["epoch", "step"]
PositiveFraction = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Horizon:
    """The length of a training, and of the warm-up within it.

    Raises SettingError for a warm-up as long as the training.
    """

    epochs: int
    steps_per_epoch: int
    warmup: int = 0
    warmup_unit: Unit = "step"

    def __post_init__(self) -> None:
        if self.warmup_steps >= self.num_steps:
            total = self.describe(self.num_steps, self.warmup_unit)
            half = self.half(self.num_steps, self.warmup_unit)
            raise SettingError(
                f"scheduler.warmup={self.warmup}",
                f"must be shorter than the whole training of {total}; warm up for less, or train for longer",
                {"scheduler.warmup": half} if half else None,
            )

    @property
    def num_steps(self) -> int:
        """The number of optimizer updates of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """The number of steps of the warm-up."""
        return self.in_steps(self.warmup, self.warmup_unit)

    @property
    def num_main_steps(self) -> int:
        """The number of steps after the warm-up."""
        return self.num_steps - self.warmup_steps

    def main_step(self, step: int) -> int:
        """Return the number of steps done since the warm-up; 0 during it."""
        return max(0, step - self.warmup_steps)

    def in_steps(self, number: int, unit: Unit) -> int:
        """Return a number of epochs or steps in steps."""
        return number * (self.steps_per_epoch if unit == "epoch" else 1)

    def half(self, num_steps: int, unit: Unit) -> int:
        """Return half of a number of steps, rounded down to whole epochs or steps."""
        return num_steps // self.in_steps(1, unit) // 2

    def describe(self, num_steps: int, unit: Unit) -> str:
        """Return a number of steps in words: "6 epochs", "30 steps"."""
        size = self.in_steps(1, unit)
        number = num_steps // size if num_steps % size == 0 else round(num_steps / size, 2)
        return f"{number} {unit}{'' if number == 1 else 's'}"


def warmed_up(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Return the schedule after a linear warm-up to its first factor.

    After n steps of a warm-up of N the factor is (n + 1) / (N + 1) of that. Source: Goyal et al. 2017,
    arXiv:1706.02677.
    """

    def factor(step: int, scores: Sequence[float]) -> float:
        if step >= warmup_steps:
            return schedule(step, scores)
        return schedule(0, ()) * (step + 1) / (warmup_steps + 1)

    return factor


def scaled_from(schedule: Schedule, first_step: int, scale: float) -> Schedule:
    """Return the schedule, multiplied by `scale` from a step on."""
    return lambda step, scores: schedule(step, scores) * (scale if step >= first_step else 1)


# Constant, or changing at single steps --------------------------------------------------------------------------------


@SCHEDULERS.register("none")
def none(_horizon: Horizon) -> Schedule:
    """Keep the learning rate as it is."""
    return lambda step, scores: 1.0


@SCHEDULERS.register("step")
def step(horizon: Horizon, *, every: PositiveInt, unit: Unit, gamma: PositiveFraction) -> Schedule:
    """Multiply the learning rate by gamma every few epochs or steps.

    every: counted from the first step of the training, warm-up included. Raises SettingError where the first change
    would come after the end.
    """
    end = horizon.describe(horizon.num_steps, unit)
    _require_less(horizon.num_steps, horizon, unit, f"training ends after {end}, before the first change", every=every)
    period = horizon.in_steps(every, unit)
    return lambda step, scores: gamma ** (step // period)


@SCHEDULERS.register("multistep")
def multistep(
    horizon: Horizon,
    *,
    milestones: Annotated[list[PositiveInt], Field(min_length=1)],
    unit: Unit,
    gamma: PositiveFraction,
) -> Schedule:
    """Multiply the learning rate by gamma after each milestone.

    milestones: numbers of epochs or steps, counted from the first step of the training, warm-up included. Raises
    SettingError where they do not increase, or where the last one lies beyond the end.
    """
    given = f"scheduler.milestones={milestones}"
    if any(later <= earlier for earlier, later in pairwise(milestones)):
        raise SettingError(given, "each must come after the one before")
    changes = [horizon.in_steps(milestone, unit) for milestone in milestones]
    if changes[-1] >= horizon.num_steps:
        end, half = horizon.describe(horizon.num_steps, unit), horizon.half(horizon.num_steps, unit)
        problem = f"training ends after {end}, before {milestones[-1]}; leave it out, or train for longer"
        reached = [milestone for milestone, at in zip(milestones, changes, strict=True) if at < horizon.num_steps]
        raise SettingError(given, problem, {"scheduler.milestones": reached or [half]} if reached or half else None)
    return lambda step, scores: gamma ** bisect_right(changes, step)


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
    """Multiply the learning rate by gamma whenever validation has not improved for `patience` evaluations.

    patience: counted as in early stopping (torch's `patience` is one less), from the first evaluation on. min_delta: a
    score has to beat the best one by more than that. cooldown: evaluations after a reduction that are not counted.
    min_fraction: lower bound of the factor. A NaN score is no improvement.
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


# Falling smoothly, from the end of the warm-up to the last step -------------------------------------------------------


@SCHEDULERS.register("cosine")
def cosine(horizon: Horizon, *, final_fraction: Fraction = 0.0) -> Schedule:
    """Decay the learning rate along half a cosine, to `final_fraction` of it at the last step.

    Of N steps the last one has that rate: torch's CosineAnnealingLR with T_max = N - 1, stepped after every batch. It
    begins after the warm-up. Source: Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts.
    """
    last = max(1, horizon.num_main_steps - 1)
    return lambda step, scores: _half_cosine(1.0, final_fraction, min(horizon.main_step(step), last), last)


@SCHEDULERS.register("cosine_restarts")
def cosine_restarts(
    horizon: Horizon, *, period: PositiveInt, unit: Unit, multiplier: PositiveInt = 1, final_fraction: Fraction = 0.0
) -> Schedule:
    """Decay the learning rate along half a cosine, and restart at the full rate after every period.

    period: of the first decay, in epochs or steps after the warm-up; each later one is `multiplier` times as long as
    the one before it. final_fraction: the factor that a decay would reach at the step of the restart. Raises
    SettingError where training ends before the first restart, or restarts at every step. Source: Loshchilov and Hutter
    2017, arXiv:1608.03983.
    """
    first, num_steps = horizon.in_steps(period, unit), horizon.num_main_steps
    problem = (
        f"training ends {horizon.describe(num_steps, unit)} after the warm-up, before the first restart; give less, or "
        "take scheduler=cosine"
    )
    shortest = 2 if horizon.in_steps(1, unit) == multiplier == 1 else 1
    _require_less(num_steps, horizon, unit, problem, shortest, period=period)
    if period < shortest:
        instead = {"scheduler.period": shortest} if shortest < num_steps else None
        raise SettingError(
            f"scheduler.period={period}", "with a restart at every step the learning rate never falls", instead
        )

    def factor(step: int, scores: Sequence[float]) -> float:
        done, length = horizon.main_step(step), first
        if multiplier == 1:
            done %= length
        while done >= length:
            done, length = done - length, length * multiplier
        return _half_cosine(1.0, final_fraction, done, length)

    return factor


@SCHEDULERS.register("polynomial")
def polynomial(horizon: Horizon, *, power: PositiveFloat, final_fraction: Fraction = 0.0) -> Schedule:
    """Decay the learning rate as (1 - t)^power, t from 0 to 1, to `final_fraction` of it at the last step.

    It begins after the warm-up; with a power of 1 it is linear.
    """
    last = max(1, horizon.num_main_steps - 1)

    def factor(step: int, scores: Sequence[float]) -> float:
        left: float = max(0.0, 1 - horizon.main_step(step) / last) ** power
        return final_fraction + (1 - final_fraction) * left

    return factor


@SCHEDULERS.register("exponential")
def exponential(horizon: Horizon, *, gamma: PositiveFraction, unit: Unit) -> Schedule:
    """Decay the learning rate by the same factor at every step, which makes gamma per epoch or step.

    It begins after the warm-up. A drop at the end of each epoch is the schedule `step` with every=1.
    """
    period = horizon.in_steps(1, unit)
    return lambda step, scores: gamma ** (horizon.main_step(step) / period)


# Rising and falling: the learning rate of the optimizer is the highest one --------------------------------------------


@SCHEDULERS.register("one_cycle", warms_up=True)
def one_cycle(
    horizon: Horizon, *, up_share: PositiveFraction, start_fraction: PositiveFraction, final_fraction: Fraction = 0.0
) -> Schedule:
    """Raise the learning rate once and lower it once over the whole training, both along half a cosine.

    up_share: share of all steps in which it rises. start_fraction, final_fraction: of the highest learning rate, at the
    first and at the last step. It warms up by itself. Momentum stays constant, unlike in the source. Raises
    SettingError where no step is left to rise. Source: Smith and Topin 2018, arXiv:1708.07120; the shape is that of
    common implementations.
    """
    num_steps = horizon.num_main_steps
    peak = up_share * num_steps - 1  # need not be a whole number
    if peak <= 0:
        raise SettingError(
            f"scheduler.up_share={up_share}",
            f"of {num_steps} steps that leaves none to rise in; give more than {1 / num_steps:.3g}",
            {"scheduler.up_share": 0.5} if num_steps > 2 else None,
        )

    def factor(step: int, scores: Sequence[float]) -> float:
        done = min(horizon.main_step(step), num_steps - 1)
        if done <= peak:
            return _half_cosine(start_fraction, 1.0, done, peak)
        return _half_cosine(1.0, final_fraction, done - peak, num_steps - 1 - peak)

    return factor


@SCHEDULERS.register("cyclic")
def cyclic(
    horizon: Horizon, *, up: PositiveInt, down: PositiveInt, unit: Unit, low_fraction: PositiveFraction
) -> Schedule:
    """Raise and lower the learning rate linearly, again and again.

    up, down: of each cycle, in epochs or steps after the warm-up. low_fraction: of the highest learning rate, where a
    cycle begins and ends. Momentum stays constant. Raises SettingError where training ends before the rate first falls.
    Source: Smith 2017, arXiv:1506.01186.
    """
    end = horizon.describe(horizon.num_main_steps, unit)
    problem = f"training ends {end} after the warm-up, before the learning rate first falls; give less"
    _require_less(horizon.num_main_steps - 1, horizon, unit, problem, up=up, down=down)
    rise, fall = horizon.in_steps(up, unit), horizon.in_steps(down, unit)

    def factor(step: int, scores: Sequence[float]) -> float:
        done = horizon.main_step(step) % (rise + fall)
        height = done / rise if done <= rise else (rise + fall - done) / fall
        return low_fraction + (1 - low_fraction) * height

    return factor


def _half_cosine(start: float, end: float, done: float, length: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done / length)) / 2


def _require_less(limit: int, horizon: Horizon, unit: Unit, problem: str, shortest: int = 1, **settings: int) -> None:
    """Raise SettingError where the first setting takes `limit` steps or more; instead all could be half of that."""
    name, value = next(iter(settings.items()))
    if horizon.in_steps(value, unit) >= limit:
        half = max(shortest, horizon.half(limit, unit))
        fits = horizon.in_steps(half, unit) < limit
        instead = {f"scheduler.{setting}": half for setting in settings} if fits else None
        raise SettingError(f"scheduler.{name}={value}", problem, instead)
