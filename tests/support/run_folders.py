"""Run folders without a training, for reports to read."""

import json
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from cnnbench.store.folder import RunFolder
from tests.support.training import plan_of

STARTED = count()


def runs_below(outputs: Path) -> dict[str, Path]:
    """Return the folder of each run by its name below the outputs."""
    return {str(path.parent.relative_to(outputs)): path.parent for path in outputs.glob("*/*/*/run.json")}


def write_run(
    outputs: Path,
    accuracy: float | None,
    *words: str,
    status: str = "completed",
    val: float | None = None,
    right: Sequence[bool] | None = None,
    **record: Any,
) -> Path:
    """Write the folder of a run that reached this accuracy, without training it.

    val: the accuracy on 1 000 validation images, where it has any. right: which test images are correct.
    """
    plan = plan_of("data=synthetic", *words)
    folder = RunFolder(outputs / plan.run_path())
    facts = {
        "identity": plan.config.identity(), "status": status, "choices": dict(plan.choices),
        "origins": dict(plan.origins),
        "started": f"{next(STARTED):06}",
        "data": {"window": [1, 28, 28]},
    }  # fmt: skip
    folder.create(plan.config.to_dict(), plan.command, facts | record)
    rows = [
        {
            "row": "epoch",
            "epoch": epoch,
            "step": 10 * epoch,
            "accuracy/train": 0.1 * epoch,
            "accuracy/val": 0.09 * epoch,
        }
        for epoch in (1, 2, 3)
    ]
    folder.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if accuracy is not None:
        test = {"loss": 1 - accuracy, "accuracy": accuracy, "samples": 10_000}
        result = {
            "test": test, "train": test | {"accuracy": 1.0}, "checkpoint": {"epoch": 2}, "seconds": {"train": 5.0},
            "epochs": 3, "parameters": {"total": 1000, "trainable": 1000}, "references": [], "departures": [],
        }  # fmt: skip
        if val is not None:
            result["val"] = {"loss": 1 - val, "accuracy": val, "samples": 1000}
        if right is not None:
            test |= {"samples": len(right), "accuracy": sum(right) / len(right)}
            path = folder.evaluation("test", "best") / "predictions.csv"
            path.parent.mkdir(parents=True)
            path.write_text("index,class,right\n" + "".join(f"{n},a,{bool(one)}\n" for n, one in enumerate(right)))
        result |= {"test": test} | {key: record[key] for key in ("parameters",) if key in record}
        folder.result_file.write_text(json.dumps(result))
    return folder.path


def write_dropout_runs(outputs: Path) -> Path:
    """Write runs of three seeds with and without dropout, and return their folder."""
    for seed, (plain, dropped) in enumerate(((0.90, 0.93), (0.88, 0.92), (0.91, 0.93))):
        write_run(outputs, plain, "regularization.dropout=0.0", f"seed={seed}")
        write_run(outputs, dropped, "regularization.dropout=0.5", f"seed={seed}")
    return outputs


def replace_epochs(path: Path, **columns: list[float]) -> None:
    """Replace the epoch rows of a run; columns are named by metric and split, as in accuracy_val."""
    epochs = range(1, 1 + len(next(iter(columns.values()))))
    rows = [
        {"row": "epoch", "epoch": epoch, "step": 10 * epoch}
        | {name.replace("_", "/"): values[epoch - 1] for name, values in columns.items()}
        for epoch in epochs
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
