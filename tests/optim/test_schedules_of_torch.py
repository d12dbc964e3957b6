"""Learning-rate schedules that torch has too: every step has torch's learning rate."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torchs

from cnnbench.optim.schedules import warmed_up
from tests.support.schedules import HORIZON, NAN, factors, schedule


def torch_factors(make: Callable[[torch.optim.Optimizer], Any], num_steps: int = HORIZON.num_steps) -> list[float]:
    """Return what one of torch's schedulers makes of a learning rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(num_steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def torch_plateau(scores: list[float], patience: int, gamma: float, **settings: float) -> list[float]:
    """Return the factor of torch's plateau after each of the scores."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torchs.ReduceLROnPlateau(
        optimizer, mode="max", factor=gamma, patience=patience - 1, threshold=settings["min_delta"],
        threshold_mode="abs", cooldown=int(settings["cooldown"]), min_lr=settings["min_fraction"], eps=0.0,
    )  # fmt: skip
    rates = []
    for score in scores:
        scheduler.step(score)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


class TestAgainstTorch:
    """Where torch has the same schedule, every step has torch's learning rate."""

    @pytest.mark.parametrize(("unit", "every", "period"), [("epoch", 2, 10), ("step", 7, 7)])
    def test_step(self, unit, every, period):
        expected = torch_factors(lambda optimizer: torchs.StepLR(optimizer, period, 0.3))
        assert factors("step", every=every, unit=unit, gamma=0.3) == pytest.approx(expected, rel=1e-12)
        assert len(set(expected)) > 2

    @pytest.mark.parametrize(("unit", "milestones", "steps"), [("epoch", [2, 5], [10, 25]), ("step", [1, 29], [1, 29])])
    def test_multistep(self, unit, milestones, steps):
        expected = torch_factors(lambda optimizer: torchs.MultiStepLR(optimizer, steps, 0.3))
        assert factors("multistep", milestones=milestones, unit=unit, gamma=0.3) == pytest.approx(expected, rel=1e-12)
        assert len(set(expected)) == 3

    def test_exponential_by_steps(self):
        expected = torch_factors(lambda optimizer: torchs.ExponentialLR(optimizer, 0.9))
        assert factors("exponential", gamma=0.9, unit="step") == pytest.approx(expected, rel=1e-12)

    def test_exponential_by_epochs_is_torchs_where_an_epoch_begins_and_falls_evenly_between(self):
        got = factors("exponential", gamma=0.5, unit="epoch")
        expected = torch_factors(lambda optimizer: torchs.ExponentialLR(optimizer, 0.5), HORIZON.epochs)
        assert got[::5] == pytest.approx(expected, rel=1e-12)
        ratios = [later / earlier for earlier, later in pairwise(got)]
        assert ratios == pytest.approx([0.5**0.2] * 29, rel=1e-12)

    @pytest.mark.parametrize("final_fraction", [0.0, 0.1])
    def test_cosine(self, final_fraction):
        got = factors("cosine", final_fraction=final_fraction)
        expected = torch_factors(lambda optimizer: torchs.CosineAnnealingLR(optimizer, 29, eta_min=final_fraction))
        assert got == pytest.approx(expected, abs=1e-9)
        assert (got[0], got[-1]) == (1.0, final_fraction)

    @pytest.mark.parametrize(("multiplier", "final_fraction"), [(1, 0.0), (2, 0.1), (3, 0.0)])
    @pytest.mark.parametrize(("unit", "period", "steps"), [("epoch", 1, 5), ("step", 3, 3)])
    def test_cosine_restarts(self, unit, period, steps, multiplier, final_fraction):
        expected = torch_factors(
            lambda optimizer: torchs.CosineAnnealingWarmRestarts(optimizer, steps, multiplier, final_fraction)
        )
        settings = {"multiplier": multiplier, "final_fraction": final_fraction}
        assert factors("cosine_restarts", period=period, unit=unit, **settings) == pytest.approx(expected, abs=1e-9)
        assert expected[1:].count(1.0) >= 1

    @pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
    def test_polynomial(self, power):
        expected = torch_factors(lambda optimizer: torchs.PolynomialLR(optimizer, 29, power))
        assert factors("polynomial", power=power) == pytest.approx(expected, abs=1e-9)

    def test_polynomial_ends_at_the_final_fraction(self):
        got = factors("polynomial", power=2.0, final_fraction=0.2)
        assert got == pytest.approx([0.2 + 0.8 * ((29 - step) / 29) ** 2 for step in range(30)], rel=1e-12)

    @pytest.mark.parametrize(("up_share", "start", "final"), [(0.3, 0.04, 1e-5), (0.25, 0.5, 0.1), (0.9, 0.04, 0.02)])
    def test_one_cycle(self, up_share, start, final):
        expected = torch_factors(
            lambda optimizer: torchs.OneCycleLR(
                optimizer, 1.0, 30, pct_start=up_share, div_factor=1 / start, final_div_factor=start / final,
                cycle_momentum=False,
            ),
            num_steps=29,
        )  # fmt: skip
        got = factors("one_cycle", up_share=up_share, start_fraction=start, final_fraction=final)
        assert got[:-1] == pytest.approx(expected, rel=1e-9)
        assert got[-1] == pytest.approx(final)

    @pytest.mark.parametrize(("unit", "up", "down", "steps"), [("epoch", 1, 2, (5, 10)), ("step", 4, 3, (4, 3))])
    def test_cyclic(self, unit, up, down, steps):
        expected = torch_factors(
            lambda optimizer: torchs.CyclicLR(optimizer, 0.1, 1.0, *steps, mode="triangular", cycle_momentum=False)
        )
        assert factors("cyclic", up=up, down=down, unit=unit, low_fraction=0.1) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize(
        ("patience", "min_delta", "cooldown", "min_fraction"), [(1, 0.0, 0, 0.0), (2, 0.1, 3, 0.0), (3, 0.0, 1, 0.2)]
    )
    def test_plateau(self, seed, patience, min_delta, cooldown, min_fraction):
        draws = random.Random(seed)
        scores = [draws.choice([NAN, draws.random(), draws.random(), number / 40]) for number in range(40)]
        settings = {"min_delta": min_delta, "cooldown": cooldown, "min_fraction": min_fraction}
        falls = schedule("plateau", patience=patience, gamma=0.5, **settings)
        expected = torch_plateau(scores, patience, 0.5, **settings)
        assert [falls(0, scores[: number + 1]) for number in range(40)] == pytest.approx(expected, rel=1e-12)
        assert expected[-1] < 0.5


class TestWarmUp:
    """A straight line, as torch draws it."""

    @pytest.mark.parametrize("steps", [1, 4, 7])
    def test_it_is_torchs_linear_schedule(self, steps):
        warmed = warmed_up(schedule("none"), steps)
        expected = torch_factors(
            lambda optimizer: torchs.LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
        )
        assert [warmed(step, ()) for step in range(30)] == pytest.approx(expected, rel=1e-12)
