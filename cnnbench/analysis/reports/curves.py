"""Curves over epochs, with the spread of seeds, as SVG to be put into a page."""

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

LONGEST = 60  # letters of a label
BAD = 0.1  # of all values: these may be left out of a picture
FLAT = 1.5  # where they would make it so many times as high
MARGIN = 0.15
POINTS = 1000  # of a curve over steps


def overlaid(curves: Sequence[tuple[str, pd.DataFrame]], metric: Metric, best_epoch: int = 0) -> str | None:
    """Return validation (solid) and training (dotted) of each configuration: the mean of its seeds and their range.

    curves: labels, each with the epoch rows of all seeds. best_epoch: where to draw a line; 0: nowhere. None where
    there is nothing to draw.
    """
    figure, axis = _axes()
    alone = len(curves) == 1
    for index, (label, rows) in enumerate(curves):
        told = _escaped(label)[:LONGEST]
        for split, style, name in (("val", "-", "validation"), ("train", ":", "training")):
            curve = _spread(rows, f"{metric.name}/{split}")
            if curve is None:
                continue
            axis.plot(
                curve.index, curve["mean"], style, color=f"C{index % 10}", linewidth=1.6,
                label=name if alone else told, marker="." if len(curve) == 1 else None,
            )  # fmt: skip
            told = "_nolegend_"  # once
            if (curve["max"] > curve["min"]).any():
                axis.fill_between(curve.index, curve["min"], curve["max"], color=f"C{index % 10}", alpha=0.15, lw=0)
    if not axis.lines:
        return None
    _leave_out_bad(axis, metric.higher)
    if best_epoch:
        axis.axvline(best_epoch, linestyle="--", linewidth=1, color="tab:gray", label=f"epoch {best_epoch}")
    if not alone:
        axis.set_title("validation solid, training dotted; bands: range of the seeds", fontsize=9)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel(metric.name)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    return svg(figure)


def visible(values: "np.ndarray[Any, Any]", higher: bool) -> tuple[float, float] | None:
    """Return between which values a few bad ones, of the beginning most often, do not press all others flat.

    higher: whether the high ones are the good ones. None where that leaves out nothing, or there is nothing.
    """
    good = values[np.isfinite(values)] * (1 if higher else -1)
    if not len(good) or good.max() == good.min():
        return None
    top, low = float(good.max()), float(np.quantile(good, BAD))
    cut = low - (top - low) * MARGIN
    if top - good.min() < FLAT * (top - cut):
        return None
    limits = cut, top + (top - cut) * MARGIN
    return limits if higher else (-limits[1], -limits[0])


def _leave_out_bad(axis: Axes, higher: bool) -> None:
    """Draw what is visible, and say how far the rest went."""
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines])
    limits = visible(drawn, higher)
    if limits is not None:
        axis.set_ylim(limits)
        farthest, place = (np.nanmin(drawn), 0.03) if higher else (np.nanmax(drawn), 0.97)
        told = f"{'from' if higher else 'to'} {farthest:.3g}"
        axis.annotate(told, (0.01, place), xycoords="axes fraction", fontsize=8, va="bottom" if higher else "top")


def learning_rate(steps: pd.DataFrame) -> str | None:
    """Return the learning rate over steps; None where it is always the same."""
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
    found = curves.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])
    return found if len(found) else None


def svg(figure: Figure) -> str:
    """Return a figure as an `<svg>` element, the same for the same figure."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "cnnbench"}), any_script():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _escaped(text: str) -> str:
    """Return text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
