"""Runs grouped by configuration over their seeds, and compared with a baseline."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from cnnbench.analysis.reports.columns import (
    Configuration,
    distinguishing_keys,
    fits,
    full_name,
    label,
    other_keys,
    with_overrides_applied,
)
from cnnbench.analysis.reports.learning import Course, Metric, course, epoch_rows, principal
from cnnbench.analysis.reports.statistics import Difference, Effect, Estimate, effects, estimate, paired_difference
from cnnbench.config.run_config import has_no_effect_on_result
from cnnbench.config.values import flat
from cnnbench.errors import UserError, grouped, listed
from cnnbench.store.provenance import code_digest
from cnnbench.store.query import RunSummary

NAMED = 4  # settings in a sentence
MOST_LISTED = 12  # configurations in an error
NOT_COMPARED = ("seed", "references", "source", "parent")
CODE = "code"  # the column of the hash of what computes, where the same settings were trained with several
OTHER_CODE = "Rows that differ in `code` alone: what computes was changed between them, so their seeds are not pooled."


@dataclass(frozen=True)
class Group:
    """Finished runs of one configuration, one for each seed: of a seed that was trained twice, the newest."""

    configuration: Configuration
    runs: Mapping[int, RunSummary]

    @property
    def first(self) -> RunSummary:
        """Return one of the runs, for what they all share."""
        return next(iter(self.runs.values()))

    def by_seed(self, *path: str) -> dict[int, float]:
        """Return a number in the results by seed, such as `test`, `accuracy`; NaN if a run has none."""
        numbers = {}
        for seed, run in self.runs.items():
            value: Any = run.result
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            numbers[seed] = math.nan if value is None else float(value)
        return numbers

    def estimate(self, *path: str) -> Estimate:
        """Return a number in the results over seeds."""
        return estimate(list(self.by_seed(*path).values()))

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """Return the epoch rows of all seeds, with a column `seed`."""
        return pd.concat([epoch_rows(run).assign(seed=seed) for seed, run in self.runs.items()], ignore_index=True)

    def courses(self, metric: Metric) -> list[Course]:
        """Return how the training of each seed went."""
        return [course(rows, metric) for _, rows in self.epochs.groupby("seed")]


@dataclass(frozen=True)
class Row:
    """One configuration in a comparison. gained: over the baseline; None for itself. notes: what else differs."""

    label: str
    group: Group
    measured: Estimate
    gained: Difference | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Configurations side by side, by a metric on the test images.

    differing: keys whose values differ. skipped: runs that are not compared, with the reason.
    """

    metric: Metric
    differing: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: Row
    skipped: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Return a row for each configuration: what differs, n, mean, deviation, interval, difference, cost."""
        return pd.DataFrame([self._record(row) for row in self.rows])

    def _record(self, row: Row) -> dict[str, Any]:
        gain = None if row.gained is None else row.gained.estimate
        return {key: row.group.configuration.text(key) for key in self.differing} | {
            "n": row.measured.n,
            self.metric.name: row.measured.mean,
            "std": row.measured.std,
            "±95%": row.measured.half,
            "Δ": math.nan if gain is None else gain.mean,
            "Δ ±95%": math.nan if gain is None else gain.half,
            "seconds": _whole(row.group.estimate("seconds", "train").mean),
            "parameters": _whole(row.group.estimate("parameters", "total").mean),
        }

    def ranked(self) -> list[Row]:
        """Return the rows that have a mean, the best first."""
        rows = [row for row in self.rows if not math.isnan(row.measured.mean)]
        return sorted(rows, key=lambda row: -self.metric.sign * row.measured.mean)

    def best(self) -> Row:
        """Return the configuration with the best mean."""
        return next(iter(self.ranked()), self.rows[0])

    def effects(self) -> list[Effect]:
        """Return the effect of each setting, all others being equal; none if only one setting differs."""
        keys = self.differing if len(self.differing) > 1 else ()
        rows = [self.baseline, *(row for row in self.rows if row is not self.baseline)]
        cells = [{key: row.group.configuration.text(key) for key in keys} for row in rows]
        return effects(cells, [row.group.by_seed("test", self.metric.name) for row in rows])

    def settings(self) -> dict[str, list[str]]:
        """Return the settings that differ, as text, in the order of the rows."""
        keys = dict.fromkeys(key for row in self.rows for key in row.group.configuration.settings)
        texts = {key: [row.group.configuration.text(key) for row in self.rows] for key in keys}
        return {key: values for key, values in texts.items() if len(set(values)) > 1}

    def references(self) -> pd.DataFrame:
        """Return a row for each published figure, next to ours."""
        table = []
        for row in self.rows:
            result = row.group.first.result
            for reference in result.get("references") or ():
                ours = row.group.estimate(reference["split"], reference["metric"])
                table.append(
                    {
                        "configuration": row.label,
                        "metric": f"{reference['metric']}/{reference['split']}",
                        "published": reference["value"],
                        "ours": ours.mean,
                        "±95%": ours.half,
                        "source": reference["source"],
                        "remark": "; ".join(filter(None, [reference["remark"], *result.get("departures", [])])),
                    }
                )
        return pd.DataFrame(table)

    def remarks(self) -> list[str]:
        """Return the difference of each row to the baseline in words, and what else differs."""
        changed = [OTHER_CODE] if CODE in self.differing else []
        return changed + [
            "; ".join([f"{row.label}: {row.gained.sentence()}", *row.notes]) for row in self.rows if row.gained
        ]


def _whole(number: float) -> float:
    return number if math.isnan(number) else round(number)


def compare(runs: Sequence[RunSummary], metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Return the finished runs side by side, grouped over everything but the seed; the others are `skipped`.

    Runs of the same settings that different code computed are configurations of their own.

    metric: None: what their task watches. baseline: `key=value,…` of the configuration to compare with; None: the
    first. Raises UserError if nothing is finished, and for an unknown metric or baseline.
    """
    skipped = [f"{run.path}: {run.problem or run.status}" for run in runs if not run.is_finished]
    groups = _grouped([run for run in runs if run.is_finished])
    if not groups:
        raise UserError("\n".join(["no finished run to report on.", *(f"  {line}" for line in skipped)]))
    first = groups[0].first
    every = [run for group in groups for run in group.runs.values()]
    names = [name for name in first.test_metrics if all(name in run.test_metrics for run in every)]
    if not names:
        raise UserError("these runs have no metric in common: their tasks differ.")
    if metric is None:
        telling = principal(names, groups[0].epochs, first.result)
        metric = telling if telling in names else names[0]
    if metric not in names:
        raise UserError(f"--metric {metric}: not all runs have it; they have {listed(names)}.")
    differing = distinguishing_keys([group.configuration for group in groups])
    base = _baseline(groups, baseline, differing)
    rows = tuple(_row(group, base, metric, differing) for group in groups)
    baseline_row = next(row for row in rows if row.group is base)
    return Comparison(Metric.of(metric, first.result), differing, rows, baseline_row, tuple(skipped))


def _grouped(finished: Sequence[RunSummary]) -> list[Group]:
    groups: dict[str, dict[str, dict[int, RunSummary]]] = {}  # by settings, code and seed
    settings: dict[str, dict[str, Any]] = {}
    compared_of_runs = [
        {
            key: value
            for key, value in flat(_settings(run)).items()
            if key.partition(".")[0] not in NOT_COMPARED and not has_no_effect_on_result(key)
        }
        for run in finished
    ]
    for run, compared in zip(finished, with_overrides_applied(compared_of_runs), strict=True):
        key = json.dumps(compared, sort_keys=True, default=str)
        settings[key] = compared
        of_code = groups.setdefault(key, {}).setdefault(code_digest(run.record)[:8], {})
        of_code[run.values["seed"]] = run  # they come in order: the newest stays
    return [
        Group(
            Configuration.of(
                settings[key] | ({CODE: code} if len(by_code) > 1 else {}), list(runs.values())[-1].record
            ),
            runs,
        )
        for key, by_code in groups.items()
        for code, runs in by_code.items()
    ]


def _settings(run: RunSummary) -> dict[str, Any]:
    """Return the settings of a run, with the defaults of those that are newer than the run."""
    try:
        return run.folder.run_config(run.config).to_dict()
    except UserError:  # trained with a plugin, or by another version
        return run.config


def _baseline(groups: Sequence[Group], name: str | None, keys: Sequence[str]) -> Group:
    if name is None:
        return groups[0]
    fitting = [group for group in groups if fits(group.configuration, name, keys)]
    if len(fitting) != 1:
        number = f"{len(fitting)}" if fitting else "none"
        names = [full_name(group.configuration, keys) for group in fitting or groups][:MOST_LISTED]
        raise UserError(
            f"--baseline {name}: matches {number} of {len(groups)} configurations; name one by KEY=VALUE,…:\n"
            + "\n".join(f"  {one}" for one in names)
        )
    return fitting[0]


def _row(group: Group, base: Group, metric: str, differing: Sequence[str]) -> Row:
    name, measured = label(group.configuration, base.configuration, differing), group.estimate("test", metric)
    if group is base:
        return Row(name, group, measured, None, ())
    gained = paired_difference([(group.by_seed("test", metric), base.by_seed("test", metric))])
    return Row(name, group, measured, gained, tuple(_other_differences(group, base, differing)))


def _other_differences(group: Group, base: Group, differing: Sequence[str]) -> list[str]:
    """Return what differs between a configuration and the baseline as a consequence, or in addition to the columns."""
    notes = []
    for key, what in (("total", "parameters"), ("trainable", "trained parameters")):
        own, theirs = (one.estimate("parameters", key).mean for one in (group, base))
        if own != theirs:
            notes.append(f"{grouped(own)} {what}, the baseline {grouped(theirs)}")
            break
    own_size, base_size = ("x".join(map(str, one.first.record["data"]["window"])) for one in (group, base))
    if own_size != base_size:
        notes.append(f"takes {own_size} images, the baseline {base_size}")
    own_steps, base_steps = (one.epochs["step"].max() if "step" in one.epochs else 0 for one in (group, base))
    if own_steps != base_steps:
        notes.append(f"was trained for {grouped(own_steps)} steps, the baseline for {grouped(base_steps)}")
    keys = other_keys(group.configuration, base.configuration, differing)
    if keys:
        more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
        notes.append(f"also differs in {', '.join(keys[:NAMED])}{more}")
    return notes
