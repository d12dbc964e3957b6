"""Runs grouped by configuration over their seeds, and compared with a baseline."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import ascii_lowercase
from typing import Any

import pandas as pd

from cnnbench.analysis.reports.columns import distinguishing_keys, fits, label, short_names
from cnnbench.analysis.reports.groups import (
    CODE,
    DATA,
    FAILURES,
    LOST,
    REPETITIONS,
    Group,
    grouped,
    in_words,
    notes_on,
    on_same_images,
    overlap_of,
    some,
    varied,
)
from cnnbench.analysis.reports.learning import Metric, principal
from cnnbench.analysis.reports.statistics import (
    Difference,
    Estimate,
    Values,
    corrected_together,
    effects,
    estimate,
    paired_difference,
)
from cnnbench.errors import UserError, counted, listed
from cnnbench.store.query import RunSummary

MOST_LISTED = 12  # configurations in an error
OTHER_VERSIONS = {
    CODE: "Changed code: configurations that differ in `code` alone were computed by other code, and are not pooled.",
    DATA: "Changed images: configurations that differ in `data content` alone saw other images, and are not pooled.",
}
NOTHING = Estimate(0, *[math.nan] * 4)
SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Row:
    """One configuration in a comparison.

    measured: on the split that is compared. ranked_by: the mean that decides on its rank. gained: over the baseline;
    None for itself, for a configuration without a finished run, and for one that was measured on other images.
    lost: how many repetitions have no number, by how they ended. notes: what else differs.
    """

    label: str
    group: Group
    measured: Estimate
    ranked_by: float
    gained: Difference | None
    lost: Counter[str]
    notes: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Return whether no repetition failed or cannot be read."""
        return not any(self.lost[name] for name in LOST)


@dataclass(frozen=True)
class Comparison:
    """Configurations side by side, by a metric.

    split: the images of what is compared, test or val. ranks_on: those that decide which is best: val where every
    configuration has it. differing: keys whose values differ. unit: what repetitions are called. overlap: see
    `estimate`. skipped: runs that cannot be read, with the reason.
    """

    metric: Metric
    split: str
    ranks_on: str
    differing: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: Row
    unit: str
    overlap: float
    skipped: tuple[str, ...]

    @property
    def measure(self) -> str:
        """Return what is compared, in words: `test accuracy`."""
        is_held_out = self.unit == "folds" and self.split == "val"
        return f"{'held-out' if is_held_out else SPLITS[self.split]} {self.metric.name}"

    def table(self) -> pd.DataFrame:
        """Return a row for each configuration: what differs, n, mean, deviation, interval, difference, cost."""
        return pd.DataFrame([self._record(row) for row in self.rows]).dropna(axis="columns", how="all")

    def _record(self, row: Row) -> dict[str, Any]:
        group, name, gained = row.group, self.metric.name, row.gained or Difference(NOTHING, math.nan)
        seconds, gain = estimate(list(group.numbers("seconds", "train").values())), gained.estimate
        other = "val" if self.split == "test" else "test"
        lost = {"lost": in_words(row.lost)} if any(one.lost for one in self.rows) else {}
        return {key: group.configuration.text(key) for key in self.differing} | {
            "n": row.measured.n, **lost, SPLITS[other]: group.mean(other, name), name: row.measured.mean,
            "std": row.measured.std, "low": row.measured.low, "high": row.measured.high,
            "Δ": gain.mean, "Δ low": gain.low, "Δ high": gain.high,
            "p (uncorrected)": gained.p, "p (Holm)": gained.corrected, "training": group.mean("train", name),
            "seconds": seconds.mean, "seconds, std": seconds.std, "parameters": group.mean("parameters", "total"),
        }  # fmt: skip

    @cached_property
    def ranked(self) -> list[Row]:
        """Return the rows that have a mean and lost no repetition, or else all that have one, the best first."""
        rows = [row for row in self.ordered if not math.isnan(row.ranked_by)]
        return [row for row in rows if row.is_whole] or rows

    @cached_property
    def ordered(self) -> list[Row]:
        """Return all rows: ranked, then those that lost runs, then those without a mean."""
        means = [row for row in self.rows if not math.isnan(row.ranked_by)]
        means.sort(key=lambda row: (not row.is_whole, -self.metric.sign * row.ranked_by))
        return means + [row for row in self.rows if math.isnan(row.ranked_by)]

    @cached_property
    def numbers(self) -> dict[int, str]:
        """Return what stands before the label of a row, by its `id`: its rank, or a letter if it has a mean only."""
        means = [row for row in self.ordered if not math.isnan(row.ranked_by)]
        marks = [*map(str, range(1, len(self.ranked) + 1)), *ascii_lowercase]
        return dict.fromkeys(map(id, self.rows), "") | {
            id(row): f"{mark}. " for row, mark in zip(means, marks, strict=False)
        }

    @property
    def best(self) -> Row:
        """Return the configuration with the best mean."""
        return next(iter(self.ranked), self.rows[0])

    def values(self, row: Row) -> Values:
        """Return what is compared, by repetition."""
        return row.group.values(self.split, self.metric)

    def behind_best(self) -> list[tuple[Row, Difference]]:
        """Return by how much each ranked one differs from the best, on the images that it was chosen on, with Holm."""
        rows = [row for row in self.ranked[1:] if on_same_images(row.group, self.best.group, self.ranks_on)]
        best, *others = (row.group.values(self.ranks_on, self.metric) for row in [self.best, *rows])
        found = [paired_difference([(values, best)], self.overlap) for values in others]
        return list(zip(rows, corrected_together(found), strict=True))

    def effects(self) -> list[tuple[str, Difference]]:
        """Return the effect of each setting, all others being equal; none if only one setting differs."""
        keys = self.differing if len(self.differing) > 1 else ()
        names = short_names(keys)
        rows = [self.baseline, *(row for row in self.rows if row is not self.baseline)]
        rows = [row for row in rows if on_same_images(row.group, self.baseline.group, self.split)]
        cells = [{names.get(key, key): row.group.configuration.text(key) for key in keys} for row in rows]
        return effects(cells, [self.values(row) for row in rows], self.overlap) if cells else []

    @property
    def runs(self) -> list[RunSummary]:
        """Return the runs of all rows, finished or not."""
        return [run for row in self.rows for run in row.group.every.values()]

    def failures(self, rows: Sequence[Row]) -> list[str]:
        """Return with how many repetitions each of these failed: `lr=9 diverged with 2 of 3 seeds`."""
        return [
            f"{row.label} {ended} with {row.lost[ended]} of {len(row.group.every)} {self.unit}"
            for row in rows
            for ended in FAILURES
            if row.lost[ended]
        ]

    def cautions(self) -> list[str]:
        """Return why means may not be compared as they stand: repetitions that failed or differ, other images."""
        lines = [text for key, text in OTHER_VERSIONS.items() if key in self.differing]
        lines += [
            f"Not ranked: {row.label}; its mean, {row.ranked_by:.4f}, is over the {row.measured.n} of "
            f"{len(row.group.every)} {self.unit} that have a result ({in_words(row.lost)})."
            for row in self.rows
            if all(row is not one for one in self.ranked) and not math.isnan(row.ranked_by)
        ]
        if without := self.failures([row for row in self.rows if math.isnan(row.ranked_by)]):
            lines.append(f"Not ranked: {some(without)}.")
        if self.ranked and not self.ranked[0].is_whole:
            lines.append(f"Lost runs: every configuration lost {self.unit}; means are over those that have a result.")
        gains = [row.gained for row in self.rows if row.gained is not None] + [one for _, one in self.behind_best()]
        is_lost = any(row.lost["unreadable"] or row.lost["missing"] for row in self.rows)
        if is_lost and any(gain.family > 1 for gain in gains):
            lines.append(
                "Unreadable or missing runs: p (Holm) leaves out the comparisons that they take away, so that others "
                "look surer than with all runs; restore these, or train them again, before you decide."
            )
        if len({frozenset(row.group.runs) for row in self.ranked}) > 1:
            numbers, one = Counter(row.measured.n for row in self.ranked), self.unit.removesuffix("s")
            each = [f"{counted(numbers[n], 'configuration')} with {counted(n, one)}" for n in sorted(numbers)[::-1]]
            lines.append(
                f"Unequal {self.unit}: the means are over different ones ({', '.join(each)}); "
                "differences are over those in common."
            )
        if others := [row for row in self.ranked[1:] if not on_same_images(row.group, self.best.group, self.ranks_on)]:
            lines.append(
                f"Other images: {self.best.label} is measured on other {SPLITS[self.ranks_on]} images than "
                f"{some([row.label for row in others])}; their order says little about the configurations."
            )
        if any(gain.is_resolved and gain.estimate.n == 2 for gain in gains):
            lines.append(f"Only 2 {self.unit}: two that happen to agree say little, even of what is more than chance.")
        return lines


def compare(runs: Sequence[RunSummary], metric: str | None = None, baseline: str | None = None) -> Comparison:
    """Return runs side by side, grouped over seeds, folds and splits; what cannot be read is `skipped`.

    metric: None: what their task watches, if all watch the same. baseline: `key=value,…` of the configuration to
    compare with; None: the first. Raises UserError if nothing is finished, and for an unknown metric or baseline.
    """
    skipped = [_skipped(run) for run in runs if run.problem]
    groups = grouped([run for run in runs if run.config])  # of a sweep also what cannot be read: its plan says
    finished = [group for group in groups if group.runs]
    if not finished:
        unfinished = [f"{run.path}: {run.error or run.status}" for run in runs if not run.problem]
        raise UserError("\n".join(["no finished run to report on.", *(f"  {one}" for one in skipped + unfinished)]))
    first = finished[0].first
    every = [run for group in finished for run in group.runs.values()]
    names = {split: _metrics_in_common(every, split) for split in SPLITS}
    repeated = varied(groups)
    order = ("val", "test") if "data.fold" in repeated else ("test", "val")  # what folds hold out is measured best
    split = next((one for one in order if (metric in names[one] if metric else names[one])), None)
    if split is None and metric is not None:
        having = listed(dict.fromkeys([*names["test"], *names["val"]]))
        raise UserError(f"--metric {metric}: not all runs have it; they have {having}.")
    if split is None:
        raise UserError("these runs have no metric in common: their tasks differ.")
    if metric is None:
        is_one = all(run.result.get("watched") == first.result.get("watched") for run in every)
        telling = principal(names[split], finished[0].epochs, first.result if is_one else {})
        metric = telling if telling in names[split] else names[split][0]
    of = Metric.of(metric, first.result)
    ranks_on = "val" if metric in names["val"] else "test"
    differing = distinguishing_keys([group.configuration for group in groups])
    base, overlap = _baseline(groups, finished[0], baseline, differing), overlap_of(groups)
    rows = [_row(group, base, of, split, ranks_on, overlap, differing) for group in groups]
    gained = iter(corrected_together([row.gained for row in rows if row.gained is not None]))
    rows = [row if row.gained is None else replace(row, gained=next(gained)) for row in rows]
    baseline_row = next(row for row in rows if row.group is base)
    unit = REPETITIONS[repeated[0]] if len(repeated) == 1 else "runs" if repeated else "seeds"
    return Comparison(of, split, ranks_on, differing, tuple(rows), baseline_row, unit, overlap, tuple(skipped))


def _skipped(run: RunSummary) -> str:
    problem = " ".join(run.problem.split())
    return problem if str(run.path) in problem else f"{run.path}: {problem}"


def _metrics_in_common(runs: Sequence[RunSummary], split: str) -> list[str]:
    measured = [run.result.get(split) or {} for run in runs]
    return [name for name in measured[0] if name != "samples" and all(name in one for one in measured)]


def _baseline(groups: Sequence[Group], first: Group, name: str | None, keys: Sequence[str]) -> Group:
    if name is None:
        return first
    fitting = [group for group in groups if fits(group.configuration, name, keys)]
    if len(fitting) != 1:
        number = f"{len(fitting)}" if fitting else "none"
        texts = [{key: group.configuration.text(key) for key in keys} for group in fitting or groups][:MOST_LISTED]
        names = [",".join(f"{key}={text}" for key, text in one.items() if text) for one in texts]
        raise UserError(
            f"--baseline {name}: matches {number} of {len(groups)} configurations; name one by KEY=VALUE,…:\n"
            + "\n".join(f"  {one}" for one in names)
        )
    return fitting[0]


def _row(
    group: Group, base: Group, metric: Metric, split: str, ranks_on: str, overlap: float, differing: Sequence[str]
) -> Row:
    name = label(group.configuration, base.configuration, differing)
    values = group.values(split, metric)
    measured = estimate(list(values.by_run.values()), overlap, metric.bounds)
    notes, gained = notes_on(group, base), None
    if group is not base and group.runs and base.runs:
        if on_same_images(group, base, split):
            gained = paired_difference([(values, base.values(split, metric))], overlap)
            if not gained.estimate.n:
                notes = ["shares no seed, fold or split with the baseline, and is not compared with it", *notes]
        else:
            notes = [f"measured on other {SPLITS[split]} images than the baseline, and not compared with it", *notes]
    lost = group.lost(metric, split)
    return Row(name, group, measured, group.mean(ranks_on, metric.name), gained, lost, tuple(notes))
