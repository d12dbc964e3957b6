"""How maps, kernels and attributions are drawn. Names are drawn literally, never as a formula."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

MAX_TILES = 256  # in one figure
TILE = 48  # pixels that a tile has at least: smaller ones are enlarged, each pixel to a square
PAIRS_PER_ROW = 4
CHARACTERS_PER_INCH = 14
DIMMED = 0.6  # brightness of an image below a heat map

Array = np.ndarray[Any, Any]


def maps_sheet(maps: Tensor, image: Tensor, title: str, first: int = 0) -> Figure:
    """Return an image next to maps of it, all on one scale.

    maps: float32 [N, H, W]. image: float32 [C, H, W] in [0, 1]. first: number of the first map.
    """
    values = maps.numpy()
    rows, columns = grid_for(len(values))
    width = 4.4 if len(values) == 1 else min(8.0, 2.2 + 0.75 * columns)
    figure = Figure(figsize=(width + 3.2, max(2.8, width * rows / columns + 0.6)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, width))
    _show(left, image)
    left.set_anchor("N")
    left.set_title("input of the network", fontsize=8)
    largest = float(np.nanmax(np.abs(values))) or 1.0
    is_signed = bool((values < 0).any())
    limits = (-largest if is_signed else 0.0, largest)
    _show_tiles(right, values, columns, "RdBu_r" if is_signed else "viridis", limits, first, has_scale=True)
    return _titled(figure, f"{title}; all on one scale" if len(values) > 1 else title)


def kernels_sheet(weights: Tensor, title: str) -> Figure:
    """Return kernels on one scale with zero in its middle: in colour if they have three channels, else gray.

    weights: float32 [N, C, h, w].
    """
    largest = float(weights.abs().max()) or 1.0
    is_colour = weights.shape[1] == 3
    values = weights.permute(0, 2, 3, 1) / largest / 2 + 0.5 if is_colour else weights.flatten(0, 1)
    rows, columns = grid_for(len(values))
    width = max(5.0, min(8.0, 1.0 + 0.7 * columns))
    figure = Figure(figsize=(width + 0.6, max(1.6, 0.9 * width * rows / columns + 0.6)), layout="compressed")
    _show_tiles(figure.subplots(), values.numpy(), columns, "gray", (-largest, largest), has_scale=not is_colour)
    return _titled(figure, f"{title}; gray is zero, full colour ±{largest:.2g}" if is_colour else title)


def pairs_sheet(images: Tensor, heat: Tensor, captions: Sequence[str], title: str, is_overlaid: bool) -> Figure:
    """Return images, each next to its heat map, which has a scale of its own.

    images: float32 [N, C, H, W] in [0, 1]. heat: float32 [N, H, W], at least 0. is_overlaid: drawn over the image.
    """
    columns = min(PAIRS_PER_ROW, len(images))
    rows = -(-len(images) // columns)
    width = 2.7 if columns > 1 else 5.6
    row_height = width / 2 * images.shape[2] / images.shape[3] + 0.4
    figure = Figure(figsize=(max(5.6, width * columns), rows * row_height + 0.3), layout="compressed")
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (image, values, caption) in enumerate(zip(images, heat, captions, strict=True)):
        row, column = divmod(number, columns)
        left, right = axes[row][2 * column : 2 * column + 2]
        _show(left, image)
        left.set_title(caption, fontsize=8, loc="left", parse_math=False)
        shares = (values / (values.max() or 1)).numpy()
        if is_overlaid:
            right.imshow(_overlaid(image, shares))
        else:
            right.imshow(shares, cmap="inferno", vmin=0, vmax=1)
    return _titled(figure, title)


def _titled(figure: Figure, title: str) -> Figure:
    letters = int(figure.get_figwidth() * CHARACTERS_PER_INCH)
    figure.suptitle(textwrap.fill(title, letters), fontsize=9, parse_math=False)
    return figure


def grid_for(number: int) -> tuple[int, int]:
    """Return rows and columns of a grid: somewhat wider than high, with few places left empty."""
    ideal = (number * 1.5) ** 0.5
    near = range(max(1, round(ideal * 0.75)), min(number, round(ideal * 1.3)) + 1)
    columns = min(near, key=lambda columns: (-number % columns, abs(columns - ideal)))
    return -(-number // columns), columns


def _show_tiles(
    axis: Axes, values: Array, columns: int, cmap: str, limits: tuple[float, float], first: int = 0,
    has_scale: bool = False,
) -> None:  # fmt: skip
    """Draw tiles in a grid as one picture, with the number of the first tile of each row.

    values: float [N, h, w], or [N, h, w, 3] in [0, 1]. limits: values at the ends of the colour map.
    first: number of the first tile. has_scale: with a colour bar.
    """
    number, height, width = values.shape[:3]
    rows = -(-number // columns)
    times = max(1, -(-TILE // max(height, width)))
    values = values.repeat(times, axis=1).repeat(times, axis=2)
    down, right = (size * times + max(2, TILE // 12) for size in (height, width))
    page = np.full((rows * down, columns * right, *values.shape[3:]), 1.0 if values.ndim == 4 else np.nan)
    for place, tile in enumerate(values):
        row, column = divmod(place, columns)
        page[row * down : row * down + height * times, column * right : column * right + width * times] = tile
    drawn = axis.imshow(page, cmap=cmap, clim=limits)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, labelsize=7, colors="dimgray")
    axis.xaxis.tick_top()
    across, along = (range(columns), range(rows)) if number > 1 else ((), ())
    axis.set_xticks([right * (place + 0.5) for place in across], [f"+{place}" for place in across])
    axis.set_yticks([down * (place + 0.5) for place in along], [str(first + place * columns) for place in along])
    figure = axis.get_figure()
    if has_scale and figure is not None:
        figure.colorbar(drawn, ax=axis, shrink=0.8).ax.tick_params(labelsize=8)


def _overlaid(image: Tensor, heat: Array) -> Array:
    """Return an image in gray that glows where it is hot. image: float32 [C, H, W]. heat: float [H, W] in [0, 1]."""
    gray = image.mean(0).numpy()[..., None]
    glow = colormaps["plasma"](0.35 + 0.6 * heat)[..., :3] * heat[..., None]
    blended: Array = 1 - (1 - DIMMED * gray) * (1 - glow)  # as light that is added: neither hides the other
    return blended.clip(0, 1)


def _show(axis: Axes, image: Tensor) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    axis.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
