"""Pictures, drawn without a screen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from cnnbench.tasks.captions import any_script

COLUMNS = 4
DPI = 120


def save(path: Path, figure: Figure) -> "np.ndarray[Any, Any]":
    """Save a figure as PNG, and return its pixels, uint8 [H, W, 3]."""
    figure.set_dpi(DPI)
    canvas: Any = FigureCanvasAgg(figure)
    with any_script():
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    Image.fromarray(pixels).save(path, format="PNG")
    return pixels


def save_pairs(path: Path, before: Tensor, after: Tensor, titles: Sequence[str]) -> None:
    """Save images side by side with what became of them, four pairs a row.

    before: [N, C, H, W], after: [N, C, h, w], float in [0, 1], C 1 or 3.
    """
    rows = -(-len(titles) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 1.55 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, 2 * COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, title in enumerate(titles):
        row, column = divmod(index, COLUMNS)
        for offset, image in enumerate((before[index], after[index])):
            _show(axes[row][2 * column + offset], image)
        axes[row][2 * column].set_title(title, fontsize=8, loc="left")
    figure.suptitle("each image, and what augmentation makes of it", fontsize=9)
    figure.savefig(path, dpi=120)


def save_groups(path: Path, groups: Tensor, captions: Sequence[str]) -> None:
    """Save groups of images, the images of a group side by side under its caption.

    groups: [N, G, C, H, W], float in [0, 1], C 1 or 3.
    """
    number, size = groups.shape[:2]
    rows = -(-number // COLUMNS)
    figure = Figure(figsize=(1.3 * size * COLUMNS, 1.55 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, size * COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, caption in enumerate(captions):
        row, column = divmod(index, COLUMNS)
        for offset, image in enumerate(groups[index]):
            _show(axes[row][size * column + offset], image)
        axes[row][size * column].set_title(caption, fontsize=8, loc="left", parse_math=False)
    figure.suptitle("what is compared in the first epoch", fontsize=9)
    figure.savefig(path, dpi=120)


def save_curve(
    path: Path, x: Sequence[float], y: Sequence[float], labels: tuple[str, str], mark: float | None = None,
    is_log_x: bool = False,
) -> None:  # fmt: skip
    """Save one line. labels: of both axes. mark: where to draw a vertical line."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(x, y, linewidth=1.5)
    if is_log_x:
        axis.set_xscale("log")
    if mark is not None:
        axis.axvline(mark, linestyle="--", linewidth=1, color="tab:red")
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    axis.grid(alpha=0.3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    figure.savefig(path, dpi=120)


def _show(axis: Axes, image: Tensor) -> None:
    pixels = image.clamp(0, 1).permute(1, 2, 0).cpu().numpy()
    if pixels.shape[2] == 1:
        axis.imshow(pixels[:, :, 0], cmap="gray", vmin=0, vmax=1)
    else:
        axis.imshow(pixels)
