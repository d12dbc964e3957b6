"""What is asked of a comparison: which is best, which learns first, which overfits, what validation was worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cnnbench.analysis.reports.comparison import Comparison, Row, told
from cnnbench.analysis.reports.learning import RISEN, first_at
from cnnbench.analysis.reports.page import Table
from cnnbench.analysis.reports.statistics import difference, estimate

NAMED = 4  # configurations in a sentence
ALMOST = 0.99  # of the worst best value: the last of it is a matter of chance


@dataclass(frozen=True)
class Learnt:
    """How a configuration learnt, as means over its seeds; NaN: not known.

    best, best_epoch, rise: as in Course. epochs, seconds: until nearly the level that every run came to.
    by_heart: what the metric is better on training images than on test images. val_to_test: test less validation.
    """

    row: Row
    best: float
    best_epoch: float
    rise: float
    epochs: float
    seconds: float
    by_heart: float
    val_to_test: float

    @property
    def overfits(self) -> bool:
        """Tell whether the loss of validation rose again."""
        return self.rise >= RISEN


@dataclass(frozen=True)
class Learning:
    """How all of them learnt. level: of the metric, on a split, to which every run came, nearly; NaN: there is none."""

    found: Sequence[Learnt]
    level: float
    split: str

    @property
    def where(self) -> str:
        """Return what the split is called."""
        return {"val": "validation", "train": "training"}[self.split]


def learnt(comparison: Comparison) -> Learning:
    """Return how each configuration learnt."""
    metric, higher = comparison.metric, comparison.higher
    courses = [row.group.courses(metric, higher) for row in comparison.rows]
    split = "val" if all(one.best_epoch for row in courses for one in row) else "train"
    column = f"{metric}/{split}"
    curves = [row.group.curves for row in comparison.rows]
    levels = [
        (rows[column].max() if higher else rows[column].min())
        for found in curves if column in found for _, rows in found.groupby("seed")
    ]  # fmt: skip
    level = (ALMOST * min(levels) if higher else max(levels) / ALMOST) if levels else math.nan
    found = []
    for row, of_seeds, rows in zip(comparison.rows, courses, curves, strict=True):
        firsts = [first_at(of_seed, column, level, higher) for _, of_seed in rows.groupby("seed")]
        epochs = estimate(firsts).mean
        pace = row.group.mean("seconds", "train") / row.group.mean("epochs")
        gap = row.group.gap(metric, "train", "test")
        found.append(
            Learnt(
                row,
                estimate([one.best for one in of_seeds]).mean,
                estimate([one.best_epoch or math.nan for one in of_seeds]).mean,
                estimate([one.rise if one.overfits else min(one.rise, 1.0) for one in of_seeds]).mean,
                epochs,
                epochs * pace,
                gap if higher else -gap,
                row.group.gap(metric, "test", "val"),
            )
        )
    return Learning(found, level, split)


def learning_table(comparison: Comparison, learning: Learning) -> Table:
    """Return a row a configuration: how it learnt."""
    found, level = learning.found, learning.level
    table = pd.DataFrame(
        {
            "configuration": [one.row.label for one in found],
            f"epochs to {level:.4f}": [one.epochs for one in found],
            "seconds": [one.seconds for one in found],
            "best on validation": [one.best for one in found],
            "in epoch": [one.best_epoch for one in found],
            "loss rises": [one.rise for one in found],
            "train": [one.row.group.estimate(comparison.metric, "train").mean for one in found],
            "by heart": [one.by_heart for one in found],
            "val → test": [one.val_to_test for one in found],
        }
    ).dropna(axis="columns", how="all")
    note = (
        f"{level:.4f} on {learning.where} is {ALMOST:.0%} of what every run came to. Loss rises: how many times its "
        "lowest value the loss of validation is at the end (1: it does not overfit). By heart: by how much "
        f"{comparison.metric} is better on training images than on test images. All are means over seeds."
    )
    decimals = {table.columns[1]: 1, "seconds": 1, "in epoch": 1, "loss rises": 2}
    return Table("How they learnt", table, note="" if math.isnan(level) else note, decimals=decimals)


def verdicts(comparison: Comparison, learning: Learning) -> list[str]:
    """Return the answers, a sentence or two each."""
    found, level, where = learning.found, learning.level, learning.where
    said = [_best(comparison)]
    if len(found) < 2:
        return said
    first = sorted((one for one in found if not math.isnan(one.epochs)), key=lambda one: one.epochs)
    if first:
        times = [f"{one.row.label} in epoch {one.epochs:.3g} ({one.seconds:.3g} s)" for one in first[:NAMED]]
        at = f"First to {level:.4f} on {where} ({ALMOST:.0%} of what every run came to)"
        said.append(f"{at}: {', then '.join(times)}{_more(first)}.")
    known = [one for one in found if not math.isnan(one.rise)]
    rising = sorted((one for one in known if one.overfits), key=lambda one: -one.rise)
    if rising:
        times = [f"{one.row.label} ({one.rise:.2f} times)" for one in rising[:NAMED]]
        rest = [one.row.label for one in known if not one.overfits]
        said.append(
            f"Overfit: the loss of validation ends above its lowest for {', '.join(times)}{_more(rising)}."
            + (f" Not so: {', '.join(rest[:NAMED])}{_more(rest)}." if rest else "")
        )
    elif known:
        said.append("Overfit: none; no loss of validation ends above its lowest by as much as a tenth.")
    by_heart = sorted((one for one in found if not math.isnan(one.by_heart)), key=lambda one: one.by_heart)
    if by_heart:
        least, most = by_heart[0], by_heart[-1]
        said.append(
            f"By heart: {comparison.metric} is better on training images than on test images by {least.by_heart:.4f} "
            f"({least.row.label}) to {most.by_heart:.4f} ({most.row.label})."
        )
    apart = [one for one in found if not math.isnan(one.val_to_test)]
    if apart:
        most = max(apart, key=lambda one: abs(one.val_to_test))
        said.append(f"Validation against test: {abs(most.val_to_test):.4f} apart at most ({most.row.label}).")
    return said


def _best(comparison: Comparison) -> str:
    sign = -1 if comparison.higher else 1
    ranked = sorted(
        (row for row in comparison.rows if not math.isnan(row.measured.mean)), key=lambda row: sign * row.measured.mean
    )
    if not ranked:
        return f"No run has {comparison.metric} of test images."
    best = ranked[0]
    half = "" if math.isnan(best.measured.half) else f" ± {best.measured.half:.4f}"
    seeds = "one seed" if best.measured.n == 1 else f"{best.measured.n} seeds"
    word = "Highest" if comparison.higher else "Lowest"
    said = f"{word} {comparison.metric} of test images: {best.label}, {best.measured.mean:.4f}{half} ({seeds})"
    if len(ranked) < 2:
        return f"{said}."
    second = ranked[1]
    gained = difference(best.group.values(comparison.metric), second.group.values(comparison.metric))
    return f"{said}. Against the next, {second.label}: {told(gained)}."


def effect_sentences(comparison: Comparison) -> list[str]:
    """Return what each setting changes, where that can be told from more than one pair of configurations."""
    return [
        f"{effect.key} from {effect.before} to {effect.after}: {told(effect.gained, 'pairs')}"
        f" (in {effect.settings} settings of the others)"
        for effect in comparison.effects()
        if effect.settings > 1
    ]


def _more(all_of_them: Sequence[object]) -> str:
    return f" and {len(all_of_them) - NAMED} more" if len(all_of_them) > NAMED else ""
