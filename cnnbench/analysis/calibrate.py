"""Temperature scaling: one number, fitted on validation, that makes probabilities as large as they are right."""

import copy
from math import exp, log

import torch
from torch import Tensor, nn

from cnnbench.analysis.run import Run
from cnnbench.errors import UserError
from cnnbench.tasks.base import Task

SMALLEST, LARGEST = 1e-3, 1e3  # temperatures
WITHOUT = "evaluate it without calibration"


def calibrated_task(run: Run, network: nn.Module, device: torch.device) -> tuple[Task, float]:
    """Return the task of a run with class scores that are divided by a temperature, and that temperature.

    Raises UserError where the task predicts no classes, or validation images show no temperature.
    """
    scores = run.task.scores
    if scores is None:
        raise UserError(
            f"{run.path}: task {run.config.task.name} does not predict classes, which could be calibrated; {WITHOUT}."
        )
    images = run.data("val")
    if not len(images):
        raise UserError(
            f"{run.path}: has no validation images to fit a temperature on (data.val_fraction=0); "
            f"train with some, or {WITHOUT}."
        )
    outputs = run.map(network, run.batches_of(images, device), lambda network, batch: scores(network(batch.images)))
    try:
        temperature = fit_temperature(outputs, images.labels)
    except ValueError as error:
        raise UserError(f"{run.path}: {error}, or {WITHOUT}.") from error
    task = copy.copy(run.task)
    task.scores = lambda outputs: scores(outputs) / temperature
    return task, temperature


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """Return the temperature with the lowest mean cross entropy of softmax(scores / temperature).

    scores: float [N, K]. labels: int64 [N]. Raises ValueError where the cross entropy has no minimum.
    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    from scipy.optimize import brentq

    scores = scores.double()
    own = scores.gather(1, labels.unsqueeze(1))[:, 0]

    def slope(log_temperature: float) -> float:
        """Return the derivative of the cross entropy by 1 / temperature, in which it is convex."""
        probabilities = (scores * exp(-log_temperature)).softmax(1)
        return float(((probabilities * scores).sum(1) - own).mean())

    if not bool(scores.isfinite().all()):
        raise ValueError(
            "scores of validation images are not finite: there is no temperature to fit; "
            "train with a lower optimizer.lr"
        )
    if slope(log(SMALLEST)) <= 0:
        raise ValueError(
            "no validation image is predicted wrongly: any lower temperature would seem better; "
            "train with more of them (data.val_fraction)"
        )
    if slope(log(LARGEST)) >= 0:
        raise ValueError(
            "validation images are predicted no better than by guessing: no temperature helps; train for longer"
        )
    return exp(brentq(slope, log(SMALLEST), log(LARGEST), xtol=1e-12))
