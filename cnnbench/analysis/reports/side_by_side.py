"""Figures of runs side by side: a row of dots for each configuration, differences, settings, costs, curves."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from cnnbench.analysis.reports.columns import short_names
from cnnbench.analysis.reports.comparison import Comparison, Row
from cnnbench.analysis.reports.curves import metric_curves
from cnnbench.analysis.reports.groups import SHARED, in_words, ran_at_once, some
from cnnbench.analysis.reports.learning import LOSS
from cnnbench.analysis.reports.page import Section
from cnnbench.analysis.reports.sections import Axis, Curve, Grid, Panel, Plot, area, dots, line, ranges
from cnnbench.analysis.reports.strips import differences, farthest, in_numbers, runs_of, usual_width, within
from cnnbench.errors import grouped

BEST, WORST = 45, 15  # of more configurations than both, these are drawn
CURVES = 12
LEGEND = 40  # characters of a name; its number says which it is
WIDE = 50  # times its lowest value: a setting is drawn by its logarithm
VARIES = 1.2  # times the least: costs that differ by more are drawn


def figures_of(comparison: Comparison) -> Iterator[Section]:
    """Yield the figures that say something of these configurations, the dots of all seeds first."""
    ordered = comparison.ordered
    shown = _shown(ordered, comparison.baseline)
    left_out = len(ordered) - len(shown)
    more = f" {left_out} of {len(ordered)} configurations between the best and the last are left out." * bool(left_out)
    yield runs_of(comparison, shown, more)
    yield from filter(None, (_by_setting(comparison), _by_two_settings(comparison)))
    if any(row.gained for row in shown):
        yield differences(comparison, shown, more)
    costs = {
        "training time in seconds": [row.group.mean("seconds", "train") for row in ordered],
        "parameters": [row.group.mean("parameters", "total") for row in ordered],
    }
    for name, values in costs.items():
        yield from filter(None, (_by_cost(comparison, ordered, name, values),))
    yield from _curves(comparison)


def _shown(ordered: Sequence[Row], baseline: Row) -> list[Row]:
    if len(ordered) <= BEST + WORST:
        return list(ordered)
    return [
        row for place, row in enumerate(ordered) if place < BEST or place >= len(ordered) - WORST or row is baseline
    ]


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
    limits = _around([value for _, value in runs] + [edge for _, *ends in bands for edge in ends])
    y = Axis(comparison.measure, *(within(limits, metric.bounds) if metric.bounds else limits))
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
    means = [row.measured.mean for row in cells.values() if not math.isnan(row.measured.mean)]
    far = farthest(means, metric.sign)
    best = max(means, key=lambda mean: metric.sign * mean, default=math.nan)

    def cell(row: Row | None) -> tuple[float, str, str] | None:
        if row is None:
            return None
        found, lost = row.measured, f"; {in_words(row.lost)}" * bool(row.lost)
        if math.isnan(found.mean):
            return -1.0, "–", in_words(row.lost)
        share = 1.0 if best == far else max(0.0, (found.mean - far) / (best - far))
        return round(share, 3), f"{found.mean:.4f}", f"n = {found.n}{lost}"

    table = [(name, [cell(cells.get((name, other))) for other in columns]) for name in rows]
    note = f"Mean {comparison.measure}; more colour is better."
    names = short_names(comparison.differing)
    down, along = (names.get(key, key) for key in (down, along))
    return Grid(f"{comparison.measure} by {down} and {along}", f"{down} ↓  {along} →", columns, table, note)


def _in_order(texts: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(texts))
    numbers = _numbers(distinct)
    return distinct if numbers is None else [text for _, text in sorted(zip(numbers, distinct, strict=True))]


# Costs and curves -----------------------------------------------------------------------------------------------------


def _by_cost(comparison: Comparison, ordered: Sequence[Row], name: str, costs: Sequence[float]) -> Plot | None:
    """Return the metric against a cost; None where all configurations cost about the same."""
    known = [
        (comparison.numbers[id(row)].partition(".")[0] or "–", row, cost)
        for row, cost in zip(ordered, costs, strict=True)
        if math.isfinite(cost) and math.isfinite(row.measured.mean)
    ]
    least, most = (pick((cost for *_, cost in known), default=0.0) for pick in (min, max))
    if len(known) < 2 or most < VARIES * least or least <= 0:
        return None
    x = _spaced(name, [cost for *_, cost in known])
    measured = [row.measured for _, row, _ in known]
    far = farthest([one.mean for one in measured], comparison.metric.sign, usual_width(measured))
    near = [one for one in known if comparison.metric.sign * (one[1].measured.mean - far) >= 0]
    intervals = [(cost, row.measured.low, row.measured.high) for _, row, cost in near]
    ends = [row.measured.mean for _, row, _ in near] + [end for _, *both in intervals for end in both]
    y = Axis(comparison.measure, *_around([end for end in ends if math.isfinite(end)]))
    pins = [
        (cost, row.measured.mean, number, f"{row.label}\n{name}: {grouped(cost)}\n{in_numbers(row.measured)}")
        for number, row, cost in near
    ]
    worse = [f"{one[0]}. {one[1].label} ({one[1].measured.mean:.4f})" for one in known if one not in near]
    left_out = f" Not drawn, far worse: {some(worse)}." * bool(worse)
    caution = SHARED * (name.startswith("seconds") and ran_at_once(comparison.runs))
    note = f"Means over {comparison.unit}, with their 95 % intervals.{left_out}{caution}"
    key = [(number, row.label) for number, row, _ in near] if len(near) <= CURVES else []
    panel = Panel(x, y, [Curve("s1 interval", ranges(x, y, intervals))], pins=pins)
    return Plot(f"{comparison.measure} against {name}", [panel], note=note, key=key)


def _spaced(name: str, values: Sequence[float]) -> Axis:
    """Return an axis for values with room around them, by their logarithm where they are far apart."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= WIDE:
        return Axis(name, low / (high / low) ** 0.07, high * (high / low) ** 0.07, is_log=True)
    return Axis(name, *_around(values))


def _around(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.09 or abs(high) / 50 or 0.01
    return low - room, high + room


def _curves(comparison: Comparison) -> Iterator[Plot]:
    """Yield the curves of the baseline and the best others, in the order of their numbers."""
    ranked = [comparison.baseline, *comparison.ranked, *comparison.rows]
    chosen = list({id(row): row for row in ranked if row.group.runs}.values())[:CURVES]
    places = {id(row): place for place, row in enumerate(comparison.ordered)}
    chosen.sort(key=lambda row: places[id(row)])
    more = f"; {len(chosen)} of {len(comparison.rows)} configurations" if len(chosen) < len(comparison.rows) else ""
    curves = [(_cut(f"{comparison.numbers[id(row)]}{row.label}"), row.group.epochs) for row in chosen]
    for metric in dict.fromkeys((comparison.metric, LOSS)):
        plot = metric_curves(curves, metric)
        if plot is not None:
            yield replace(plot, title=f"{plot.title}{more}")


def _cut(label: str) -> str:
    return label if len(label) <= LEGEND else f"{label[: LEGEND - 1]}…"
