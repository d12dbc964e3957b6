"""Learning-rate schedules: pure functions of where a training is, so that there is nothing to save or restore."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cnnbench.errors import UserError
from cnnbench.registry import SCHEDULERS

Schedule = Callable[[int, Sequence[float]], float]
"""From the number of steps done, and the scores of all evaluations so far, to what the first learning rate is
multiplied with for the next step. Scores: the watched metric on validation, the higher the better; may be NaN."""

Unit = Literal["epoch", "step"]
PositiveFraction = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Horizon:
    """How long a training is, and how many of its first steps warm it up.

    Raises UserError where nothing is left after the warm-up.
    """

    epochs: int
    steps_per_epoch: int
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.warmup >= self.num_steps:
            raise UserError(
                f"scheduler.warmup: its {self.warmup} steps are not fewer than the {self.num_steps} of the whole "
                "training; warm up for less, or train for longer."
            )

    @property
    def num_steps(self) -> int:
        """Return the number of optimizer updates of the whole training."""
        return self.epochs * self.steps_per_epoch

    @property
    def num_main_steps(self) -> int:
        """Return how many of them come after the warm-up."""
        return self.num_steps - self.warmup

    def main_step(self, step: int) -> int:
        """Return how many steps were done after the warm-up; 0 while it lasts."""
        return max(0, step - self.warmup)

    def in_steps(self, number: int, unit: Unit) -> int:
        """Return how many steps so many epochs or steps are."""
        return number * (self.steps_per_epoch if unit == "epoch" else 1)

    def told_in(self, unit: Unit, num_steps: int) -> str:
        """Return a number of steps in the words of a unit: "6 epochs", "30 steps"."""
        size = self.in_steps(1, unit)
        number = num_steps // size if num_steps % size == 0 else round(num_steps / size, 2)
        return f"{number} {unit}{'' if number == 1 else 's'}"


def warmed_up(schedule: Schedule, warmup_steps: int) -> Schedule:
    """Return the schedule after a warm-up: up to where the schedule begins in a straight line, then the schedule.

    After n steps of a warm-up of N the factor is (n + 1) / (N + 1) of the schedule's first one. Source: Goyal et al.
    2017, arXiv:1706.02677.
    """

    def factor(step: int, scores: Sequence[float]) -> float:
        if step >= warmup_steps:
            return schedule(step, scores)
        return schedule(0, ()) * (step + 1) / (warmup_steps + 1)

    return factor


def scaled_from(schedule: Schedule, first_step: int, scale: float) -> Schedule:
    """Return the schedule times `scale` from a step on."""
    return lambda step, scores: schedule(step, scores) * (scale if step >= first_step else 1)


@SCHEDULERS.register("none")
def none(_horizon: Horizon) -> Schedule:
    """Keep the learning rate as it is."""
    return lambda step, scores: 1.0
