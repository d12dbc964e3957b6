"""Figures by class and confusions as pictures."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from cnnbench.tasks.captions import SHORT, plain
from cnnbench.tasks.evaluation.calibration import Calibration

MOST_NAMED = 40  # classes whose names are written beside bars and rows; of more, numbers
MOST_COUNTED = 20  # classes whose confusions are written into the picture
IN_A_ROW = 8  # images of a gallery
CELL, TITLE = 1.3, 0.34  # inches: width of an image with the space beside it, height of the space for its title


def bars(table: pd.DataFrame) -> Figure:
    """Return how many images each class has, and top1 (with its interval) and top5 of each; from `by_class`."""
    number = len(table)
    figure = Figure(figsize=(9, 1.4 + 0.26 * min(number, MOST_NAMED)), layout="constrained")
    counts, shares = figure.subplots(1, 2, sharey=True)
    places = np.arange(number)
    counts.barh(places, table["images"], color="tab:gray")
    counts.set_title("images", fontsize=10)
    shares.barh(places, table["top5"], color="tab:blue", alpha=0.3, label="top5")
    shares.barh(places, table["top1"], color="tab:blue", label="top1")
    intervals = np.abs(table[["top1_low", "top1_high"]].to_numpy().T - table["top1"].to_numpy())
    shares.errorbar(table["top1"], places, xerr=intervals, fmt="none", ecolor="black", elinewidth=0.8)
    shares.set_xlim(0, 1)
    shares.set_title("top1 (95 % interval) and top5", fontsize=10)
    figure.legend(fontsize=8, loc="outside lower right", ncols=2)
    _named(counts, "y", table["class"])
    counts.set_ylim(number - 0.5, -0.5)
    return figure


def matrix(counts: pd.DataFrame) -> Figure:
    """Return a confusion matrix as shares of each row's images; from `confusion`."""
    number, values = len(counts), counts.to_numpy()
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    side = min(2.6 + 0.42 * number, 11)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axis, label="share of the class's images", shrink=0.8)
    axis.set_xlabel("answer")
    axis.set_ylabel("class")
    for which in ("x", "y"):
        _named(axis, which, counts.columns)
    if number <= MOST_COUNTED:
        for row, column in zip(*values.nonzero(), strict=True):
            dark = shares[row, column] > 0.5
            axis.text(
                column, row, str(values[row, column]), ha="center", va="center", fontsize=7,
                color="white" if dark else "black",
            )  # fmt: skip
    return figure


def reliability(found: Calibration) -> Figure:
    """Return how often answers of a probability are right."""
    table = found.table()
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], linestyle="--", color="tab:gray", linewidth=1)
    width = (table["to"] - table["from"]).to_numpy()
    axis.bar(table["from"], table["accuracy"], width=width, align="edge", edgecolor="white")
    axis.plot(table["probability"], table["accuracy"], "o", color="black", markersize=3)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_xlabel("probability of the answer")
    axis.set_ylabel("share that is right")
    axis.set_title(f"expected calibration error {found.error:.4f}", fontsize=10)
    return figure


def panel(images: Sequence[Tensor], titles: Sequence[str], answers: Sequence[Sequence[tuple[str, float]]]) -> Figure:
    """Return images, uint8 [C, H, W], each beside bars of its answers: names of classes with their probabilities."""
    rows = len(images)
    figure = Figure(figsize=(6.4, 1.9 * rows), layout="constrained")
    for (left, right), image, title, told in zip(
        figure.subplots(rows, 2, squeeze=False, width_ratios=(1, 2)), images, titles, answers, strict=True
    ):
        pixels = image.permute(1, 2, 0).numpy()
        left.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        left.set_axis_off()
        left.set_title(title[-2 * SHORT :], fontsize=8, parse_math=False)
        right.barh(range(len(told)), [probability for _, probability in told], color="tab:blue")
        _named(right, "y", pd.Index([name for name, _ in told]))
        right.set_ylim(len(told) - 0.5, -0.5)
        right.set_xlim(0, 1)
    return figure


def gallery(images: Tensor, titles: Sequence[str]) -> Figure:
    """Return images, float32 [N, C, H, W] in [0, 1], eight a row, each under its title of two lines."""
    # One picture of all: with axes of its own for each image it takes four times as long, 0.9 s for 24 of them.
    number, _, height, width = images.shape
    rows = -(-number // IN_A_ROW)
    right = width + max(1, width // 12)
    room = round(TITLE / CELL * right)  # above an image, in its pixels
    down = height + room
    page = np.ones((rows * down, IN_A_ROW * right, 3), dtype=np.float32)
    figure = Figure(figsize=(CELL * IN_A_ROW, CELL * rows * down / right))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    for place, (image, title) in enumerate(zip(images, titles, strict=True)):
        top, left = (place // IN_A_ROW) * down + room, (place % IN_A_ROW) * right
        page[top : top + height, left : left + width] = image.permute(1, 2, 0).numpy()  # a gray one thrice
        axis.text(left + width / 2, top - 1, title, fontsize=7, ha="center", va="bottom", parse_math=False)
    axis.imshow(page, vmin=0, vmax=1, interpolation="nearest")
    return figure


def _named(axis: Axes, which: str, names: "pd.Series[str] | pd.Index[str]") -> None:
    ticks = axis.xaxis if which == "x" else axis.yaxis
    if len(names) > MOST_NAMED:
        return
    ticks.set_ticks(range(len(names)))
    ticks.set_ticklabels([plain(name) for name in names])
    for label in ticks.get_ticklabels():
        label.set_parse_math(False)
        label.set_fontsize(8)
        if which == "x":
            label.set_rotation(90)
