"""What runs were trained with, and how their figures compare with published ones."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cnnbench.analysis.reports.columns import as_typed
from cnnbench.analysis.reports.learning import Metric
from cnnbench.analysis.reports.statistics import estimate
from cnnbench.config.values import flat
from cnnbench.errors import counted, grouped, one_line
from cnnbench.store.query import RunSummary
from cnnbench.tasks.intervals import wilson

NAMES = {"train": "training", "val": "validation", "test": "test"}
MOST_VALUES = 6  # of a fact that differs between runs
ELSEWHERE = ("name", "lr", "decay_norm_and_bias", "layer_decay", "warmup_unit", "average.decay", "average.start")
PUBLISHED_NOTE = (
    "A published figure is that of one run. Several of ours give the range of one more (Student's t), a single one an "
    "interval over images (Wilson's), which leaves out seeds. Runs that deviate from the recipe are not comparable."
)
MEANINGS = {
    "accuracy": "share of correct predictions", "top5": "class among the five likeliest",
    "ece": "expected calibration error", "brier": "squared error of probabilities",
    "roc_auc": "area under the ROC curve", "average_precision": "area under precision by recall",
    "recall@1": "the nearest is of the same class", "mAP": "mean average precision",
    "R-precision": "precision among the R nearest", "5-nn": "vote of five training neighbours",
    "silhouette": "class separation, from -1 to 1",
}  # fmt: skip
LOSSES = {"classification": "negative log-likelihood", "autoencoder": "squared error per normalised pixel"}


def meaning(metric: str, task: str) -> str:
    """Return what a metric measures, in a few words; empty where that is not known."""
    deeper = f"same class among the {metric[7:]} nearest" if metric.startswith("recall@") else ""
    return LOSSES.get(task, "") if metric == "loss" else MEANINGS.get(metric, deeper)


def facts_of(run: RunSummary) -> dict[str, str]:
    """Return what a run was trained with, by name; what is off or not known is left out."""
    record, config, options = run.record, run.config, run.record.get("choices", {})
    data, machine, versions, git = (record.get(name) or {} for name in ("data", "machine", "versions", "git"))
    parameters = (run.result.get("parameters") or record.get("parameters") or {}).get("total")
    images = ", ".join(
        f"{grouped(number)} {NAMES[split]}" for split, number in data.get("images", {}).items() if number
    )
    shape = "×".join(map(str, data.get("window", ())))
    classes = counted(len(data["classes"]), "class") if data.get("classes") else ""
    commit = f"{git.get('commit', '')[:7]}{' with uncommitted changes' * bool(git.get('dirty'))}"
    threads = counted(record["threads"], "thread") if record.get("threads") else ""
    facts = {
        "network": options.get("model"),
        "parameters": grouped(parameters) if parameters else "",
        "task": config["task"]["name"],
        "data": ", ".join(filter(None, [options.get("data"), classes, shape])),
        "images": images,
        "optimizer": _described(config["optimizer"]),
        "learning rate": as_typed(config["optimizer"].get("lr")),
        "schedule": _described(config["scheduler"]).replace("none", "constant"),
        "training": f"{counted(config['epochs'], 'epoch')}, batches of {config['batch_size']}",
        "regularization": _described(config["regularization"]) or "none",
        "augmentation": options.get("augmentation"),
        "tested weights": run.result.get("checkpoint", {}).get("chosen"),
        "machine": ", ".join(filter(None, [machine.get("name"), machine.get("device"), threads])),
        "versions": ", ".join(
            f"{name} {versions[name]}" for name in ("cnnbench", "python", "torch") if name in versions
        ),
        "commit": commit,
    }
    return {name: one_line(str(fact)) for name, fact in facts.items() if fact}


def shared_facts(runs: Sequence[RunSummary]) -> dict[str, str]:
    """Return what runs were trained with; what differs first, with each value."""
    facts = [facts_of(run) for run in runs]
    values = {name: list(dict.fromkeys(one[name] for one in facts if name in one)) for one in facts for name in one}
    return {
        name: " / ".join(found) if len(found) <= MOST_VALUES else f"{len(found)} different ones"
        for name, found in sorted(values.items(), key=lambda one: len(one[1]) == 1)
    }


def published(runs: Sequence[RunSummary]) -> list[dict[str, Any]]:
    """Return a row for each published figure of runs of one configuration, with ours and the verdict on it."""
    rows = []
    result = runs[0].result if runs else {}
    for reference in result.get("references") or ():
        name, split = reference["metric"], reference["split"]
        metric, measured = Metric.of(name, result), [run.result.get(split) or {} for run in runs]
        values = [math.nan if one.get(name) is None else float(one[name]) for one in measured]
        ours = estimate(values, overlap=1.0, bounds=metric.bounds)  # mostly one run: the interval of one further run
        low, high, of = ours.low, ours.high, "one more run, 95 %"
        if ours.n == 1 and metric.is_share:
            images = max(one.get("samples", 0) for one in measured)
            low, high, of = *wilson(round(ours.mean * images), images), "over images, 95 %"
        verdict = "above" if reference["value"] < low else "below" if reference["value"] > high else "consistent"
        verdict += ", of one seed" * (ours.n == 1 and verdict != "consistent")
        if departures := result.get("departures"):
            verdict = f"not comparable: {', '.join(departures)}"
        rows.append(
            {
                "metric": f"{NAMES[split]} {name}",
                "published": reference["value"],
                "ours": ours.mean,
                "n": ours.n,
                of: "" if math.isnan(low) else f"{low:.4f} to {high:.4f}",
                "ours is": "" if math.isnan(low) and not departures else verdict,
                "source": reference["source"],
                "remark": reference["remark"],
            }
        )
    return rows


def _described(section: Mapping[str, Any]) -> str:
    """Return a part of a configuration in words: its name, and its settings that are on."""
    every = flat(section).items()
    settings = {key: value for key, value in every if value and value != "none" and key not in (*ELSEWHERE, "unit")}
    words, name = ", ".join(f"{key} {as_typed(value)}" for key, value in settings.items()), str(section.get("name", ""))
    words += f", in {section['unit']}s" if words and section.get("unit") else ""
    return f"{name} ({words})" if words and name else words or name
