"""What people write first when they write an optimizer or a schedule: each works, or is answered in a sentence."""

import json

import pytest

from tests.conftest import TINY, only_run
from tests.support.first_plugins import IMPORTS, First, assert_trains_or_is_refused

SCHEDULE = """
@registry.register_scheduler("first_falls")
def falls(horizon):
    return lambda step, scores: {returned}
"""
OPTIMIZER = """
class Steps(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                {update}

@registry.register_optimizer("first_steps")
def steps(groups, lr: float = 0.01):
    return Steps(groups, {{"lr": {rate}}})
"""

FILES = {
    "a schedule that watches validation without patience": First(
        '@registry.register_scheduler("first_falls", watches=True)\ndef falls(horizon):\n    return lambda *_: 1.0',
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': watches validation, and has no setting `patience`",
    ),
    "a schedule that is a number": First(
        '@registry.register_scheduler("first_falls")\ndef falls(horizon):\n    return 1.0',
        "scheduler=first_falls",
        "scheduler 'first_falls': returns a float, and must return a function of (step, scores).",
    ),
    "a schedule that returns nothing": First(
        SCHEDULE.format(returned="None"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': its factor for step 0 is None; it scales the learning rate, and has to",
    ),
    "a schedule that returns a tensor": First(
        SCHEDULE.format(returned="torch.tensor(0.5)"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': its factor for step 0 is torch.float32 of shape (); it scales the",
    ),
    "a schedule that falls below zero": First(
        SCHEDULE.format(returned="1 - step"),
        "scheduler=first_falls dry_run=true",
        "plugin.py:10: scheduler 'first_falls': its factor for step 2 is -1; it scales the learning rate, and has",
    ),
    "a schedule that is always zero": First(
        SCHEDULE.format(returned="step // horizon.num_steps"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': its factor is 0 for every step, so nothing would be learnt.",
    ),
    "a schedule that is zero at both ends and in the middle": First(
        SCHEDULE.format(returned="step % 2"), "scheduler=first_falls batch_size=20"
    ),
    "a schedule that fails": First(
        SCHEDULE.format(returned="1 / step"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': fails at step 0: plugin.py:12: ZeroDivisionError: division by zero.",
    ),
    "a schedule that cannot be made": First(
        SCHEDULE.format(returned="1.0").replace("    return", "    horizon.steps\n    return"),
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': cannot be made: plugin.py:12: AttributeError: 'Horizon' object has no",
    ),
    "an optimizer whose step fails": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grid)"),
        "optimizer=first_steps",
        "optimizer 'first_steps': step fails: plugin.py:15: AttributeError: 'Parameter' object has no attribute 'grid'",
    ),
    "an optimizer that tracks gradients of its own": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grad)").replace("    @torch.no_grad()\n", ""),
        "optimizer=first_steps",
        "in-place operation. It gets no closure; the gradient of a weight is in its `.grad`, and @torch.no_grad()",
    ),
    "an optimizer that needs a closure": First(
        '@registry.register_optimizer("first_steps")\n'
        "def steps(groups, lr: float = 0.1):\n    return torch.optim.LBFGS(groups, lr)",
        "optimizer=first_steps optimizer.decay_norm_and_bias=true",
        "missing 1 required positional argument: 'closure'. It gets no closure; the gradient",
    ),
    "an optimizer that ignores lr": First(
        '@registry.register_optimizer("first_steps")\n'
        "def steps(groups, lr: float = 0.1):\n    return torch.optim.SGD(groups)",
        "optimizer=first_steps",
        "plugin.py:10: optimizer 'first_steps': the learning rate is 0.001, whatever optimizer.lr is; pass it on:",
    ),
    "an optimizer without lr in its groups": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grad)").replace('{"lr": lr}', "{}"),
        "optimizer=first_steps",
        "optimizer 'first_steps': the learning rate is in none of its groups; pass it on: torch.optim.SGD(",
    ),
    "an optimizer that works": First(
        OPTIMIZER.format(rate="lr", update="weight.sub_(weight.grad, alpha=group['lr'])"),
        "optimizer=first_steps optimizer.lr_scale.head=10",
    ),
    "a schedule of one argument": First(
        '@registry.register_scheduler("first_falls")\ndef falls(horizon):\n    return lambda step: 1.0',
        "scheduler=first_falls",
        "scheduler 'first_falls': returns a function of (step), and must return a function of (step, scores).",
    ),
    "a schedule that calls the horizon something else": First(
        '@registry.register_scheduler("first_falls")\ndef falls(total):\n    return lambda *_: 1.0',
        "scheduler=first_falls",
        "plugin.py:10: scheduler 'first_falls': setting 'total' has no type: write `total: int`, say; "
        "what the program fills is called `horizon`.",
    ),
    "an optimizer without lr": First(
        '@registry.register_optimizer("first_steps")\ndef steps(groups):\n    return torch.optim.SGD(groups, lr=0.1)',
        "optimizer=first_steps",
        "plugin.py:10: optimizer 'first_steps': has no setting `lr`, the learning rate that schedules scale",
    ),
    "an optimizer with lr alone": First(
        '@registry.register_optimizer("first_steps")\n'
        "def steps(groups, lr: float = 0.1):\n    return torch.optim.SGD(groups, lr)",
        "optimizer=first_steps",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_first_optimizer_or_schedule_trains_or_is_refused_in_a_sentence(name, cnnbench, outputs, tmp_path):
    assert_trains_or_is_refused(FILES[name], cnnbench, outputs, tmp_path)


def test_a_schedule_that_fails_later_ends_the_training_before_the_weights_are_lost(cnnbench, outputs, tmp_path):
    text = SCHEDULE.format(returned="float('nan') if step == 1 else 1.0")
    (tmp_path / "here" / "plugin.py").write_text(f"{IMPORTS}\n{text}")
    ended = cnnbench(*TINY, "epochs=2", "batch_size=32", "plugins=plugin.py", "scheduler=first_falls")
    assert ended.code == 2
    assert "plugin.py:11: scheduler 'first_falls': its factor for step 1 is nan; it scales the learning" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert json.loads((only_run(outputs) / "run.json").read_text())["status"] == "failed"


def test_a_schedule_that_looks_at_scores_is_tried_with_some(cnnbench, tmp_path):
    text = SCHEDULE.format(returned="1.0 if step < horizon.steps_per_epoch else 0.5 + scores[-1]")
    (tmp_path / "here" / "plugin.py").write_text(f"{IMPORTS}\n{text}")
    ended = cnnbench(*TINY, "epochs=2", "dry_run=true", "plugins=plugin.py", "scheduler=first_falls")
    assert ended.code == 0, ended.err
