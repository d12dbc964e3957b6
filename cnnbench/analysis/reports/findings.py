"""What a comparison says, in a sentence or two for each question."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnnbench.analysis.reports.comparison import SPLITS, Comparison, Row
from cnnbench.analysis.reports.groups import some
from cnnbench.analysis.reports.learning import RISEN, Course, course, first_epoch_at
from cnnbench.analysis.reports.statistics import LEVEL, POWER, Difference, Estimate, estimate, outlying
from cnnbench.errors import grouped
from cnnbench.tasks.intervals import is_chance, wilson

ALMOST = 0.99  # of a level: the last percent is a matter of chance
MORE_SEEDS = 10  # of which it is said what they would show


@dataclass(frozen=True)
class Learning:
    """How the runs of each configuration learnt.

    times: the epoch in which each run reached `level` on `split`, validation or training; NaN if it never did.
    """

    courses: Sequence[Sequence[Course]]
    times: Sequence[Sequence[float]]
    level: float
    split: str

    @property
    def means(self) -> list[float]:
        """Return the mean epoch in which configurations reached the level; NaN if not all of their runs did."""
        return [sum(times) / len(times) if times else math.nan for times in self.times]


def learning_of(comparison: Comparison) -> Learning:
    """Return how configurations learnt; the level is nearly what the baseline reached, or the best one without it."""
    metric, base = comparison.metric, comparison.baseline if comparison.baseline.group.runs else comparison.best
    by_run = [[rows for _, rows in row.group.epochs.groupby("run")] for row in comparison.rows]
    courses = [[course(rows, metric) for rows in runs] for runs in by_run]
    split = "val" if all(one.best_epoch for of_runs in courses for one in of_runs) else "train"
    column, place = f"{metric.name}/{split}", comparison.rows.index(base)
    reached = estimate([metric.sign * (metric.sign * rows[column]).max() for rows in by_run[place] if column in rows])
    level = reached.mean - metric.sign * (1 - ALMOST) * abs(reached.mean)
    times = [[first_epoch_at(rows, column, level, metric.higher_is_better) for rows in runs] for runs in by_run]
    return Learning(courses, times, level, "validation" if split == "val" else "training")


def findings(comparison: Comparison, learning: Learning) -> Iterator[str]:
    """Yield what the comparison says, the best configuration first."""
    yield _best(comparison)
    yield from comparison.cautions()
    yield from _outliers(comparison)
    if len(comparison.rows) > 1:
        yield from _detectable(comparison)
        yield from _speed(comparison, learning)
    yield from _overfitting(comparison, learning)
    yield from _validation_and_test(comparison)


def _best(comparison: Comparison) -> str:
    """Return the best configuration, how sure that is, and what is tied with it."""
    metric, on, best = comparison.metric, comparison.ranks_on, comparison.best
    if not comparison.ranked:
        return f"No run has {metric.name} on the {SPLITS[comparison.split]} images."
    numbers = list(best.group.values(on, metric).by_run.values())
    found, images = estimate(numbers, comparison.overlap, metric.bounds), int(best.group.mean(on, "samples"))
    over = f"{found.n} {comparison.unit}" if found.n > 1 else "images"
    if found.n == 1 and metric.is_share:
        found = Estimate(1, found.mean, math.nan, *wilson(round(found.mean * images), images))
    interval = "" if math.isnan(found.low) else f", 95 % interval over {over} {found.low:.4f} to {found.high:.4f}"
    on_test = best.group.mean("test", metric.name)
    test = f"; its test {metric.name} is {on_test:.4f}" if on == "val" and not math.isnan(on_test) else ""
    lines = [f"Best on {SPLITS[on]}: {best.label}, {found.mean:.4f} ({grouped(images)} images{interval}){test}."]
    if len(comparison.rows) > 1:
        lines += _ties(comparison, images)
        if on == "test":
            lines.append("There are no validation images: it was chosen by this figure, which is therefore too good.")
        elif comparison.split == "val":
            lines.append("It was chosen by this figure: for a report, measure the test images (cnnbench evaluate).")
    return " ".join(lines)


def _ties(comparison: Comparison, images: int) -> Iterator[str]:
    """Yield which configurations are as good as the best on the images that it was chosen on, within chance."""

    def lag(row: Row, gain: Difference) -> str:
        less = abs(gain.estimate.mean)
        counts = f" = {less * images:.1f} images" if comparison.metric.is_share else ""
        return f"{row.label} ({f'{less:.4f}{counts} behind' if less else 'equal'})"

    behind = comparison.behind_best()
    tied = [lag(row, gain) for row, gain in behind if not gain.is_resolved]
    if tied:
        is_known = any(not math.isnan(gain.p) for _, gain in behind)
        yield f"{'Tied with it, within chance' if is_known else 'Next, whether by chance is unknown'}: {some(tied)}."
    elif behind:
        others = behind[0][0].label if len(behind) == 1 else "Every other configuration"
        yield f"{others} is worse there by more than chance."


def _outliers(comparison: Comparison) -> Iterator[str]:
    values = [comparison.values(row) for row in comparison.rows]
    numbers = [[(run, number) for run, number in own.by_run.items() if math.isfinite(number)] for own in values]
    step = 1 / max(1, *(own.images for own in values)) if comparison.metric.is_share else 0.0
    found = []
    for place, which in outlying([[number for _, number in own] for own in numbers], step):
        row, (run, number) = comparison.rows[place], numbers[place][which]
        others = estimate([other for key, other in numbers[place] if key != run]).mean
        found.append(f"{row.label} {row.group.names[run]}, {number:.4f} (mean of its others: {others:.4f})")
    if found:
        yield f"Far from its others: {some(found, '; ')}. Nothing was excluded."


def _detectable(comparison: Comparison) -> Iterator[str]:
    """Yield how large a difference must be to be found, where one was not: it follows from spread, not from size."""
    gains = [row.gained for row in comparison.rows if row.gained and not math.isnan(row.gained.estimate.low)]
    if not gains or all(gain.is_resolved for gain in gains) or comparison.overlap:
        return
    unit, number, family = comparison.unit, min(gain.estimate.n for gain in gains), gains[0].family

    def least(seeds: int) -> str:
        ends = [gain.detectable(seeds) for gain in gains]
        return " to ".join(dict.fromkeys(f"{end:.4f}" for end in (min(ends), max(ends))))

    more = f"; with {MORE_SEEDS} {unit}, {least(MORE_SEEDS)}" if number < MORE_SEEDS else ""
    ways = f" over {family} comparisons, depending on the configuration" if family > 1 else ""
    yield (
        f"Smallest difference that {number} {unit} can detect: {least(number)}{more} "
        f"({100 * POWER:.0f} % power at the {100 * LEVEL:.0f} % level{ways})."
    )


def _speed(comparison: Comparison, learning: Learning) -> Iterator[str]:
    """Yield after how many epochs configurations come close to what the baseline reaches."""
    every = list(zip(learning.means, learning.times, comparison.rows, strict=True))
    by_time = sorted((one for one in every if not math.isnan(one[0])), key=lambda one: one[0])
    reached = [f"{row.label} {mean:.3g} ({min(own):g} to {max(own):g})" for mean, own, row in by_time]
    late = [(own, row) for mean, own, row in every if own and math.isnan(mean)]
    never = [f"{row.label} ({sum(time > 0 for time in own)} of {len(own)})" for own, row in late]
    if reached:
        yield (
            f"Speed of learning: epochs to {learning.split} {comparison.metric.name} {learning.level:.4f}, "
            f"{100 * ALMOST:.0f} % of the best of {comparison.baseline.label}, with range over {comparison.unit}: "
            f"{some(reached)}." + f" Not reached by all {comparison.unit}: {some(never)}." * bool(never)
        )


def _overfitting(comparison: Comparison, learning: Learning) -> Iterator[str]:
    rises = [estimate([one.rise if one.overfits else min(one.rise, 1.0) for one in runs]) for runs in learning.courses]
    known = [(one.mean, row.label) for one, row in zip(rises, comparison.rows, strict=True) if one.n]
    rising = [f"{label} ({rise:.2f} times)" for rise, label in sorted(known, reverse=True) if rise >= RISEN]
    if known:
        names = f"{some(rising)}: overfitting" if rising else "none"
        yield f"Validation loss: at the end more than a tenth above its lowest value for {names}."


def _validation_and_test(comparison: Comparison) -> Iterator[str]:
    """Yield whether validation is above or below test in all runs, and whether the choice of its images explains it."""
    name, pairs, images = comparison.metric.name, [], set()
    for run in comparison.runs:
        val, test = (run.result.get(split) or {} for split in ("val", "test"))
        if None not in (val.get(name), test.get(name)):
            pairs.append((val[name], test[name]))
            images.add((val["samples"], test["samples"]))
    if not pairs:
        return
    val, test = (estimate(one).mean for one in zip(*pairs, strict=True))
    where = "above" if val >= test else "below"
    alike = sum((one > other) if val >= test else (one < other) for one, other in pairs)
    said = f"Validation against test: validation {name} is {where} test {name} in {alike} of {len(pairs)} runs"
    said += f", by {abs(val - test):.4f} on average"
    if name == "accuracy" and not comparison.overlap and len(images) == 1:
        ((vals, tests),) = images
        size = "within chance" if is_chance(val, vals, test, tests) else "beyond chance"
        said += f"; for the same {grouped(vals)} validation images in all runs, that is {size} (Fisher's exact test)"
    yield f"{said}."
