"""What comes out of a training: a network, what it is worth on every split, and how soon it got there."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from cnnbench.loop import Progress, evaluate, evaluating
from cnnbench.tasks.view import View
from cnnbench.update import Parts


def choose(parts: Parts, progress: Progress) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that counts, the best on validation or the last one, and which one that is."""
    best, network = progress.best, parts.evaluated(progress.step)
    if best is not None and parts.config.tested == "best":
        network.load_state_dict(best.weights)
        return network, {"chosen": "best on validation", "epoch": best.epoch, "step": best.step}
    unvalidated = "without validation" if parts.val is None else "validation never gave a number"
    why = "as tested=last wants" if best is not None else unvalidated
    return network, {"chosen": f"last, {why}", "epoch": progress.epochs_done, "step": progress.step}


def measure(parts: Parts, progress: Progress, view: View, step: int) -> dict[str, dict[str, Any]]:
    """Return the metrics of each split that there is, with its number of images; test is measured here, and only here.

    step: after which the network of the view was kept.
    """
    best, network = progress.best, view.network
    metrics: dict[str, dict[str, Any]] = {}
    for split in view.splits:
        if split == "val" and best is None:
            continue  # no epoch of it gave a number
        if split == "val" and best is not None and step == best.step:
            metrics[split] = dict(best.metrics)
        else:
            metrics[split] = evaluate(parts, network, view.splits[split])
    with evaluating(network):
        metrics["test"] |= parts.task.conclude(view)
    return {split: found | {"samples": len(getattr(view.data, split))} for split, found in metrics.items()}


def reached(goal: float | None, watched: tuple[str, bool], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return in which epoch validation came to a goal; None where there is none, epoch and step None if never."""
    if goal is None:
        return None
    name, higher = watched
    measured = (row for row in rows if row.get(f"{name}/val") is not None)
    there = (row for row in measured if (row[f"{name}/val"] >= goal if higher else row[f"{name}/val"] <= goal))
    first = next(there, {"epoch": None, "step": None})
    return {"metric": name, "value": goal, "epoch": first["epoch"], "step": first["step"]}
