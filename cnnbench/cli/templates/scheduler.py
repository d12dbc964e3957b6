"""A learning-rate schedule: a function of the step. Warm-up is built in: scheduler.warmup=5."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from cnnbench.optim.schedules import Horizon, Schedule
from cnnbench.registry import SCHEDULERS


@SCHEDULERS.register("my_scheduler")
def my_scheduler(horizon: Horizon, *, final_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0) -> Schedule:
    """Lower the learning rate in a straight line, to `final_fraction` of it."""

    def factor(step: int, scores: Sequence[float]) -> float:
        """Return the factor on the learning rate, from 0 to 1; scores: of all evaluations so far, higher is better."""
        progress = horizon.main_step(step) / max(1, horizon.num_main_steps - 1)
        return 1 - (1 - final_fraction) * min(1.0, progress)

    return factor
