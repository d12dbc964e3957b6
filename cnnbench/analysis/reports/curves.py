"""Curves by epoch or step, with the range over seeds, as SVG for a page."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from cnnbench.analysis.reports.learning import Metric
from cnnbench.tasks.charts import FAINT, GROUND, chart, colour, forget, marker, plain_math, say, svg, themed

RUNNING_MEAN = "running mean while it learns"  # with augmentation and dropout
LONGEST = 60  # characters of a label
OUTLIERS = 0.1  # of all values: the worst may be cut off
FLAT = 1.5  # if the figure would be this many times as high with them
MARGIN = 0.15
SPAN = 4.0  # times: a loss that falls further is drawn by its logarithm
STYLES: dict[str, tuple[Any, str, str]] = {
    "val": ("-", "solid", "validation"),
    "test": ("-.", "dash-dotted", "test"),
    "train": ((0, (1.5, 1.2)), "dotted", f"training ({RUNNING_MEAN})"),
}
FEW = 4  # configurations: of more, only validation is drawn
LEGEND_LINE = 0.17  # inches
MARKED = 12  # markers of a curve, so that it is known without its colour
POINTS = 500  # of a curve by step
SMOOTH = 50  # running means in all steps


@themed
def metric_curves(curves: Sequence[tuple[str, pd.DataFrame]], metric: Metric, best_epoch: int = 0) -> str | None:
    """Return the curves of each configuration by split, where it was measured: mean and range over seeds.

    Training are running means while the network learns, which the figure says.
    curves: labels, each with the epoch rows of all seeds. best_epoch: marked by a line, unless 0. None if there is
    nothing to draw.
    """
    is_alone = len(curves) == 1
    columns = 2 if len(curves) > FEW else 1
    figure, axis = chart(height=2.9 + (0 if is_alone else LEGEND_LINE * math.ceil(len(curves) / columns)))
    drawn = _draw(axis, curves, metric)
    if not drawn:
        return None
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines])
    axis.set(xlabel="epoch", ylabel=metric.name)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _limit(axis, values, metric, lambda inset: _draw(inset, curves, metric))
    if best_epoch:
        axis.axvline(best_epoch, linestyle="--", linewidth=1, color=FAINT, label="_best")
        _name_line(axis, best_epoch, f"tested: epoch {best_epoch}")
    if not is_alone:
        looks = ", ".join(f"{name} {look}" for _, look, name in (STYLES[split] for split in drawn))
        axis.set_title(f"{looks}\nbands: range over seeds", fontsize=8)
    if any(not str(line.get_label()).startswith("_") for line in axis.lines):
        figure.legend(loc="outside upper left", ncols=2 if is_alone else columns)
    return svg(figure)


def _draw(axis: Axes, curves: Sequence[tuple[str, pd.DataFrame]], metric: Metric) -> list[str]:
    """Draw all curves, and return the splits of which there were any."""
    drawn: dict[str, None] = {}
    is_alone = len(curves) == 1
    for index, (label, rows) in enumerate(curves):
        shown = plain_math(label)[:LONGEST]
        for split, (style, _, name) in STYLES.items():
            if drawn and split not in drawn and len(curves) > FEW:
                continue
            curve = _spread(rows, f"{metric.name}/{split}")
            if curve is None:
                continue
            shade = colour(list(STYLES).index(split) if is_alone else index)
            every = max(1, len(curve) // MARKED)
            (line,) = axis.plot(
                curve.index, curve["mean"], linestyle=style, color=shade, label=name if is_alone else shown,
                marker="o" if is_alone else marker(index), markersize=3 if is_alone else 4,
                markevery=(index % every, every), linewidth=1.2 if split == "train" else 1.6,
            )  # fmt: skip
            said = f"{label}, {split}" if label else split
            say(line, [f"epoch {epoch:g}\n{said}: {value:.4g}" for epoch, value in curve["mean"].items()])
            shown = "_" + shown.lstrip("_")  # once in the legend
            drawn[split] = None
            if (curve["max"] > curve["min"]).any():
                axis.fill_between(curve.index, curve["min"], curve["max"], color=shade, alpha=0.15, lw=0)
    return list(drawn)


def _limit(axis: Axes, values: "np.ndarray[Any, Any]", metric: Metric, draw: Callable[[Axes], Any]) -> None:
    """Limit the axis to where the curves can be distinguished, within what the metric can be; show the rest as well.

    A loss is drawn by its logarithm; of another metric an inset, drawn by `draw`, has the whole course.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    if not metric.higher_is_better and finite.min() > 0 and finite.max() > SPAN * finite.min():
        _as_logarithm(axis)
        return
    limits = visible(finite, metric.higher_is_better)
    low, high = limits or axis.get_ylim()
    least, most = metric.bounds or (-math.inf, math.inf)
    axis.set_ylim(max(low, least), min(high, most))
    if limits is None:
        return
    inset = axis.inset_axes((0.62, 0.07 if metric.higher_is_better else 0.58, 0.36, 0.35))
    draw(inset)
    for line in inset.lines:
        line.set(label="_whole", marker="", linewidth=1)
        forget(line)
    inset.set_ylim(max(float(finite.min()), least), min(float(finite.max()), most))
    inset.set(xticks=[], yticks=[float(f"{edge:.2g}") for edge in (finite.min(), finite.max())])
    inset.grid(visible=False)
    inset.set_facecolor(GROUND)
    inset.tick_params(labelsize=7, length=0)
    inset.set_title("all values", fontsize=7, pad=2)


def _as_logarithm(axis: Axes) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


def _name_line(axis: Axes, place: float, text: str) -> None:
    """Write what a vertical line means above it."""
    low, high = axis.get_xlim()
    is_late = place - low > (high - low) * 0.8
    style: dict[str, Any] = {"ha": "right" if is_late else "center", "va": "bottom", "fontsize": 8}
    axis.annotate(
        text, (place, 1), xycoords=("data", "axes fraction"), xytext=(12 if is_late else 0, 1),
        textcoords="offset points", **style,
    )  # fmt: skip


def visible(values: "np.ndarray[Any, Any]", higher_is_better: bool) -> tuple[float, float] | None:
    """Return limits that cut off a few bad values, mostly of the first epochs, which would flatten all others.

    None if there are none such.
    """
    good = values[np.isfinite(values)] * (1 if higher_is_better else -1)
    if not len(good) or good.max() == good.min():
        return None
    top, low = float(good.max()), float(np.quantile(good, OUTLIERS))
    cut = low - (top - low) * MARGIN
    if cut == top or top - good.min() < FLAT * (top - cut):
        return None
    limits = cut, top + (top - cut) * MARGIN
    return limits if higher_is_better else (-limits[1], -limits[0])


@themed
def step_curves(steps: pd.DataFrame) -> str | None:
    """Return the loss by step, with a mean that runs over fifty times as few, and below it the learning rate.

    None where no step was logged.
    """
    if "loss/train" not in steps or len(steps) < 2:
        return None
    figure, (axis, below) = chart(height=3.6, nrows=2, sharex=True, height_ratios=(3, 1))
    some = steps.iloc[:: max(1, len(steps) // POINTS)]
    smooth = steps["loss/train"].rolling(max(1, len(steps) // SMOOTH), min_periods=1).mean().loc[some.index]
    axis.plot(some["step"], some["loss/train"], color=colour(2), linewidth=0.8, alpha=0.4, label="of the batch")
    axis.plot(some["step"], smooth, color=colour(2), label="running mean")
    values = some["loss/train"].to_numpy()
    if values.min() > 0 and values.max() > SPAN * values.min():
        _as_logarithm(axis)
    axis.set_ylabel("training loss")
    figure.legend(loc="outside upper left", ncols=2)
    below.plot(some["step"], some["lr"], color=colour(4), label="learning rate")
    below.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    return svg(figure)


def _spread(curves: pd.DataFrame, column: str) -> pd.DataFrame | None:
    if column not in curves:
        return None
    spread = curves.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])
    return spread if len(spread) else None
