"""What an evaluation wrote into its folder, as sections of a page: charts, tables, images."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath

import pandas as pd
from matplotlib.figure import Figure

from cnnbench.analysis.reports.page import Drawing, Gallery, Picture, Section, Table, Thumbnail
from cnnbench.errors import grouped
from cnnbench.store.tables import read_own_csv
from cnnbench.tasks.charts import WIDTH, svg
from cnnbench.tasks.classifier_figures import class_dots, confusion_matrix, reliability_diagram, threshold_curves
from cnnbench.tasks.gallery import Tile

DRAWN = ("classes", "confusion", "calibration", "thresholds", "mistakes", "doubts")  # figures that a page draws itself
CAPTION = "Under each image: its class, the prediction where it is another, its probability, its file or its index."
EXPLAINED = 8  # mistakes
FEW_CLASSES = 10  # of which guessing has the right one among five at least every other time
GALLERIES = {"mistakes": "Most confident mistakes", "doubts": "Least confident correct predictions"}


def metrics_of(folder: Path) -> dict[str, float]:
    """Return the metrics that an evaluation wrote; those that are not numbers are left out."""
    values = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def intervals(folder: Path, is_small: bool, hidden: list[str]) -> Table | None:
    """Return the 95 % intervals of the metrics but those that are hidden. is_small: as `Table` has it."""
    if not (folder / "metrics.csv").is_file():
        return None
    table = read_own_csv(folder / "metrics.csv", "metric").dropna()
    table = table[~table["metric"].isin(hidden)]
    note = "Over images: Wilson's of shares, Student's of means; other seeds are not covered."
    return Table("95 % intervals", table.rename(columns={"low": "from", "high": "to"}), note=note, is_small=is_small)


def evaluation(folder: Path, split: str, tiles: list[Tile], titles: Mapping[str, str]) -> Iterator[Section]:
    """Yield the sections of a folder that an evaluation wrote. split: that was measured.

    titles: of figures that are not drawn here, by name.
    """
    classes = _read(folder / "classes.csv", "class")
    if classes is not None:
        yield from _chart("Classes, the worst first", lambda: class_dots(classes), "Recall and precision by class")
    confusion = _read(folder / "confusion.csv", "class")
    if confusion is not None:
        counts = confusion.set_index("class")
        counts.columns = counts.index  # as it is: names that occur twice were numbered when they were read
        note = "Coloured are the mistakes, by their share of the images of a class."
        yield from _chart("Confusion matrix", lambda: confusion_matrix(counts), "Predictions by class", note)
    calibration = _read(folder / "calibration.csv")
    if calibration is not None:
        yield from _chart(
            "Calibration", lambda: reliability_diagram(calibration), "Accuracy by predicted probability",
            "A calibrated classifier is on the dashed line. Below: how many predictions have that probability.",
        )  # fmt: skip
    pairs = list(_pairs(tiles, confusion))
    if pairs:
        yield Gallery("Most confused pairs", pairs)
    for name, title in GALLERIES.items():
        shown = [thumbnail(tile) for tile in tiles if tile.group == name]
        if shown:
            yield Gallery(title, [("", shown)], CAPTION + (_explained(tiles, split) if name == "mistakes" else ""))
    roc, precision_recall = _read(folder / "roc.csv"), _read(folder / "precision_recall.csv")
    if roc is not None and precision_recall is not None and classes is not None:
        areas = metrics_of(folder)
        yield from _chart(
            "Thresholds, of the second class",
            lambda: threshold_curves(roc, precision_recall, areas, classes["images"]), "ROC and precision-recall curve",
        )  # fmt: skip
    if classes is not None:
        yield class_table(classes)
    drawn = () if classes is None else DRAWN
    names = list(titles)
    others = [path for path in folder.glob("*.png") if path.stem not in (*drawn, "gallery")]
    for path in sorted(others, key=lambda path: (path.stem not in names, path)):
        yield Picture(titles.get(path.stem, path.stem), path.read_bytes())


def trained(tiles: list[Tile]) -> Iterator[Section]:
    """Yield what a training left: augmented images, and the kernels of the first layer."""
    groups = dict.fromkeys(tile.group for tile in tiles if tile.group.startswith("augmented "))
    rows = [[thumbnail(tile) for tile in tiles if tile.group == group] for group in groups]
    if rows:
        note = "The first of each row as it is in the data, then as in the first epochs."
        yield Gallery("Augmented training images", [(row[0].lines[0], row) for row in rows], note)
    kernels = [thumbnail(tile) for tile in tiles if tile.group == "kernels"]
    if kernels:
        yield Gallery("Kernels of the first convolution", [("", kernels)], "Each on a scale of its own.")


def class_table(classes: pd.DataFrame) -> Table:
    """Return what was measured of each class, by the names that readers know."""
    worst = classes.sort_values(["top1", "class"])
    between = [f"{low:.3f} to {high:.3f}" for low, high in zip(worst["top1_low"], worst["top1_high"], strict=True)]
    columns = {
        "class": worst["class"], "images": worst["images"], "recall": worst["top1"], "95 % interval": between,
        "precision": worst["precision"], "F1": worst["f1"], "top-5 recall": worst["top5"], "loss": worst["loss"],
    }  # fmt: skip
    table = pd.DataFrame(columns)
    if len(table) <= FEW_CLASSES:
        table = table.drop(columns="top-5 recall")
    return Table("Classes in numbers", table, note="Recall is the accuracy on the images of a class.", is_folded=True)


def thumbnail(tile: Tile) -> Thumbnail:
    """Return an image of a gallery with its class, its prediction, and its name."""
    lines = [tile.label]
    if tile.prediction:
        mistaken = f"→ {tile.prediction} " if tile.label != tile.prediction else ""
        probability = f"{tile.probability:.2f}" if tile.probability < 0.995 else ">0.99"
        lines += [f"{mistaken}{probability}", PurePath(tile.image).name]
    return Thumbnail(tile.content, tile.suffix, lines)


def _explained(tiles: list[Tile], split: str) -> str:
    """Return how to see where the network looks in the worst mistakes, if they are known by their index."""
    indices = [tile.image for tile in tiles if tile.group == "mistakes"][:EXPLAINED]
    if not all(index.isdecimal() for index in indices):
        return ""
    return f" Where it looks: cnnbench explain RUN --what gradcam --split {split} --index {','.join(indices)}"


def _pairs(tiles: list[Tile], confusion: pd.DataFrame | None) -> Iterator[tuple[str, list[Thumbnail]]]:
    for group in dict.fromkeys(tile.group for tile in tiles if tile.group.startswith("pair ")):
        own = [tile for tile in tiles if tile.group == group]
        mistaken = [tile for tile in own if tile.label != tile.prediction]
        if not mistaken or confusion is None:
            continue
        label, other, names = mistaken[0].label, mistaken[0].prediction, list(confusion["class"])
        counts = confusion.drop(columns="class").to_numpy()[names.index(label)]
        number, total = int(counts[names.index(other)]), int(counts.sum())
        lead = f"{label} taken for {other}: {number} of {grouped(total)} images; then {other} as it should be"
        yield lead, [thumbnail(tile) for tile in own]


def _chart(title: str, draw: Callable[[], Figure], alt: str, note: str = "") -> Iterator[Drawing]:
    figure = draw()
    yield Drawing(title, svg(figure), note, alt, is_small=figure.get_size_inches()[0] <= WIDTH)


def _read(path: Path, *text: str) -> pd.DataFrame | None:
    return read_own_csv(path, *text) if path.is_file() else None
