"""Images that a page shows one by one: samples, mistakes, confused pairs; as one file of tiles and a table."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from cnnbench.store.files import write_atomically
from cnnbench.store.tables import csv_of_frame, read_own_csv
from cnnbench.tasks.classifier_figures import confused_pairs

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from cnnbench.tasks.evaluation import Predictions

COLUMNS = 16  # tiles in a row of the file
LARGEST = 112  # pixels of a tile's side
PHOTOGRAPH = 64  # pixels: larger tiles are compressed as photographs
SAMPLES = 12  # one of each class
PAIRS, OF_PAIR = 6, 4  # confused pairs, images of each that are mistaken, and of the class that they are taken for
TEXTS = ("group", "image", "class", "prediction")


@dataclass(frozen=True)
class Gallery:
    """Images, and what they are.

    images: float32 [N, C, H, W] in [0, 1]. table: a row for each: group (samples, mistakes, doubts, or a pair of
    classes as `pair 1`), image (its file or its row in the split), class, prediction, probability.
    """

    images: Tensor
    table: "pd.DataFrame"

    def write(self, folder: Path) -> None:
        """Write `gallery.csv`, and the tiles in rows of 16 as `gallery.png`, of photographs `gallery.jpg`."""
        import numpy as np
        from PIL import Image
        from torchvision.utils import make_grid

        images = self.images.cpu()
        if max(images.shape[2:]) > LARGEST:
            side = tuple(max(1, round(LARGEST * side / max(images.shape[2:]))) for side in images.shape[2:])
            images = functional.interpolate(images, side, mode="area")
        sheet = make_grid(images.clamp(0, 1), nrow=COLUMNS, padding=0).permute(1, 2, 0)
        pixels = Image.fromarray((sheet.numpy() * 255).round().astype(np.uint8))
        suffix = "jpg" if max(images.shape[2:]) > PHOTOGRAPH else "png"
        write_atomically(folder / f"gallery.{suffix}", _encoded(pixels, suffix))
        write_atomically(folder / "gallery.csv", csv_of_frame(self.table))


@dataclass(frozen=True)
class Tile:
    """An image of a gallery that was read: a row of its table, and a file of its own, in a format by its suffix."""

    group: str
    image: str
    label: str
    prediction: str
    probability: float
    content: bytes
    suffix: str


def read_gallery(folder: Path) -> list[Tile]:
    """Return the tiles of a folder's gallery; none where there is none, or where table and images do not fit."""
    from PIL import Image

    path = next((path for suffix in ("png", "jpg") if (path := folder / f"gallery.{suffix}").is_file()), None)
    if path is None or not (folder / "gallery.csv").is_file():
        return []
    table = read_own_csv(folder / "gallery.csv", *TEXTS).fillna(dict.fromkeys(TEXTS, ""))
    suffix, columns = path.suffix[1:], min(COLUMNS, len(table))
    with Image.open(path) as sheet:
        width, height = sheet.width // columns, sheet.height // -(-len(table) // columns)
        tiles = []
        for place, row in enumerate(table.itertuples(index=False)):
            left, top = place % columns * width, place // columns * height
            content = _encoded(sheet.crop((left, top, left + width, top + height)), suffix)
            group, image, label, prediction, probability = row
            tiles.append(Tile(group, image, label, prediction, float(probability), content, suffix))
    return tiles


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
    import pandas as pd

    rows = _first_of_each(labels)
    names = [classes[label] for label in labels[rows].tolist()]
    columns = {"group": "samples", "image": [str(row) for row in rows.tolist()], "class": names, "prediction": ""}
    return Gallery(pixels(rows), pd.DataFrame(columns | {"probability": float("nan")}))


def _first_of_each(labels: Tensor) -> Tensor:
    present = torch.bincount(labels).nonzero()[:SAMPLES, 0]
    return torch.stack([(labels == label).nonzero()[0, 0] for label in present])


def _encoded(image: "Image.Image", suffix: str) -> bytes:
    content = BytesIO()
    if suffix == "jpg":
        image.save(content, format="JPEG", quality=88)
    else:
        image.save(content, format="PNG")
    return content.getvalue()
