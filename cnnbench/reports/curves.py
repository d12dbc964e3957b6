"""Curves over epochs, with the spread of seeds, as SVG to be put into a page."""

import io
from collections.abc import Sequence

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from cnnbench.reports.comparison import Row

MOST_CURVES = 12
LONGEST = 60  # letters of a label


def overlaid(rows: Sequence[Row], metric: str) -> str | None:
    """Return validation (solid) and training (dotted) of each configuration: the mean of its seeds and their range.

    None where there is nothing to draw.
    """
    figure = Figure(figsize=(7.4, 4.2), layout="constrained")
    axis = figure.subplots()
    for index, row in enumerate(rows[:MOST_CURVES]):
        colour, label = f"C{index % 10}", _escaped(row.label)[:LONGEST]
        for split, style in (("val", "-"), ("train", ":")):
            curve = _spread(row.group.curves, f"{metric}/{split}")
            if curve is None:
                continue
            axis.plot(curve.index, curve["mean"], style, color=colour, label=label, linewidth=1.6)
            label = "_nolegend_"  # once
            if (curve["max"] > curve["min"]).any():
                axis.fill_between(curve.index, curve["min"], curve["max"], color=colour, alpha=0.15, linewidth=0)
    if not axis.lines:
        return None
    axis.set_xlabel("epoch")
    axis.set_ylabel(metric)
    axis.set_title("validation solid, training dotted; bands: range of the seeds", fontsize=9)
    axis.grid(alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)
    return svg(figure)


def _spread(curves: pd.DataFrame, column: str) -> pd.DataFrame | None:
    if column not in curves:
        return None
    found = curves.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])
    return found if len(found) else None


def svg(figure: Figure) -> str:
    """Return a figure as an `<svg>` element, the same for the same figure."""
    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "cnnbench"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _escaped(text: str) -> str:
    """Return text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")
