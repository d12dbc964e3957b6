"""Every figure of tasks, evaluations and dry runs, drawn without a screen; matplotlib is imported at the first one."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cnnbench.errors import grouped
from cnnbench.store.files import write_atomically
from cnnbench.tasks.charts import DISTINCT, MARKERS, SERIES, any_script, chart, plain, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
IMAGE_WIDTH, LINE_HEIGHT = 1.3, 0.17  # inches: of an image and the gap to the next, of a line of its caption
GROUPS_PER_ROW = 4
MAX_NAMED = 24  # classes in a legend, each with a colour and a marker of its own
TSNE_POINTS = 2_000  # t-SNE takes about 6 s for them
PERPLEXITY = 30.0


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
    save_groups(path, torch.stack([before, centred], dim=1), captions, "original and augmented images")


def save_groups(path: Path, groups: Tensor, captions: Sequence[str], title: str = "samples of the first epoch") -> None:
    """Save the images of each group side by side. groups: float [N, G, C, H, W] in [0, 1], C 1 or 3."""
    padded = functional.pad(groups, (0, max(1, groups.shape[4] // 32)), value=1.0)
    side_by_side = torch.cat(list(padded.unbind(1)), dim=3)
    save(path, image_grid(side_by_side, captions, GROUPS_PER_ROW, IMAGE_WIDTH * groups.shape[1], title))


def reconstructions(inputs: Tensor, outputs: Tensor, title: str) -> "Figure":
    """Return images and their reconstructions, on one scale. inputs, outputs: float32 [N, C, H, W] in [0, 1]."""
    columns = min(10, len(inputs))
    figure = _figure(10.4, 5.2 * -(-len(inputs) // columns) / columns + 0.4)
    for axis, images, name in zip(figure.subplots(1, 2), (inputs, outputs), ("input", title), strict=True):
        _draw_grid(axis, images, columns, _gap(images))
        axis.set_title(name, fontsize=10)
    return figure


def _gap(images: Tensor) -> int:
    return max(1, images.shape[3] // 12)


def tiled(images: Tensor, columns: int, blank: float = 0.0) -> Tensor:
    """Return images in rows, as one picture, float [H, W, 3]. images: float [N, C, H, W], C 1 or 3.

    As torchvision's make_grid, which imports torch's compiler, for 2 s. blank: the value of the rest of the last row.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    rest = images.new_full((rows * columns - len(images), *images.shape[1:]), blank)
    cells = torch.cat([images, rest]).expand(-1, 3, -1, -1).reshape(rows, columns, 3, *images.shape[2:])
    return cells.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)


def _draw_grid(axis: "Axes", images: Tensor, columns: int, above: int, captions: Sequence[str] = ()) -> None:
    """Draw images in rows. above: pixels between them for captions."""
    # One picture of all: with axes of its own for each image it takes four times as long, 0.9 s for 24 of them.
    gap = _gap(images)
    cells = functional.pad(images.clamp(0, 1).cpu(), (gap // 2, gap - gap // 2, above, 0), value=1.0)
    axis.imshow(tiled(cells, columns, 1.0).numpy(), vmin=0, vmax=1, interpolation="nearest")
    axis.set_axis_off()
    for place, caption in enumerate(captions):
        row, column = divmod(place, columns)
        x, y = column * cells.shape[3] + gap // 2 + images.shape[3] / 2, row * cells.shape[2] + above - 1
        axis.text(x, y, caption, fontsize=7, ha="center", va="bottom", parse_math=False)


# Embeddings, and curves -----------------------------------------------------------------------------------------------


@themed
def tsne_scatter(embeddings: Tensor, labels: Tensor, classes: Sequence[str], seed: int) -> "Figure | None":
    """Return embeddings, float32 [N, D], in two dimensions, a colour per class; None for fewer than 4.

    Of more than 2 000, the seed chooses 2 000. Source: van der Maaten and Hinton 2008, Visualizing data using t-SNE;
    for what it does not show, Wattenberg et al. 2016, How to use t-SNE effectively.
    """
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke
    from sklearn.manifold import TSNE

    if len(embeddings) < 4:
        return None
    chosen = torch.randperm(len(embeddings), generator=torch.Generator().manual_seed(seed))[:TSNE_POINTS].sort().values
    perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
    values = functional.pad(embeddings[chosen], (0, max(0, 2 - embeddings.shape[1])))  # PCA to a plane takes two
    points = TSNE(init="pca", random_state=seed, perplexity=perplexity).fit_transform(values.numpy())
    figure, axis = chart(5.4, 4.2)
    axis.grid(visible=False)
    present = torch.bincount(labels[chosen]).nonzero()[:, 0].tolist()
    are_named = len(present) <= MAX_NAMED
    for index, label in enumerate(present):
        own = (labels[chosen] == label).numpy()
        shade: Any = DISTINCT[index % len(DISTINCT)] if are_named else colormaps["hsv"](index / len(present))
        look: dict[str, Any] = {
            "color": shade,
            "marker": MARKERS[index % len(MARKERS)] if are_named else "o",
            "linewidths": 0,
        }
        axis.scatter(points[own, 0], points[own, 1], s=8, alpha=0.8, label=plain(classes[label]) or " ", **look)
        if are_named:
            x, y = np.median(points[own], axis=0)
            outline = [withStroke(linewidth=4, foreground="white")]
            style: dict[str, Any] = {"fontsize": 14, "weight": "bold", "ha": "center", "va": "center"}
            axis.text(x, y, plain(classes[label]), parse_math=False, color=shade, path_effects=outline, **style)
    if are_named:
        legend = figure.legend(loc="outside right upper", markerscale=2, fontsize=11)
        for text in legend.get_texts():
            text.set_parse_math(False)
    some = f"{grouped(len(chosen))} {'random ' * (len(chosen) < len(embeddings))}images, neighbours next to each other;"
    axis.set_title(f"{some}\nhow large groups are, and how far from each other, means little")
    axis.set(xticks=[], yticks=[])
    return figure


@themed
def save_curve(
    path: Path, x: Sequence[float], y: Sequence[float], labels: tuple[str, str], mark: float | None = None,
    is_log_x: bool = False,
) -> None:  # fmt: skip
    """Save one line. labels: of both axes. mark: where to draw a vertical line."""
    figure, axis = chart(6, 3.2)
    axis.plot(x, y)
    axis.set(xlabel=labels[0], ylabel=labels[1], xscale="log" if is_log_x else "linear")
    if mark is not None:
        axis.axvline(mark, linestyle="--", linewidth=1, color=SERIES[1])
    save(path, figure)


def _figure(width: float, height: float, layout: Any = "constrained") -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)
