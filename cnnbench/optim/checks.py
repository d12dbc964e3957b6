"""Schedules and optimizers as they are chosen; those of other people are tried before anything is trained."""

import copy
import math
from collections.abc import Sequence

import torch
from torch.optim import Optimizer

from cnnbench.errors import SettingError, UserError, blaming, described, one_line
from cnnbench.optim.optimizers import Groups
from cnnbench.optim.schedules import Horizon, Schedule
from cnnbench.registry import OPTIMIZERS, SCHEDULERS, Selection

CONTRACT = ". It gets no closure; the gradient of a weight is in its `.grad`, and @torch.no_grad() stands above `step`"


def build_schedule(selection: Selection, horizon: Horizon) -> Schedule:
    """Return the selected schedule. It raises UserError for a factor that is no number; so does this, if all are 0."""
    component = SCHEDULERS[selection.name]
    schedule: Schedule = SCHEDULERS.build(selection, horizon=horizon)

    def factor(step: int, scores: Sequence[float]) -> float:
        with blaming(component, f"fails at step {step}"):
            value = schedule(step, scores)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            found = repr(value) if value is None or isinstance(value, int | float | str) else described(value)
            needed = "it scales the learning rate, and has to be a finite number from 0 on"
            raise UserError(f"{component}: its factor for step {step} is {found}; {needed}.")
        return value

    last = horizon.num_steps - 1
    tried = [factor(step, scores_at(step, horizon)) for step in (0, last // 2, last)]
    if not any(tried) and not any(factor(step, scores_at(step, horizon)) for step in range(last)):
        raise UserError(f"{component}: its factor is 0 for every step, so nothing would be learnt.")
    return factor


def scores_at(step: int, horizon: Horizon) -> list[float]:
    """Return scores as a schedule might be given at a step: a 0 for each epoch that is over."""
    return [0.0] * (step // horizon.steps_per_epoch)


def build_optimizer(selection: Selection, groups: Groups) -> Optimizer:
    """Return the selected optimizer of groups of weights.

    Raises SettingError for settings that it does not take, and UserError where its step fails, or `lr` has no effect.
    """
    component = OPTIMIZERS[selection.name]
    copies = copy.deepcopy(groups) if component.is_from_plugin else []
    try:
        optimizer: Optimizer = OPTIMIZERS.build(selection, groups=groups)
        if not component.is_from_plugin:
            return optimizer
        slower = component.build({**selection.settings, "lr": selection.settings["lr"] / 2}, groups=copies)
    except ValueError as error:
        raise SettingError(f"optimizer.name={selection.name}", one_line(str(error))) from error
    rates, lower = ([group.get("lr") for group in one.param_groups] for one in (optimizer, slower))
    if None in rates or rates == lower:
        found = "in none of its groups" if None in rates else f"{rates[0]:g}, whatever optimizer.lr is"
        raise UserError(f"{component}: the learning rate is {found}; pass it on: torch.optim.SGD(groups, lr=lr), say.")
    for weight in [weight for group in slower.param_groups for weight in group["params"]]:
        weight.grad = torch.full_like(weight, 1e-3)
    with torch.random.fork_rng(devices=()), blaming(component, "step fails", CONTRACT):
        slower.step()
    return optimizer
