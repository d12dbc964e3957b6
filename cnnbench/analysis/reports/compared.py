"""The page of runs side by side: what was compared, the conclusion, and what it rests on."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cnnbench.analysis.reports.columns import BASELINE, short_names
from cnnbench.analysis.reports.comparison import SPLITS, Comparison, compare
from cnnbench.analysis.reports.facts import PUBLISHED_NOTE, published, shared_facts
from cnnbench.analysis.reports.findings import Learning, detectable, findings, learning_of
from cnnbench.analysis.reports.groups import SHARED, ending, in_words, ran_at_once, some
from cnnbench.analysis.reports.latex import latex_table
from cnnbench.analysis.reports.page import Facts, Lines, Page, Section, Table
from cnnbench.analysis.reports.side_by_side import figures_of
from cnnbench.analysis.reports.statistics import Difference
from cnnbench.analysis.reports.strips import in_numbers, is_ahead
from cnnbench.errors import UserError, counted
from cnnbench.store.query import RunSummary, runs_named
from cnnbench.store.sweep_files import comparison_title

RELOADS_EVERY = 30  # seconds
PARTS = ("experiment", "model", "data")  # whose options name themselves
IN_FIGURES = ["low", "high", "Δ", "Δ low", "Δ high", "p (uncorrected)", "p (Holm)"]  # and in files, but in no table
UNREAD = "not started", "unreadable", "missing"  # of which only the plan is known
DESCRIBED = {"optimizer", "scheduler", "regularization"}  # whose settings are among the facts of a run


def page_of(comparison: Comparison, command: str) -> Page:
    """Return the page of a comparison. command: what was typed for it, in small type."""
    rows, runs, learning = comparison.rows, comparison.runs, learning_of(comparison)
    repeats = " or ".join(map(str, sorted({len(row.group.every) for row in rows})))
    unit = comparison.unit.removesuffix("s") if repeats == "1" else comparison.unit
    number = f"{len(runs)}: {counted(len(rows), 'configuration')}, {repeats} {unit} each{_without_result(runs)}"
    first, *figures = figures_of(comparison)
    effects = [f"{name}: {in_numbers(one.estimate, '+')}; {one.verdict}" for name, one in comparison.effects()]
    references = [
        {"configuration": row.label, **one} for row in rows for one in published(list(row.group.runs.values()))
    ]
    sections: list[Section | None] = [
        Facts("The runs", {"runs": number, **shared_facts([run for run in runs if run.status not in UNREAD] or runs)}),
        Lines("Findings", list(findings(comparison, learning)), leads=True, is_small=True),
        _settings(comparison),
        first,
        Lines("Effect of each setting, averaged over the others", effects, leads=True) if effects else None,
        *figures,
        configurations(comparison, learning),
        Table("Published results", pd.DataFrame(references), note=PUBLISHED_NOTE) if references else None,
        _unfinished(comparison),
        Facts("Method", method(comparison)),
        Lines("Skipped", comparison.skipped) if comparison.skipped else None,
    ]
    shown = [section for section in sections if section is not None]
    data, latex = comparison.table(), latex_table(comparison)
    return Page(title_of(comparison), conclusion(comparison), shown, data, latex, command=command)


def _without_result(runs: Sequence[RunSummary]) -> str:
    states = Counter(run.status for run in runs if not run.is_finished)
    return f" ({in_words(states)})" if states else ""


def page_of_sweep(sweep: Path, is_running: bool = False) -> Page:
    """Return the page of a sweep: how far it is, and its finished runs; is_running: a browser loads it again."""
    words = [str(sweep)]
    runs, command = runs_named(words, with_planned=True), comparison_title(words)
    try:
        page = page_of(compare(runs), command)
    except UserError:
        if any(run.is_finished for run in runs):
            raise
        states = [{"run": run.path.name, "status": run.status, "epochs": run.epochs_done} for run in runs]
        page = Page(command, "No run is finished yet.", [Table("Runs", pd.DataFrame(states))])
    if is_running or any(run.status not in ("completed", "failed") for run in runs):
        page = replace(page, summary=f"{_progress(runs, is_running)} {page.summary}")
    return replace(page, reloads_every=RELOADS_EVERY if is_running else 0)


def _progress(runs: list[RunSummary], is_running: bool) -> str:
    states = Counter(run.status for run in runs)
    others = ", ".join(f"{number} {status}" for status, number in states.items() if status != "completed")
    done = f"{states['completed']} of {counted(len(runs), 'run')} completed{f' ({others})' if others else ''}"
    written = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    again = f"; this page loads itself again every {RELOADS_EVERY} s" if is_running else ""
    return f"{done}. Written {written}{again}."


def title_of(comparison: Comparison) -> str:
    """Return what is compared, in words: `Effect of dropout and batchnorm: lenet_v2 on mnist`."""
    keys, labels = comparison.differing, [row.label for row in comparison.rows]
    names, options = short_names(keys), [row.group.configuration.options for row in comparison.rows]
    model, data = (" and ".join(dict.fromkeys(str(one.get(part)) for one in options)) for part in ("model", "data"))
    if keys and set(keys) <= set(PARTS):
        versus = " against ".join(labels) if len(labels) == 2 else some(labels)
        return versus if "data" in keys else f"{versus} on {data}"
    *others, last = [names.get(key, key) for key in keys] or [""]
    effect = f"Effect of {', '.join(others)}{' and ' * bool(others)}{last}: " if keys else ""
    return f"{effect}{model} on {data}"


def conclusion(comparison: Comparison) -> str:
    """Return what the comparison says of the baseline and the others, in a sentence or two."""
    base, measure, unit = comparison.baseline, comparison.measure, comparison.unit
    lost = some(comparison.failures(comparison.rows))
    failed = f"{lost}. " * bool(lost)
    if len(comparison.rows) == 1:
        return f"{failed}Mean {measure} {in_numbers(base.measured)}."
    known = [(row, row.gained) for row in comparison.rows if row.gained is not None and not math.isnan(row.gained.p)]
    found = [(row, gain) for row, gain in known if gain.is_resolved]
    if not known:
        way = "that takes two finished runs of each configuration"
        if base.measured.n < 2 and any(row.measured.n > 1 for row in comparison.rows):
            has = "has one finished run" if base.measured.n else "has no finished run"
            way = f"the baseline, {base.label}, {has}; --baseline KEY=VALUE,… names another configuration"
        return f"{failed}No difference in {measure} can be tested: {way}."
    few = sum(row.gained is not None and row.gained.estimate.n < 2 for row in comparison.rows if row.measured.n)
    more = f" {counted(few, 'more variant')} {'has' if few == 1 else 'have'} fewer than two {unit} to compare: unknown."
    more *= few > 0
    least = [
        f"{n} {unit} {f'only detect differences above {ends}' if ends else 'can detect no difference that is possible'}"
        for n, ends in detectable(comparison).items()
    ][:1]
    if len(known) == 1:
        ((row, gain),) = known
        better = "better" if gain.estimate.mean * comparison.metric.sign > 0 else "worse"
        said = f"{better} than {base.label} by more than chance" if found else f"not shown to differ from {base.label}"
        return f"{failed}In {measure}, {row.label} is {said}: {'; '.join([_in_words(gain, unit), *least])}.{more}"
    numbers = [some([f"{row.label} by {_in_words(gain, unit)}" for row, gain in found], "; ")] if found else least
    said = f"{len(found) or 'none'} of {counted(len(known), 'variant')} {'are' if len(found) > 1 else 'is'} shown to"
    said += f" differ from the baseline{f', {base.label}' * (base.label != BASELINE)}"
    return f"{failed}In {measure}, {': '.join([said, *numbers])}.{more}"


def _in_words(gain: Difference, unit: str) -> str:
    found, p = gain.estimate, gain.verdict.partition(", ")[2]
    interval = "" if math.isnan(found.low) else f"95 % interval {found.low:+.4f} to {found.high:+.4f}, "
    few = ": two that happen to agree say little" * (gain.is_resolved and found.n == 2)
    return f"{found.mean:+.4f} ({interval}{found.n} {unit}, {p}{few})"


def configurations(comparison: Comparison, learning: Learning) -> Table:
    """Return a row for each configuration: settings, means, how it learnt, what it cost, links to its runs."""
    metric, table = comparison.metric.name, comparison.table().drop(columns=IN_FIGURES, errors="ignore")
    names = {name: f"{name} {metric}" for name in ("validation", "test", "training")} | {metric: comparison.measure}
    shown = table.rename(columns=names | short_names(comparison.differing))
    reached = f"epochs to {learning.level:.4f}"
    if not all(map(math.isnan, learning.means)):
        place = list(shown).index("seconds") if "seconds" in shown else len(shown.columns)
        shown.insert(place, reached, learning.means)
    marked = comparison.rows.index(comparison.best) if is_ahead(comparison) else None
    green = f" Green: ahead of every other on the {SPLITS[comparison.ranks_on]} images by more than chance."
    paired = (
        " Intervals of single configurations may overlap: a difference has its own, measured between "
        f"runs of the same {comparison.unit.removesuffix('s')}."
    ) * any(row.gained is not None for row in comparison.rows)
    note = (
        f"Means over {comparison.unit}; std: their standard deviation. Training {metric}: of the tested weights, "
        "without dropout and augmentation; curves show it with both."
        f"{paired}{green * (marked is not None)}{SHARED * ran_at_once(comparison.runs)}"
    )
    pages = [{row.group.names[key]: run.folder.page for key, run in row.group.every.items()} for row in comparison.rows]
    quickest = shown["seconds"].min() if "seconds" in shown else 0
    decimals = {"parameters": 0, reached: 1, **dict.fromkeys(("seconds", "seconds, std"), 0 if quickest >= 10 else 2)}
    return Table("Configurations", shown, marked, note, decimals=decimals, pages=pages)


def method(comparison: Comparison) -> dict[str, str]:
    """Return in plain sentences what the intervals and verdicts mean, how they are computed, and what is left out."""
    unit, one, images = comparison.unit, comparison.unit.removesuffix("s"), f"{SPLITS[comparison.split]} images"
    folds = f", wider since {unit} share training images (Nadeau and Bengio 2003)" * bool(comparison.overlap)
    says = {"mean [95 %]": f"Holds the mean over all possible {unit} in 95 of 100 cases, on these {images}."}
    formulas = f"Means: Student's t over {unit}{folds}."
    if any(row.gained for row in comparison.rows):
        covered = f" and all possible {images}" if comparison.metric.is_share else ""
        says["difference [95 %]"] = f"Holds the difference over all possible {unit}{covered} likewise; paired by {one}."
        rest = f"What may be chance is not shown to be equal: more {unit} may show a difference."
        says["more than chance"] = f"Where nothing differs, at most one page in 20 says this of a difference. {rest}"
        formulas += (
            f" Differences in accuracy: variances over {unit} and over images, by a two-way analysis of variance "
            "(Satterthwaite 1946), never narrower than Student's t. p (Holm): for all comparisons together (Holm 1979)."
        )
    if comparison.metric.bounds[0] == 0:
        ends = "at 0" if math.isinf(comparison.metric.bounds[1]) else "at 0 and 1; of differences, at -1 and 1"
        formulas += f" Intervals end where {comparison.metric.name} does, {ends}."
    says["formulas"] = formulas
    if not comparison.overlap:
        says["not covered"] = (
            f"Which images train: the same for all {unit}. To vary them, add data.split_seed=0,1,2 "
            "(data.subset.fraction then draws other images, data.subset.first and per_class take the same)."
        )
    return says


def _settings(comparison: Comparison) -> Table | None:
    """Return the settings that differ where nothing else shows them, such as those of an experiment."""
    every = [row.group.configuration for row in comparison.rows]
    described = DESCRIBED & {*comparison.differing}
    keys = dict.fromkeys(key for one in every for key in one.settings if key.partition(".")[0] not in described)
    texts = {key: [one.text(key) for one in every] for key in keys if key not in comparison.differing}
    differing = {key: values for key, values in texts.items() if len(set(values)) > 1}
    content = pd.DataFrame({"configuration": [row.label for row in comparison.rows], **differing})
    return Table("Settings that differ", content) if differing else None


def _unfinished(comparison: Comparison) -> Table | None:
    """Return a table of the runs without a result that were begun or failed, with the reason; None: there are none."""
    alike: dict[tuple[Any, ...], dict[str, Path]] = {}
    for row in comparison.rows:
        for key, run in row.group.others.items():
            if run.status not in UNREAD:
                said = row.label, run.error, ending(run), run.epochs_done
                alike.setdefault(said, {})[row.group.names[key]] = run.folder.page
    content = pd.DataFrame(list(alike), columns=["configuration", "reason", "ended", "epochs"])
    content["runs"] = [", ".join(pages) for pages in alike.values()]
    return Table("Runs without a result", content, pages=list(alike.values())) if alike else None
