"""Schedules, penalties and optimizers against what their formulas say, computed slowly."""

import inspect
import math

import pytest
import torch
import yaml
from torch import nn

from cnnbench.conf_dir import conf_dir
from cnnbench.errors import UserError
from cnnbench.optim.penalties import penalized, penalty
from cnnbench.optim.schedules import Horizon
from cnnbench.registry import OPTIMIZERS, SCHEDULERS, Selection, register_everything

register_everything()

HORIZON = Horizon(epochs=6, steps_per_epoch=5)
SETTINGS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((conf_dir() / "optimizer").glob("*.yaml"))
}


def schedule(name: str, horizon: Horizon = HORIZON, **settings):
    return SCHEDULERS.build(Selection(name, settings), horizon)


class TestSchedules:
    """From the step to a factor of the first learning rate."""

    def test_none_keeps_the_rate(self):
        assert {schedule("none")(step) for step in range(HORIZON.num_steps)} == {1.0}

    @pytest.mark.parametrize(("unit", "every", "period"), [("epoch", 2, 10), ("step", 7, 7)])
    def test_step_multiplies_after_every_period(self, unit, every, period):
        factors = schedule("step", every=every, unit=unit, gamma=0.3)
        expected = 1.0
        for step in range(HORIZON.num_steps):
            if step and step % period == 0:
                expected *= 0.3
            assert factors(step) == pytest.approx(expected, rel=1e-12), step

    @pytest.mark.parametrize(("unit", "last_that_changes", "end"), [("epoch", 5, "6 epochs"), ("step", 29, "30 steps")])
    def test_step_that_never_changes_is_an_error(self, unit, last_that_changes, end):
        factors = schedule("step", every=last_that_changes, unit=unit, gamma=0.5)
        assert factors(HORIZON.num_steps - 1) == 0.5
        with pytest.raises(UserError, match=f"scheduler.every={last_that_changes + 1}: training ends after {end}"):
            schedule("step", every=last_that_changes + 1, unit=unit, gamma=0.5)

    @pytest.mark.parametrize("final_fraction", [0.0, 0.1])
    def test_cosine_falls_along_half_a_cosine_and_ends_at_the_last_step(self, final_fraction):
        factors = schedule("cosine", final_fraction=final_fraction)
        last = HORIZON.num_steps - 1
        for step in range(HORIZON.num_steps):
            height = math.cos(math.radians(180 * step / last))  # 1 … -1
            expected = (1 + final_fraction) / 2 + height * (1 - final_fraction) / 2
            assert factors(step) == pytest.approx(expected, abs=1e-12), step
        assert factors(0) == 1.0
        assert factors(last) == final_fraction

    def test_cosine_of_a_single_step_keeps_the_rate(self):
        assert schedule("cosine", Horizon(1, 1), final_fraction=0.0)(0) == 1.0

    @pytest.mark.parametrize("name", list(SCHEDULERS))
    def test_every_schedule_is_a_function_of_the_step_alone(self, name):
        settings = {"every": 2, "unit": "epoch", "gamma": 0.1} if name == "step" else {}
        first, second = schedule(name, **settings), schedule(name, **settings)
        forwards = [first(step) for step in range(HORIZON.num_steps)]
        backwards = [second(step) for step in reversed(range(HORIZON.num_steps))]
        assert forwards == backwards[::-1]
        assert all(0 <= factor <= 1 for factor in forwards)

    def test_the_horizon_counts_steps(self):
        assert HORIZON.num_steps == 30


class TestPenalties:
    """L1 and L2 over weights: no biases, no norm parameters."""

    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3), nn.BatchNorm1d(3))
        for parameter in layers.parameters():
            nn.init.normal_(parameter)
        return layers

    def test_only_weights_are_penalized(self, network):
        chosen = penalized(network.parameters())
        assert [id(weight) for weight in chosen] == [id(network[0].weight), id(network[3].weight)]

    def test_weights_that_are_not_trained_are_not_penalized(self, network):
        network[0].requires_grad_(False)
        assert [id(weight) for weight in penalized(network.parameters())] == [id(network[3].weight)]

    @pytest.mark.parametrize(("l1", "l2"), [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25), (0.0, 0.0)])
    def test_the_penalty_is_the_sum_over_weights(self, network, l1, l2):
        expected = 0.0
        for weight in (network[0].weight, network[3].weight):
            for value in weight.flatten().tolist():
                expected += l1 * abs(value) + l2 * value**2
        assert penalty(penalized(network.parameters()), l1, l2).item() == pytest.approx(expected, rel=1e-5)

    def test_the_gradient_reaches_weights_only(self, network):
        penalty(penalized(network.parameters()), 0.5, 0.25).backward()
        for module in (network[0], network[3]):
            expected = 0.5 * module.weight.sign() + 2 * 0.25 * module.weight
            torch.testing.assert_close(module.weight.grad, expected)
            assert module.bias.grad is None
        assert all(parameter.grad is None for norm in (network[1], network[4]) for parameter in norm.parameters())


class TestOptimizers:
    """torch's own, with every setting passed on."""

    def step(self, name: str, num_steps: int = 2, **changed) -> list[float]:
        """Return a weight that starts at 2, after each step with the gradients 0.5, 1.0, 1.5, …"""
        settings = dict(SETTINGS[name])
        weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        optimizer = OPTIMIZERS.build(Selection(settings.pop("name"), settings | changed), [weight])
        values = []
        for number in range(1, num_steps + 1):
            weight.grad = torch.tensor([0.5 * number], dtype=torch.float64)
            optimizer.step()
            values.append(weight.item())
        return values

    def test_sgd_with_momentum_and_weight_decay(self):
        weight, velocity, expected = 2.0, 0.0, []
        for gradient in (0.5, 1.0, 1.5):
            velocity = 0.9 * velocity + (gradient + 0.25 * weight)
            weight -= 0.125 * velocity
            expected.append(weight)
        assert self.step("sgd", 3, lr=0.125, momentum=0.9, weight_decay=0.25) == pytest.approx(expected, rel=1e-12)

    def test_sgd_with_nesterov_momentum_looks_ahead(self):
        weight, velocity, expected = 2.0, 0.0, []
        for gradient in (0.5, 1.0, 1.5):
            velocity = 0.9 * velocity + gradient
            weight -= 0.125 * (gradient + 0.9 * velocity)
            expected.append(weight)
        assert self.step("sgd", 3, lr=0.125, momentum=0.9, nesterov=True) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("name", ["adam", "adamw"])
    def test_adam_and_adamw_with_weight_decay(self, name):
        lr, beta1, beta2, eps, decay = 0.125, 0.75, 0.875, 0.5, 0.25
        weight, mean, square, expected = 2.0, 0.0, 0.0, []
        for number, gradient in enumerate((0.5, 1.0, 1.5), start=1):
            if name == "adamw":
                weight -= lr * decay * weight
            else:
                gradient += decay * weight  # noqa: PLW2901
            mean = beta1 * mean + (1 - beta1) * gradient
            square = beta2 * square + (1 - beta2) * gradient**2
            corrected = math.sqrt(square / (1 - beta2**number))
            weight -= lr * (mean / (1 - beta1**number)) / (corrected + eps)
            expected.append(weight)
        got = self.step(name, 3, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay)
        assert got == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("name", SETTINGS)
    def test_every_option_takes_a_step_down(self, name):
        assert 0 < self.step(name, 1)[0] < 2.0

    @pytest.mark.parametrize(
        ("name", "setting"),
        [
            (name, parameter.name)
            for name in OPTIMIZERS
            for parameter in inspect.signature(OPTIMIZERS[name].factory).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        ],
    )
    def test_every_setting_is_honoured(self, name, setting):
        old = SETTINGS[name][setting]
        new = not old if isinstance(old, bool) else old / 2 or 0.25
        if setting == "eps":
            new = 0.5
        assert self.step(name, 3) != self.step(name, 3, **{setting: new})

    def test_every_registered_optimizer_has_an_option_of_its_name(self):
        assert set(OPTIMIZERS) <= set(SETTINGS)
