"""Optimizers against torch's plain ones or formulas computed slowly, and what holds for all of them."""

import copy
import io
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnbench.optim.optimizers import parameter_groups
from cnnbench.registry import OPTIMIZERS
from tests.support.optimizers import build, groups_of, loss_of, small_network, train
from tests.support.options import settings_of, walked

GRADIENTS = (1.5, -0.5, 0.25, 1.0, -0.125)
BETAS = {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}
OUR_BETAS = {"lr": 0.02, "beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "weight_decay": 0.1}
PLAIN: dict[str, tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = {  # ours, torch's
    "sgd": ({"lr": 0.02, "momentum": 0.8, "weight_decay": 0.1, "nesterov": True}, torch.optim.SGD, {}),
    "adam": (OUR_BETAS | {"amsgrad": True}, torch.optim.Adam, BETAS | {"amsgrad": True}),
    "adamw": (OUR_BETAS | {"amsgrad": True}, torch.optim.AdamW, BETAS | {"amsgrad": True}),
    "nadam": (OUR_BETAS | {"momentum_decay": 0.01}, torch.optim.NAdam, BETAS | {"momentum_decay": 0.01}),
    "radam": (OUR_BETAS, torch.optim.RAdam, BETAS),
    "rmsprop": (
        {"lr": 0.02, "alpha": 0.8, "eps": 1e-3, "momentum": 0.5, "centered": True, "weight_decay": 0.1},
        torch.optim.RMSprop,
        {},
    ),
    "adagrad": (
        {"lr": 0.02, "eps": 1e-3, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1},
        torch.optim.Adagrad,
        {},
    ),
    "adadelta": ({"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}, torch.optim.Adadelta, {}),
}


def walk(name: str, **changed: Any) -> list[float]:
    """Return a weight that starts at 2, after a step with each of the gradients."""
    weight = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = build(name, [{"params": [weight]}], **changed)
    values = []
    for gradient in GRADIENTS:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        values.append(weight.item())
    return values


def assert_same(one: Any, other: Any) -> None:
    """Compare two states to the last bit."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


class TestOptimizers:
    """torch's own, with every setting passed on."""

    @pytest.mark.parametrize("name", PLAIN)
    def test_every_step_is_that_of_torchs_plain_implementation(self, name):
        settings, kind, theirs_settings = PLAIN[name]
        ours, theirs = small_network(), small_network()
        optimizer = build(name, parameter_groups(ours, True), **settings)
        reference = kind(theirs.parameters(), **(theirs_settings or settings), foreach=False)
        for _ in range(6):
            for network, each in ((ours, optimizer), (theirs, reference)):
                each.zero_grad()
                loss_of(network).backward()
                each.step()
        for got, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)

    def test_sgd_with_momentum_and_weight_decay(self):
        weight, velocity, expected = 2.0, 0.0, []
        for gradient in GRADIENTS:
            velocity = 0.9 * velocity + (gradient + 0.25 * weight)
            weight -= 0.125 * velocity
            expected.append(weight)
        assert walk("sgd", lr=0.125, momentum=0.9, weight_decay=0.25) == pytest.approx(expected, rel=1e-12)

    def test_sgd_with_nesterov_momentum_looks_ahead(self):
        weight, velocity, expected = 2.0, 0.0, []
        for gradient in GRADIENTS:
            velocity = 0.9 * velocity + gradient
            weight -= 0.125 * (gradient + 0.9 * velocity)
            expected.append(weight)
        assert walk("sgd", lr=0.125, momentum=0.9, nesterov=True) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("amsgrad", [False, True])
    @pytest.mark.parametrize("name", ["adam", "adamw"])
    def test_adam_and_adamw_with_weight_decay(self, name, amsgrad):
        lr, beta1, beta2, eps, decay = 0.125, 0.75, 0.875, 0.5, 0.25
        weight, mean, square, greatest, expected = 2.0, 0.0, 0.0, 0.0, []
        for number, gradient in enumerate(GRADIENTS, start=1):
            if name == "adamw":
                weight -= lr * decay * weight
            else:
                gradient += decay * weight  # noqa: PLW2901
            mean = beta1 * mean + (1 - beta1) * gradient
            square = beta2 * square + (1 - beta2) * gradient**2
            greatest = max(greatest, square) if amsgrad else square
            corrected = math.sqrt(greatest / (1 - beta2**number))
            weight -= lr * (mean / (1 - beta1**number)) / (corrected + eps)
            expected.append(weight)
        got = walk(name, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=decay, amsgrad=amsgrad)
        assert got == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("centered", [False, True])
    def test_rmsprop_with_momentum_and_weight_decay(self, centered):
        lr, alpha, eps, momentum, decay = 0.125, 0.75, 0.5, 0.5, 0.25
        weight, square, mean, velocity, expected = 2.0, 0.0, 0.0, 0.0, []
        for gradient in GRADIENTS:
            gradient += decay * weight  # noqa: PLW2901
            square = alpha * square + (1 - alpha) * gradient**2
            mean = alpha * mean + (1 - alpha) * gradient
            spread = square - mean**2 if centered else square
            velocity = momentum * velocity + gradient / (math.sqrt(spread) + eps)
            weight -= lr * velocity
            expected.append(weight)
        got = walk("rmsprop", lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, weight_decay=decay)
        assert got == pytest.approx(expected, rel=1e-12)

    def test_adagrad_with_its_own_decay_of_the_rate(self):
        weight, total, expected = 2.0, 0.5, []
        for number, gradient in enumerate(GRADIENTS):
            gradient += 0.25 * weight  # noqa: PLW2901
            total += gradient**2
            weight -= 0.125 / (1 + number * 0.1) * gradient / (math.sqrt(total) + 0.01)
            expected.append(weight)
        got = walk("adagrad", lr=0.125, eps=0.01, lr_decay=0.1, initial_accumulator_value=0.5, weight_decay=0.25)
        assert got == pytest.approx(expected, rel=1e-6)  # its counter is a float32

    def test_adadelta_steps_as_far_as_before(self):
        weight, square, steps, expected = 2.0, 0.0, 0.0, []
        for gradient in GRADIENTS:
            gradient += 0.25 * weight  # noqa: PLW2901
            square = 0.75 * square + 0.25 * gradient**2
            step = math.sqrt(steps + 0.01) / math.sqrt(square + 0.01) * gradient
            steps = 0.75 * steps + 0.25 * step**2
            weight -= 0.5 * step
            expected.append(weight)
        assert walk("adadelta", lr=0.5, rho=0.75, eps=0.01, weight_decay=0.25) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("name", walked("optimizer"))
    def test_every_option_learns(self, name):
        losses = []
        for rate in (settings_of("optimizer", name)["lr"], 0.1, 0.01, 0.001):
            network = small_network(channels_last=True)
            before = loss_of(network).item()
            train(network, build(name, groups_of(name, network), lr=rate), 80)
            losses.append(loss_of(network).item())
            if losses[-1] < 0.9 * before:
                return
        pytest.fail(f"the loss is {before} before 80 steps, and {losses} after them")

    def test_no_option_imports_torchs_compiler(self):
        code = """
import sys
from cnnbench.plugins import register_everything
from cnnbench.registry import OPTIMIZERS
from tests.support.optimizers import build, groups_of, small_network, train
register_everything()
for name in OPTIMIZERS:
    network = small_network()
    optimizer = build(name, groups_of(name, network))
    optimizer.load_state_dict(optimizer.state_dict())
    train(network, optimizer, 1)
    assert "torch._dynamo" not in sys.modules, name
"""
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize("name", walked("optimizer"))
    def test_a_restored_state_goes_on_bit_for_bit(self, name):
        unbroken = small_network(channels_last=True)
        optimizer = build(name, groups_of(name, unbroken))
        train(unbroken, optimizer, 3)
        file = io.BytesIO()
        torch.save({"network": unbroken.state_dict(), "optimizer": optimizer.state_dict()}, file)
        train(unbroken, optimizer, 3)

        file.seek(0)
        content = torch.load(file, weights_only=True)
        restored = small_network(channels_last=True, seed=1)
        again = build(name, groups_of(name, restored))
        restored.load_state_dict(content["network"])
        again.load_state_dict(content["optimizer"])
        train(restored, again, 3)
        for expected, got in zip(unbroken.parameters(), restored.parameters(), strict=True):
            assert torch.equal(expected, got)
        assert_same(again.state_dict(), optimizer.state_dict())

    @pytest.mark.parametrize("name", walked("optimizer"))
    def test_the_rate_of_each_group_counts_also_after_a_state_was_restored(self, name):
        network = small_network()
        optimizer = build(name, groups_of(name, network))
        train(network, optimizer, 1)
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for frozen in optimizer.param_groups:
            for group in optimizer.param_groups:
                group["lr"] = 0.0 if group is frozen else 0.01
            before = {id(part): part.detach().clone() for part in network.parameters()}
            train(network, optimizer, 1)
            for group in optimizer.param_groups:
                for part in group["params"]:
                    assert torch.equal(part, before[id(part)]) == (group is frozen)

    @pytest.mark.parametrize("name", walked("optimizer"))
    def test_the_first_group_has_the_rate_that_is_configured(self, name):
        assert build(name, parameter_groups(small_network(), True), lr=0.0625).param_groups[0]["lr"] == 0.0625

    @pytest.mark.parametrize(
        ("name", "setting"), [(name, key) for name in (*PLAIN, "muon") for key in OPTIMIZERS[name].schema.model_fields]
    )
    def test_every_setting_is_honoured(self, name, setting):
        old = settings_of("optimizer", name)[setting]
        others = {"eps": 0.5, "ns_steps": 3, "adjust_lr": "match_rms_adamw"}
        new = others[setting] if setting in others else not old if isinstance(old, bool) else old / 2 or 0.25

        def weights(**changed: object) -> list[float]:
            network = small_network()
            train(network, build(name, parameter_groups(network, True), **changed), 8)
            return [value for part in network.parameters() for value in part.flatten().tolist()]

        assert weights(**{setting: new}) != weights()

    def test_a_mistake_says_that_there_is_no_decay_to_take_away(self, cnnbench):
        refused = cnnbench("optimizer=adam", "optimizer.decay_norm_and_bias=false", "--cfg", "job")
        assert refused.code == 2
        message = "optimizer.decay_norm_and_bias=false  has no effect without optimizer.weight_decay; give one, or true"
        assert message in refused.err
        words = ["optimizer=adam", "optimizer.decay_norm_and_bias=false", "optimizer.weight_decay=0.1", "--cfg", "job"]
        assert cnnbench(*words).code == 0
