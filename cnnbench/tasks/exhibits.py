"""What is shown of codes and reconstructions: grids, scatter plots, TensorBoard's projector, arrays."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.data.loader import Batch, Batches
from cnnbench.tasks.captions import plain
from cnnbench.tasks.context import EvalContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST_SPRITE = 8192  # side of the picture that holds the images of all points; browsers take no larger one
DRAWN = 2_000  # points of a scatter plot: t-SNE takes about 6 s for them
PERPLEXITY = 30.0


def show_codes(context: EvalContext, codes: Tensor, labels: Tensor) -> None:
    """Write the codes of the view's split for TensorBoard's projector, with the images and the names of classes."""
    split = context.held_out
    name = split if split == "test" else f"{split}-epoch-{context.epoch:04}"
    folder = context.folder / "embeddings" / name
    write_projector(folder, codes, named(labels, context.data.spec.classes), sprites(context, context.splits[split]))


def sprites(context: EvalContext, batches: Batches) -> Tensor:
    """Return small square pictures of all images of a split, float32 [N, C, S, S] in [0, 1]."""
    whole = max(context.data.spec.height, context.data.spec.width)
    side = max(1, min(whole, LARGEST_SPRITE // max(1, int(np.ceil(len(batches) ** 0.5)))))

    def small(_network: nn.Module, batch: Batch) -> Tensor:
        images = context.pixels(batch.images)
        if images.shape[2:] == (side, side):
            return images
        return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)

    return context.map_batches(batches, small)


def named(labels: Tensor, classes: Sequence[str]) -> list[str]:
    """Return the names of labels, each on one line and in one column of a table."""
    return [re.sub(r"\s", " ", classes[label]) for label in labels.tolist()]


def write_projector(folder: Path, codes: Tensor, names: Sequence[str], pictures: Tensor) -> None:
    """Write a folder that TensorBoard's projector shows, in place of what it held.

    codes: float32 [N, D]. pictures: float32 [N, C, S, S] in [0, 1].
    """
    from torch.utils.tensorboard import SummaryWriter

    if folder.exists():  # of the same epoch, before the run was interrupted
        shutil.rmtree(folder)
    # A writer of its own for each: one that is opened anew forgets what it had written to the same folder.
    writer = SummaryWriter(str(folder))
    shown = np.round(codes.double().numpy(), 4)  # as text they would take three times the room otherwise
    pictures = pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures
    writer.add_embedding(shown, metadata=list(names), label_img=pictures, tag="codes")
    writer.close()


def save_codes(folder: Path, codes: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    """Save codes, float32 [N, D], labels, int64 [N], and the names of classes as arrays: `embeddings/test.npz`."""
    path = folder / "embeddings" / "test.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, codes=codes.numpy(), labels=labels.numpy(), classes=np.array(classes))


def scatter(codes: Tensor, labels: Tensor, classes: Sequence[str], seed: int) -> "Figure | None":
    """Return codes in two dimensions (t-SNE), a colour a class; None where there are too few of them.

    Of more than 2 000 codes so many are drawn, each at most once, chosen by the seed. codes: float32 [N, D].
    Source: van der Maaten and Hinton 2008, Visualizing data using t-SNE.
    """
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    if len(codes) < 4:
        return None
    chosen = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))[:DRAWN].sort().values
    perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
    drawn = functional.pad(codes[chosen], (0, max(0, 2 - codes.shape[1])))  # a plane takes two numbers
    points = TSNE(init="pca", random_state=seed, perplexity=perplexity).fit_transform(drawn.numpy())
    figure = Figure(figsize=(7, 5.6), layout="constrained")
    axis = figure.subplots()
    there = torch.bincount(labels[chosen]).nonzero()[:, 0].tolist()
    colours = _colours(len(there))
    for number, colour in zip(there, colours, strict=True):
        mine = (labels[chosen] == number).numpy()
        axis.scatter(points[mine, 0], points[mine, 1], s=9, color=colour, linewidths=0)
        if len(there) <= 20:
            x, y = np.median(points[mine], axis=0)
            name = axis.text(x, y, plain(classes[number]), fontsize=9, weight="bold", ha="center", va="center")
            name.set_parse_math(False)
    axis.set_title(f"t-SNE of {len(chosen)} codes of {codes.shape[1]} numbers", fontsize=10)
    axis.set_xticks([])
    axis.set_yticks([])
    return figure


def _colours(number: int) -> list[tuple[float, float, float, float]]:
    from matplotlib import colormaps

    palette = colormaps["tab10" if number <= 10 else "tab20" if number <= 20 else "hsv"]
    return [palette(index if number <= 20 else index / number) for index in range(number)]


def reconstructions(inputs: Tensor, outputs: Tensor, title: str) -> "Figure":
    """Return images beside what was made of them, on one scale. inputs, outputs: float32 [N, C, H, W] in [0, 1]."""
    from matplotlib.figure import Figure
    from torchvision.utils import make_grid

    columns = min(10, len(inputs))
    rows = -(-len(inputs) // columns)
    figure = Figure(figsize=(10.4, 5.2 * rows / columns + 0.6), layout="constrained")
    for axis, images, name in zip(figure.subplots(1, 2), (inputs, outputs), ("input", title), strict=True):
        grid = make_grid(images, nrow=columns, padding=1, pad_value=0.5)
        axis.imshow(grid.permute(1, 2, 0).numpy(), vmin=0, vmax=1)
        axis.set_title(name, fontsize=10)
        axis.set_axis_off()
    return figure
