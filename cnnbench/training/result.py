"""What comes out of a training: a network, its metrics on every split, and how soon it learnt."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnbench.config.run_config import RunConfig
from cnnbench.tasks.context import EvalContext
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.tasks.gallery import kernels_of, views_of
from cnnbench.training import console
from cnnbench.training.loop import Progress
from cnnbench.training.remarks_after import Outcome, remarks_after
from cnnbench.training.setup import TrainingSetup
from cnnbench.training.step import evaluate, evaluating

AUGMENTED, VIEWS = 4, 7  # training images that are shown, augmented views of each


def select_checkpoint(training: TrainingSetup, progress: Progress) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network that is tested, the best on validation, the average of several, or the last one; and which.

    `kind` (best, average or last) is for programs, `chosen` for people.
    """
    best, number = progress.best, training.config.checkpoint.average
    if best is not None and number is not None:
        kept = progress.ranked[:number]
        last = max(kept, key=lambda one: one.step)
        epochs = ", ".join(str(one.epoch) for one in kept)
        said = f"mean of the weights of the {len(kept)} best on validation, of epochs {epochs}"
        network = training.averaged([one.weights for one in kept], last.step)
        return network, {"kind": "average", "chosen": said, "epoch": last.epoch, "step": last.step}
    network = training.evaluated(progress.step)
    if best is not None and training.config.tested == "best":
        network.load_state_dict(best.weights)
        chosen = {"kind": "best", "chosen": "best on validation"}
        return network, {**chosen, "epoch": best.epoch, "step": best.step}
    unvalidated = "without validation" if "val" not in training.measured else "no finite validation metric"
    why = "since tested=last" if best is not None else unvalidated
    return network, {"kind": "last", "chosen": f"last, {why}", "epoch": progress.epochs_done, "step": progress.step}


def measure(
    training: TrainingSetup, progress: Progress, context: EvalContext, chosen: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], EvalReport]:
    """Return the metrics of each split with its number of images, and the full evaluation of test.

    chosen: which network the context has. Test is measured here, in a single pass; if the context
    leaves it out, the full evaluation is that of validation, or of training where there is none.
    """
    best, network = progress.best, context.network
    metrics: dict[str, dict[str, Any]] = {"train": evaluate(training, network, context.splits["train"])}
    if "val" in context.splits:
        is_best = best is not None and chosen["kind"] != "average" and chosen["step"] == best.step
        metrics["val"] = (
            dict(best.metrics) if best is not None and is_best else evaluate(training, network, context.splits["val"])
        )
    with evaluating(network):
        report = training.task.evaluate(context, context.held_out)
    if context.held_out == "test":
        metrics["test"] = dict(report.metrics)
    return {split: values | {"samples": len(getattr(context.data, split))} for split, values in metrics.items()}, report


def write_samples(training: TrainingSetup, context: EvalContext, folder: Path) -> None:
    """Write kernels of the first layer, and training images with their augmented views in the first epochs.

    Nothing is written where there are neither.
    """
    data, spec = training.data, training.data.spec
    parts = []
    if training.train.augmentations:
        rows = torch.arange(min(AUGMENTED, len(data.train))) * max(1, len(data.train) // AUGMENTED)
        views = [
            context.pixels(next(training.train.epoch(rows, len(rows), epoch)).images) for epoch in range(1, VIEWS + 1)
        ]
        names = [spec.classes[label] for label in data.train.labels[rows].tolist()]
        parts.append(views_of(context.pixels_of("train", rows), torch.stack(views), names))
    kernels = kernels_of(context.network, (spec.height, spec.width))
    if kernels is not None and kernels.images.shape[1] == spec.channels:
        parts.append(kernels)
    if parts:
        sum(parts[1:], parts[0]).write(folder)


def result_record(
    training: TrainingSetup,
    progress: Progress,
    chosen: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    record: Mapping[str, Any],
    total_seconds: float,
    notes: list[str],
) -> dict[str, Any]:
    """Return what `result.json` says. rows: of metrics.jsonl. record: what `run.json` says."""
    config, watched = training.config, training.task.watched
    rows = tuple(rows)
    watched_test = sum(any(key.endswith("/test") for key in row) for row in rows)  # data.monitor=test
    # Of many steps the first one is enough.
    rows = tuple(row for row in rows if row["row"] != "step" or row["step"] == config.log_every)
    held_out = next(split for split in ("test", "val", "train") if split in metrics)
    outcome = Outcome(training.task, training.data, metrics[held_out], chosen, rows, held_out)
    remarks = (*training.remarks, *remarks_after(outcome))
    kept = [{"epoch": one.epoch, "step": one.step, "metrics": one.metrics} for one in progress.ranked]
    is_incomplete = bool(record.get("rows_are_lost"))  # the first row that reached it may be among them
    if is_incomplete and config.reach is not None:
        notes = [*notes, f"when {watched[0][0]} reached {config.reach} is not known: rows of metrics.jsonl are lost"]
    unvalidated = ["data.val_fraction=0: no validation, the last checkpoint was tested"]
    return {
        "identity": record["identity"],
        "checkpoint": dict(chosen),
        **({"kept": kept} if len(kept) > 1 else {}),
        **metrics,
        "test_measured": record.get("test_measured", 0) + watched_test,
        "epochs": progress.epochs_done,
        "stopped_early": progress.stopped_early,
        "parameters": training.parameters,
        "references": published_next_to_ours(config, metrics),
        "watched": [list(metric) for metric in watched],
        "higher_is_better": dict(training.task.higher_is_better),
        "reached": None if is_incomplete else reached(config.reach, watched[0], rows),
        "departures": record.get("departures", []),
        "seconds": {
            "train": progress.train_seconds,
            "epoch": progress.train_seconds / max(1, progress.epochs_done),
            "total": total_seconds,
        },
        "images_per_second": progress.samples_trained / max(progress.train_seconds, 1e-9),
        "notes": notes + (unvalidated if "val" not in training.measured else []),
        "remarks": [remark.record() for remark in remarks],
    } | ({"init": record["init"]} if record.get("init") else {})


def published_next_to_ours(config: RunConfig, metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the published figures on the splits that are measured, each with ours; the error where a source has it."""
    compared = []
    for reference in config.references:
        if reference.split in metrics:
            ours = metrics[reference.split].get(reference.metric)
            values = zip(console.ERRORS, (reference.value, ours), strict=True)
            errors = {
                key: round(100 * (1 - value), 4) for key, value in values if reference.error and value is not None
            }
            compared.append({**reference.model_dump(exclude={"error"}), "ours": ours, **errors})
    return compared


def reached(goal: float | None, watched: tuple[str, bool], rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return in which epoch validation reached a goal; None where there is none, epoch and step None if never."""
    if goal is None:
        return None
    name, higher = watched
    measured = (row for row in rows if row.get(f"{name}/val") is not None)
    there = (row for row in measured if (row[f"{name}/val"] >= goal if higher else row[f"{name}/val"] <= goal))
    first = next(there, {"epoch": None, "step": None})
    return {"metric": name, "value": goal, "epoch": first["epoch"], "step": first["step"]}
