"""What a comparison says, in a sentence or two for each question."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnnbench.analysis.reports.comparison import SPLITS, Comparison, Row
from cnnbench.analysis.reports.groups import some
from cnnbench.analysis.reports.learning import RISEN, Course, course, first_epoch_at
from cnnbench.analysis.reports.statistics import LEVEL, POWER, Difference, Estimate, estimate, outlying
from cnnbench.errors import counted
from cnnbench.tasks.intervals import wilson

ALMOST = 0.99  # of a level: the last percent is a matter of chance
MORE_SEEDS = 10  # of which it is said what they would show
NONE = "none that is possible"


@dataclass(frozen=True)
class Learning:
    """How runs learnt. times: the epoch in which each reached `level` on `split` (validation, training); NaN: never."""

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
    images = [row.group.values("val", metric).images for row in comparison.rows]
    courses = [[course(rows, metric, number) for rows in runs] for runs, number in zip(by_run, images, strict=True)]
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
    lines = [f"Best on {SPLITS[on]}: {best.label}, {found.mean:.4f} ({counted(images, 'image')}{interval}){test}."]
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
        less = abs(gain.estimate.mean if gain.estimate.n else row.ranked_by - comparison.best.ranked_by)
        number = counted(round(less * images), "image") if less * images >= 1 else "less than an image"
        counts = f" or {number}" if comparison.metric.is_share else ""
        return f"{row.label} ({f'{less:.4f}{counts} behind' if less else 'equal'})"

    behind = comparison.behind_best()
    tested = [(row, gain) for row, gain in behind if not math.isnan(gain.p)]
    tied = [lag(row, gain) for row, gain in tested if not gain.is_resolved]
    unknown = [lag(row, gain) for row, gain in behind if math.isnan(gain.p)]
    if tied:
        judged = "; differences to the baseline are judged on the test images"
        judged *= (comparison.ranks_on, comparison.split) == ("val", "test")
        on = counted(images, f"{SPLITS[comparison.ranks_on]} image")
        yield f"Tied with it on the {on}, within chance: {some(tied)}{judged}."
    elif tested:
        others = f"Every other configuration{' that was tested' * bool(unknown)}"
        yield f"{tested[0][0].label if len(tested) == 1 else others} is worse there by more than chance."
    if unknown:
        yield f"Not tested, so whether by chance is unknown: {some(unknown)}."


def _outliers(comparison: Comparison) -> Iterator[str]:
    values = [comparison.values(row) for row in comparison.rows]
    numbers = [[(run, number) for run, number in own.by_run.items() if math.isfinite(number)] for own in values]
    step = 1 / max(1, *(own.images for own in values)) if comparison.metric.is_share else 0.0
    found = []
    for place, which in outlying([[number for _, number in own] for own in numbers], step):
        row, (run, number) = comparison.rows[place], numbers[place][which]
        others = estimate([other for key, other in numbers[place] if key != run]).mean
        where = f"far {'below' if number < others else 'above'} the mean of the others, {others:.4f}"
        found.append(f"{row.label} {row.group.names[run]}, {number:.4f} ({where})")
    if found:
        yield f"Outlying: {some(found, '; ')}. Nothing was excluded."


def detectable(comparison: Comparison) -> dict[int, str]:
    """Return by number of seeds which difference to the baseline they can detect; empty: all were found, or unknown.

    The text is empty where that is more than the metric of the baseline can rise or fall.
    """
    gains = [row.gained for row in comparison.rows if row.gained and not math.isnan(row.gained.estimate.low)]
    if not gains or all(gain.is_resolved for gain in gains) or comparison.overlap:
        return {}
    number, mean = min(gain.estimate.n for gain in gains), comparison.baseline.measured.mean
    most, least = max(abs(end - mean) for end in comparison.metric.bounds), {}
    for seeds in (number, MORE_SEEDS)[: 1 + (number < MORE_SEEDS)]:
        ends = [end for end in (gain.detectable(seeds) for gain in gains) if end <= most]
        numbers = dict.fromkeys(f"{end:.4f}" for end in sorted(ends)[:: max(1, len(ends) - 1)])
        least[seeds] = " to ".join(numbers)
        if 0 < len(ends) < len(gains):
            least[seeds] += f" in {len(ends)} of {len(gains)} variants, and none in the others"
        elif len(numbers) > 1:
            least[seeds] += ", depending on the variant"
    return least


def _detectable(comparison: Comparison) -> Iterator[str]:
    """Yield how large a difference must be to be found, where one was not."""
    least, unit = detectable(comparison), comparison.unit
    family = max(row.gained.family for row in comparison.rows if row.gained) if least else 1
    ways = f" for {family} comparisons together" if family > 1 else ""
    if least:
        yield (
            f"Smallest difference that {min(least)} {unit} can detect: "
            f"{f'; with {MORE_SEEDS} {unit}, '.join(one or NONE for one in least.values())} "
            f"(found in {100 * POWER:.0f} % of cases, at the {100 * LEVEL:.0f} % level{ways})."
        )


def _speed(comparison: Comparison, learning: Learning) -> Iterator[str]:
    """Yield after how many epochs configurations come close to what the baseline reaches."""
    unit, reached, late = comparison.unit, [], []
    is_repeated = any(len(times) > 1 for times in learning.times)
    for mean, times, row in zip(learning.means, learning.times, comparison.rows, strict=True):
        there = [time for time in times if time > 0]
        ends = f" ({min(there):g} to {max(there):g})" if len(set(there)) > 1 else ""
        if times and math.isnan(mean):
            late.append(row.label + f" ({len(there)} of {len(times)} {unit})" * is_repeated)
        elif times:
            reached.append((mean, f"{f'{mean:.1f}'.removesuffix('.0')} for {row.label}{ends}"))
    fewer = f" Not reached{f' by all {unit}' * is_repeated}: {some(late)}." if late else ""
    if reached:
        yield (
            f"Speed of learning: epochs to {learning.split} {comparison.metric.name} {learning.level:.4f}, "
            f"{100 * ALMOST:.0f} % of the best of {comparison.baseline.label}{f' (range over {unit})' * is_repeated}: "
            f"{some([text for _, text in sorted(reached, key=lambda one: one[0])])}.{fewer}"
        )


def _overfitting(comparison: Comparison, learning: Learning) -> Iterator[str]:
    """Yield where the validation loss rises, and whether the metric got worse as well."""
    name, risen = comparison.metric.name, {True: list[str](), False: list[str]()}
    for courses, row in zip(learning.courses, comparison.rows, strict=True):
        over = [one for one in courses if one.overfits]
        rise = estimate([one.rise if one.overfits else min(one.rise, 1.0) for one in courses]).mean
        if rise >= RISEN:
            epoch = sum(one.lowest_epoch for one in over) / len(over)
            is_worse = 2 * sum(one.is_worse for one in over) > len(over)
            risen[is_worse].append(f"{row.label} ({rise:.2f} times, after epoch {epoch:.0f})")
    kept = f"{name} does not get worse{', so it grows overconfident, not less accurate' * (name == 'accuracy')}"
    said = [f"{some(risen[key])}: {verdict}" for key, verdict in ((True, "overfitting"), (False, kept)) if risen[key]]
    if said:
        yield f"Validation loss: at the end more than a tenth above its lowest value for {'; for '.join(said)}."
    elif any(one.lowest_epoch for courses in learning.courses for one in courses):
        yield "Validation loss: in no configuration does it end more than a tenth above its lowest value."


def _validation_and_test(comparison: Comparison) -> Iterator[str]:
    """Yield whether validation is above or below test, and whether that is expected."""
    metric, name = comparison.metric, comparison.metric.name
    measured = [(run, *(run.result.get(split, {}).get(name) for split in ("val", "test"))) for run in comparison.runs]
    pairs = [(run, val, test) for run, val, test in measured if None not in (val, test)]
    if not pairs or metric.grows_with_images:
        return
    val, test = (estimate(one).mean for one in [*zip(*pairs, strict=True)][1:])
    where = "above" if val >= test else "below"
    alike = sum((one > other) if val >= test else (one < other) for _, one, other in pairs)
    said = f"Validation against test: validation {name} is {where} test {name} in {alike} of {len(pairs)} runs"
    is_expected = metric.sign * (val - test) > 0 and any(run.checkpoint_tested == "best" for run, *_ in pairs)
    expected = f"; that is expected, since the epoch was chosen on validation images: report the test {name}"
    expected *= is_expected and 3 * alike > 2 * len(pairs)  # in few of them it is chance
    yield f"{said}, by {abs(val - test):.4f} on average{expected}."
