"""Curves by epoch or step, with the range over seeds, as SVG for a page."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cnnbench.analysis.reports.learning import Metric
from cnnbench.tasks.figures import any_script

RUNNING_MEAN = "running mean with augmentation"  # and dropout, while the network learns
LONGEST = 60  # characters of a label
OUTLIERS = 0.1  # of all values: the worst may be cut off
FLAT = 1.5  # if the figure would be this many times as high with them
MARGIN = 0.15
STYLES = {
    "val": ("-", "solid", "validation"),
    "test": ("-.", "dash-dotted", "test"),
    "train": (":", "dotted", f"training ({RUNNING_MEAN})"),
}
POINTS = 1000  # of a curve by step


def metric_curves(curves: Sequence[tuple[str, pd.DataFrame]], metric: Metric, best_epoch: int = 0) -> str | None:
    """Return the curves of each configuration by split, where it was measured: mean and range over seeds.

    Training are running means while the network learns, which the figure says.
    curves: labels, each with the epoch rows of all seeds. best_epoch: marked by a line, unless 0. None if there is
    nothing to draw.
    """
    figure, axis = _axes()
    drawn = []
    is_alone = len(curves) == 1
    for index, (label, rows) in enumerate(curves):
        shown = _escaped(label)[:LONGEST]
        for split, (style, _, name) in STYLES.items():
            curve = _spread(rows, f"{metric.name}/{split}")
            if curve is None:
                continue
            axis.plot(
                curve.index, curve["mean"], style, color=f"C{index % 10}", linewidth=1.6,
                label=name if is_alone else shown, marker="." if len(curve) == 1 else None,
            )  # fmt: skip
            shown = "_nolegend_"  # once
            if split not in drawn:
                drawn.append(split)
            if (curve["max"] > curve["min"]).any():
                axis.fill_between(curve.index, curve["min"], curve["max"], color=f"C{index % 10}", alpha=0.15, lw=0)
    if not axis.lines:
        return None
    _cut_off_outliers(axis, metric.higher_is_better)
    if best_epoch:
        axis.axvline(best_epoch, linestyle="--", linewidth=1, color="tab:gray", label=f"epoch {best_epoch}")
    if not is_alone:
        looks = ", ".join(f"{name} {look}" for _, look, name in (STYLES[split] for split in drawn))
        axis.set_title(f"{looks}; bands: range over seeds", fontsize=9)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel(metric.name)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    return svg(figure)


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


def _cut_off_outliers(axis: Axes, higher_is_better: bool) -> None:
    """Limit the axis to what is visible, and say how far the rest goes."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines])
    limits = visible(drawn, higher_is_better)
    if limits is None:
        return
    axis.set_ylim(limits)
    if higher_is_better:
        text, place, side = f"from {np.nanmin(drawn):.3g}", 0.03, "bottom"
    else:
        text, place, side = f"to {np.nanmax(drawn):.3g}", 0.97, "top"
    axis.annotate(text, (0.01, place), xycoords="axes fraction", fontsize=8, va=side)


def learning_rate(steps: pd.DataFrame) -> str | None:
    """Return the learning rate by step; None if it is constant."""
    if "lr" not in steps or steps["lr"].nunique() < 2:
        return None
    figure, axis = _axes()
    some = steps.iloc[:: max(1, len(steps) // POINTS)]
    axis.plot(some["step"], some["lr"], linewidth=1.6)
    axis.set_xlabel("step")
    axis.set_ylabel("learning rate")
    return svg(figure)


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.grid(alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return figure, axis


def _spread(curves: pd.DataFrame, column: str) -> pd.DataFrame | None:
    if column not in curves:
        return None
    spread = curves.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])
    return spread if len(spread) else None


def svg(figure: Figure) -> str:
    """Return a figure as an `<svg>` element, always the same for the same figure."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "cnnbench"}), any_script():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _escaped(text: str) -> str:
    """Return text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
