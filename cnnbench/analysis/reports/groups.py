"""Runs of one configuration: its repetitions, what each measured, and whether two were measured alike."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from cnnbench.analysis.reports.columns import Configuration, with_overrides_applied
from cnnbench.analysis.reports.facts import facts_of
from cnnbench.analysis.reports.learning import Metric, epoch_rows
from cnnbench.analysis.reports.statistics import Flags, Values, estimate
from cnnbench.config.run_config import has_no_effect_on_result
from cnnbench.config.values import flat
from cnnbench.errors import UserError
from cnnbench.errors import grouped as digits
from cnnbench.store.provenance import code_digest
from cnnbench.store.query import RunSummary

REPETITIONS = {"seed": "seeds", "data.fold": "folds", "data.split_seed": "splits", "data.noise_seed": "noise seeds"}
"""Settings that repeat a configuration, and what their values are called."""
NOT_COMPARED = ("seed", "references", "source", "parent")
CODE = "code"  # the column of the hash of what computes, where the same settings were trained with several
DATA = "data content"  # likewise that of the images
FAILURES = ("failed", "diverged")
LOST = (*FAILURES, "unreadable", "missing")  # a mean over the others says less than it seems to
NAMED = 4  # settings in a sentence
SHARED = " Some of these runs shared a machine while they trained: compare epochs, not seconds."

Repetition = tuple[Any, ...]
"""The values of `REPETITIONS`: what runs are paired by."""


@dataclass(frozen=True)
class Group:
    """Runs of one configuration by repetition: of one that was trained twice, the newest.

    runs: those that are finished. others: those of repetitions that have no finished run.
    """

    configuration: Configuration
    runs: Mapping[Repetition, RunSummary]
    others: Mapping[Repetition, RunSummary]

    @property
    def every(self) -> Mapping[Repetition, RunSummary]:
        """Return all runs, finished or not."""
        return {**self.runs, **self.others}

    @cached_property
    def names(self) -> Mapping[Repetition, str]:
        """Return what distinguishes each of its runs: `seed=1`; `page` if there is one run."""
        places = [(list(REPETITIONS).index(key), key.rpartition(".")[2]) for key in varied([self])]
        return {key: " ".join(f"{name}={key[place]}" for place, name in places) or "page" for key in self.every}

    @property
    def first(self) -> RunSummary:
        """Return one of the runs, for what they all share."""
        return next(iter(self.every.values()))

    def numbers(self, *path: str) -> dict[Repetition, float]:
        """Return a number in the results by repetition, such as `test`, `accuracy`; NaN if a run has none."""
        numbers = {}
        for repetition, run in self.runs.items():
            value: Any = run.result
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            numbers[repetition] = math.nan if value is None else float(value)
        return numbers

    def mean(self, *path: str) -> float:
        """Return the mean of a number in the results."""
        return estimate(list(self.numbers(*path).values())).mean

    def values(self, split: str, metric: Metric) -> Values:
        """Return a metric on a split, with the correct images where they are known."""
        images = {run.result.get(split, {}).get("samples", 0) for run in self.runs.values()}
        is_one = len({images_of(run, split) for run in self.runs.values()}) == 1 and len(images) == 1
        number = images.pop() if metric.is_share and is_one else 0
        known = self.right if number and metric.name == "accuracy" and split == "test" else {}
        low, high = metric.bounds
        return Values(self.numbers(split, metric.name), number, known, high - low)

    @cached_property
    def right(self) -> dict[Repetition, Flags]:
        """Return whether each test image was predicted correctly, where that is known."""
        found = {repetition: _correct(run) for repetition, run in self.runs.items()}
        return {repetition: flags for repetition, flags in found.items() if flags is not None}

    def lost(self, metric: Metric, split: str) -> Counter[str]:
        """Return how many repetitions have no number, by how they ended; a loss that is not a number diverged."""
        ended = Counter(ending(run) for run in self.others.values())
        return ended + Counter(
            diverged=sum(not math.isfinite(number) for number in self.numbers(split, metric.name).values())
        )

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """Return the epoch rows of all finished runs, with a column `run`, a number for each."""
        tables = [epoch_rows(run).assign(run=number) for number, run in enumerate(self.runs.values())]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run": []})


def varied(groups: Sequence[Group]) -> list[str]:
    """Return which of `REPETITIONS` vary within a configuration."""
    return [
        key
        for place, key in enumerate(REPETITIONS)
        if any(len({repetition[place] for repetition in group.every}) > 1 for group in groups)
    ]


def overlap_of(groups: Sequence[Group]) -> float:
    """Return how many images are held out for each training image; 0 if all repetitions hold out the same ones."""
    if not {"data.fold", "data.split_seed"} & {*varied(groups)}:
        return 0.0
    share = max(float(group.first.config["data"]["val_fraction"]) for group in groups)
    return share / (1 - share)


def images_of(run: RunSummary, split: str) -> str:
    """Return what tells the images of a split from others: data set, classes, number; of validation also the split."""
    record, config = run.record.get("data", {}), run.config.get("data", {})
    facts = [
        record.get("fingerprint"), record.get("classes"), record.get("images", {}).get(split), config.get("name"),
        config.get("subset", {}).get("test_per_class"), run.record.get("split") if split == "val" else None,
    ]  # fmt: skip
    return json.dumps(facts, default=str)


def notes_on(group: Group, base: Group) -> list[str]:
    """Return in what runs of a configuration differ, from each other and from the baseline, besides their settings."""
    ours, theirs = ([_environment(run) for run in one.runs.values()] for one in (group, base))
    notes = []
    by_fact = [zip(*facts, strict=True) for facts in (ours, theirs if ours and theirs else ours)]
    for own, other in zip(*by_fact, strict=True):
        here, there = (" and ".join(dict.fromkeys(facts)) for facts in (own, other))
        if len({*own}) > 1 or here != there:
            notes.append(f"computed with {here}{f', the baseline with {there}' * (here != there)}")
    paired = [(run, base.runs[key]) for key, run in group.runs.items() if key in base.runs]
    if any(own.record.get("split") != theirs.record.get("split") for own, theirs in paired):
        notes.append("trained and validated on another split than the baseline")
    steps, base_steps = (one.epochs["step"].max() if "step" in one.epochs else 0 for one in (group, base))
    if paired and steps != base_steps:
        notes.append(f"was trained for {digits(steps)} steps, the baseline for {digits(base_steps)}")
    return notes


def _environment(run: RunSummary) -> tuple[str, ...]:
    facts, code = facts_of(run), f"code {code_digest(run.record)[:8]}"
    return code, facts.get("versions", "unknown versions"), facts.get("machine", "an unknown device")


def ran_at_once(runs: Sequence[RunSummary]) -> bool:
    """Return whether some of these runs shared a machine while they trained, and so its processors."""
    times = sorted(
        (str(run.record.get("machine", {}).get("host")), run.record["started"], run.record["ended"])
        for run in runs
        if run.record.get("ended")
    )
    return any(host == other and started < ended for (host, _, ended), (other, started, _) in pairwise(times))


def on_same_images(group: Group, other: Group, split: str) -> bool:
    """Return whether the runs that are paired were measured on the same images; any of them, where none are paired."""
    here, there = ({key: images_of(run, split) for key, run in one.runs.items()} for one in (group, other))
    common = here.keys() & there.keys()
    return all(here[key] == there[key] for key in common) if common else bool({*here.values()} & {*there.values()})


def some(names: Sequence[str], comma: str = ", ") -> str:
    """Return the first few names, and how many there are more."""
    return comma.join(names[:NAMED]) + f" and {len(names) - NAMED} more" * (len(names) > NAMED)


def in_words(lost: Counter[str]) -> str:
    """Return how many repetitions have no number, and why: `1 failed, 2 stopped`."""
    return ", ".join(f"{number} {ended}" for ended, number in lost.items())


def ending(run: RunSummary) -> str:
    """Return how a run ended, or that it runs."""
    return "diverged" if run.status == "failed" and "diverged" in run.error else run.status


def _correct(run: RunSummary) -> Flags | None:
    """Return whether each test image was predicted correctly, bool [N]; None if that is not known."""
    path = run.folder.evaluation("test", run.checkpoint_tested) / "predictions.csv"
    try:
        right = pd.read_csv(path, usecols=["right"])["right"].to_numpy()
    except (OSError, ValueError):
        return None
    test = run.result["test"]
    is_whole = right.dtype == np.bool_ and len(right) == test["samples"]
    return right if is_whole and math.isclose(right.mean(), test["accuracy"] or 0.0, abs_tol=0.5 / len(right)) else None


def grouped(runs: Sequence[RunSummary]) -> list[Group]:
    """Return runs by configuration: settings, and code and images where the same settings were trained with several."""
    groups: dict[str, dict[tuple[str, str], dict[Repetition, RunSummary]]] = {}
    flattened = [flat(_settings(run)) for run in runs]
    compared = {
        key
        for key in {key for values in flattened for key in values}
        if key.partition(".")[0] not in NOT_COMPARED and key not in REPETITIONS and not has_no_effect_on_result(key)
    }
    compared_of_runs = [{key: values[key] for key in values if key in compared} for values in flattened]
    applied = with_overrides_applied(compared_of_runs)
    keys = [json.dumps(settings, sort_keys=True, default=str) for settings in applied]
    settings_of = dict(zip(keys, applied, strict=True))
    versions = [
        (code_digest(run.record)[:8], str(run.record.get("data", {}).get("fingerprint", ""))[:8]) for run in runs
    ]
    # What ended before it had its data is a run of those that its configuration was trained with.
    images = {(key, code): data for key, (code, data) in zip(keys, versions, strict=True) if data}
    for run, values, key, (code, data) in zip(runs, flattened, keys, versions, strict=True):
        version = code, data or images.get((key, code), "")
        of_version = groups.setdefault(key, {}).setdefault(version, {})
        repetition = tuple(values.get(name) for name in REPETITIONS)
        before = of_version.get(repetition)
        if before is None or run.is_finished or not before.is_finished:
            of_version[repetition] = run  # they come in order: the newest stays
    return [
        Group(
            Configuration.of(settings_of[key] | _telling(version, list(by_version)), list(found.values())[-1].record),
            {repetition: run for repetition, run in found.items() if run.is_finished},
            {repetition: run for repetition, run in found.items() if not run.is_finished},
        )
        for key, by_version in groups.items()
        for version, found in by_version.items()
    ]


def _telling(version: tuple[str, str], versions: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return of a version of code and images what distinguishes it from others."""
    names = zip((CODE, DATA), version, zip(*versions, strict=True), strict=True)
    return {name: own for name, own, every in names if len(set(every)) > 1}


def _settings(run: RunSummary) -> dict[str, Any]:
    """Return the settings of a run, with the defaults of those that are newer than the run."""
    try:
        return run.folder.run_config(run.config).to_dict()
    except UserError:  # trained with a plugin, or by another version
        return run.config
