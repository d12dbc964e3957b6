"""Runs grouped by configuration, seeds aside, and held against one of them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from cnnbench.analysis.reports.columns import Choice, besides, columns, label
from cnnbench.analysis.reports.effects import Effect, effects
from cnnbench.analysis.reports.learning import Course, Metric, course, principal
from cnnbench.analysis.reports.statistics import Difference, Estimate, difference, estimate
from cnnbench.config.schema import has_no_effect_on_result
from cnnbench.config.validate import recorded_config
from cnnbench.config.values import flat
from cnnbench.errors import UserError, grouped, listed
from cnnbench.store.metrics import read_rows
from cnnbench.store.query import RunSummary

NAMED = 4  # settings in a sentence
ASIDE = ("seed", "references", "source", "parent")  # no part of what is compared


@dataclass(frozen=True)
class Group:
    """Finished runs of one configuration, a seed each; of a seed that was trained twice, the newest."""

    choice: Choice
    entries: tuple[RunSummary, ...]

    @cached_property
    def results(self) -> dict[int, dict[str, Any]]:
        """Return the results by seed."""
        return {entry.values["seed"]: entry.result for entry in self.entries}

    def values(self, metric: str, split: str = "test") -> dict[int, float]:
        """Return a metric by seed; NaN where a run has none."""
        found = {seed: result.get(split, {}).get(metric) for seed, result in self.results.items()}
        return {seed: math.nan if value is None else float(value) for seed, value in found.items()}

    def estimate(self, metric: str, split: str = "test") -> Estimate:
        """Return a metric over seeds."""
        return estimate(list(self.values(metric, split).values()))

    def mean(self, *path: str) -> float:
        """Return the mean over seeds of a number in the results."""
        numbers = []
        for result in self.results.values():
            value: Any = result
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            numbers.append(math.nan if value is None else float(value))
        return estimate(numbers).mean

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Return the epoch rows of all seeds, with a column `seed`."""
        tables = []
        for entry in self.entries:
            rows = [row for row in read_rows(entry.folder.metrics_file) if row["row"] in ("epoch", "val")]
            tables.append(pd.DataFrame(rows).assign(seed=entry.values["seed"]))
        return pd.concat(tables, ignore_index=True)

    def courses(self, metric: str, higher: bool) -> list[Course]:
        """Return how the training of each seed went."""
        return [course(rows, metric, higher) for _, rows in self.curves.groupby("seed")]

    def gap(self, metric: str, split: str, other: str) -> float:
        """Return by how much a metric is more on one split than on another, of the tested checkpoint, on average."""
        return self.estimate(metric, split).mean - self.estimate(metric, other).mean


@dataclass(frozen=True)
class Row:
    """One configuration in a comparison. label: what it is called in it. notes: what else differs."""

    label: str
    group: Group
    measured: Estimate
    gained: Difference | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Configurations side by side. metric: of the test images. differing: keys whose values are not all alike."""

    metric: str
    higher: bool
    differing: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: Row
    skipped: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """Return a row a configuration: what differs, n, mean, deviation, interval, difference, time, parameters."""
        return pd.DataFrame([self._record(row) for row in self.rows])

    def _record(self, row: Row) -> dict[str, Any]:
        group, gained = row.group, row.gained
        told = {key: group.choice.text(key) for key in self.differing}
        return told | {
            "n": row.measured.n,
            self.metric: row.measured.mean,
            "std": row.measured.std,
            "±95%": row.measured.half,
            "Δ": math.nan if gained is None else gained.estimate.mean,
            "Δ ±95%": math.nan if gained is None else gained.estimate.half,
            "seconds": _whole(group.mean("seconds", "train")),
            "parameters": _whole(group.mean("parameters", "total")),
        }

    def best(self) -> Row:
        """Return the configuration with the best mean."""
        sign = 1 if self.higher else -1
        return max(self.rows, key=lambda row: -math.inf if math.isnan(row.measured.mean) else sign * row.measured.mean)

    def effects(self) -> list[Effect]:
        """Return what each setting changes, everything else being alike; nothing where only one of them differs."""
        keys = self.differing if len(self.differing) > 1 else ()
        rows = [self.baseline, *(row for row in self.rows if row is not self.baseline)]
        cells = [{key: row.group.choice.text(key) for key in keys} for row in rows]
        return effects(cells, [row.group.values(self.metric) for row in rows])

    def settings(self) -> dict[str, list[str]]:
        """Return the values of every key whose values are not all alike, as text, in the order of the rows."""
        keys = dict.fromkeys(key for row in self.rows for key in row.group.choice.settings)
        values = {key: [row.group.choice.text(key) for row in self.rows] for key in keys}
        return {key: texts for key, texts in values.items() if len(set(texts)) > 1}

    def references(self) -> pd.DataFrame:
        """Return published figures beside ours, a row each."""
        found = []
        for row in self.rows:
            results = list(row.group.results.values())
            for reference in results[0].get("references") or ():
                metric, split = reference["metric"], reference["split"]
                ours = row.group.estimate(metric, split)
                found.append(
                    {
                        "configuration": row.label,
                        "metric": f"{metric}/{split}",
                        "published": reference["value"],
                        "ours": ours.mean,
                        "±95%": ours.half,
                        "source": reference["source"],
                        "remark": "; ".join(filter(None, [reference["remark"], *results[0].get("departures", [])])),
                    }
                )
        return pd.DataFrame(found)

    def remarks(self) -> list[str]:
        """Return what the number of seeds can tell apart, and what else differs between a row and the baseline."""
        return [
            f"{row.label}: {told(row.gained)}" + "".join(f"; {note}" for note in row.notes)
            for row in self.rows
            if row.gained is not None
        ]


def told(gained: Difference, what: str = "seeds") -> str:
    """Say a difference, and what so many seeds, or pairs, say of it."""
    found = gained.estimate
    if found.n < 2:
        return f"{_few(found.n)}; nothing can be said of chance"
    measured = f"{found.mean:+.4f} ± {found.half:.4f} over {found.n} {what}"
    if gained.is_resolved:
        return f"{measured}, more than chance"
    would = f"; were it really so large, about {gained.needed} {what} would show it" if gained.needed else ""
    return f"{measured}, which may be chance{would}"


def _whole(number: float) -> float:
    return number if math.isnan(number) else round(number)


def _few(n: int) -> str:
    return "no seed in common" if n == 0 else "one seed"


def compare(found: Sequence[RunSummary], metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Return finished runs side by side, grouped over everything but the seed; the others are named and passed over.

    metric: null: what their task watches. baseline: `key=value` of the configuration to compare with; null: the first.
    Raises UserError where nothing is finished, or where metric or baseline are none of them.
    """
    skipped = [f"{entry.folder.path}: {entry.problem or entry.status}" for entry in found if not entry.is_finished]
    groups = _grouped([entry for entry in found if entry.is_finished])
    if not groups:
        raise UserError("\n".join(["no finished run to report on.", *(f"  {line}" for line in skipped)]))
    names = [
        name for name in groups[0].entries[0].measured() if all(name in e.measured() for g in groups for e in g.entries)
    ]
    if not names:
        raise UserError("these runs have no metric in common; they learnt different things.")
    metric = metric or next(
        name for name in (principal(names, groups[0].curves, groups[0].entries[0].result), *names) if name in names
    )
    if metric not in names:
        raise UserError(f"--metric {metric}: not all runs have it; they have {listed(names)}.")
    differing = columns([group.choice for group in groups])
    base = _chosen(groups, baseline)
    first = _row(base, base, metric, differing)
    rows = tuple(first if group is base else _row(group, base, metric, differing) for group in groups)
    higher = Metric.of(metric, groups[0].entries[0].result).higher
    return Comparison(metric, higher, differing, rows, first, tuple(skipped))


def _grouped(finished: Sequence[RunSummary]) -> list[Group]:
    groups: dict[str, dict[int, RunSummary]] = {}
    choices: dict[str, Choice] = {}
    for entry in finished:
        values = flat(_settings(entry))
        kept = {key: value for key, value in values.items() if key not in ASIDE and not has_no_effect_on_result(key)}
        kept = {key: value for key, value in kept.items() if not key.startswith("references")}
        key = _plain(kept)
        choices[key] = Choice.of(kept, entry.record)
        groups.setdefault(key, {})[entry.values["seed"]] = entry  # they come in order: the newest stays
    return [Group(choices[key], tuple(entries.values())) for key, entries in groups.items()]


def _settings(entry: RunSummary) -> dict[str, Any]:
    """Return the settings of a run, those included that there were not yet when it was made."""
    try:
        return recorded_config(entry.folder, entry.config).to_dict()
    except UserError:  # made with a plugin, or by another version
        return entry.config


def _chosen(groups: Sequence[Group], baseline: str | None) -> Group:
    if baseline is None:
        return groups[0]
    key, _, given = baseline.partition("=")
    fitting = [group for group in groups if given and group.choice.text(key) == given]
    if len(fitting) != 1:
        number = "none" if not fitting else f"{len(fitting)}"
        raise UserError(f"--baseline {baseline}: fits {number} of {len(groups)} configurations; name one by KEY=VALUE.")
    return fitting[0]


def _row(group: Group, base: Group, metric: str, differing: Sequence[str]) -> Row:
    gained = None if group is base else difference(group.values(metric), base.values(metric))
    notes = () if group is base else tuple(_other_differences(group, base, differing))
    return Row(label(group.choice, base.choice, differing), group, group.estimate(metric), gained, notes)


def _other_differences(group: Group, base: Group, differing: Sequence[str]) -> list[str]:
    """Return what a variant changed besides: what the network has, sees, and how long it was trained."""
    notes = []
    for name, told in (("total", "parameters"), ("trainable", "trained parameters")):
        own, theirs = group.mean("parameters", name), base.mean("parameters", name)
        if own != theirs:
            notes.append(f"{grouped(own)} {told}, the baseline {grouped(theirs)}")
            break
    windows = [entry.entries[0].record["data"]["window"] for entry in (group, base)]
    if windows[0] != windows[1]:
        seen, expected = ("x".join(map(str, window)) for window in windows)
        notes.append(f"sees {seen} pixels, the baseline {expected}")
    steps = [entry.curves["step"].max() if "step" in entry.curves else 0 for entry in (group, base)]
    if steps[0] != steps[1]:
        notes.append(f"was trained for {grouped(steps[0])} steps, the baseline for {grouped(steps[1])}")
    unseen = besides(group.choice, base.choice, differing)
    if unseen:
        more = f" and {len(unseen) - NAMED} more" if len(unseen) > NAMED else ""
        notes.append(f"differs in {', '.join(unseen[:NAMED])}{more} as well")
    return notes


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
