"""The page of runs side by side: which is best, which learns fastest, which overfits, and how certain that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnnbench.analysis.reports.columns import BASELINE, short_names
from cnnbench.analysis.reports.comparison import Comparison, Row
from cnnbench.analysis.reports.curves import metric_curves
from cnnbench.analysis.reports.learning import LOSS, RISEN, first_epoch_at
from cnnbench.analysis.reports.page import Differences, Drawing, Lines, Page, Section, Table
from cnnbench.analysis.reports.statistics import estimate, paired_difference

NAMED = 4  # configurations in a sentence
ALMOST = 0.99  # of the worst best value: the last percent is a matter of chance
MAX_CURVES = 12
MAX_COMPARED = 60  # configurations whose settings are put into the page
HOW_TO_READ = "Δ: difference to the baseline, paired by seed; ±95%: by Student's t, over seeds."


@dataclass(frozen=True)
class Learning:
    """How configurations learnt: a row for each, with means over its seeds; NaN if unknown.

    Columns: best, best_epoch, rise as in `Course`; epochs, seconds until the metric reached `level` on `split`; gap: by
    how much it is better on training images than on test images; val_to_test: on test minus on validation.
    level: nearly reached by every run; NaN if unknown.
    """

    rows: pd.DataFrame
    level: float
    split: str

    def known(self, column: str, ascending: bool = True) -> list[Any]:
        """Return the rows in which a column is known, in the order of its values."""
        rows = self.rows.dropna(subset=[column]).sort_values(column, ascending=ascending, kind="stable")
        return list(rows.itertuples())


def learning_of(comparison: Comparison) -> Learning:
    """Return how each configuration learnt."""
    metric, higher = comparison.metric, comparison.metric.higher_is_better
    groups = [row.group for row in comparison.rows]
    courses = [group.courses(metric) for group in groups]
    split = "validation" if all(one.best_epoch for of_seeds in courses for one in of_seeds) else "training"
    column = f"{metric.name}/{'val' if split == 'validation' else 'train'}"
    reached = [
        (rows[column].max() if higher else rows[column].min())
        for group in groups if column in group.epochs for _, rows in group.epochs.groupby("seed")
    ]  # fmt: skip
    level = (ALMOST * min(reached) if higher else max(reached) / ALMOST) if reached else math.nan
    records = []
    for row, group, of_seeds in zip(comparison.rows, groups, courses, strict=True):
        by_seed = group.epochs.groupby("seed")
        epochs = estimate([first_epoch_at(rows, column, level, higher) for _, rows in by_seed]).mean
        pace = group.estimate("seconds", "train").mean / group.estimate("epochs").mean
        train, val, test = (group.estimate(part, metric.name).mean for part in ("train", "val", "test"))
        records.append(
            {
                "configuration": row.label,
                "epochs": epochs,
                "seconds": epochs * pace,
                "best": estimate([one.best for one in of_seeds]).mean,
                "best_epoch": estimate([one.best_epoch or math.nan for one in of_seeds]).mean,
                "rise": estimate([one.rise if one.overfits else min(one.rise, 1.0) for one in of_seeds]).mean,
                "train": train,
                "gap": metric.sign * (train - test),
                "val_to_test": test - val,
            }
        )
    return Learning(pd.DataFrame(records), level, split)


def page_of(comparison: Comparison, title: str) -> Page:
    """Return the page of a comparison, the answers first. title: see `comparison_title`."""
    table, best, learning = comparison.table(), comparison.best(), learning_of(comparison)
    effects, references = effect_sentences(comparison), comparison.references()
    rows, metric = comparison.rows, comparison.metric
    names = short_names(comparison.differing)
    shortened = table.rename(columns={key: name for key, name in names.items() if name not in table})
    sections: list[Section] = [
        Lines("Answers", answers(comparison, learning), leads=True),
        Table("Configurations", shortened, rows.index(best), HOW_TO_READ, is_brief=True),
    ]
    if len(rows) > 1:
        name = comparison.baseline.label
        heading = "Compared with the baseline" + (f", {name}" if name != BASELINE else "")
        sections.append(Lines(heading, comparison.remarks(), leads=True))
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
    if 1 < len(rows) <= MAX_COMPARED:
        place = rows.index(comparison.baseline)
        other = rows.index(best) if best is not comparison.baseline else int(place == 0)
        labels = [row.label for row in rows]
        sections.append(Differences("Settings in which two differ", labels, comparison.settings(), (place, other)))
    if comparison.skipped:
        sections.append(Lines("Skipped", comparison.skipped))
    num_runs = sum(len(row.group.runs) for row in rows)
    summary = f"{len(rows)} configurations, {num_runs} runs; {metric.name} on the test images."
    return Page(title, summary, sections, table)


def _drawn(comparison: Comparison) -> list[Row]:
    """Return the baseline and the best others, in the order of the table."""
    ranked = [comparison.baseline, *comparison.ranked(), *comparison.rows]
    chosen = list({id(row): row for row in ranked})[:MAX_CURVES]
    return [row for row in comparison.rows if id(row) in chosen]


def learning_table(comparison: Comparison, learning: Learning) -> Table:
    """Return how the configurations learnt, as a table of the page."""
    level = f"{learning.level:.4f}"
    titles = {
        "epochs": f"epochs to {level}", "best": "best on validation", "best_epoch": "in epoch", "rise": "loss rises",
        "gap": "train-test gap", "val_to_test": "val → test",
    }  # fmt: skip
    note = (
        f"{level} on {learning.split} is {ALMOST:.0%} of the level that every run reached. Loss rises: the validation "
        "loss at the end, relative to its lowest value (1: no overfitting). Train-test gap: how much better "
        f"{comparison.metric.name} is on training images than on test images. All are means over seeds."
    )
    decimals = {f"epochs to {level}": 1, "seconds": 1, "in epoch": 1, "loss rises": 2}
    table = learning.rows.rename(columns=titles).dropna(axis="columns", how="all")
    return Table("Learning", table, note="" if math.isnan(learning.level) else note, decimals=decimals)


def answers(comparison: Comparison, learning: Learning) -> list[str]:
    """Return what the comparison says, in a sentence or two for each question."""
    lines, metric = [_best(comparison)], comparison.metric.name
    if len(learning.rows) < 2:
        return lines
    first = learning.known("epochs")
    if first:
        times = [f"{one.configuration} in epoch {one.epochs:.3g} ({one.seconds:.3g} s)" for one in first[:NAMED]]
        level = f"{learning.level:.4f} on {learning.split} ({ALMOST:.0%} of the level that every run reached)"
        lines.append(f"First to {level}: {', then '.join(times)}{_more(first)}.")
    known = learning.known("rise", ascending=False)
    rising, others = ([one for one in known if (one.rise >= RISEN) is rises] for rises in (True, False))
    if rising:
        times = [f"{one.configuration} ({one.rise:.2f} times)" for one in rising[:NAMED]]
        lines.append(
            f"Overfitting: the validation loss ends above its lowest for {', '.join(times)}{_more(rising)}."
            + (f" Not for: {', '.join(one.configuration for one in others[:NAMED])}{_more(others)}." if others else "")
        )
    elif known:
        lines.append("Overfitting: none; no validation loss ends more than a tenth above its lowest.")
    gaps = learning.known("gap")
    if gaps:
        least, most = gaps[0], gaps[-1]
        lines.append(
            f"Train-test gap: {metric} is better on training images than on test images by {least.gap:.4f} "
            f"({least.configuration}) to {most.gap:.4f} ({most.configuration})."
        )
    apart = learning.known("val_to_test")
    if apart:
        most = max(apart, key=lambda one: abs(one.val_to_test))
        lines.append(f"Validation against test: {abs(most.val_to_test):.4f} apart at most ({most.configuration}).")
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
