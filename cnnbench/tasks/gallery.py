"""Images that a page shows one by one: samples, mistakes, confused pairs; as one file of tiles and a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.store.files import make_folder, write_atomically
from cnnbench.store.tables import csv_of_frame, read_own_csv
from cnnbench.tasks.classifier_figures import confused_pairs
from cnnbench.tasks.figures import tiled

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from cnnbench.tasks.evaluation import Predictions

COLUMNS = 16  # tiles in a row of the file
LARGEST = 112  # pixels of a tile's side
PHOTOGRAPH = 64  # pixels: larger tiles are compressed as photographs
SIMPLE = 800  # bytes of a tile that need not be
SAMPLES = 12  # one of each class
PAIRS, OF_PAIR = 6, 4  # confused pairs, images of each that are mistaken, and of the class that they are taken for
KERNELS = 32
TEXTS = ("group", "image", "class", "prediction")


@dataclass(frozen=True)
class Gallery:
    """Images, and what they are.

    images: float32 [N, C, H, W] in [0, 1]. table: a row for each: group, image (its file or its row in the split),
    class, prediction, probability. Groups are samples, mistakes, doubts, kernels, a pair of classes as `pair 1`, and
    an image with its augmented views as `augmented 1`.
    """

    images: Tensor
    table: "pd.DataFrame"

    def __add__(self, other: "Gallery") -> "Gallery":
        import pandas as pd

        table = pd.concat([self.table, other.table], ignore_index=True)
        return Gallery(torch.cat([self.images.cpu(), other.images.cpu()]), table)

    def write(self, folder: Path) -> None:
        """Write `gallery.csv`, and the tiles in rows of 16 as `gallery.png`, of photographs `gallery.jpg`."""
        import numpy as np
        from PIL import Image

        images = self.images.cpu()
        if max(images.shape[2:]) > LARGEST:
            side = tuple(max(1, round(LARGEST * side / max(images.shape[2:]))) for side in images.shape[2:])
            images = functional.interpolate(images, side, mode="area")
        make_folder(folder)
        pixels = Image.fromarray((tiled(images.clamp(0, 1), COLUMNS).numpy() * 255).round().astype(np.uint8))
        if max(images.shape[2:]) > PHOTOGRAPH:
            write_atomically(folder / "gallery.jpg", _encoded(pixels, "JPEG", quality=88))
        else:
            write_atomically(folder / "gallery.png", _encoded(pixels, "PNG"))
        write_atomically(folder / "gallery.csv", csv_of_frame(self.table))


@dataclass(frozen=True)
class Tile:
    """An image of a gallery that was read: a row of its table, and a WebP file of its own."""

    group: str
    image: str
    label: str
    prediction: str
    probability: float
    content: bytes


def read_gallery(folder: Path) -> list[Tile]:
    """Return the tiles of a folder's gallery; none where there is none, or where it is damaged."""
    from PIL import Image

    path = next((path for suffix in ("png", "jpg") if (path := folder / f"gallery.{suffix}").is_file()), None)
    if path is None or not (folder / "gallery.csv").is_file():
        return []
    table = read_own_csv(folder / "gallery.csv", *TEXTS)
    try:
        with Image.open(path) as sheet:
            return list(_cut(sheet.convert("RGB"), list(table.itertuples(index=False, name=None))))
    except (OSError, Image.DecompressionBombError):
        return []


def _cut(sheet: "Image.Image", rows: Sequence[tuple[Any, ...]]) -> Iterator[Tile]:
    columns = min(COLUMNS, len(rows))
    width, height = sheet.width // columns, sheet.height // -(-len(rows) // columns)
    for place, (*texts, probability) in enumerate(rows):
        group, image, label, prediction = (text if isinstance(text, str) else "" for text in texts)
        left, top = place % columns * width, place // columns * height
        content = as_webp(sheet.crop((left, top, left + width, top + height)))
        yield Tile(group, image, label, prediction, float(probability), content)


def gallery_of(predictions: "Predictions", pixels: Callable[[Tensor], Tensor]) -> Gallery:
    """Return samples of the classes, the most frequent confusions, the surest mistakes, and the least sure images.

    pixels: from rows of the split to their images, float32 [N, C, H, W] in [0, 1].
    """
    import pandas as pd

    probabilities, predicted = predictions.probabilities.max(1)
    labels, names = predictions.labels, predictions.classes
    is_right = predicted == labels
    groups: dict[str, Tensor] = {"samples": _first_of_each(labels)}
    pairs = confused_pairs(predictions.confusion.to_numpy(), PAIRS)
    for number, (label, other) in enumerate(pairs, 1):
        mistaken = ((labels == label) & (predicted == other)).nonzero()[:, 0]
        surest = mistaken[probabilities[mistaken].argsort(descending=True, stable=True)[:OF_PAIR]]
        groups[f"pair {number}"] = torch.cat([surest, ((labels == other) & is_right).nonzero()[:OF_PAIR, 0]])
    groups["mistakes"] = predictions.most_confident_mistakes()
    groups["doubts"] = predictions.least_confident_correct()
    rows = torch.cat(list(groups.values()))
    listed = rows.tolist()
    table = pd.DataFrame(
        {
            "group": [name for name, own in groups.items() for _ in own],
            "image": [str(row) if predictions.files is None else predictions.files[row] for row in listed],
            "class": [names[labels[row]] for row in listed],
            "prediction": [names[predicted[row]] for row in listed],
            "probability": probabilities[rows].numpy(),
        }
    )
    return Gallery(pixels(rows), table)


def samples_of(labels: Tensor, classes: tuple[str, ...], pixels: Callable[[Tensor], Tensor]) -> Gallery:
    """Return an image of each class, of at most twelve, for tasks that predict none."""
    rows = _first_of_each(labels)
    names = [classes[label] for label in labels[rows].tolist()]
    return _made(pixels(rows), "samples", names, image=[str(row) for row in rows.tolist()])


def views_of(original: Tensor, views: Tensor, names: Sequence[str]) -> Gallery:
    """Return images, each followed by its augmented views.

    original: float32 [N, C, H, W] in [0, 1]. views: [V, N, C, H, W]. names: of the classes.
    """
    every = torch.cat([original.unsqueeze(0), views]).transpose(0, 1)
    groups = [f"augmented {number}" for number, own in enumerate(every, 1) for _ in own]
    labels = [name for name, own in zip(names, every, strict=True) for _ in own]
    return _made(every.flatten(0, 1), groups, labels)


def kernels_of(network: nn.Module, size: Sequence[int]) -> Gallery | None:
    """Return the kernels of the first convolution, each on its own scale; None unless it sees one or three channels.

    size: of the images, height and width, to which they are enlarged. Kernels of a single pixel are no images.
    """
    layer = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    if layer is None or layer.weight.shape[1] not in (1, 3) or max(layer.kernel_size) == 1:
        return None
    weights = layer.weight.detach().float().cpu()[:KERNELS]
    low, high = (edge.view(-1, 1, 1, 1) for edge in (weights.flatten(1).amin(1), weights.flatten(1).amax(1)))
    images = functional.interpolate((weights - low) / (high - low).clamp_min(1e-12), tuple(size), mode="nearest")
    numbers = [str(number) for number in range(len(images))]
    return _made(images, "kernels", numbers, image=numbers)


def _first_of_each(labels: Tensor) -> Tensor:
    present = torch.bincount(labels).nonzero()[:SAMPLES, 0]
    return torch.stack([(labels == label).nonzero()[0, 0] for label in present])


def as_webp(image: "Image.Image", simple: int = SIMPLE) -> bytes:
    """Return a WebP file: exact if that takes at most as many bytes as `simple`, else compressed as a photograph."""
    exact = _encoded(image, "WebP", lossless=True, method=1, quality=50)  # that fast, and a few bytes larger
    return exact if len(exact) <= simple else _encoded(image, "WebP", quality=80)


def _encoded(image: "Image.Image", kind: str, **options: Any) -> bytes:
    content = BytesIO()
    image.save(content, format=kind, **options)
    return content.getvalue()


def _made(images: Tensor, groups: Sequence[str] | str, names: Sequence[str], **columns: Any) -> Gallery:
    """Return a gallery of images of these classes, of which nothing was predicted."""
    import pandas as pd

    table = {"group": groups, "image": "", "class": names, "prediction": "", "probability": float("nan")}
    return Gallery(images, pd.DataFrame(table | columns))
