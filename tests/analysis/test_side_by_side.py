"""Figures of runs side by side: every run a dot, nothing flattened, nothing left out unsaid."""

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest

from cnnbench.analysis.reports.compared import page_of
from cnnbench.analysis.reports.comparison import compare
from cnnbench.analysis.reports.latex import latex_table
from cnnbench.analysis.reports.sections import Grid, Plot, Strips
from cnnbench.analysis.reports.side_by_side import figures_of
from cnnbench.analysis.reports.statistics import Estimate
from cnnbench.analysis.reports.strips import farthest
from cnnbench.store.query import runs_named
from tests.support.interruption import read
from tests.support.run_folders import write_dropout_runs, write_run


def compared(outputs: Path, metric: str | None = None):
    return compare(runs_named([str(outputs)]), metric)


def strips_of(outputs: Path, metric: str | None = None) -> Strips:
    found = next(figures_of(compared(outputs, metric)))
    assert isinstance(found, Strips)
    return found


def figure(outputs: Path, kind: type, title: str = ""):
    return next((one for one in figures_of(compared(outputs)) if isinstance(one, kind) and title in one.title), None)


def test_each_run_is_a_dot_that_leads_to_its_page_in_the_row_of_its_configuration(outputs, tmp_path):
    write_dropout_runs(outputs)
    strips = strips_of(outputs)
    rows = strips.rows
    assert [row.label for row in rows] == ["1. dropout=0.5", "2. dropout=0"]
    assert [text for _, text, _ in rows[1].dots] == ["seed=0: 0.9000", "seed=1: 0.8800", "seed=2: 0.9100"]
    values = [value for row in rows for value, _, _ in row.dots]
    assert values[3:] == [0.9, 0.88, 0.91]
    assert all(0 <= strips.axis.place(value) <= 100 for value in values)
    assert rows[1].mean == pytest.approx(sum(values[3:]) / 3)
    run = next(iter(outputs.glob("synthetic/*/*dropout0.5*seed1*")))
    (run / "report.html").write_text("a page")
    page = page_of(compared(outputs), "a title").write(tmp_path / "page").read_text()
    strips = page[page.index('<table class="strips">') : page.index("</table>")]
    assert strips.count("<circle") == 6
    assert len(re.findall(r'<a href="[^"]*seed1[^"]*/report.html"><circle', strips)) == 1
    assert strips.count("<a ") == 1, "what has no page is no link"


def test_rows_are_in_the_order_of_validation_and_not_of_what_is_shown(outputs):
    for rate, test, val in (("0.1", 0.9, 0.95), ("0.2", 0.99, 0.8), ("0.3", 0.8, 0.97)):
        write_run(outputs, test, f"optimizer.lr={rate}", val=val)
    strips = strips_of(outputs)
    assert [row.label for row in strips.rows] == ["1. lr=0.3", "2. lr=0.1", "3. lr=0.2"]
    assert strips.title == "Configurations, the best on validation first; test accuracy"
    assert "Sorted by validation accuracy, the highest first" in strips.note
    assert [row.look for row in strips.rows] == ["", "", ""], "one seed does not say that it is ahead"


def test_only_what_is_ahead_by_more_than_chance_is_marked(outputs):
    write_dropout_runs(outputs)
    strips = strips_of(outputs)
    assert [row.look for row in strips.rows] == ["marked", ""]
    (table,) = [one for one in page_of(compared(outputs), "a title").sections if one.title == "Configurations"]
    green = "Green: ahead of every other on the test images by more than chance."
    assert green in strips.note
    assert (table.marked, green in table.note) == (1, True)
    assert "\\textbf{0.9267}" in latex_table(compared(outputs))
    for seed, accuracy in enumerate((0.90, 0.95, 0.93)):
        write_run(outputs, accuracy, "regularization.dropout=0.3", f"seed={seed}")
    strips = strips_of(outputs)
    assert [row.look for row in strips.rows] == ["", "", ""]
    assert "Green" not in strips.note
    assert "textbf" not in latex_table(compared(outputs))


def test_of_a_loss_the_lowest_is_first(outputs):
    for rate, accuracy in (("0.1", 0.6), ("0.2", 0.9)):
        write_run(outputs, accuracy, f"optimizer.lr={rate}")
    strips = strips_of(outputs, "loss")
    assert [row.label for row in strips.rows] == ["1. lr=0.2", "2. lr=0.1"]
    assert "the lowest first" in strips.note


def test_what_failed_or_is_not_finished_is_a_row_and_has_its_reason(outputs):
    write_run(outputs, 0.9, "optimizer.lr=0.1")
    write_run(outputs, None, "optimizer.lr=9", status="failed", error="DivergedError: the training diverged")
    write_run(outputs, None, "optimizer.lr=0.2", status="stopped")
    rows = strips_of(outputs).rows
    assert [(row.label, str(row.mean), row.remark) for row in rows[1:]] == [
        ("lr=9", "nan", "1 diverged"),
        ("lr=0.2", "nan", "1 stopped"),
    ]
    assert [row.look for row in rows] == ["", "below", "below"]
    text = page_of(compared(outputs), "a title").markdown()
    assert "| lr=9 | the training diverged | diverged | 3 | page |" in text
    assert "| lr=0.2 |  | stopped | 3 | page |" in text


@pytest.mark.parametrize(
    ("means", "half", "sign", "farther"),
    [
        ([0.95, 0.94, 0.93, 0.1], math.nan, 1, 0.93),  # a scale down to 0.1 would make the others one
        ([0.95, 0.94, 0.93, 0.1], 0.02, 1, 0.93),
        ([0.95, 0.9499, 0.9498, 0.93], [0.001, 0.001, 0.001, 0.025], 1, 0.93),  # it meets that of the best
        ([0.9, 0.5, 0.1], math.nan, 1, 0.1),
        ([0.3, 0.31, 0.33, 900.0], math.nan, -1, 0.33),
        ([0.9, 0.9, 0.9, 0.1], math.nan, 1, 0.1),  # nothing is known of how far they are apart
        ([0.9, math.nan], math.nan, 1, 0.9),
    ],
)
def test_one_that_is_far_off_does_not_flatten_the_others(means, half, sign, farther):
    halves = half if isinstance(half, list) else [half] * len(means)
    found = [Estimate(3, mean, 0.1, mean - one, mean + one) for mean, one in zip(means, halves, strict=True)]
    assert farthest(found, sign) == farther


def test_what_lies_beyond_the_scale_is_an_arrow_with_its_number(outputs):
    for rate, accuracy in (("0.1", 0.95), ("0.2", 0.94), ("0.3", 0.93), ("0.4", 0.1)):
        write_run(outputs, accuracy, f"optimizer.lr={rate}")
    strips = strips_of(outputs)
    last = strips.rows[-1]
    assert (last.text, last.dots) == ("0.1000, n = 1", [])
    assert strips.axis.place(last.mean) < 0
    page = page_of(compared(outputs), "a title").html(outputs)
    assert page.count('<svg x="0%" y="50%" class="mean"><path d="M0 0l7 -5v10z"/>') == 2, "of means and of differences"
    assert "an arrow at its edge" in strips.note


@pytest.mark.thorough
def test_of_many_configurations_the_best_and_the_last_are_drawn_and_that_is_said(outputs):
    for number in range(66):
        write_run(outputs, 0.9 - number / 1000, f"optimizer.lr={(number + 1) / 1000}")
    strips = strips_of(outputs)
    assert [int(row.label.partition(".")[0]) for row in strips.rows] == [*range(1, 46), *range(52, 67)]
    assert strips.note.endswith("6 of 66 configurations between the best and the last are left out.")


def test_differences_are_those_of_the_table_with_its_verdicts(outputs):
    write_dropout_runs(outputs)
    found = figure(outputs, Strips, "Difference")
    (row,), (gained,) = found.rows, [one.gained for one in compared(outputs).rows if one.gained]
    assert row.text == f"+0.0300 [{gained.estimate.low:+.4f}, {gained.estimate.high:+.4f}], n = 3"
    assert (row.label, row.look) == ("1. dropout=0.5", "")
    assert row.remark == gained.verdict == f"more than chance, p = {gained.corrected:.2g}"
    assert found.lines == [f"1. dropout=0.5: {row.text}; {row.remark}"]


def test_two_settings_make_a_grid_and_one_of_numbers_a_line(outputs):
    for dropout in ("0.0", "0.1", "0.5"):
        write_run(outputs / "one", 0.9, f"regularization.dropout={dropout}")
        for batchnorm, accuracy in (("true", 0.95), ("false", 0.9)):
            words = (f"regularization.dropout={dropout}", f"regularization.batchnorm={batchnorm}")
            write_run(outputs / "two", accuracy, *words)
    grid = figure(outputs / "two", Grid)
    assert (grid.columns, [name for name, _ in grid.rows]) in (
        (["0", "0.1", "0.5"], ["true", "false"]),
        (["true", "false"], ["0", "0.1", "0.5"]),
    )
    cells = {cell for _, row in grid.rows for cell in row}
    assert cells == {(1.0, "0.9500", "n = 1"), (0.0, "0.9000", "n = 1")}
    titles = [one.title for one in figures_of(compared(outputs / "one"))]
    assert "test accuracy by regularization.dropout" in titles
    assert figure(outputs / "one", Grid) is None


def test_costs_are_drawn_where_they_differ(outputs):
    for rate, parameters in (("0.1", 1000), ("0.2", 90_000)):
        write_run(outputs, 0.9, f"optimizer.lr={rate}", parameters={"total": parameters, "trainable": parameters})
    titles = [one.title for one in figures_of(compared(outputs))]
    assert "test accuracy against parameters" in titles
    assert "test accuracy against seconds of training" not in titles


@pytest.mark.parametrize("more", [9000, 900_000], ids=["in equal steps", "by ratios"])
def test_configurations_of_the_same_cost_are_drawn_next_to_each_other(outputs, more):
    for rate, accuracy, parameters in (("1", 0.9, 1000), ("2", 0.9, 1000), ("3", 0.9, 1000), ("4", 0.91, more)):
        total = {"total": parameters, "trainable": parameters}
        write_run(outputs, accuracy, f"optimizer.lr=0.{rate}", f"regularization.l1=0.{rate}", parameters=total)
    plot = figure(outputs, Plot, "parameters")
    (panel,) = plot.panels
    places = sorted((panel.x.place(x), panel.y.place(y)) for x, y, *_ in panel.pins)
    apart = [abs(one - other) for (one, _), (other, _) in pairwise(places[:3])]
    assert len(places) == 4
    assert min(apart) > 3
    assert panel.x.low < min(x for x, *_ in panel.pins)
    assert "next to each other" in plot.note
    assert "parameters: 1 000" in panel.pins[-1][3], "what is said of a point is its own cost"


def test_seconds_are_not_drawn_of_runs_that_shared_a_machine(outputs):
    for folder, began in (("apart", 40), ("together", 20)):
        for rate, start, seconds in (("0.1", 10, 5.0), ("0.2", began, 50.0)):
            record = {"started": f"0{start}", "ended": f"0{start + 15}", "machine": {"host": "one"}}
            run = write_run(outputs / folder, 0.9, f"optimizer.lr={rate}", **record)
            result = read(run / "result.json")
            (run / "result.json").write_text(json.dumps(result | {"seconds": {"train": seconds}}))
    assert figure(outputs / "apart", Plot, "training time in seconds")
    assert figure(outputs / "together", Plot, "training time in seconds") is None


def test_what_is_too_far_off_to_be_drawn_against_costs_is_named(outputs):
    for rate, accuracy in (("0.1", 0.95), ("0.2", 0.94), ("0.3", 0.93), ("0.4", 0.1)):
        total = round(1e7 * float(rate))
        write_run(outputs, accuracy, f"optimizer.lr={rate}", parameters={"total": total, "trainable": total})
    plot = figure(outputs, Plot, "parameters")
    assert plot.note.endswith("Not drawn, far worse: 4. lr=0.4 (0.1000).")
    assert [number for *_, number, _ in plot.panels[0].pins] == ["1", "2", "3"]


def test_intervals_are_whole_unless_they_are_far_wider_than_others(outputs):
    write_dropout_runs(outputs)
    for seed, accuracy in enumerate((0.6, 0.95, 0.9)):
        write_run(outputs, accuracy, "regularization.dropout=0.3", f"seed={seed}")
    for strips in (strips_of(outputs), figure(outputs, Strips, "Difference")):
        ends = [strips.axis.place(end) for row in strips.rows for end in row.interval]
        assert ends
        assert all(0 <= end <= 102 for end in ends), "the accuracy 1 is at the edge"
        assert "arrow" not in strips.note


def test_curves_are_named_by_the_option_where_that_is_all_that_differs(outputs):
    for scheduler, accuracy in (("cosine", 0.95), ("none", 0.9)):
        write_run(outputs, accuracy, f"scheduler={scheduler}")
    assert [name for _, name in figure(outputs, Plot, "by epoch").legend] == ["1. cosine", "2. none"]


def test_a_table_for_latex_holds_no_command_of_a_name(outputs):
    write_run(outputs, 0.9, "init.run=null", "optimizer.lr=0.1")
    write_run(outputs, 0.8, "optimizer.lr=0.2")
    comparison = compared(outputs)
    assert "0.1 & 1 & 0.9000 &  &" in latex_table(comparison)
    hostile = r"a\input{x}% & $b_1$ ~^#<*[" + "\n"
    for row in comparison.rows:
        row.group.configuration.settings["optimizer.lr"] = hostile
    (line, *_) = [line for line in latex_table(comparison).splitlines() if line.startswith("a")]
    assert line.startswith(
        r"a\textbackslash{}input\{x\}\% \& \$b\_1\$ \textasciitilde{}\textasciicircum{}\#\textless{}{*}{[}"
    )
    assert len(re.findall(r"(?<!\\)&", line)) == latex_table(comparison).count(" & ") / 3


def test_a_run_that_failed_before_it_had_its_data_is_one_of_its_configuration(outputs):
    write_run(outputs, 0.9, data={"window": [1, 28, 28], "fingerprint": "a1"})
    write_run(outputs, None, "seed=1", status="failed", error="no memory", data={})
    (row,) = strips_of(outputs).rows
    assert (row.text, row.remark) == ("0.9000, n = 1", "1 failed")
