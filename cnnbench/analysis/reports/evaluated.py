"""What an evaluation wrote into its folder, as sections of a page: charts, tables, images."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from cnnbench.analysis.reports.page import Gallery, Page, Picture, Section, Table, Thumbnail
from cnnbench.analysis.reports.sections import Axis, Curve, Grid, Panel, Plot, Strip, Strips, area, dots, line, ranges
from cnnbench.errors import grouped
from cnnbench.store.tables import read_own_csv
from cnnbench.tasks.classifier_figures import MAX_DRAWN, mistakes_of
from cnnbench.tasks.gallery import Tile, as_webp, read_gallery
from cnnbench.tasks.intervals import wilson

DRAWN = ("classes", "confusion", "calibration", "thresholds", "mistakes", "doubts")  # older runs have all these files
CAPTION = "Under each image: its class, its prediction if it is another, its probability, file and #index in the split."
EXPLAINED = 8  # mistakes
FEW_CLASSES = 10  # of which guessing has the right one among five at least every other time
NARROW = 12  # classes of a confusion matrix that takes half of the page
POINTS = 300  # of a curve
SMALL_PICTURE = 850  # pixels wide
CHART = 100_000  # bytes of a figure that is exact to the pixel
GALLERIES = {"mistakes": "Most confident mistakes", "doubts": "Least confident correct predictions"}


def metrics_of(folder: Path) -> dict[str, float]:
    """Return the metrics that an evaluation wrote; those that are not numbers are left out."""
    values = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def page_of(folder: Path, split: str, title: str) -> Page:
    """Return the page of an evaluation that was written into a folder. split: that was measured."""
    metrics = Table("Metrics", pd.DataFrame([metrics_of(folder)]))
    return Page(title, f"Measured on {folder.name}.", [metrics, *evaluation(folder, split, read_gallery(folder), {})])


def evaluation(folder: Path, split: str, tiles: list[Tile], titles: Mapping[str, str]) -> Iterator[Section]:
    """Yield the sections of a folder that an evaluation wrote. split: that was measured.

    titles: of figures that are not drawn here, by name.
    """
    tiles = list(_numbered(folder, tiles))
    classes = _read(folder / "classes.csv", "class")
    if classes is not None:
        yield class_strips(classes)
    confusion = _read(folder / "confusion.csv", "class")
    if confusion is not None:
        counts = confusion.set_index("class")
        counts.columns = counts.index  # as it is: names that occur twice were numbered when they were read
        yield confusions(counts)
    for within, title in (("", "Calibration"), ("calibrated", "Calibration with a temperature")):
        if (calibration := _read(folder / within / "calibration.csv")) is not None:
            yield reliability(calibration, title)
    if pairs := list(_pairs(tiles, confusion)):
        yield Gallery("Most confused pairs", pairs)
    for name, title in GALLERIES.items():
        if shown := [tile for tile in tiles if tile.group == name]:
            note = CAPTION + (_explained(shown, split) if name == "mistakes" else "")
            yield Gallery(title, [("", list(map(thumbnail, shown)))], note)
    roc, precision_recall = _read(folder / "roc.csv"), _read(folder / "precision_recall.csv")
    if roc is not None and precision_recall is not None and classes is not None:
        yield thresholds(roc, precision_recall, metrics_of(folder), classes["images"])
    if classes is not None:
        yield class_table(classes)
    drawn = () if classes is None else DRAWN
    names = list(titles)
    others = [path for path in folder.glob("*.png") if path.stem not in (*drawn, "gallery")]
    for path in sorted(others, key=lambda path: (path.stem not in names, path)):
        yield from picture(titles.get(path.stem, path.stem), path)


def picture(title: str, path: Path) -> Iterator[Picture]:
    """Yield a figure in a file, in a smaller one; nothing where it is damaged."""
    from PIL import Image

    with suppress(OSError), Image.open(path) as image:
        is_chart = path.stem.startswith("tsne")
        yield Picture(title, as_webp(image.convert("RGB"), CHART), image.width <= SMALL_PICTURE, is_chart)


def trained(tiles: list[Tile]) -> Iterator[Section]:
    """Yield what a training left: augmented images, and the kernels of the first layer."""
    if kernels := [thumbnail(tile) for tile in tiles if tile.group == "kernels"]:
        yield Gallery("Kernels of the first convolution", [("", kernels)], "Each on a scale of its own.", is_small=True)
    groups = dict.fromkeys(tile.group for tile in tiles if tile.group.startswith("augmented "))
    if rows := [[thumbnail(tile) for tile in tiles if tile.group == group] for group in groups]:
        note = "The first of each row as it is in the data, then as in the first epochs."
        yield Gallery("Augmented training images", [(row[0].lines[0], row) for row in rows], note)


def class_strips(classes: pd.DataFrame) -> Strips:
    """Return recall with its interval, and precision, of each class, the worst first; of many the worst 25."""
    worst = classes.sort_values(["top1", "class"])[:MAX_DRAWN]
    known = pd.concat([worst["top1"], worst["top1_low"], worst["precision"]]).dropna()
    lowest = float(known.min()) if len(known) else 0.0
    rows = [
        Strip(
            name, "no image" if not images else f"{recall:.3f} [{low:.3f}, {high:.3f}], precision {_share(precision)}",
            [(precision, f"precision {precision:.4f}", None)] if math.isfinite(precision) else [], recall, (low, high),
        )
        for name, images, recall, low, high, precision in worst[
            ["class", "images", "top1", "top1_low", "top1_high", "precision"]
        ].itertuples(index=False)
    ]  # fmt: skip
    some = f"The worst {len(worst)} of {len(classes)} classes. " if len(worst) < len(classes) else ""
    note = (
        f"{some}Diamonds and bands: recall with its 95 % interval; circles: precision. Where bands overlap, the order "
        "may be chance."
    )
    room = 1.0 - lowest
    axis = Axis("recall and precision", max(0.0, lowest - 0.06 * room - 0.002), 1.0005 + 0.02 * room, most=4)
    heads = "class", "recall [95 %], precision"
    return Strips("Classes, the worst first", heads, rows, axis, note=note, is_small=True)


def confusions(counts: pd.DataFrame) -> Grid:
    """Return the confusion matrix, whose shades are the mistakes as shares of a class; of many the most confused."""
    names, values, shares, caption = mistakes_of(counts)
    shades = np.where(np.eye(len(names), dtype=bool), -1.0, 0.1 + 0.9 * shares / (shares.max(initial=0.0) or 1.0))
    cells = [
        [(round(float(shade), 2), str(number), "") if number else None for shade, number in zip(*both, strict=True)]
        for both in zip(shades, values, strict=True)
    ]
    note = f"A row is a class, a column a prediction; the colour is the share of mistakes: {caption}."
    rows = list(zip(names, cells, strict=True))
    return Grid("Confusion matrix", "", names, rows, note, "mistakes", len(names) <= NARROW)


def reliability(table: pd.DataFrame, title: str = "Calibration") -> Plot:
    """Return the accuracy of predictions by their probability, with 95 % intervals, and how many there are of each."""
    accuracy, images, at = (table[name].to_list() for name in ("accuracy", "images", "probability"))
    x, y = Axis("probability of the prediction", -0.02, 1.02), Axis("accuracy", -0.03, 1.03)
    bands = [(p, *wilson(round(share * total), total)) for p, share, total in zip(at, accuracy, images, strict=True)]
    curves = [
        Curve("faint dashed", line(x, y, [(0, 0), (1, 1)])), Curve("s1 interval", ranges(x, y, bands)),
        Curve("s1 dots", dots(x, y, zip(at, accuracy, strict=True)), "accuracy"),
    ]  # fmt: skip
    counted = Axis("images", 0.7, 10.0 ** math.ceil(math.log10(max(images, default=1) + 1)), is_log=True, most=3)
    edges = zip(table["from"], table["to"], images, strict=True)
    bars = "".join(area(x, counted, [(low, 0.7, number), (high, 0.7, number)]) for low, high, number in edges)
    error = float(np.average(np.abs(table["probability"] - table["accuracy"]), weights=images))
    panels = [
        Panel(replace(x, name=""), y, curves, words=[(3, 88, "too cautious"), (97, 6, "overconfident")]),
        Panel(x, counted, [Curve("s1 bars", bars)], look="low"),
    ]  # fmt: skip
    note = f"Expected calibration error {error:.4f}. A calibrated classifier is on the dashed line; bands: 95 %."
    return Plot(title, panels, note=note)


def thresholds(roc: pd.DataFrame, found: pd.DataFrame, areas: Mapping[str, float], images: "pd.Series[int]") -> Plot:
    """Return the ROC and the precision-recall curve. roc, found, areas: as `TwoClasses` has them."""
    share = float(images.iloc[1] / images.sum())

    def panel(table: pd.DataFrame, across: str, up: str, chance: tuple[float, float], title: str) -> Panel:
        x, y = (Axis(name.replace("_", " "), -0.02, 1.02) for name in (across, up))
        some = table.iloc[:: max(1, len(table) // POINTS)]
        points = list(zip(some[across], some[up], strict=True))
        if up == "precision":  # which is not to be interpolated
            points = [
                corner for (before, _), (at, value) in pairwise(points) for corner in ((before, value), (at, value))
            ]
        drawn = Curve("s1", line(x, y, points), y.name)
        return Panel(x, y, [Curve("faint dashed", line(x, y, zip((0, 1), chance, strict=True))), drawn], title)

    left = panel(roc, "false_positive_rate", "true_positive_rate", (0, 1), f"ROC, area {areas['roc_auc']:.4f}")
    average = f"Average precision {areas['average_precision']:.4f}"
    panels = [left, panel(found, "recall", "precision", (share, share), average)]
    return Plot("Thresholds, of the second class", panels, note="Dashed: chance.", columns=2, is_small=False)


def class_table(classes: pd.DataFrame) -> Table:
    """Return what was measured of each class, by the names that readers know."""
    names = {
        "class": "class", "images": "images", "top1": "recall", "top1_low": "95 % from", "top1_high": "to",
        "precision": "precision", "f1": "F1", "top5": "top-5 recall", "loss": "loss",
    }  # fmt: skip
    few = ["top5"] if len(classes) <= FEW_CLASSES else []
    table = classes.sort_values(["top1", "class"])[list(names)].drop(columns=few).rename(columns=names)
    return Table("Classes in numbers", table, note="Recall is the accuracy on the images of a class.", is_folded=True)


def thumbnail(tile: Tile) -> Thumbnail:
    """Return an image of a gallery with its class, its prediction, and what it is known by."""
    if not tile.prediction:
        return Thumbnail(tile.content, [tile.label])
    mistaken = [f"→ {tile.prediction}"] * (tile.label != tile.prediction)
    probability = f"{tile.probability:.2f}" if tile.probability < 0.995 else ">0.99"
    return Thumbnail(tile.content, [tile.label, *mistaken, probability, *tile.image.splitlines()])


def _share(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "never predicted"


def _numbered(folder: Path, tiles: Sequence[Tile]) -> Iterator[Tile]:
    """Yield tiles that are known by folder and file, and on a line of its own by # and their row in the split."""
    is_by_row = all(tile.image.isdecimal() for tile in tiles)
    table = None if is_by_row else _read(folder / "predictions.csv", "file")
    rows = {} if table is None else dict(zip(table["file"], table["index"], strict=True))
    for tile in tiles:
        file = "/".join(PurePath(tile.image).parts[-2:])
        row = f"\n#{rows[tile.image]}" if tile.image in rows else ""
        yield replace(tile, image=f"#{tile.image}" if is_by_row else file + row)


def _explained(mistakes: Sequence[Tile], split: str) -> str:
    """Return how to see where the network looks in the worst mistakes."""
    rows = ",".join(tile.image.rpartition("#")[2] for tile in mistakes[:EXPLAINED])
    return f" Grad-CAM for these: `cnnbench explain RUN --what gradcam --split {split} --index {rows}`"


def _pairs(tiles: list[Tile], confusion: pd.DataFrame | None) -> Iterator[tuple[str, list[Thumbnail]]]:
    for group in dict.fromkeys(tile.group for tile in tiles if tile.group.startswith("pair ")):
        own = [tile for tile in tiles if tile.group == group]
        mistaken = [tile for tile in own if tile.label != tile.prediction]
        if not mistaken or confusion is None:
            continue
        label, other, names = mistaken[0].label, mistaken[0].prediction, list(confusion["class"])
        counts = confusion.drop(columns="class").to_numpy()[names.index(label)]
        number, total = int(counts[names.index(other)]), int(counts.sum())
        lead = f"{label} taken for {other}: {number} of {grouped(total)} images; for comparison, {other} recognized"
        shown = [thumbnail(replace(tile, label=tile.prediction)) for tile in own]
        yield lead, [replace(one, lines=one.lines[1:]) for one in shown]


def _read(path: Path, *text: str) -> pd.DataFrame | None:
    return read_own_csv(path, *text) if path.is_file() else None
