"""Figures of runs side by side: a row of dots for each configuration, differences, settings, costs, curves."""

import math
from collections.abc import Callable, Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, NullLocator

from cnnbench.analysis.reports.columns import BASELINE, short_names
from cnnbench.analysis.reports.comparison import SPLITS, Comparison, Row
from cnnbench.analysis.reports.curves import metric_curves
from cnnbench.analysis.reports.groups import in_words
from cnnbench.analysis.reports.learning import LOSS
from cnnbench.analysis.reports.page import Drawing, Grid, Section, Strip, Strips
from cnnbench.analysis.reports.statistics import Estimate
from cnnbench.errors import grouped
from cnnbench.tasks.charts import chart, plain_math, say, svg, themed

BEST, WORST = 45, 15  # of more configurations than both, these are drawn
CURVES = 12
LEGEND = 30  # characters of a name; its number says which it is
FAR = 3  # times the distance from the best to the middle one: what is worse is drawn at the edge
WIDE = 50  # times its lowest value: a setting is drawn by its logarithm
VARIES = 1.2  # times the least: costs that differ by more are drawn
CLOSE = 12  # pixels between points, for their numbers not to overlap
PARTS = 5  # into which ticks divide a scale

Scale = Callable[[float], float]
"""From a value to its place, a share of the width in percent."""


def figures_of(comparison: Comparison) -> Iterator[Section]:
    """Yield the figures that say something of these configurations, the dots of all seeds first."""
    ordered = _ordered(comparison)
    shown = _shown(ordered, comparison.baseline)
    left_out = len(ordered) - len(shown)
    more = f" {left_out} of {len(ordered)} configurations between the best and the last are left out." * bool(left_out)
    numbers = {id(row): number for number, row in enumerate(ordered, 1)}
    yield _dots(comparison, shown, numbers, more)
    yield from filter(None, (_by_setting(comparison), _by_two_settings(comparison)))
    if any(row.gained for row in shown):
        yield _differences(comparison, shown, numbers, more)
    costs = {
        "seconds of training": [row.group.mean("seconds", "train") for row in ordered],
        "parameters": [row.group.mean("parameters", "total") for row in ordered],
    }
    for name, values in costs.items():
        yield from filter(None, (_by_cost(comparison, ordered, name, values),))
    yield from _curves(comparison, numbers)


def _ordered(comparison: Comparison) -> list[Row]:
    """Return all rows: ranked, then those that lost runs by failures, then those without a result."""
    sign = comparison.metric.sign
    measured = [row for row in comparison.rows if not math.isnan(row.ranked_by)]
    ranked = {id(row) for row in comparison.ranked}
    return [
        *sorted(measured, key=lambda row: (id(row) not in ranked, -sign * row.ranked_by)),
        *(row for row in comparison.rows if math.isnan(row.ranked_by)),
    ]


def _shown(ordered: Sequence[Row], baseline: Row) -> list[Row]:
    if len(ordered) <= BEST + WORST:
        return list(ordered)
    return [
        row for place, row in enumerate(ordered) if place < BEST or place >= len(ordered) - WORST or row is baseline
    ]


# Rows of dots ---------------------------------------------------------------------------------------------------------


def _dots(comparison: Comparison, rows: Sequence[Row], numbers: dict[int, int], more: str) -> Strips:
    metric, unit = comparison.metric, comparison.unit
    values = {id(row): comparison.values(row).by_run for row in rows}
    far = _farthest([row.measured.mean for row in rows], metric.sign)
    points = [value for by_run in values.values() for value in by_run.values()]
    points += [comparison.baseline.measured.mean]
    limits = _limits([x for x in points if metric.sign * x >= metric.sign * far], [row.measured for row in rows])
    low, high = limits if metric.bounds is None else _within(limits, metric.bounds)
    place = _scale(low, high)
    strips = []
    for row in rows:
        group = row.group
        dots = [
            (place(value), f"{group.names[key]}: {value:.4f}", group.runs[key].folder.page)
            for key, value in values[id(row)].items()
            if low <= value <= high
        ]
        remarks = ["the baseline"] * (row is comparison.baseline) + [in_words(row.lost)] * bool(row.lost)
        remarks += [f"{group.names[key]}: {run.status}, {run.error}" for key, run in group.others.items() if run.error][
            :1
        ]
        strips.append(
            Strip(
                f"{numbers[id(row)]}. {row.label}",
                _in_numbers(row.measured),
                dots,
                None if math.isnan(row.measured.mean) else place(row.measured.mean),
                _clipped(row.measured, place),
                "marked" if row is comparison.best and len(rows) > 1 else "",
                "; ".join(remarks),
            )
        )
    where, order = SPLITS[comparison.split], SPLITS[comparison.ranks_on]
    best = "highest" if metric.higher_is_better else "lowest"
    note = (
        f"{metric.name} on the {where} images, in the order of {order} {metric.name}, the {best} first. A dot is one "
        f"of the {unit}, the bar their mean, the band its 95 % interval"
        + ("; the dashed line is the mean of the baseline." if len(rows) > 1 else ".")
        + " What lies beyond the scale is an arrow at its edge." * any(_is_beyond(strip) for strip in strips)
        + more
    )
    base = comparison.baseline.measured.mean
    line = place(base) if len(rows) > 1 and low <= base <= high else None
    heads = "configuration", f"{metric.name}, {where}", f"mean [95 %], number of {unit}"
    return Strips(f"{metric.name} of each configuration", heads, strips, _ticks(low, high, place), line, note)


def _differences(comparison: Comparison, rows: Sequence[Row], numbers: dict[int, int], more: str) -> Strips:
    """Return differences to the baseline, with the intervals and the verdicts of the table."""
    gains = [(row, row.gained) for row in rows if row.gained is not None and row.gained.estimate.n]
    estimates = [gain.estimate for _, gain in gains]
    far = _farthest([one.mean for one in estimates] or [0.0], comparison.metric.sign)
    means = [one.mean for one in estimates if comparison.metric.sign * (one.mean - far) >= 0]
    low, high = _limits([0.0, *means], estimates)
    place = _scale(low, high)
    strips = []
    for row, gain in gains:
        unknown = math.isnan(gain.p)
        verdict = "chance is unknown" if unknown else "more than chance" if gain.is_resolved else "may be chance"
        strips.append(
            Strip(
                f"{numbers[id(row)]}. {row.label}",
                _in_numbers(gain.estimate, "+"),
                mean=place(gain.estimate.mean),
                interval=_clipped(gain.estimate, place),
                look="" if gain.is_resolved else "open",
                remark=verdict if math.isnan(gain.corrected) else f"{verdict}, p = {gain.corrected:.2g}",
            )
        )
    family = max((gain.family for _, gain in gains), default=1)
    better = "right" if comparison.metric.higher_is_better else "left"
    note = (
        f"Paired by {comparison.unit.removesuffix('s')}; better is to the {better}. Filled: more than chance"
        + (
            f" among all {family} comparisons (p by Holm); each interval is that of one comparison alone, so it may "
            "leave out zero where the verdict is chance."
            if family > 1
            else "."
        )
        + more
    )
    heads = "configuration", "difference", f"difference [95 %], number of {comparison.unit}"
    name = comparison.baseline.label
    title = "Difference to the baseline" + (f", {name}" if name != BASELINE else "")
    return Strips(title, heads, strips, _ticks(low, high, place), place(0.0), note)


def _in_numbers(found: Estimate, sign: str = "") -> str:
    if math.isnan(found.mean):
        return ""
    interval = "" if math.isnan(found.low) else f" [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"
    return f"{found.mean:{sign}.4f}{interval}, n = {found.n}"


def _farthest(means: Sequence[float], sign: int) -> float:
    """Return the worst mean that a scale needs to have: a few that are far off would flatten all others."""
    good = sorted((sign * mean for mean in means if math.isfinite(mean)), reverse=True)
    if not good:
        return math.nan
    best, middle = good[0], good[len(good) // 2]
    near = [mean for mean in good if mean >= best - FAR * (best - middle)]
    return sign * (near[-1] if middle < best else good[-1])


def _limits(points: Sequence[float], estimates: Sequence[Estimate]) -> tuple[float, float]:
    """Return a scale for these points, with intervals as far as they do not flatten them."""
    finite = [point for point in points if math.isfinite(point)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    room = (high - low) / 2 or abs(high) / 50 or 0.01
    inside = [one for one in estimates if low <= one.mean <= high]
    lows, highs = ([edge for edge in edges if math.isfinite(edge)] for edges in _edges(inside))
    margin = room / 10
    return max(low - room, min([low, *lows])) - margin, min(high + room, max([high, *highs])) + margin


def _edges(estimates: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    return [one.low for one in estimates], [one.high for one in estimates]


def _within(limits: tuple[float, float], bounds: tuple[float, float]) -> tuple[float, float]:
    """Return limits that leave no more than a margin beyond what is possible."""
    margin = (limits[1] - limits[0]) / 50
    return max(limits[0], bounds[0] - margin), min(limits[1], bounds[1] + margin)


def _scale(low: float, high: float) -> Scale:
    return lambda value: round(100 * (value - low) / (high - low), 2)


def _clipped(found: Estimate, place: Scale) -> tuple[float, float] | None:
    if math.isnan(found.low) or place(found.high) < 0 or place(found.low) > 100:
        return None
    return max(place(found.low), 0.0), min(place(found.high), 100.0)


def _is_beyond(strip: Strip) -> bool:
    return strip.mean is not None and not 0 <= strip.mean <= 100


def _ticks(low: float, high: float, place: Scale) -> list[tuple[float, str]]:
    values = MaxNLocator(PARTS).tick_values(low, high)
    return [(place(value), f"{value:.6g}") for value in map(float, values) if low <= value <= high]


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
        (dots,) = axis.plot([x] * len(values), list(values.values()), "o", mfc="none", mec="#5b6570", ms=4)
        say(dots, [f"{key} {x:g}\n{row.group.names[run]}: {value:.4f}" for run, value in values.items()])
    means = [row.measured.mean for row in rows]
    lows, highs = _edges([row.measured for row in rows])
    axis.fill_between(places, lows, highs, alpha=0.15, lw=0, color="C0")
    (line,) = axis.plot(places, means, "-D", ms=4.5, color="C0")
    say(line, [f"{key} {x:g}\n{_in_numbers(row.measured)}" for x, row in zip(places, rows, strict=True)])
    if min(places) > 0 and max(places) / min(places) >= WIDE:
        axis.set_xscale("log")
    axis.set(xlabel=plain_math(key), ylabel=f"{metric.name}, {SPLITS[comparison.split]}")
    if metric.bounds:
        axis.set_ylim(*_within(axis.get_ylim(), metric.bounds))
    note = f"Mean over {comparison.unit} and its 95 % interval; circles are the {comparison.unit}."
    return Drawing(f"{metric.name} by {key}", svg(figure), note)


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
    far = _farthest(means, metric.sign)
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
    note = f"Mean {metric.name} on the {SPLITS[comparison.split]} images; more colour is better."
    names = short_names(comparison.differing)
    down, along = (names.get(key, key) for key in (down, along))
    return Grid(f"{metric.name} by {down} and {along}", f"{down} ↓  {along} →", columns, table, note)


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
    metric = comparison.metric
    figure, axis = chart(height=2.7)
    (dots,) = axis.plot([cost for *_, cost in known], [row.measured.mean for _, row, _ in known], "o", ms=5)
    say(dots, [f"{row.label}\n{grouped(round(cost))} {name}\n{_in_numbers(row.measured)}" for _, row, cost in known])
    if most >= WIDE * least:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(MaxNLocator(PARTS))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.set(xlabel=name, ylabel=f"{metric.name}, {SPLITS[comparison.split]}")
    axis.margins(0.08)
    for place, text in _apart(axis, [(cost, row.measured.mean, number) for number, row, cost in known]):
        axis.annotate(text, place, xytext=(5, 3), textcoords="offset points", fontsize=8)
    note = f"Means over {comparison.unit}, numbered as above."
    return Drawing(f"{metric.name} against {name}", svg(figure), note)


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
    more = f"; {len(chosen)} of {len(comparison.rows)}" if len(chosen) < len(comparison.rows) else ""
    curves = [(_cut(f"{numbers[id(row)]}. {row.label}"), row.group.epochs) for row in chosen]
    for metric in dict.fromkeys((comparison.metric, LOSS)):
        drawing = metric_curves(curves, metric)
        if drawing is not None:
            yield Drawing(f"{metric.name} by epoch{more}", drawing)


def _cut(label: str) -> str:
    return label if len(label) <= LEGEND else f"{label[: LEGEND - 1]}…"
