"""Figures of a classifier: its confusions, and predictions of single images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.tasks.charts import INK, SERIES, WIDTH, chart, plain, themed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

    Array = np.ndarray[Any, Any]

MAX_DRAWN = 25  # classes of a chart, whose names are readable: the worst, the most often confused
MAX_COUNTED = 15  # classes whose confusions are written into their cells
STRONGEST = 0.6  # of the colours, for the largest share: its number is still readable


@themed
def confusion_matrix(counts: "pd.DataFrame") -> "Figure":
    """Return a confusion matrix whose colours are the mistakes, as shares of a class's images.

    counts: as `Predictions.confusion`. Of many classes those that are confused most often are drawn.
    """
    names, values, mistakes, caption = mistakes_of(counts)
    side = max(WIDTH, 1.4 + 0.24 * len(names))
    figure, axis = chart(side, side * 0.92)
    axis.imshow(mistakes, cmap="Oranges", vmin=0, vmax=(mistakes.max(initial=0.0) or 1.0) / STRONGEST)
    for row, column in zip(*values.nonzero(), strict=True) if len(names) <= MAX_COUNTED else ():
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7, "color": INK, "in_layout": False}
        axis.text(column, row, str(values[row, column]), **look)
    axis.set(xlabel="prediction", ylabel="class", title=caption)
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for which in ("x", "y"):
        _name(axis, which, names)
    return figure


def mistakes_of(counts: "pd.DataFrame") -> "tuple[list[str], Array, Array, str]":
    """Return the classes to show, those that are confused most often, with the part of a confusion matrix for them.

    Counts [K, K], shares of a class's images that are mistakes [K, K], and in words how large those are.
    """
    every = counts.to_numpy()
    confused = [label for pair in confused_pairs(every, every.size) for label in pair]
    shown = np.sort(list(dict.fromkeys([*confused, *range(len(every))]))[:MAX_DRAWN])
    values = every[np.ix_(shown, shown)]
    shares = values / np.maximum(every.sum(axis=1)[shown], 1)[:, np.newaxis]
    np.fill_diagonal(shares, 0.0)
    some = f"the {len(shown)} classes of {len(every)} that are confused most; " if len(shown) < len(every) else ""
    scale = f"strongest colour: {100 * shares.max():.3g} % of a class's images" if shares.any() else "no mistakes"
    return [str(counts.index[place]) for place in shown], values, shares, some + scale


def confused_pairs(counts: "Array", number: int) -> list[tuple[int, int]]:
    """Return the class and the prediction of the most frequent mistakes, the most frequent first. counts: [K, K]."""
    mistakes = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:number]
    pairs = zip(*(places.tolist() for places in np.unravel_index(order, counts.shape)), strict=True)
    return [(row, column) for row, column in pairs if mistakes[row, column]]


@themed
def prediction_bars(
    images: "Sequence[Tensor]", titles: Sequence[str], predictions: Sequence[Sequence[tuple[str, float]]]
) -> "Figure":
    """Return images, uint8 [C, H, W], each with bars of its predictions: names of classes with probabilities."""
    figure, axes = chart(6.4, 1.9 * len(images), nrows=len(images), ncols=2, squeeze=False, width_ratios=(1, 2))
    for (left, right), image, title, bars in zip(axes, images, titles, predictions, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        left.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        left.set_axis_off()
        left.set_title(title[-36:], parse_math=False)
        right.barh(range(len(bars)), [probability for _, probability in bars], color=SERIES[0])
        _name(right, "y", [name for name, _ in bars])
        right.set(xlim=(0, 1), ylim=(len(bars) - 0.5, -0.5))
    return figure


def _name(axis: "Axes", which: str, names: Sequence[str]) -> None:
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_ticks(range(len(names)))
    ticks.set_ticklabels([plain(name) for name in names])
    is_upright = which == "x" and max((len(name) for name in names), default=0) > 2
    for label in ticks.get_ticklabels():
        label.set_parse_math(False)
        label.set_color(INK)
        label.set_rotation(90 if is_upright else 0)
