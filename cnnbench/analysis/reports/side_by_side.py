"""Figures of runs side by side: a row of dots for each configuration, differences, settings, costs, curves."""

import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator

from cnnbench.analysis.reports.columns import short_names
from cnnbench.analysis.reports.comparison import Comparison, Row
from cnnbench.analysis.reports.curves import metric_curves
from cnnbench.analysis.reports.groups import SHARED, in_words, ran_at_once
from cnnbench.analysis.reports.learning import LOSS
from cnnbench.analysis.reports.page import Drawing, Section
from cnnbench.analysis.reports.sections import Grid
from cnnbench.analysis.reports.strips import PARTS, differences, dots, edges, farthest, in_numbers, within
from cnnbench.errors import grouped
from cnnbench.tasks.charts import chart, plain_math, say, svg, themed

BEST, WORST = 45, 15  # of more configurations than both, these are drawn
CURVES = 12
LEGEND = 30  # characters of a name; its number says which it is
WIDE = 50  # times its lowest value: a setting is drawn by its logarithm
VARIES = 1.2  # times the least: costs that differ by more are drawn
CLOSE = 12  # pixels between points, for their numbers not to overlap


def figures_of(comparison: Comparison) -> Iterator[Section]:
    """Yield the figures that say something of these configurations, the dots of all seeds first."""
    ordered = comparison.ordered
    shown = _shown(ordered, comparison.baseline)
    left_out = len(ordered) - len(shown)
    more = f" {left_out} of {len(ordered)} configurations between the best and the last are left out." * bool(left_out)
    numbers = {id(row): number for number, row in enumerate(ordered, 1)}
    yield dots(comparison, shown, numbers, more)
    yield from filter(None, (_by_setting(comparison), _by_two_settings(comparison)))
    if any(row.gained for row in shown):
        yield differences(comparison, shown, numbers, more)
    costs = {
        "seconds of training": [row.group.mean("seconds", "train") for row in ordered],
        "parameters": [row.group.mean("parameters", "total") for row in ordered],
    }
    for name, values in costs.items():
        yield from filter(None, (_by_cost(comparison, ordered, name, values),))
    yield from _curves(comparison, numbers)


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


@themed
def _by_setting(comparison: Comparison) -> Drawing | None:
    """Return a line over the values of the one setting that differs; None where there are several, or no numbers."""
    rows = [row for row in comparison.rows if not math.isnan(row.measured.mean)]
    if len(comparison.differing) != 1 or len(rows) < 3:
        return None
    (key,), metric = comparison.differing, comparison.metric
    places = _numbers([row.group.configuration.text(key) for row in rows])
    if places is None or len(set(places)) < len(places):
        return None
    places, rows = map(list, zip(*sorted(zip(places, rows, strict=True), key=lambda pair: pair[0]), strict=True))
    figure, axis = chart()
    for x, row in zip(places, rows, strict=True):
        values = comparison.values(row).by_run
        (points,) = axis.plot([x] * len(values), list(values.values()), "o", mfc="none", mec="#5b6570", ms=4)
        say(points, [f"{key} {x:g}\n{row.group.names[run]}: {value:.4f}" for run, value in values.items()])
    means = [row.measured.mean for row in rows]
    lows, highs = edges([row.measured for row in rows])
    axis.fill_between(places, lows, highs, alpha=0.15, lw=0, color="C0")
    (line,) = axis.plot(places, means, "-D", ms=4.5, color="C0")
    say(line, [f"{key} {x:g}\n{in_numbers(row.measured)}" for x, row in zip(places, rows, strict=True)])
    if min(places) > 0 and max(places) / min(places) >= WIDE:
        axis.set_xscale("log")
    axis.set(xlabel=plain_math(key), ylabel=comparison.measure)
    if metric.bounds:
        axis.set_ylim(*within(axis.get_ylim(), metric.bounds))
    note = f"Mean over {comparison.unit} and its 95 % interval; circles are the {comparison.unit}."
    return Drawing(f"{comparison.measure} by {key}", svg(figure), note)


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
            return 0.0, "–", in_words(row.lost)
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


@themed
def _by_cost(comparison: Comparison, ordered: Sequence[Row], name: str, costs: Sequence[float]) -> Drawing | None:
    """Return the metric against a cost; None where all configurations cost about the same."""
    known = [
        (number, row, cost)
        for number, (row, cost) in enumerate(zip(ordered, costs, strict=True), 1)
        if math.isfinite(cost) and math.isfinite(row.measured.mean)
    ]
    least, most = (pick((cost for *_, cost in known), default=0.0) for pick in (min, max))
    if len(known) < 2 or most < VARIES * least or least <= 0:
        return None
    figure, axis = chart(height=2.7)
    (points,) = axis.plot([cost for *_, cost in known], [row.measured.mean for _, row, _ in known], "o", ms=5)
    say(points, [f"{row.label}\n{grouped(round(cost))} {name}\n{in_numbers(row.measured)}" for _, row, cost in known])
    if most >= WIDE * least:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(PARTS))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set(xlabel=name, ylabel=comparison.measure)
    axis.margins(0.08)
    for place, text in _apart(axis, [(cost, row.measured.mean, number) for number, row, cost in known]):
        axis.annotate(text, place, xytext=(5, 3), textcoords="offset points", fontsize=8)
    caution = SHARED * (name.startswith("seconds") and ran_at_once(comparison.runs))
    note = f"Means over {comparison.unit}, numbered as above.{caution}"
    return Drawing(f"{comparison.measure} against {name}", svg(figure), note)


def _apart(axis: Axes, points: Sequence[tuple[float, float, int]]) -> list[tuple[tuple[float, float], str]]:
    """Return where to write numbers; those of points that are close to each other together."""
    axis.autoscale_view()
    groups: list[list[tuple[float, float, int]]] = []
    for point in points:
        here = axis.transData.transform(point[:2])
        near = (group for group in groups if math.dist(here, axis.transData.transform(group[0][:2])) < CLOSE)
        group = next(near, None)
        if group is None:
            groups.append([point])
        else:
            group.append(point)
    return [(group[0][:2], ", ".join(str(number) for *_, number in group)) for group in groups]


def _curves(comparison: Comparison, numbers: dict[int, int]) -> Iterator[Drawing]:
    """Yield the curves of the baseline and the best others, in the order of their numbers."""
    ranked = [comparison.baseline, *comparison.ranked, *comparison.rows]
    chosen = list({id(row): row for row in ranked if row.group.runs}.values())[:CURVES]
    chosen.sort(key=lambda row: numbers[id(row)])
    more = f"; {len(chosen)} of {len(comparison.rows)} configurations" if len(chosen) < len(comparison.rows) else ""
    curves = [(_cut(f"{numbers[id(row)]}. {row.label}"), row.group.epochs) for row in chosen]
    for metric in dict.fromkeys((comparison.metric, LOSS)):
        drawing = metric_curves(curves, metric)
        if drawing is not None:
            yield Drawing(f"{metric.name} by epoch{more}", drawing)


def _cut(label: str) -> str:
    return label if len(label) <= LEGEND else f"{label[: LEGEND - 1]}…"
