"""The page of runs side by side."""

import math

from cnnbench.analysis.reports.comparison import Comparison, Row
from cnnbench.analysis.reports.curves import overlaid
from cnnbench.analysis.reports.learning import LOSS, Metric
from cnnbench.analysis.reports.page import Differences, Drawing, Lines, Page, Section, Table
from cnnbench.analysis.reports.verdicts import effect_sentences, learning_table, learnt, verdicts

MOST_CURVES = 12
HOW_TO_READ = "Δ: to the baseline, paired by seed; ±95%: by Student's t, over seeds."
MOST_COMPARED = 60  # configurations whose settings are put into the page


def page_of(comparison: Comparison, what: str) -> Page:
    """Return the page of a comparison, the answers first. what: what was compared, as it was typed."""
    table, best, learning = comparison.table(), comparison.best(), learnt(comparison)
    effects, references = effect_sentences(comparison), comparison.references()
    rows = comparison.rows
    found: list[Section] = [
        Lines("Answers", verdicts(comparison, learning), leads=True),
        Table("Configurations", table, rows.index(best), HOW_TO_READ, is_brief=True),
    ]
    if len(rows) > 1:
        found.append(Lines(f"Against the baseline, {comparison.baseline.label}", comparison.remarks(), leads=True))
    if effects:
        found.append(Lines("What each setting changes, everything else alike", effects, leads=True))
    chosen = _drawn(comparison)
    curves = [(row.label, row.group.curves) for row in chosen]
    more = f"; the best {len(chosen)} of {len(rows)}" if len(chosen) < len(rows) else ""
    for metric in dict.fromkeys((Metric(comparison.metric, comparison.higher), LOSS)):
        drawing = overlaid(curves, metric)
        if drawing is not None:
            found.append(Drawing(f"{metric.name} over epochs{more}", drawing))
    found.append(learning_table(comparison, learning))
    if len(references):
        found.append(Table("Published", references))
    if 1 < len(rows) <= MOST_COMPARED:
        place = rows.index(comparison.baseline)
        other = rows.index(best) if best is not comparison.baseline else int(place == 0)
        labels = [row.label for row in rows]
        found.append(Differences("Settings in which two differ", labels, comparison.settings(), (place, other)))
    if comparison.skipped:
        found.append(Lines("Passed over", comparison.skipped))
    runs = sum(len(row.group.entries) for row in rows)
    said = f"{len(rows)} configurations, {runs} runs; {comparison.metric} of the test images."
    return Page(what, said, found, table)


def _drawn(comparison: Comparison) -> list[Row]:
    """Return the baseline and the best others, in the order of the table."""
    sign = -1 if comparison.higher else 1

    def rank(row: Row) -> tuple[bool, float]:
        mean = row.measured.mean
        return row is not comparison.baseline, math.inf if math.isnan(mean) else sign * mean

    chosen = sorted(comparison.rows, key=rank)[:MOST_CURVES]
    return [row for row in comparison.rows if any(row is one for one in chosen)]
