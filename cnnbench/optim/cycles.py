"""Learning-rate schedules that rise as well as fall: the learning rate of the optimizer is their highest one."""

from collections.abc import Sequence

from pydantic import PositiveInt

from cnnbench.errors import UserError
from cnnbench.optim.curves import half_cosine
from cnnbench.optim.schedules import Fraction, Horizon, PositiveFraction, Schedule, Unit
from cnnbench.registry import SCHEDULERS


@SCHEDULERS.register("one_cycle", warms_up=True)
def one_cycle(
    horizon: Horizon, *, up_share: PositiveFraction, start_fraction: PositiveFraction, final_fraction: Fraction = 0.0
) -> Schedule:
    """Let the learning rate rise once and fall once over the whole training, both along half a cosine.

    up_share: of all steps, those of the way up. start_fraction, final_fraction: of the highest learning rate, at the
    first and at the last step. It warms up by itself. Momentum stays constant, unlike in the source. Raises UserError
    where the way up has no step. Source: Smith and Topin 2018, arXiv:1708.07120; the shape of its usual
    implementations.
    """
    num_steps = horizon.num_main_steps
    peak = up_share * num_steps - 1  # need not be a whole number
    if peak <= 0:
        raise UserError(
            f"scheduler.up_share={up_share}: of {num_steps} steps that leaves none for the way up; "
            f"give more than {1 / num_steps:.3g}."
        )

    def factor(step: int, scores: Sequence[float]) -> float:
        done = min(horizon.main_step(step), num_steps - 1)
        if done <= peak:
            return half_cosine(start_fraction, 1.0, done, peak)
        return half_cosine(1.0, final_fraction, done - peak, num_steps - 1 - peak)

    return factor


@SCHEDULERS.register("cyclic")
def cyclic(
    horizon: Horizon, *, up: PositiveInt, down: PositiveInt, unit: Unit, low_fraction: PositiveFraction
) -> Schedule:
    """Let the learning rate rise and fall again and again in straight lines.

    up, down: of each cycle, in epochs or steps after the warm-up. low_fraction: of the highest learning rate, where a
    cycle begins and ends. Momentum stays constant. Raises UserError where training ends before the first way down.
    Source: Smith 2017, arXiv:1506.01186.
    """
    rise, fall = horizon.in_steps(up, unit), horizon.in_steps(down, unit)
    if rise >= horizon.num_main_steps - 1:
        end = horizon.told_in(unit, horizon.num_main_steps)
        raise UserError(
            f"scheduler.up={up}: training ends {end} after the warm-up, before the first way down; give less."
        )

    def factor(step: int, scores: Sequence[float]) -> float:
        done = horizon.main_step(step) % (rise + fall)
        height = done / rise if done <= rise else (rise + fall - done) / fall
        return low_fraction + (1 - low_fraction) * height

    return factor
