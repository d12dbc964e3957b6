"""The page of runs side by side: which is best, which learns first, which overfits, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from cnnbench.analysis.reports.comparison import Comparison, Row
from cnnbench.analysis.reports.curves import metric_curves
from cnnbench.analysis.reports.learning import LOSS, RISEN, first_epoch_at
from cnnbench.analysis.reports.page import Differences, Drawing, Lines, Page, Section, Table
from cnnbench.analysis.reports.statistics import estimate, paired_difference

NAMED = 4  # configurations in a sentence
ALMOST = 0.99  # of the worst best value: the last of it is a matter of chance
MOST_CURVES = 12
MOST_COMPARED = 60  # configurations whose settings are put into the page
HOW_TO_READ = "Δ: difference to the baseline, paired by seed; ±95%: by Student's t, over seeds."


@dataclass(frozen=True)
class RowLearning:
    """How one configuration learnt, as means over its seeds; NaN if unknown.

    best, best_epoch, rise: as in `Course`. epochs, seconds: until `Learning.level`. train_test_gap: how much better the
    metric is on training images than on test images. val_to_test: metric on test minus that on validation.
    """

    row: Row
    best: float
    best_epoch: float
    rise: float
    epochs: float
    seconds: float
    train_test_gap: float
    val_to_test: float

    @property
    def overfits(self) -> bool:
        """Tell whether the validation loss rose again."""
        return self.rise >= RISEN


@dataclass(frozen=True)
class Learning:
    """How all configurations learnt. level: of the metric on a split, nearly reached by every run; NaN if unknown."""

    rows: Sequence[RowLearning]
    level: float
    split: str


def learning_of(comparison: Comparison) -> Learning:
    """Return how each configuration learnt."""
    metric = comparison.metric
    higher, groups = metric.higher_is_better, [row.group for row in comparison.rows]
    courses = [group.courses(metric) for group in groups]
    split = "validation" if all(one.best_epoch for of_seeds in courses for one in of_seeds) else "training"
    column = f"{metric.name}/{'val' if split == 'validation' else 'train'}"
    reached = [
        (rows[column].max() if higher else rows[column].min())
        for group in groups if column in group.epochs for _, rows in group.epochs.groupby("seed")
    ]  # fmt: skip
    level = (ALMOST * min(reached) if higher else max(reached) / ALMOST) if reached else math.nan
    rows = []
    for row, group, of_seeds in zip(comparison.rows, groups, courses, strict=True):
        by_seed = group.epochs.groupby("seed")
        epochs = estimate([first_epoch_at(one, column, level, higher) for _, one in by_seed]).mean
        pace = group.estimate("seconds", "train").mean / group.estimate("epochs").mean
        train, val, test = (group.estimate(split, metric.name).mean for split in ("train", "val", "test"))
        rows.append(
            RowLearning(
                row,
                best=estimate([one.best for one in of_seeds]).mean,
                best_epoch=estimate([one.best_epoch or math.nan for one in of_seeds]).mean,
                rise=estimate([one.rise if one.overfits else min(one.rise, 1.0) for one in of_seeds]).mean,
                epochs=epochs,
                seconds=epochs * pace,
                train_test_gap=metric.sign * (train - test),
                val_to_test=test - val,
            )
        )
    return Learning(rows, level, split)


def page_of(comparison: Comparison, what: str) -> Page:
    """Return the page of a comparison, the answers first. what: was compared, as the user typed it."""
    table, best, learning = comparison.table(), comparison.best(), learning_of(comparison)
    effects, references = effect_sentences(comparison), comparison.references()
    rows, metric = comparison.rows, comparison.metric
    sections: list[Section] = [
        Lines("Answers", answers(comparison, learning), leads=True),
        Table("Configurations", table, rows.index(best), HOW_TO_READ, is_brief=True),
    ]
    if len(rows) > 1:
        title = f"Compared with the baseline, {comparison.baseline.label}"
        sections.append(Lines(title, comparison.remarks(), leads=True))
    if effects:
        sections.append(Lines("The effect of each setting, the others being the same", effects, leads=True))
    drawn = _drawn(comparison)
    more = f"; the best {len(drawn)} of {len(rows)}" if len(drawn) < len(rows) else ""
    for one in dict.fromkeys((metric, LOSS)):
        drawing = metric_curves([(row.label, row.group.epochs) for row in drawn], one)
        if drawing is not None:
            sections.append(Drawing(f"{one.name} by epoch{more}", drawing))
    sections.append(learning_table(comparison, learning))
    if len(references):
        sections.append(Table("Published results", references))
    if 1 < len(rows) <= MOST_COMPARED:
        place = rows.index(comparison.baseline)
        other = rows.index(best) if best is not comparison.baseline else int(place == 0)
        labels = [row.label for row in rows]
        sections.append(Differences("Settings in which two differ", labels, comparison.settings(), (place, other)))
    if comparison.skipped:
        sections.append(Lines("Skipped", comparison.skipped))
    num_runs = sum(len(row.group.runs) for row in rows)
    summary = f"{len(rows)} configurations, {num_runs} runs; {metric.name} on the test images."
    return Page(what, summary, sections, table)


def _drawn(comparison: Comparison) -> list[Row]:
    """Return the baseline and the best others, in the order of the table."""
    ranked = [comparison.baseline, *comparison.ranked(), *comparison.rows]
    chosen = list({id(row): row for row in ranked})[:MOST_CURVES]
    return [row for row in comparison.rows if id(row) in chosen]


def learning_table(comparison: Comparison, learning: Learning) -> Table:
    """Return a row for each configuration: how it learnt."""
    rows, level, name = learning.rows, learning.level, comparison.metric.name
    table = pd.DataFrame(
        {
            "configuration": [one.row.label for one in rows],
            f"epochs to {level:.4f}": [one.epochs for one in rows],
            "seconds": [one.seconds for one in rows],
            "best on validation": [one.best for one in rows],
            "in epoch": [one.best_epoch for one in rows],
            "loss rises": [one.rise for one in rows],
            "train": [one.row.group.estimate("train", name).mean for one in rows],
            "train-test gap": [one.train_test_gap for one in rows],
            "val → test": [one.val_to_test for one in rows],
        }
    ).dropna(axis="columns", how="all")
    note = (
        f"{level:.4f} on {learning.split} is {ALMOST:.0%} of the level that every run reached. Loss rises: the "
        "validation loss at the end, relative to its lowest value (1: no overfitting). Train-test gap: how much better "
        f"{name} is on training images than on test images. All are means over seeds."
    )
    decimals = {table.columns[1]: 1, "seconds": 1, "in epoch": 1, "loss rises": 2}
    return Table("Learning", table, note="" if math.isnan(level) else note, decimals=decimals)


def answers(comparison: Comparison, learning: Learning) -> list[str]:
    """Return what the comparison says, in a sentence or two for each question."""
    lines, metric, rows = [_best(comparison)], comparison.metric.name, learning.rows
    if len(rows) < 2:
        return lines
    first = sorted((one for one in rows if not math.isnan(one.epochs)), key=lambda one: one.epochs)
    if first:
        times = [f"{one.row.label} in epoch {one.epochs:.3g} ({one.seconds:.3g} s)" for one in first[:NAMED]]
        level = f"{learning.level:.4f} on {learning.split} ({ALMOST:.0%} of the level that every run reached)"
        lines.append(f"First to {level}: {', then '.join(times)}{_more(first)}.")
    rising = sorted((one for one in rows if one.overfits), key=lambda one: -one.rise)
    falling = [one for one in rows if not math.isnan(one.rise) and not one.overfits]
    if rising:
        times = [f"{one.row.label} ({one.rise:.2f} times)" for one in rising[:NAMED]]
        lines.append(
            f"Overfitting: the validation loss ends above its lowest for {', '.join(times)}{_more(rising)}."
            + (f" Not for: {', '.join(one.row.label for one in falling[:NAMED])}{_more(falling)}." if falling else "")
        )
    elif falling:
        lines.append("Overfitting: none; no validation loss ends more than a tenth above its lowest.")
    gaps = sorted((one for one in rows if not math.isnan(one.train_test_gap)), key=lambda one: one.train_test_gap)
    if gaps:
        least, most = gaps[0], gaps[-1]
        lines.append(
            f"Train-test gap: {metric} is better on training images than on test images by "
            f"{least.train_test_gap:.4f} ({least.row.label}) to {most.train_test_gap:.4f} ({most.row.label})."
        )
    apart = [one for one in rows if not math.isnan(one.val_to_test)]
    if apart:
        most = max(apart, key=lambda one: abs(one.val_to_test))
        lines.append(f"Validation against test: {abs(most.val_to_test):.4f} apart at most ({most.row.label}).")
    return lines


def _best(comparison: Comparison) -> str:
    metric, ranked = comparison.metric, comparison.ranked()
    if not ranked:
        return f"No run has {metric.name} on the test images."
    best = ranked[0]
    half = "" if math.isnan(best.measured.half) else f" ± {best.measured.half:.4f}"
    seeds = "one seed" if best.measured.n == 1 else f"{best.measured.n} seeds"
    word = "Highest" if metric.higher_is_better else "Lowest"
    line = f"{word} test {metric.name}: {best.label}, {best.measured.mean:.4f}{half} ({seeds})"
    if len(ranked) < 2:
        return f"{line}."
    pair = best.group.by_seed("test", metric.name), ranked[1].group.by_seed("test", metric.name)
    return f"{line}. Compared with the next, {ranked[1].label}: {paired_difference([pair]).sentence()}."


def effect_sentences(comparison: Comparison) -> list[str]:
    """Return the effect of each setting, if more than one pair of configurations shows it."""
    return [
        f"{effect.key} from {effect.before} to {effect.after}: {effect.difference.sentence('pairs')}"
        f" (in {effect.num_pairs} combinations of the other settings)"
        for effect in comparison.effects()
        if effect.num_pairs > 1
    ]


def _more(rows: Sequence[object]) -> str:
    return f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
