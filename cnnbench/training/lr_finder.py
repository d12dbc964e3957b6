"""`lr_find=true`: at which learning rates the loss falls, found by raising the rate with every step.

Source: Smith 2017, Cyclical Learning Rates for Training Neural Networks, arXiv:1506.01186, section 3.3.
"""

import math
from collections.abc import Iterator, Sequence

from cnnbench.data.loader import Batch
from cnnbench.errors import ExitCode
from cnnbench.store.files import make_folder, write_atomically
from cnnbench.store.folder import outputs_dir
from cnnbench.store.tables import csv_of_rows
from cnnbench.training import console
from cnnbench.training.init import trial
from cnnbench.training.plan import Plan, with_initial_weights
from cnnbench.training.setup import TrainingSetup
from cnnbench.training.step import train_step
from cnnbench.training.terminal import linked

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 150
SMOOTHING = 0.9  # of the losses, from step to step
DIVERGED = 4.0  # times the lowest loss: there is nothing more to be seen


def find_learning_rate(plan: Plan) -> ExitCode:
    """Try learning rates from 1e-6 to 10, say which one to take, and draw the curve. No run folder is made."""
    plan, training, _ = trial(with_initial_weights(plan))
    rates, losses = try_rates(training)
    folder = outputs_dir() / "lr_finds" / plan.run_path()
    make_folder(folder)
    table = csv_of_rows([("learning_rate", "loss"), *zip(rates, losses, strict=True)])
    write_atomically(folder / "losses.csv", table.encode())
    best = suggestion(rates, losses)

    from cnnbench.tasks.figures import save_curve

    save_curve(folder / "losses.png", rates, losses, ("learning rate", "loss, smoothed"), best, is_log_x=True)
    console.say(f"  tried {len(rates)} learning rates from {rates[0]:.1e} to {rates[-1]:.1e}")
    if best is None:
        console.say("  the loss did not fall at any of them")
    else:
        console.say(f"  the loss falls fastest at {best:.2g}: optimizer.lr={best:.2g}")
    console.say("  curve: " + linked(folder / "losses.png"))
    return ExitCode.FINISHED if best is not None else ExitCode.FAILED


def try_rates(training: TrainingSetup) -> tuple[list[float], list[float]]:
    """Train, raising the rate by the same factor after every step; return the rates and the smoothed losses."""
    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    training.set_train_mode(1)
    base = training.config.optimizer.settings["lr"]
    for step, batch in zip(range(STEPS), _without_end(training), strict=False):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        loss = train_step(training, batch, step, rate / base)[0].item() / len(batch)
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed = mean / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(loss) or (losses and smoothed > DIVERGED * min(losses)):
            break
        rates.append(rate)
        losses.append(smoothed)
    return rates, losses


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the rate at which the loss falls fastest, before it is lowest; None where it never falls."""
    lowest = min(range(len(losses)), key=losses.__getitem__)
    slopes = [
        (losses[step + 1] - losses[step - 1]) / math.log(rates[step + 1] / rates[step - 1]) for step in range(1, lowest)
    ]
    if not slopes or min(slopes) >= 0:
        return None
    return rates[1 + min(range(len(slopes)), key=slopes.__getitem__)]


def _without_end(training: TrainingSetup) -> Iterator[Batch]:
    epoch = 0
    while True:
        epoch += 1
        yield from training.train.epoch(training.order(epoch), training.config.batch_size, epoch)
