"""Figures of runs side by side: a row of dots for each configuration, differences, settings, costs, curves."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cnnbench.analysis.reports.columns import GROUPS, short_names
from cnnbench.analysis.reports.comparison import Comparison, Row
from cnnbench.analysis.reports.curves import metric_curves
from cnnbench.analysis.reports.groups import in_words, ran_at_once, some
from cnnbench.analysis.reports.learning import LOSS
from cnnbench.analysis.reports.page import Section
from cnnbench.analysis.reports.sections import Axis, Curve, Grid, Panel, Plot, area, dots, line, ranges
from cnnbench.analysis.reports.strips import around, differences, farthest, in_numbers, runs_of, within
from cnnbench.errors import grouped
from cnnbench.tasks.charts import plain

BEST, WORST = 45, 15  # of more configurations than both, these are drawn
CURVES = 12
LEGEND = 40  # characters of a name; its number says which it is
WIDE = 50  # times its lowest value: a setting is drawn by its logarithm
PIN = 0.04, 0.08  # how wide and high the number of a point is, as shares of a chart
VARIES = 1.2  # times the least: costs that differ by more are drawn


def figures_of(comparison: Comparison) -> Iterator[Section]:
    """Yield the figures that say something of these configurations, the dots of all seeds first."""
    ordered = comparison.ordered
    last = len(ordered) - WORST
    shown = [row for n, row in enumerate(ordered) if n < BEST or n >= last or row is comparison.baseline]
    left_out = len(ordered) - len(shown)
    more = f" {left_out} of {len(ordered)} configurations between the best and the last are left out." * bool(left_out)
    yield runs_of(comparison, shown, more)
    yield from filter(None, (_by_setting(comparison), _by_two_settings(comparison)))
    if any(row.gained for row in shown):
        yield differences(comparison, shown, more)
    costs = {"training time in seconds": ("seconds", "train"), "parameters": ("parameters", "total")}
    for name, path in costs.items():
        if path[0] != "seconds" or not ran_at_once(comparison.runs):
            yield from filter(None, (_by_cost(comparison, name, [row.group.mean(*path) for row in ordered]),))
    yield from _curves(comparison)


# By settings ----------------------------------------------------------------------------------------------------------


def _numbers(texts: Sequence[str]) -> list[float] | None:
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _by_setting(comparison: Comparison) -> Plot | None:
    """Return a line over the values of the one setting that differs; None where there are several, or no numbers."""
    rows = [row for row in comparison.rows if not math.isnan(row.measured.mean)]
    if len(comparison.differing) != 1 or len(rows) < 3:
        return None
    (key,), metric = comparison.differing, comparison.metric
    places = _numbers([row.group.configuration.text(key) for row in rows])
    if places is None or len(set(places)) < len(places):
        return None
    pairs = sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])
    runs = [(place, value) for place, row in pairs for value in comparison.values(row).by_run.values()]
    bands = [(place, row.measured.low, row.measured.high) for place, row in pairs if math.isfinite(row.measured.low)]
    x = _spaced(key, [place for place, _ in pairs])
    limits = around([value for _, value in runs] + [edge for _, *ends in bands for edge in ends])
    y = Axis(comparison.measure, *within(limits, metric.bounds))
    mean = line(x, y, [(place, row.measured.mean) for place, row in pairs])
    curves = [Curve("s1 band", area(x, y, bands)), Curve("s1", mean, "mean"), Curve("ink dots small", dots(x, y, runs))]
    note = f"Mean over {comparison.unit} and its 95 % interval; dots are the {comparison.unit}."
    return Plot(f"{comparison.measure} by {key}", [Panel(x, y, curves)], note=note)


def _by_two_settings(comparison: Comparison) -> Grid | None:
    """Return the mean for each pair of two settings; None where other than two differ, or most pairs are missing."""
    if len(comparison.differing) != 2:
        return None
    metric = comparison.metric
    down, along = comparison.differing
    cells = {tuple(row.group.configuration.text(key) for key in (down, along)): row for row in comparison.rows}
    rows, columns = (_in_order([cell[place] for cell in cells]) for place in (0, 1))
    if len(rows) < 2 or len(columns) < 2 or 2 * len(cells) < len(rows) * len(columns):
        return None
    measured = [row.measured for row in cells.values()]
    worst = farthest(measured, metric.sign)
    best = metric.sign * max((metric.sign * one.mean for one in measured if math.isfinite(one.mean)), default=math.nan)

    def cell(row: Row | None) -> tuple[float, str, str] | None:
        if row is None:
            return None
        found, lost = row.measured, f"; {in_words(row.lost)}" * bool(row.lost)
        if math.isnan(found.mean):
            return -1.0, "–", in_words(row.lost)
        share = 1.0 if best == worst else (found.mean - worst) / (best - worst)
        return (round(share, 3) if share >= 0 else -1.0), f"{found.mean:.4f}", f"n = {found.n}{lost}"

    table = [(name, [cell(cells.get((name, other))) for other in columns]) for name in rows]
    note = f"Mean {comparison.measure}; colours from {worst:.4f}, pale, to {best:.4f}; none: far worse, or no result."
    names = short_names(comparison.differing)
    down, along = (names.get(key, key) for key in (down, along))
    return Grid(f"{comparison.measure} by {down} and {along}", f"{down} ↓  {along} →", columns, table, note)


def _in_order(texts: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(texts))
    numbers = _numbers(distinct)
    return distinct if numbers is None else [text for _, text in sorted(zip(numbers, distinct, strict=True))]


# Costs and curves -----------------------------------------------------------------------------------------------------


def _by_cost(comparison: Comparison, name: str, costs: Sequence[float]) -> Plot | None:
    """Return the metric against a cost; None where all configurations cost about the same."""
    sign, numbers = comparison.metric.sign, comparison.numbers
    far = farthest([row.measured for row in comparison.rows], sign)
    drawn, others = [], []
    for row, cost in zip(comparison.ordered, costs, strict=True):
        if math.isfinite(cost) and sign * row.measured.mean >= sign * far:
            drawn.append((numbers[id(row)].rstrip(". "), row, cost))
        elif row.measured.n:
            others.append(f"{numbers[id(row)]}{row.label} ({row.measured.mean:.4f})")
    least, most = (pick((cost for *_, cost in drawn), default=0.0) for pick in (min, max))
    if len(drawn) < 2 or most < VARIES * least or least <= 0:
        return None
    measured = [row.measured for _, row, _ in drawn]
    ends = [end for one in measured for end in (one.mean, one.low, one.high) if math.isfinite(end)]
    y = Axis(comparison.measure, *around(ends))
    x, places = _next_to_each_other(_spaced(name, [cost for *_, cost in drawn]), y, drawn)
    intervals = [(place, one.low, one.high) for place, one in zip(places, measured, strict=True)]
    pins = [
        (place, row.measured.mean, number, f"{row.label}\n{name}: {grouped(cost)}\n{in_numbers(row.measured)}")
        for place, (number, row, cost) in zip(places, drawn, strict=True)
    ]
    moved = " Points that would hide one another are next to each other." * (places != [cost for *_, cost in drawn])
    left_out = f" Not drawn, far worse: {some(others)}." if others else ""
    note = f"Means over {comparison.unit}, with their 95 % intervals.{moved}{left_out}"
    key = [(number, row.label) for number, row, _ in drawn] if len(drawn) <= CURVES else []
    panel = Panel(x, y, [Curve("s1 interval", ranges(x, y, intervals))], pins=pins)
    return Plot(f"{comparison.measure} against {name}", [panel], note=note, key=key)


def _next_to_each_other(x: Axis, y: Axis, drawn: Sequence[tuple[str, Row, float]]) -> tuple[Axis, list[float]]:
    """Return where on an axis points are drawn so that all are seen, and the axis, longer where they need that."""
    step = min(PIN[0], 0.6 / len(drawn)) * (x.at(x.high) - x.at(x.low))
    half = PIN[1] / 2 * (y.high - y.low)
    taken: list[tuple[float, float, float]] = []
    for _, row, cost in drawn:
        ends = [one for one in (row.measured.mean, row.measured.low, row.measured.high) if math.isfinite(one)]
        low, high = min(ends) - half, max(ends) + half
        near = [at for at, bottom, top in taken if low < top and bottom < high]
        beside = (x.at(cost) + step * ((n + 1) // 2) * (-1) ** n for n in range(2 * len(drawn)))
        taken.append((next(at for at in beside if all(abs(at - one) > 0.99 * step for one in near)), low, high))
    first, *_, last = sorted(at for at, *_ in taken)
    value = (lambda at: 10.0**at) if x.is_log else float
    places = [cost if at == x.at(cost) else value(at) for (at, *_), (*_, cost) in zip(taken, drawn, strict=True)]
    return replace(x, low=min(x.low, value(first - step)), high=max(x.high, value(last + step))), places


def _spaced(name: str, values: Sequence[float]) -> Axis:
    """Return an axis for values with room around them, by their logarithm where they are far apart."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= WIDE:
        return Axis.of_ratios(name, low / (high / low) ** 0.07, high * (high / low) ** 0.07)
    return Axis(name, *around(values))


def _curves(comparison: Comparison) -> Iterator[Plot]:
    """Yield the curves of the baseline and the best others, in the order of all rows."""
    ranked = [comparison.baseline, *comparison.ordered]
    best = list({id(row): row for row in ranked if row.group.runs})[:CURVES]
    chosen = [row for row in comparison.ordered if id(row) in best]
    more = f"; {len(chosen)} of {len(comparison.rows)} configurations" if len(chosen) < len(comparison.rows) else ""
    key = ",".join(comparison.differing)
    names = [comparison.numbers[id(row)] + row.label.removeprefix(f"{key}=" * (key in GROUPS)) for row in chosen]
    curves = [(plain(name, LEGEND), row.group.epochs) for name, row in zip(names, chosen, strict=True)]
    for metric in dict.fromkeys((comparison.metric, LOSS)):
        if plot := metric_curves(curves, metric):
            yield replace(plot, title=f"{plot.title}{more}")
