"""Rows of dots on one scale: the runs of each configuration, and differences to the baseline."""

import math
from collections.abc import Sequence
from statistics import median

from cnnbench.analysis.reports.columns import BASELINE
from cnnbench.analysis.reports.comparison import NOTHING, SPLITS, Comparison, Row
from cnnbench.analysis.reports.groups import in_words
from cnnbench.analysis.reports.sections import Axis, Strip, Strips
from cnnbench.analysis.reports.statistics import Difference, Estimate

FAR = 3  # times the distance from the best to the middle one: what is worse is drawn at the edge
WIDEST = 10  # times the usual width: the ends of a wider interval are


def is_ahead(comparison: Comparison) -> bool:
    """Return whether the best is better than every other by more than chance, and may be emphasised."""
    behind = comparison.behind_best() if comparison.ranked else []
    return len(behind) == len(comparison.ranked) - 1 > 0 and all(gain.is_resolved for _, gain in behind)


def runs_of(comparison: Comparison, rows: Sequence[Row], more: str) -> Strips:
    """Return a row for each configuration: every run a dot, with mean and interval. more: said of rows left out."""
    metric, unit = comparison.metric, comparison.unit
    values = {id(row): comparison.values(row).by_run for row in rows}
    measured = [row.measured for row in rows]
    far = farthest(measured, metric.sign)
    near = [row for row in rows if metric.sign * row.measured.mean >= metric.sign * far]
    points = [value for row in near for value in values[id(row)].values()]
    low, high = within(_limits(points, [row.measured for row in near]), metric.bounds)
    ranked = {id(row) for row in comparison.ranked}
    marked = comparison.best if len(rows) > 1 and is_ahead(comparison) else None
    strips = []
    for row in rows:
        group, found = row.group, row.measured
        seeds = [
            (value, f"{group.names[key]}: {value:.4f}", group.runs[key].folder.page)
            for key, value in values[id(row)].items()
            if low <= value <= high
        ]
        is_named = row is comparison.baseline and row.label != BASELINE
        remarks = ["the baseline"] * is_named + [in_words(row.lost)] * bool(row.lost) + list(row.notes)
        look = "marked" if row is marked else "" if id(row) in ranked else "below"
        name, said, ends = comparison.numbers[id(row)] + row.label, in_numbers(found), (found.low, found.high)
        strips.append(Strip(name, said, seeds, found.mean, ends, look, "; ".join(remarks)))
    order = SPLITS[comparison.ranks_on]
    best = "highest" if metric.higher_is_better else "lowest"
    note = (
        f"Sorted by {order} {metric.name}, the {best} first. Each dot is one of the {unit}, the bar their "
        "mean, the band its 95 % interval"
        + ("; the dashed line is the mean of the baseline." if len(rows) > 1 else ".")
        + " Below the rule: not ranked, runs are missing." * any(id(row) not in ranked for row in rows)
        + f" Green: ahead of every other on the {order} images by more than chance." * (marked is not None)
        + _on_arrows(measured, low, high)
        + more
    )
    base = comparison.baseline.measured.mean
    line = base if len(rows) > 1 and low <= base <= high else None
    heads = "configuration", f"mean [95 %], number of {unit}"
    first = f", the best on {order} first;" if comparison.ranks_on != comparison.split else " by"
    title = f"Configurations{first} {comparison.measure}"
    return Strips(title, heads, strips, Axis(comparison.measure, low, high), line, note)


def differences(comparison: Comparison, rows: Sequence[Row], more: str) -> Strips:
    """Return differences to the baseline, with the intervals and the verdicts of the table, or why there is none."""
    finished = [row for row in rows if row.group.runs and row is not comparison.baseline]
    gains = [(row, row.gained or Difference(NOTHING, math.nan)) for row in finished]
    estimates = [gain.estimate for _, gain in gains if gain.estimate.n]
    sign = comparison.metric.sign
    far = farthest(estimates, sign)
    low, high = _limits([0.0], [one for one in estimates if sign * one.mean >= sign * far])
    strips = []
    for row, gain in gains:
        found = gain.estimate
        name, said = comparison.numbers[id(row)] + row.label, in_numbers(found, "+") or "unknown"
        said += f" of {row.measured.n}" * (0 < found.n < row.measured.n)
        look, why = "" if gain.is_resolved else "open", gain.verdict if found.n else row.notes[0]
        strips.append(Strip(name, said, (), found.mean, (found.low, found.high), look, why))
    better = "right" if comparison.metric.higher_is_better else "left"
    note = (
        f"Paired by {comparison.unit.removesuffix('s')}; better is to the {better}. Filled: more than chance."
        + _on_arrows(estimates, low, high)
        + more
    )
    heads = "configuration", f"difference [95 %], number of {comparison.unit}"
    name = comparison.baseline.label
    title = "Difference to the baseline" + (f", {name}" if name != BASELINE else "")
    return Strips(title, heads, strips, Axis(f"difference in {comparison.measure}", low, high), 0.0, note)


def in_numbers(found: Estimate, sign: str = "") -> str:
    """Return mean, interval and number as text; empty where nothing is known."""
    if math.isnan(found.mean):
        return ""
    interval = "" if math.isnan(found.low) else f" [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"
    return f"{found.mean:{sign}.4f}{interval}, n = {found.n}"


def farthest(estimates: Sequence[Estimate], sign: int) -> float:
    """Return the worst mean that a scale needs to have: a few that are far off would flatten all others.

    One whose interval meets that of the best is never far. NaN: there is none.
    """
    known = sorted((one for one in estimates if math.isfinite(one.mean)), key=lambda one: -sign * one.mean)
    if not known:
        return math.nan
    best, middle = known[0], known[len(known) // 2]
    room = max(FAR * abs(best.mean - middle.mean), _usual_width(known)) or math.inf
    near = [x for x in known if abs(best.mean - x.mean) <= room or (x.low <= best.high and best.low <= x.high)]
    return near[-1].mean


def _usual_width(estimates: Sequence[Estimate]) -> float:
    """Return the median width of intervals: what is no further apart is not far; 0 where there are none."""
    return median([one.high - one.low for one in estimates if math.isfinite(one.low)] or [0.0])


def _limits(points: Sequence[float], estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Return a scale for these points, means and intervals; a few that are far wider than others would flatten all."""
    widest = WIDEST * _usual_width(estimates)
    ends = [end for one in estimates if one.high - one.low <= widest for end in (one.low, one.high)]
    finite = [end for end in (*points, *(one.mean for one in estimates), *ends) if math.isfinite(end)] or [0.0, 1.0]
    return around(finite)


def around(values: Sequence[float]) -> tuple[float, float]:
    """Return limits with room around values."""
    low, high = min(values), max(values)
    room = (high - low) / 12 or abs(high) / 50 or 0.01
    return low - room, high + room


def within(limits: tuple[float, float], bounds: tuple[float, float]) -> tuple[float, float]:
    """Return limits that leave no more than a margin beyond what is possible."""
    margin = (limits[1] - limits[0]) / 50
    return max(limits[0], bounds[0] - margin), min(limits[1], bounds[1] + margin)


def _on_arrows(estimates: Sequence[Estimate], low: float, high: float) -> str:
    """Say what arrows are, where there are any."""
    ends = [end for one in estimates for end in (one.mean, one.low, one.high) if math.isfinite(end)]
    return " What lies beyond the scale is an arrow at its edge." * any(not low <= end <= high for end in ends)
