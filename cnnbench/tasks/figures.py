"""Every figure of tasks, evaluations and dry runs, drawn without a screen; matplotlib is imported at the first one."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnnbench.store.files import write_atomically
from cnnbench.tasks.charts import any_script

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from cnnbench.tasks.evaluation import Calibration
    from cnnbench.tasks.two_classes import TwoClasses

DPI = 120
SHORT = 18  # characters of a name
IMAGE_WIDTH, LINE_HEIGHT = 1.3, 0.17  # inches: of an image and the gap to the next, of a line of its caption
GROUPS_PER_ROW = 4
MAX_NAMED = 40  # classes whose names are written at an axis
MAX_COUNTED = 20  # classes whose confusions are written into the picture
TSNE_POINTS = 2_000  # t-SNE takes about 6 s for them
PERPLEXITY = 30.0


def plain(name: str, longest: int = SHORT) -> str:
    """Return a name as one printable line of at most `longest` characters."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def save(path: Path, figure: "Figure") -> "np.ndarray[Any, Any]":
    """Save a figure as PNG, and return its pixels, uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    with any_script():
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    content = BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    write_atomically(path, content.getvalue())
    return pixels


# Images ---------------------------------------------------------------------------------------------------------------


def image_grid(
    images: Tensor, captions: Sequence[str] = (), columns: int = 8, image_width: float = IMAGE_WIDTH, title: str = ""
) -> "Figure":
    """Return images in rows, each under its caption. images: float [N, C, H, W] in [0, 1], C 1 or 3."""
    columns = min(columns, len(images))
    lines = max((caption.count("\n") + 1 for caption in captions), default=0)
    gap = _gap(images)
    inch = (images.shape[3] + gap) / image_width  # in pixels of an image
    above = max(gap, round(lines * LINE_HEIGHT * inch))
    height = -(-len(images) // columns) * (images.shape[2] + above) / inch
    title_height = 2 * LINE_HEIGHT if title else 0.0
    figure = _figure(image_width * columns, height + title_height, layout=None)
    axis = figure.add_axes((0, 0, 1, height / (height + title_height)))
    _draw_grid(axis, images, columns, above, captions)
    figure.suptitle(title, fontsize=9)
    return figure


def save_pairs(path: Path, before: Tensor, after: Tensor, captions: Sequence[str]) -> None:
    """Save images with their augmented versions. before, after: float [N, C, H, W] in [0, 1], after cropped."""
    down, right = (whole - side for whole, side in zip(before.shape[2:], after.shape[2:], strict=True))
    centred = functional.pad(after, (right // 2, right - right // 2, down // 2, down - down // 2), value=1.0)
    save(path, _groups(torch.stack([before, centred], dim=1), captions, "original and augmented images"))


def save_groups(path: Path, groups: Tensor, captions: Sequence[str]) -> None:
    """Save the images of each group side by side. groups: float [N, G, C, H, W] in [0, 1], C 1 or 3."""
    save(path, _groups(groups, captions, "samples of the first epoch"))


def reconstructions(inputs: Tensor, outputs: Tensor, title: str) -> "Figure":
    """Return images and their reconstructions, on one scale. inputs, outputs: float32 [N, C, H, W] in [0, 1]."""
    columns = min(10, len(inputs))
    figure = _figure(10.4, 5.2 * -(-len(inputs) // columns) / columns + 0.6)
    for axis, images, name in zip(figure.subplots(1, 2), (inputs, outputs), ("input", title), strict=True):
        _draw_grid(axis, images, columns, _gap(images))
        axis.set_title(name, fontsize=10)
    return figure


def _groups(groups: Tensor, captions: Sequence[str], title: str) -> "Figure":
    padded = functional.pad(groups, (0, max(1, groups.shape[4] // 32)), value=1.0)
    side_by_side = torch.cat(list(padded.unbind(1)), dim=3)
    return image_grid(side_by_side, captions, GROUPS_PER_ROW, IMAGE_WIDTH * groups.shape[1], title)


def _gap(images: Tensor) -> int:
    return max(1, images.shape[3] // 12)


def _draw_grid(axis: "Axes", images: Tensor, columns: int, above: int, captions: Sequence[str] = ()) -> None:
    """Draw images in rows. above: pixels between them for captions."""
    from torchvision.utils import make_grid

    # One picture of all: with axes of its own for each image it takes four times as long, 0.9 s for 24 of them.
    cells = functional.pad(images.clamp(0, 1).cpu(), (0, _gap(images), above, 0), value=1.0)
    page = make_grid(cells, nrow=columns, padding=0, pad_value=1.0).permute(1, 2, 0).numpy()
    axis.imshow(page, vmin=0, vmax=1, interpolation="nearest")
    axis.set_axis_off()
    for place, caption in enumerate(captions):
        row, column = divmod(place, columns)
        x, y = column * cells.shape[3] + images.shape[3] / 2, row * cells.shape[2] + above - 1
        axis.text(x, y, caption, fontsize=7, ha="center", va="bottom", parse_math=False)


# Classifiers ----------------------------------------------------------------------------------------------------------


def class_bars(per_class: "pd.DataFrame") -> "Figure":
    """Return the number of images of each class, its top1 (with interval) and top5; from `Predictions.per_class`."""
    number = len(per_class)
    figure = _figure(9, 1.4 + 0.26 * min(number, MAX_NAMED))
    counts, shares = figure.subplots(1, 2, sharey=True)
    places = np.arange(number)
    counts.barh(places, per_class["images"], color="tab:gray")
    counts.set_title("images", fontsize=10)
    shares.barh(places, per_class["top5"], color="tab:blue", alpha=0.3, label="top5")
    shares.barh(places, per_class["top1"], color="tab:blue", label="top1")
    intervals = np.abs(per_class[["top1_low", "top1_high"]].to_numpy().T - per_class["top1"].to_numpy())
    shares.errorbar(per_class["top1"], places, xerr=intervals, fmt="none", ecolor="black", elinewidth=0.8)
    shares.set_xlim(0, 1)
    shares.set_title("top1 (95 % interval) and top5", fontsize=10)
    figure.legend(fontsize=8, loc="outside lower right", ncols=2)
    _name_ticks(counts, "y", list(per_class["class"]))
    counts.set_ylim(number - 0.5, -0.5)
    return figure


def confusion_matrix(counts: "pd.DataFrame") -> "Figure":
    """Return a confusion matrix as shares of each row's images; from `Predictions.confusion`."""
    number, values = len(counts), counts.to_numpy()
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    side = min(2.6 + 0.42 * number, 11)
    figure = _figure(side + 0.8, side)
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(image, ax=axis, label="share of the class's images", shrink=0.8)
    axis.set_xlabel("prediction")
    axis.set_ylabel("class")
    for which in ("x", "y"):
        _name_ticks(axis, which, list(counts.columns))
    for row, column in zip(*values.nonzero(), strict=True) if number <= MAX_COUNTED else ():
        colour = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, str(values[row, column]), ha="center", va="center", fontsize=7, color=colour)
    return figure


def reliability_diagram(calibration: "Calibration") -> "Figure":
    """Return the accuracy of predictions by their probability."""
    table = calibration.table()
    figure = _figure(5, 5)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], linestyle="--", color="tab:gray", linewidth=1)
    width = (table["to"] - table["from"]).to_numpy()
    axis.bar(table["from"], table["accuracy"], width=width, align="edge", edgecolor="white")
    axis.plot(table["probability"], table["accuracy"], "o", color="black", markersize=3)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="probability of the prediction", ylabel="accuracy")
    axis.set_title(f"expected calibration error {calibration.error:.4f}", fontsize=10)
    return figure


def threshold_curves(curves: "TwoClasses") -> "Figure":
    """Return the ROC and the precision-recall curve."""
    figure = _figure(9, 4.5)
    left, right = figure.subplots(1, 2)
    metrics, roc, pr = curves.metrics(), curves.roc(), curves.precision_recall()
    left.plot([0, 1], [0, 1], linestyle="--", color="tab:gray", linewidth=1)
    left.plot(roc["false_positive_rate"], roc["true_positive_rate"])
    left.set(xlabel="false positive rate", ylabel="true positive rate")
    left.set_title(f"ROC, area {metrics['roc_auc']:.4f}", fontsize=10)
    share = float(curves.labels.double().mean())
    right.plot([0, 1], [share, share], linestyle="--", color="tab:gray", linewidth=1)
    right.step(pr["recall"], pr["precision"], where="pre")
    right.set(xlabel="recall", ylabel="precision")
    right.set_title(f"average precision {metrics['average_precision']:.4f}", fontsize=10)
    for axis in (left, right):
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
    return figure


def prediction_bars(
    images: Sequence[Tensor], titles: Sequence[str], predictions: Sequence[Sequence[tuple[str, float]]]
) -> "Figure":
    """Return images, uint8 [C, H, W], each with bars of its predictions: names of classes with probabilities."""
    figure = _figure(6.4, 1.9 * len(images))
    axes = figure.subplots(len(images), 2, squeeze=False, width_ratios=(1, 2))
    for (left, right), image, title, bars in zip(axes, images, titles, predictions, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        left.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
        left.set_axis_off()
        left.set_title(title[-2 * SHORT :], fontsize=8, parse_math=False)
        right.barh(range(len(bars)), [probability for _, probability in bars], color="tab:blue")
        _name_ticks(right, "y", [name for name, _ in bars])
        right.set(xlim=(0, 1), ylim=(len(bars) - 0.5, -0.5))
    return figure


def _name_ticks(axis: "Axes", which: str, names: Sequence[str]) -> None:
    if len(names) > MAX_NAMED:
        return
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_ticks(range(len(names)))
    ticks.set_ticklabels([plain(name) for name in names])
    for label in ticks.get_ticklabels():
        label.set_parse_math(False)
        label.set_fontsize(8)
        if which == "x":
            label.set_rotation(90)


# Embeddings, and curves -----------------------------------------------------------------------------------------------


def tsne_scatter(embeddings: Tensor, labels: Tensor, classes: Sequence[str], seed: int) -> "Figure | None":
    """Return embeddings, float32 [N, D], in two dimensions, a colour per class; None for fewer than 4.

    Of more than 2 000, the seed chooses 2 000. Source: van der Maaten and Hinton 2008, Visualizing data using t-SNE.
    """
    from matplotlib import colormaps
    from sklearn.manifold import TSNE

    if len(embeddings) < 4:
        return None
    chosen = torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(seed))[:TSNE_POINTS].sort().values
    perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
    values = functional.pad(embeddings[chosen], (0, max(0, 2 - embeddings.shape[1])))  # PCA to a plane takes two
    points = TSNE(init="pca", random_state=seed, perplexity=perplexity).fit_transform(values.numpy())
    figure = _figure(7, 5.6)
    axis = figure.subplots()
    present = torch.bincount(labels[chosen]).nonzero()[:, 0].tolist()
    palette = colormaps["tab10" if len(present) <= 10 else "tab20" if len(present) <= 20 else "hsv"]
    for index, label in enumerate(present):
        own = (labels[chosen] == label).numpy()
        colour = palette(index if len(present) <= 20 else index / len(present))
        axis.scatter(points[own, 0], points[own, 1], s=9, color=colour, linewidths=0)
        if len(present) <= 20:
            x, y = np.median(points[own], axis=0)
            style: dict[str, Any] = {"fontsize": 9, "weight": "bold", "ha": "center", "va": "center"}
            axis.text(x, y, plain(classes[label]), parse_math=False, **style)
    axis.set_title(f"t-SNE of {len(chosen)} embeddings in {embeddings.shape[1]} dimensions", fontsize=10)
    axis.set(xticks=[], yticks=[])
    return figure


def save_curve(
    path: Path, x: Sequence[float], y: Sequence[float], labels: tuple[str, str], mark: float | None = None,
    is_log_x: bool = False,
) -> None:  # fmt: skip
    """Save one line. labels: of both axes. mark: where to draw a vertical line."""
    figure = _figure(6, 3.2)
    axis = figure.subplots()
    axis.plot(x, y, linewidth=1.5)
    axis.set(xlabel=labels[0], ylabel=labels[1], xscale="log" if is_log_x else "linear")
    if mark is not None:
        axis.axvline(mark, linestyle="--", linewidth=1, color="tab:red")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    save(path, figure)


def _figure(width: float, height: float, layout: Any = "constrained") -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)
