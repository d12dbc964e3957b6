"""What comes out of a training: a network, what it is worth on every split, and how soon it got there."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.training.loop import Progress, evaluate, evaluating
from cnnbench.training.step import Parts


def choose(parts: Parts, progress: Progress) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that counts, the best on validation or the last one, and which one that is."""
    best, network = progress.best, parts.evaluated(progress.step)
    if best is not None and parts.config.tested == "best":
        network.load_state_dict(best.weights)
        return network, {"chosen": "best on validation", "epoch": best.epoch, "step": best.step}
    unvalidated = "without validation" if parts.val is None else "validation never gave a number"
    why = "as tested=last wants" if best is not None else unvalidated
    return network, {"chosen": f"last, {why}", "epoch": progress.epochs_done, "step": progress.step}


def measure(
    parts: Parts, progress: Progress, context: EvalContext, step: int
) -> tuple[dict[str, dict[str, Any]], EvalReport]:
    """Return the metrics of each split that there is, with its number of images, and what is behind those of test.

    step: after which the network of the context was kept. Test is measured here, and only here, in a single pass.
    """
    best, network = progress.best, context.network
    metrics: dict[str, dict[str, Any]] = {"train": evaluate(parts, network, context.splits["train"])}
    if "val" in context.splits and best is not None:  # else no epoch of it gave a number
        kept = step == best.step
        metrics["val"] = dict(best.metrics) if kept else evaluate(parts, network, context.splits["val"])
    with evaluating(network):
        findings = parts.task.evaluate(context, "test")
    metrics["test"] = dict(findings.metrics)
    return {split: found | {"samples": len(getattr(context.data, split))} for split, found in metrics.items()}, findings


def reached(goal: float | None, watched: tuple[str, bool], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return in which epoch validation came to a goal; None where there is none, epoch and step None if never."""
    if goal is None:
        return None
    name, higher = watched
    measured = (row for row in rows if row.get(f"{name}/val") is not None)
    there = (row for row in measured if (row[f"{name}/val"] >= goal if higher else row[f"{name}/val"] <= goal))
    first = next(there, {"epoch": None, "step": None})
    return {"metric": name, "value": goal, "epoch": first["epoch"], "step": first["step"]}
