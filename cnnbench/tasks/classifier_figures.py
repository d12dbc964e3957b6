"""Charts of a classifier, from the tables of its evaluation: by class, confusions, calibration, thresholds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnbench.tasks.charts import FAINT, GROUND, INK, LINE, SERIES, WIDTH, chart, plain, say, themed
from cnnbench.tasks.intervals import wilson

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

MAX_DRAWN = 25  # classes of a chart, whose names are readable: the worst, the most often confused
MAX_COUNTED = 15  # classes whose confusions are written into their cells
STRONGEST = 0.75  # opacity of the largest share: its number is still readable


@themed
def class_dots(per_class: "pd.DataFrame") -> "Figure":
    """Return recall with its 95 % interval, and precision, of each class, the worst first; of many the worst 25.

    per_class: as `Predictions.per_class`. The axis begins below the worst of them.
    """
    worst = per_class.sort_values(["top1", "class"]).reset_index(drop=True)[:MAX_DRAWN]
    figure, axis = chart(height=0.9 + 0.19 * len(worst))
    places = np.arange(len(worst))
    recall, intervals = worst["top1"].to_numpy(), worst[["top1_low", "top1_high"]].to_numpy()
    axis.hlines(places, *intervals.T, color=SERIES[0], linewidth=1.6)
    axis.plot(recall, places, "o", color=SERIES[0], markersize=5, label="recall, with its 95 % interval")
    precision = worst["precision"].to_numpy()
    axis.plot(precision, places + 0.25, "D", color=SERIES[1], markersize=4.5, label="precision", markerfacecolor=GROUND)
    texts = [
        f"{name}\nrecall {top1:.4f} ({low:.4f} to {high:.4f}, {images} images), precision {share:.4f}"
        for name, top1, (low, high), images, share in zip(
            worst["class"], recall, intervals, worst["images"], precision, strict=True
        )
    ]
    for line in axis.lines:
        say(line, texts)
    known = np.concatenate([recall, intervals[:, 0], precision])
    lowest = float(np.nanmin(known)) if np.isfinite(known).any() else 0.0
    axis.set_xlim(max(0.0, lowest - 0.06 * (1 - lowest) - 0.002), 1 + 0.02 * (1 - lowest) + 0.0005)
    axis.set_ylim(len(worst) - 0.5, -0.5)
    _name(axis, "y", list(worst["class"]))
    axis.set_title(f"the worst {len(worst)} of {len(per_class)} classes" if len(worst) < len(per_class) else "")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@themed
def confusion_matrix(counts: "pd.DataFrame") -> "Figure":
    """Return a confusion matrix whose colours are the mistakes, as shares of a class's images.

    counts: as `Predictions.confusion`. Of many classes those that are confused most often are drawn.
    """
    every, names = counts.to_numpy(), [str(name) for name in counts.index]
    shown = _most_confused(every)
    values, number = every[np.ix_(shown, shown)], len(shown)
    shares = values / np.maximum(every.sum(axis=1)[shown], 1)[:, np.newaxis]
    mistakes = np.where(np.eye(number, dtype=bool), 0.0, shares)
    most = float(mistakes.max(initial=0.0))
    side = max(WIDTH, 1.4 + 0.24 * number)
    figure, axis = chart(side, side * 0.92)
    from matplotlib.patches import Rectangle

    rows, columns = (values > 0).nonzero()
    for row, column in zip(rows, columns, strict=True):
        is_right = row == column
        opacity = 0.6 if is_right else STRONGEST * (0.1 + 0.9 * mistakes[row, column] / most)
        look: dict[str, Any] = {
            "facecolor": LINE if is_right else SERIES[1],
            "alpha": opacity,
            "edgecolor": GROUND,
            "linewidth": 1,
        }
        axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **look))
        if number <= MAX_COUNTED:
            look = {"ha": "center", "va": "center", "fontsize": 7, "color": INK, "in_layout": False}
            axis.text(column, row, str(values[row, column]), **look)
    (points,) = axis.plot(columns, rows, linestyle="None", label="_counts")
    say(points, [
        f"{names[shown[row]]} → {names[shown[column]]}\n{values[row, column]} images, {shares[row, column]:.2%} of them"
        for row, column in zip(rows, columns, strict=True)
    ])  # fmt: skip
    axis.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), xlabel="prediction", ylabel="class", aspect="equal")
    axis.grid(visible=False)
    axis.tick_params(length=0)
    for which in ("x", "y"):
        _name(axis, which, [names[place] for place in shown])
    scale = f"strongest colour: {most:.1%} of a class's images" if most else "no mistakes"
    some = f"the {number} classes of {len(every)} with most mistakes; " if number < len(every) else ""
    axis.set_title(some + scale)
    return figure


def _most_confused(counts: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Return the classes to draw, in their order: those of the pairs that are confused most often."""
    if len(counts) <= MAX_DRAWN:
        return np.arange(len(counts))
    mistakes = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")
    classes = np.stack(np.unravel_index(order, counts.shape), axis=1).ravel()
    return np.sort(np.array(list(dict.fromkeys(classes.tolist()))[:MAX_DRAWN]))


def confused_pairs(counts: "np.ndarray[Any, Any]", number: int) -> list[tuple[int, int]]:
    """Return the class and the prediction of the most frequent mistakes, the most frequent first. counts: [K, K]."""
    mistakes = counts * (1 - np.eye(len(counts), dtype=counts.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:number]
    pairs = zip(*(places.tolist() for places in np.unravel_index(order, counts.shape)), strict=True)
    return [(row, column) for row, column in pairs if mistakes[row, column]]


@themed
def reliability_diagram(table: "pd.DataFrame") -> "Figure":
    """Return the accuracy of predictions by their probability, with 95 % intervals, and how many there are of each.

    table: as `Calibration.table`.
    """
    from matplotlib.ticker import NullLocator

    figure, (axis, counted) = chart(height=3.8, nrows=2, sharex=True, height_ratios=(3, 1))
    accuracy, images = table["accuracy"].to_numpy(), table["images"].to_numpy()
    intervals = [wilson(round(share * total), int(total)) for share, total in zip(accuracy, images, strict=True)]
    axis.plot([0, 1], [0, 1], linestyle="--", color=FAINT, linewidth=1, label="_calibrated")
    axis.vlines(table["probability"], *zip(*intervals, strict=True), color=SERIES[0])
    axis.plot(table["probability"], accuracy, "o", color=SERIES[0], markersize=4.5, label="_accuracy")
    say(axis.lines[1], [
        f"probability {low:.2f} to {high:.2f}\naccuracy {share:.4f} ({total} images)"
        for low, high, share, total in zip(table["from"], table["to"], accuracy, images, strict=True)
    ])  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy, with 95 % interval")
    axis.annotate("overconfident", (0.97, 0.06), xycoords="axes fraction", ha="right", color=FAINT)
    axis.annotate("too cautious", (0.03, 0.92), xycoords="axes fraction", color=FAINT)
    error = float(np.average(np.abs(table["probability"] - table["accuracy"]), weights=images))
    axis.set_title(f"expected calibration error {error:.4f}")
    counted.bar(table["from"], images, (table["to"] - table["from"]) * 0.92, align="edge", color=SERIES[0], alpha=0.6)
    counted.set(yscale="log", ylabel="images", xlabel="probability of the prediction", ylim=(0.7, None))
    counted.yaxis.set_major_formatter("{x:g}")
    counted.yaxis.set_minor_locator(NullLocator())
    counted.grid(visible=False, axis="x")
    return figure


@themed
def threshold_curves(
    roc: "pd.DataFrame", precision_recall: "pd.DataFrame", areas: Mapping[str, float], images: "pd.Series[int]"
) -> "Figure":
    """Return the ROC and the precision-recall curve.

    roc, precision_recall, areas: as `TwoClasses` has them. images: of both classes.
    """
    share = images.iloc[1] / images.sum()
    figure, (left, right) = chart(7.4, 3.4, ncols=2)
    left.plot([0, 1], [0, 1], linestyle="--", color=FAINT, linewidth=1, label="_chance")
    left.plot(roc["false_positive_rate"], roc["true_positive_rate"], label="_roc")
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    left.set_title(f"ROC, area {areas['roc_auc']:.4f}")
    right.plot([0, 1], [share, share], linestyle="--", color=FAINT, linewidth=1, label="_chance")
    right.step(precision_recall["recall"], precision_recall["precision"], where="pre", label="_precision")
    right.set(xlabel="recall", ylabel="precision")
    right.set_title(f"average precision {areas['average_precision']:.4f}")
    for axis in (left, right):
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
    return figure


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
