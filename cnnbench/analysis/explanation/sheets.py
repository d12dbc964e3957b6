"""How maps, kernels and what they say are drawn. Every name is drawn as it is, never as a formula."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

MOST_TILES = 256  # in one picture
TILE = 48  # pixels that a tile has at least: smaller ones are enlarged, each pixel to a square
PAIRS = 4  # in a row
LOOKS_IN_A_ROW = 5
LETTERS_AN_INCH = 14
DIMMED = 0.6  # brightness of an image below what glows

Array = np.ndarray[Any, Any]


def maps_sheet(maps: Tensor, image: Tensor, title: str, first: int = 0) -> Figure:
    """Return an image beside maps of it, all of them on one scale.

    maps: float32 [N, H, W]. image: float32 [C, H, W] in [0, 1]. first: number of the first map.
    """
    values = maps.numpy()
    columns = columns_for(len(values))
    rows = -(-len(values) // columns)
    wide = 4.4 if len(values) == 1 else min(8.0, 2.2 + 0.75 * columns)
    figure = Figure(figsize=(wide + 3.2, max(2.8, wide * rows / columns + 0.6)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, wide))
    show(left, image)
    left.set_anchor("N")
    left.set_title("what the network sees", fontsize=8)
    reach = float(np.nanmax(np.abs(values))) or 1.0
    signed = bool((values < 0).any())
    drawn = tiles(right, values, columns, first)
    drawn.set(cmap="RdBu_r" if signed else "viridis", clim=(-reach if signed else 0.0, reach))
    figure.colorbar(drawn, ax=right, shrink=0.8).ax.tick_params(labelsize=8)
    return headed(figure, f"{title}; all on one scale" if len(values) > 1 else title)


def kernels_sheet(weights: Tensor, title: str) -> Figure:
    """Return kernels on one scale with zero in its middle: in colour where they have three channels, else gray.

    weights: float32 [N, C, h, w].
    """
    reach = float(weights.abs().max()) or 1.0
    in_colour = weights.shape[1] == 3
    values = (weights.permute(0, 2, 3, 1) / reach / 2 + 0.5 if in_colour else weights.flatten(0, 1)).numpy()
    columns = columns_for(len(values))
    rows = -(-len(values) // columns)
    wide = max(5.0, min(8.0, 1.0 + 0.7 * columns))
    figure = Figure(figsize=(wide + 0.6, max(1.6, 0.9 * wide * rows / columns + 0.6)), layout="compressed")
    axis = figure.subplots()
    drawn = tiles(axis, values, columns)
    if in_colour:
        return headed(figure, f"{title}; gray is zero, full colour ±{reach:.2g}")
    drawn.set(cmap="gray", clim=(-reach, reach))
    figure.colorbar(drawn, ax=axis, shrink=0.8).ax.tick_params(labelsize=8)
    return headed(figure, title)


def pairs_sheet(images: Tensor, shares: Tensor, captions: Sequence[str], title: str, over: bool) -> Figure:
    """Return images, each beside what speaks for its class, which has a scale of its own.

    images: float32 [N, C, H, W] in [0, 1]. shares: float32 [N, H, W], at least 0. over: drawn over the image.
    """
    columns = min(PAIRS, len(images))
    rows = -(-len(images) // columns)
    wide = 2.7 if columns > 1 else 5.6
    height, width = images.shape[2:]
    tall = rows * (wide / 2 * height / width + 0.4) + 0.3
    figure = Figure(figsize=(max(5.6, wide * columns), tall), layout="compressed")
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (image, share, caption) in enumerate(zip(images, shares, captions, strict=True)):
        row, column = divmod(number, columns)
        left, right = axes[row][2 * column : 2 * column + 2]
        show(left, image)
        left.set_title(caption, fontsize=8, loc="left", parse_math=False)
        heat = (share / (share.max() or 1)).numpy()
        if over:
            right.imshow(overlaid(image, heat))
        else:
            right.imshow(heat, cmap="inferno", vmin=0, vmax=1)
    return headed(figure, title)


def looks_sheet(image: Tensor, looks: Tensor, title: str) -> Figure:
    """Return an image as number 0, and looks at it after augmentation from 1 on, each float32 [C, H, W] in [0, 1]."""
    pictures = torch.cat([image.unsqueeze(0), looks]).permute(0, 2, 3, 1).numpy()
    figure = Figure(figsize=(6.6, 6.6 * image.shape[1] / image.shape[2] + 0.6), layout="compressed")
    axis = figure.subplots()
    drawn = tiles(axis, pictures[..., 0] if pictures.shape[3] == 1 else pictures, LOOKS_IN_A_ROW)
    drawn.set(cmap="gray", clim=(0, 1))
    return headed(figure, title)


def headed(figure: Figure, title: str) -> Figure:
    """Return the figure with a title above it, in as many lines as it takes."""
    letters = int(figure.get_figwidth() * LETTERS_AN_INCH)
    figure.suptitle(textwrap.fill(title, letters), fontsize=9, parse_math=False)
    return figure


def columns_for(number: int) -> int:
    """Return how many columns a grid of so many tiles has: about a few more than rows, and few places left empty."""
    best = (number * 1.5) ** 0.5
    near = range(max(1, round(best * 0.75)), min(number, round(best * 1.3)) + 1)
    return min(near, key=lambda columns: (-number % columns, abs(columns - best)))


def tiles(axis: Axes, values: Array, columns: int, first: int = 0) -> Any:
    """Draw tiles in a grid, with the number of the first one of each row, and return the picture.

    values: float [N, h, w], or [N, h, w, 3] in [0, 1]. first: number of the first tile.
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
    drawn = axis.imshow(page)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, labelsize=7, colors="dimgray")
    axis.xaxis.tick_top()
    across, along = (range(columns), range(rows)) if number > 1 else ((), ())
    axis.set_xticks([right * (place + 0.5) for place in across], [f"+{place}" for place in across])
    axis.set_yticks([down * (place + 0.5) for place in along], [str(first + place * columns) for place in along])
    return drawn


def overlaid(image: Tensor, heat: Array) -> Array:
    """Return an image in gray that glows where it is hot. image: float32 [C, H, W]. heat: float [H, W] in [0, 1]."""
    gray = image.mean(0).numpy()[..., None]
    glow = colormaps["plasma"](0.35 + 0.6 * heat)[..., :3] * heat[..., None]
    blended: Array = 1 - (1 - DIMMED * gray) * (1 - glow)  # as light that is added: neither hides the other
    return blended.clip(0, 1)


def show(axis: Axes, image: Tensor) -> None:
    """Draw an image, float32 [C, H, W] in [0, 1], as it is."""
    pixels = image.permute(1, 2, 0).numpy()
    axis.imshow(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
