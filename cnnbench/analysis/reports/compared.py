"""The page of runs side by side: which is best, which learns fastest, which overfits, and how certain that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cnnbench.analysis.reports.columns import BASELINE, short_names
from cnnbench.analysis.reports.comparison import SPLITS, Comparison
from cnnbench.analysis.reports.groups import Group, ending
from cnnbench.analysis.reports.latex import latex_table
from cnnbench.analysis.reports.learning import RISEN, Metric, first_epoch_at
from cnnbench.analysis.reports.page import Differences, Lines, Page, Section, Table
from cnnbench.analysis.reports.side_by_side import figures_of
from cnnbench.analysis.reports.statistics import estimate
from cnnbench.errors import counted

NAMED = 4  # configurations in a sentence
ALMOST = 0.99  # of a level: the last percent is a matter of chance
MAX_COMPARED = 60  # configurations whose settings are put into the page


@dataclass(frozen=True)
class Learning:
    """How configurations learnt: a row for each, with means over its runs; NaN if unknown.

    Columns: best, best_epoch, rise as in `Course`; epochs, seconds until the metric reached `level` on `split`, if all
    runs did; reached: how many did; gap: by how much it is better on training images than on test images; val_to_test:
    on test minus on validation.
    level: nearly reached by most configurations that were trained in full; NaN if unknown.
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
    split = "validation" if all(one.best_epoch for of_runs in courses for one in of_runs) else "training"
    column = f"{metric.name}/{'val' if split == 'validation' else 'train'}"
    level = _level(groups, column, metric)
    records = []
    for row, group, of_runs in zip(comparison.rows, groups, courses, strict=True):
        times = [first_epoch_at(rows, column, level, higher) for _, rows in group.epochs.groupby("run")]
        reached = [time for time in times if not math.isnan(time)]
        epochs = _mean(reached) if len(reached) == len(times) else math.nan
        train, val, test = (group.mean(part, metric.name) for part in ("train", "val", "test"))
        records.append(
            {
                "configuration": row.label,
                "epochs": epochs,
                "seconds": epochs * group.mean("seconds", "train") / group.mean("epochs"),
                "reached": f"{len(reached)} of {len(times)}" if times else "",
                "best": _mean([one.best for one in of_runs]),
                "best_epoch": _mean([one.best_epoch or math.nan for one in of_runs]),
                "rise": _mean([one.rise if one.overfits else min(one.rise, 1.0) for one in of_runs]),
                "train": train,
                "gap": metric.sign * (train - test),
                "val_to_test": test - val,
            }
        )
    return Learning(pd.DataFrame(records), level, split)


def _level(groups: Sequence[Group], column: str, metric: Metric) -> float:
    """Return what most of the configurations that were trained in full nearly reached; NaN if nothing is known.

    Neither a short run nor one that learnt nothing lowers it.
    """
    longest = max((float(group.epochs["epoch"].max()) for group in groups if "epoch" in group.epochs), default=0.0)
    levels = []
    for group in groups:
        of_runs = zip(group.epochs.groupby("run"), group.runs.values(), strict=False)
        if column in group.epochs and all(
            rows["epoch"].max() == longest or run.result.get("stopped_early") for (_, rows), run in of_runs
        ):
            by_run = group.epochs.groupby("run")[column]
            levels.append(float((by_run.max() if metric.higher_is_better else by_run.min()).mean()))
    levels = sorted((level for level in levels if math.isfinite(level)), reverse=not metric.higher_is_better)
    if not levels:
        return math.nan
    middle = levels[(len(levels) - 1) // 2]
    return middle - metric.sign * (1 - ALMOST) * abs(middle)


def _mean(values: Sequence[float]) -> float:
    return estimate(values).mean


def page_of(comparison: Comparison, title: str) -> Page:
    """Return the page of a comparison, the answers first. title: see `comparison_title`."""
    table, best, learning = comparison.table(), comparison.best, learning_of(comparison)
    effects, references = effect_sentences(comparison), comparison.references()
    rows = comparison.rows
    names = short_names(comparison.differing)
    shortened = table.rename(columns={key: name for key, name in names.items() if name not in table})
    dots, *figures = figures_of(comparison)
    sections: list[Section] = [
        dots,
        Lines("Answers", answers(comparison, learning), leads=True),
        Table(
            "Configurations",
            shortened,
            rows.index(best),
            how_to_read(comparison),
            is_brief=True,
            decimals={"seconds": 0, "parameters": 0},
            pages=[row.group.pages() for row in rows],
        ),
    ]
    if len(rows) > 1:
        name = comparison.baseline.label
        heading = "Compared with the baseline" + (f", {name}" if name != BASELINE else "")
        sections.append(Lines(heading, comparison.remarks(), leads=True))
    if effects:
        sections.append(Lines("The effect of each setting, the others being the same", effects, leads=True))
    sections += figures
    sections.append(learning_table(comparison, learning))
    sections += _unfinished(comparison)
    if len(references):
        sections.append(Table("Published results", references))
    if 1 < len(rows) <= MAX_COMPARED:
        place = rows.index(comparison.baseline)
        other = rows.index(best) if best is not comparison.baseline else int(place == 0)
        labels = [row.label for row in rows]
        sections.append(Differences("Settings in which two differ", labels, comparison.settings(), (place, other)))
    if comparison.skipped:
        sections.append(Lines("Skipped", comparison.skipped))
    num_runs = sum(len(row.group.every) for row in rows)
    summary = f"{counted(len(rows), 'configuration')}, {counted(num_runs, 'run')}; {_measured_on(comparison)}."
    return Page(title, summary, sections, table, latex_table(comparison))


def _measured_on(comparison: Comparison) -> str:
    where = "held-out" if comparison.unit == "folds" and comparison.split == "val" else SPLITS[comparison.split]
    return f"{comparison.metric.name} on the {where} images"


def how_to_read(comparison: Comparison) -> str:
    """Return what the intervals of the table are, and what they do not cover."""
    unit, overlap = comparison.unit, comparison.overlap
    words = [
        f"Low, high: 95 % interval of the mean over {unit} (Student's t"
        + (", widened since they share most of their training images: Nadeau and Bengio 2003" if overlap else "")
        + f"); it does not cover other {SPLITS[comparison.split]} images.",
        f"Δ: difference to the baseline, paired by {_one(unit)}.",
    ]
    if any(row.gained and row.gained.images for row in comparison.rows):
        words.append(
            f"Its interval covers other {SPLITS[comparison.split]} images too: from the prediction for each, or where "
            "these are not known, as if the errors of the two were independent."
        )
    if any(row.gained for row in comparison.rows):
        words.append("p: of no difference, corrected for the number of comparisons (Holm).")
    return " ".join(words)


def _unfinished(comparison: Comparison) -> list[Table]:
    """Return a table of the runs without a result that were begun or failed, with the reason; or nothing."""
    found = [
        (row.label, row.group.names[key], run)
        for row in comparison.rows
        for key, run in row.group.others.items()
        if run.status != "not started"
    ]
    content = [
        {"configuration": label, "run": name, "ended": ending(run), "epochs": run.epochs_done, "reason": run.error}
        for label, name, run in found
    ]
    pages = [{"page": run.folder.page} for *_, run in found]
    return [Table("Runs without a result", pd.DataFrame(content), pages=pages)] if found else []


def learning_table(comparison: Comparison, learning: Learning) -> Table:
    """Return how the configurations learnt, as a table of the page."""
    level = f"{learning.level:.4f}"
    titles = {
        "epochs": f"epochs to {level}", "reached": "reached by", "best": "best on validation", "best_epoch": "in epoch",
        "rise": "loss rises", "gap": "train-test gap", "val_to_test": "val → test",
    }  # fmt: skip
    note = (
        f"{level} on {learning.split} is {ALMOST:.0%} of the level that most configurations reached. Loss rises: the "
        "validation loss at the end, relative to its lowest value (1: it is still the lowest). Train-test gap: how "
        f"much better {comparison.metric.name} is on training images than on test images. All are means over "
        f"{comparison.unit}."
    )
    decimals = {f"epochs to {level}": 1, "seconds": 1, "in epoch": 1, "loss rises": 2}
    is_known = not math.isnan(learning.level)
    table = learning.rows if is_known else learning.rows.drop(columns="reached")
    table = table.rename(columns=titles).dropna(axis="columns", how="all")
    return Table("Learning", table, note=note if is_known else "", decimals=decimals)


def answers(comparison: Comparison, learning: Learning) -> list[str]:
    """Return what the comparison says, in a sentence or two for each question."""
    lines, metric = [_best(comparison), *comparison.cautions()], comparison.metric.name
    if len(learning.rows) < 2:
        return lines
    first = learning.known("epochs")
    if first:
        times = [f"{one.configuration} in epoch {one.epochs:.3g} ({one.seconds:.3g} s)" for one in first[:NAMED]]
        level = f"{learning.level:.4f} on {learning.split} ({ALMOST:.0%} of the level that most configurations reached)"
        rows: list[Any] = list(learning.rows.itertuples())
        late = [one for one in rows if one.reached and math.isnan(one.epochs)]
        names = ", ".join(f"{one.configuration} (by {one.reached} {comparison.unit})" for one in late[:NAMED])
        never = f" Not reached, or not by all: {names}{_more(late)}." if late else ""
        lines.append(f"First to {level}: {', then '.join(times)}{_more(first)}.{never}")
    known = learning.known("rise", ascending=False)
    rising, others = ([one for one in known if (one.rise >= RISEN) is rises] for rises in (True, False))
    if rising:
        times = [f"{one.configuration} ({one.rise:.2f} times)" for one in rising[:NAMED]]
        lines.append(
            f"Overfitting: the validation loss ends above its lowest for {', '.join(times)}{_more(rising)}."
            + (f" Not for: {', '.join(one.configuration for one in others[:NAMED])}{_more(others)}." if others else "")
        )
    elif known:
        lines.append(
            "Validation loss: none ends more than a tenth above its lowest; how far training is ahead is the gap."
        )
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
    metric, ranked, split = comparison.metric, comparison.ranked, comparison.split
    if not ranked:
        return f"No run has {metric.name} on the {SPLITS[split]} images."
    best = ranked[0]
    word = "Highest" if metric.higher_is_better else "Lowest"
    tried = f" of {len(comparison.rows)} configurations tried" if len(comparison.rows) > 1 else ""
    found, on_test = best.measured, best.group.mean("test", metric.name)
    interval = "" if math.isnan(found.low) else f"95 %: {found.low:.4f} to {found.high:.4f}; "
    unit = f"one {_one(comparison.unit)}" if found.n == 1 else f"{found.n} {comparison.unit}"
    measured = f"{found.mean:.4f} ({interval}{unit})"
    if comparison.ranks_on != split:
        measured = f"{best.ranked_by:.4f}; on the test images {measured}"
    elif split == "val" and not math.isnan(on_test):
        measured += f"; on the test images {on_test:.4f}"
    line = f"{word} {SPLITS[comparison.ranks_on]} {metric.name}{tried}: {best.label}, {measured}"
    if len(ranked) > 1:
        line += f". {_next(comparison)}"
    if comparison.ranks_on == "test" and tried:
        line += ". Ranked on the test images, for want of validation: the figure of the best is too good"
    elif split == "val" and tried:
        line += ". It was chosen on these images: a figure for a report is measured on the test images"
    return f"{line}."


def _next(comparison: Comparison) -> str:
    second, difference = comparison.ranked[1], comparison.best_against_next()
    is_tied = second.ranked_by == comparison.best.ranked_by
    tied = f"{second.label} is as good on {SPLITS[comparison.ranks_on]}. " if is_tied else ""
    if difference is None:
        return f"{tied}The next, {second.label}, was measured on other images"
    return f"{tied}Compared with the next, {second.label}: {difference.sentence(comparison.unit)}"


def effect_sentences(comparison: Comparison) -> list[str]:
    """Return the effect of each setting, if more than one pair of configurations shows it."""
    return [
        f"{effect.key} from {effect.before} to {effect.after}: {effect.difference.sentence(comparison.unit)}"
        f" (mean over {effect.num_pairs} combinations of the other settings)"
        for effect in comparison.effects()
        if effect.num_pairs > 1
    ]


def _one(unit: str) -> str:
    return unit.removesuffix("s")


def _more(rows: Sequence[object]) -> str:
    return f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
