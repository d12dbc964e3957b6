"""Curves by epoch or step, with the range over seeds, as charts of a page."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cnnbench.analysis.reports.learning import Metric
from cnnbench.analysis.reports.sections import Axis, Curve, Panel, Plot, area, line

RUNNING_MEAN = "running mean during each epoch"  # with augmentation and dropout
OUTLIERS = 0.1  # of all values: the worst may be cut off
FLAT = 1.5  # if the figure would be this many times as high with them
MARGIN = 0.15
FAR = 1e3  # times the middle of all losses: what is worse has diverged
SPAN = 4.0  # times: a loss that falls further is drawn by its logarithm
SPLITS = {
    "val": ("s1", "validation"), "test": ("s2 dashdotted", "test"),
    "train": ("s3 dotted", f"training ({RUNNING_MEAN})"),
}  # fmt: skip
FEW = 4  # configurations that have curves in the same panel; of more, each has one of its own
PER_ROW = 6  # panels
LOOKS = ("s1", "s2 dashed", "s3 dashdotted", "s4 dotted")
POINTS = 300  # of a curve by step
SMOOTH = 50  # running means in all steps

Spread = tuple[str, str, pd.DataFrame]
"""Label, split, and mean, min, max by epoch."""


def metric_curves(curves: Sequence[tuple[str, pd.DataFrame]], metric: Metric, best_epoch: int = 0) -> Plot | None:
    """Return the curves of each configuration by split, where it was measured: mean and range over seeds.

    Training are running means while the network learns, which the legend says.
    curves: labels, each with the epoch rows of all seeds. best_epoch: marked by a line, unless 0. None if there is
    nothing to draw.
    """
    every = [(label, split, _spread(rows, f"{metric.name}/{split}")) for label, rows in curves for split in SPLITS]
    found = [(label, split, spread) for label, split, spread in every if spread is not None]
    if not found:
        return None
    splits = [split for split in SPLITS if any(split == one for _, one, _ in found)]
    is_alone, labels = len(curves) == 1, list(dict.fromkeys(label for label, *_ in found))
    first, of_first = SPLITS[splits[0]], [one for one in found if one[1] == splits[0]]
    drawn = found if len(labels) <= FEW else of_first
    epochs = [epoch for *_, spread in found for epoch in (spread.index.min(), spread.index.max())]
    room = (max(epochs) - min(epochs)) / 50 or 0.5
    x = Axis("epoch", min(epochs) - room, max(epochs) + room, is_whole=True)
    y = _axis([spread["mean"] for *_, spread in drawn], metric)
    looks = dict(zip(labels, LOOKS, strict=False))
    guide = (float(best_epoch), f"tested: epoch {best_epoch}") if best_epoch else None
    if is_alone:
        own = [curve for spread in found for curve in _curves(x, y, spread, SPLITS[spread[1]], spread[1])]
        panels, legend = [Panel(x, y, own, guide=guide)], [SPLITS[split] for split in splits]
    elif len(labels) <= FEW:
        legend = [(looks[label], label) for label in labels]
        panels = [
            Panel(x, y, [
                curve for spread in found if spread[1] == split
                for curve in _curves(x, y, spread, (looks[spread[0]], spread[0]), f"{split}{labels.index(spread[0])}")
            ], SPLITS[split][1])
            for split in splits
        ]  # fmt: skip
    else:
        behind = [Curve("faint", again=f"{splits[0]}{place}") for place in range(len(of_first))]
        legend = [first, ("faint", "the others")]
        panels = [
            Panel(x, y, [*behind, *_curves(x, y, spread, first, f"{splits[0]}{place}")], spread[0])
            for place, spread in enumerate(of_first)
        ]
    note = "" if is_alone else "Means over the runs; bands are their range."
    note += f" Only {first[1]} is drawn: the pages of the runs have the rest." * (len(drawn) < len(found))
    whole = _axis([spread["mean"] for *_, spread in (found if is_alone else of_first)], metric, like=y)
    if whole.high > y.high or whole.low < y.low:
        again = [Curve(one.look, again=one.key or one.again) for one in panels[0].curves if one.key or one.again]
        title = "all values" if is_alone else f"{first[1]}, all values"
        panels.append(Panel(replace(x, most=2), whole, again, title, look="narrow"))
        where = "in the panel of all values" if is_alone else f"of {first[1]} alone, in the last panel"
        note += f" Values {'below' if metric.higher_is_better else 'above'} the scale are drawn {where}."
    ends = "; ".join(f"{label} {split} ends at {spread['mean'].iloc[-1]:.4g}".strip() for label, split, spread in found)
    return Plot(
        f"{metric.name} by epoch", panels, legend, note.strip(), f"{metric.name} by epoch: {ends}",
        math.ceil(len(panels) / math.ceil(len(panels) / PER_ROW)), is_small=is_alone,
    )  # fmt: skip


def _curves(x: Axis, y: Axis, spread: Spread, shown: tuple[str, str], key: str) -> Iterator[Curve]:
    """Yield a line with the band of its range. shown: its look and its name."""
    rows, (look, name) = spread[2], shown
    if (rows["max"] > rows["min"]).any():
        edges: Any = rows[["min", "max"]].itertuples(name=None)
        yield Curve(f"{look.split()[0]} band", area(x, y, list(edges)))
    yield Curve(
        look, line(x, y, zip(rows.index, rows["mean"], strict=True)), name.removesuffix(f" ({RUNNING_MEAN})"), key
    )


def _axis(values: "Sequence[pd.Series[float]]", metric: Metric, like: Axis | None = None) -> Axis:
    """Return the axis on which curves can be distinguished. like: that of all values, on such a scale."""
    every = np.concatenate(values)
    finite = every[np.isfinite(every)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    if like.is_log if like else not metric.higher_is_better and low > 0 and high > SPAN * low:
        near = finite if like else finite[finite <= FAR * np.median(finite)]
        return Axis.of_ratios(metric.name, low, float(near.max()))
    low, high = (None if like else visible(finite, metric.higher_is_better)) or (low, high)
    least, most = metric.bounds
    low, high = max(low, least), min(high, most)
    room = (high - low) / 25 or abs(high) / 10 or 0.1
    return Axis(metric.name, low - room, high + room)


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


def step_curves(steps: pd.DataFrame) -> Plot | None:
    """Return the loss by step, with a mean that runs over a fiftieth of them, and the learning rate where it changes.

    None where no step was logged.
    """
    if "loss/train" not in steps or len(steps) < 2:
        return None
    some = steps.iloc[:: max(1, len(steps) // POINTS)]
    smooth = steps["loss/train"].rolling(max(1, len(steps) // SMOOTH), min_periods=1).mean().loc[some.index]
    x = Axis("step", float(steps["step"].iloc[0]), float(steps["step"].iloc[-1]), is_whole=True)
    losses, metric = [some["loss/train"]], Metric("training loss", higher_is_better=False)
    y = _axis(losses, metric, like=_axis(losses, metric))
    at, rates = some["step"].to_numpy(), steps["lr"].to_numpy()
    curves = [
        Curve("s3 thin", line(x, y, zip(at, some["loss/train"], strict=True))),
        Curve("s3", line(x, y, zip(at, smooth, strict=True)), "running mean"),
    ]
    panels, note = [Panel(x, y, curves)], f"Learning rate: {rates[0]:g} throughout."
    if (rates != rates[0]).any():
        rate = Axis("learning rate", -0.04 * float(rates.max()), 1.06 * float(rates.max()), most=3)
        drawn = Curve("s4", line(x, rate, zip(at, some["lr"], strict=True)), "learning rate")
        panels, note = [replace(panels[0], x=replace(x, name="")), Panel(x, rate, [drawn], look="low")], ""
    return Plot("Loss by step", panels, [("s3 thin", "of the batch"), ("s3", "running mean")], note)


def _spread(curves: pd.DataFrame, column: str) -> pd.DataFrame | None:
    if column not in curves:
        return None
    spread = curves.dropna(subset=[column]).groupby("epoch")[column].agg(["mean", "min", "max"])
    return spread if len(spread) else None
