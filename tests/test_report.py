"""Runs side by side: grouped over seeds, held against a baseline, told honestly."""

import json
import math
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cnnbench.compose import open_composer
from cnnbench.errors import UserError
from cnnbench.plan import plan_run
from cnnbench.report_command import main
from cnnbench.reports.comparison import compare
from cnnbench.reports.statistics import difference, estimate, seeds_needed
from cnnbench.reports.verdicts import effect_sentences, learning_table, learnt, verdicts
from cnnbench.rundir import RunFolder
from cnnbench.shelf import found
from tests.conftest import ended
from tests.interruption import fingerprints

# Means and intervals --------------------------------------------------------------------------------------------------


def test_an_estimate_is_that_of_scipy():
    values = [0.91, 0.93, 0.90, 0.96]
    got = estimate(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (got.n, got.mean, got.std) == (4, pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert (got.mean - got.half, got.mean + got.half) == pytest.approx((low, high))


@pytest.mark.parametrize(("values", "n"), [([0.5], 1), ([], 0), ([math.nan, 0.5], 1)])
def test_a_single_value_has_no_interval(values, n):
    got = estimate(values)
    assert got.n == n
    assert math.isnan(got.half)


def test_a_difference_is_paired_by_seed():
    one, other = {0: 0.9, 1: 0.8, 2: 0.7, 5: 0.1}, {2: 0.6, 1: 0.71, 0: 0.79, 7: 0.9}
    got = difference(one, other)
    interval = stats.ttest_rel([0.9, 0.8, 0.7], [0.79, 0.71, 0.6]).confidence_interval(0.95)
    found = got.estimate
    assert (found.n, found.mean) == (3, pytest.approx(0.1))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((interval.low, interval.high))
    assert got.is_resolved
    assert not difference({0: 0.9}, {1: 0.8}).is_resolved


def test_the_seeds_that_would_be_needed_are_the_fewest():
    got = estimate([0.010, 0.002, -0.004])
    needed = seeds_needed(got)
    halves = {n: stats.t.ppf(0.975, n - 1) * got.std / math.sqrt(n) for n in (needed - 1, needed)}
    assert halves[needed] < got.mean < halves[needed - 1]
    assert seeds_needed(estimate([0.5])) is None
    assert seeds_needed(estimate([0.1, -0.1])) is None


# Runs that are made up ------------------------------------------------------------------------------------------------


STARTED = count()


def made(outputs: Path, accuracy: float | None, *words: str, status: str = "completed", **record: Any) -> Path:
    """Write the folder of a run that came to this accuracy, without training it."""
    with open_composer() as composer:
        plan = plan_run(composer, ["data=synthetic", *words])
    folder = RunFolder(outputs / plan.place())
    said = {
        "identity": plan.config.identity(), "status": status, "choices": dict(plan.choices),
        "origins": dict(plan.origins),
        "started": f"{next(STARTED):06}",
        "data": {"window": [1, 28, 28]},
    }  # fmt: skip
    folder.create(plan.config.to_dict(), plan.command, said | record)
    rows = [
        {
            "row": "epoch",
            "epoch": epoch,
            "step": 10 * epoch,
            "accuracy/train": 0.1 * epoch,
            "accuracy/val": 0.09 * epoch,
        }
        for epoch in (1, 2, 3)
    ]
    folder.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if accuracy is not None:
        test = {"loss": 1 - accuracy, "accuracy": accuracy, "samples": 10}
        result = {
            "test": test, "train": test | {"accuracy": 1.0}, "checkpoint": {"epoch": 2}, "seconds": {"train": 5.0},
            "epochs": 3, "parameters": {"total": 1000, "trainable": 1000}, "references": [], "departures": [],
        }  # fmt: skip
        folder.result_file.write_text(
            json.dumps(result | {key: record[key] for key in ("parameters",) if key in record})
        )
    return folder.path


@pytest.fixture
def shelf(outputs) -> Path:
    for seed, (plain, dropped) in enumerate(((0.90, 0.93), (0.88, 0.92), (0.91, 0.93))):
        made(outputs, plain, "regularization.dropout=0.0", f"seed={seed}")
        made(outputs, dropped, "regularization.dropout=0.5", f"seed={seed}")
    return outputs


@pytest.fixture
def report(capsys):
    return lambda *words: ended(main, [str(word) for word in words], capsys)


def test_configurations_are_rows_and_seeds_are_not(shelf):
    comparison = compare(found([str(shelf)]))
    assert comparison.differing == ("regularization.dropout",)
    table = comparison.table().set_index("regularization.dropout")
    assert list(table["n"]) == [3, 3]
    assert table["accuracy"].to_dict() == pytest.approx({"0.0": (0.90 + 0.88 + 0.91) / 3, "0.5": 2.78 / 3})
    assert table.loc["0.5", "Δ"] == pytest.approx((0.03 + 0.04 + 0.02) / 3)
    assert math.isnan(table.loc["0.0", "Δ"])
    assert comparison.best().label == "dropout=0.5"
    assert comparison.remarks() == ["dropout=0.5: +0.0300 ± 0.0248 over 3 seeds, more than chance"]


def test_of_a_loss_the_lowest_is_the_best(shelf):
    assert compare(found([str(shelf)]), "loss").best().label == "dropout=0.5"


def test_of_a_calibration_error_as_well(outputs):
    for rate, error in (("0.1", 0.02), ("0.5", 0.2)):
        path = made(outputs, 0.9, f"optimizer.lr={rate}") / "result.json"
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"test": result["test"] | {"ece": error}}))
    comparison = compare(found([str(outputs)]), "ece")
    assert comparison.best().label == "lr=0.1"
    assert verdicts(comparison, learnt(comparison))[0].startswith("Lowest ece of test images: lr=0.1, 0.0200")


def test_the_baseline_can_be_named(shelf):
    comparison = compare(found([str(shelf)]), baseline="regularization.dropout=0.5")
    (remark,) = comparison.remarks()
    assert remark.startswith("dropout=0.0: -0.0300 ± 0.0248")
    for wrong in ("regularization.dropout=0.7", "epochs=40", "nothing"):
        with pytest.raises(UserError, match="name one by KEY=VALUE"):
            compare(found([str(shelf)]), baseline=wrong)


def test_what_is_not_told_from_nothing_says_how_many_seeds_would(outputs):
    for seed, (one, other) in enumerate(((0.90, 0.93), (0.88, 0.87), (0.91, 0.92))):
        made(outputs, one, f"seed={seed}")
        made(outputs, other, "optimizer.lr=0.5", f"seed={seed}")
    (remark,) = compare(found([str(outputs)])).remarks()
    said = (
        r"lr=0\.5: \+0\.0100 ± 0\.0497 over 3 seeds, which may be chance; were it really so large, about \d+ seeds .*"
    )
    assert re.fullmatch(said, remark)


def test_one_seed_says_nothing_of_chance(outputs):
    made(outputs, 0.9)
    made(outputs, 0.95, "optimizer.lr=0.5")
    made(outputs, 0.95, "optimizer.lr=0.7", "seed=4")
    remarks = compare(found([str(outputs)])).remarks()
    assert remarks[0] == "lr=0.5: one seed; nothing can be said of chance"
    assert remarks[1] == "lr=0.7: no seed in common; nothing can be said of chance"


def test_a_variant_that_changed_something_else_says_so(outputs):
    made(outputs, 0.9)
    made(outputs, 0.95, "regularization.batchnorm=true", parameters={"total": 1200, "trainable": 1200})
    made(outputs, 0.95, "data.crop=24", data={"window": [1, 24, 24]})
    first, second = compare(found([str(outputs)])).remarks()
    assert first.endswith("; 1 200 parameters, the baseline 1 000")
    assert second.endswith("; sees 1x24x24 pixels, the baseline 1x28x28")


# What tells configurations apart, of two command lines each: the columns, and what the second one is called.
TOLD_APART = {
    "a part and what comes with it": ("optimizer=sgd | optimizer=adam", "optimizer", "optimizer=adam"),
    "a preset of a model": ("model=lenet | model=lenet_v2", "model", "lenet_v2"),
    "the same, typed": (
        "model=lenet | model=lenet model.activation=relu model.pool=max",
        "model.activation model.pool",
        "activation=relu pool=max",
    ),
    "a preset, and what was typed besides": (
        "model=lenet model.dropout=0.1 | model=lenet_v2 model.dropout=0.2",
        "model model.dropout",
        "lenet_v2 dropout=0.2",
    ),
    "experiments": (
        "experiment=keras_notes/lenet_fashion | experiment=keras_notes/mlp_fashion",
        "experiment",
        "mlp_fashion",
    ),
    "the recipe that a model brings": (
        "model=minialexnet data.channels=3 | model=minialexnet_v3 data.channels=3 data.crop=28",
        "model augmentation data.crop",
        "minialexnet_v3 augmentation=crop_flip crop=28",
    ),
}


@pytest.mark.parametrize("case", TOLD_APART)
def test_what_tells_configurations_apart(case, outputs):
    commands, keys, label = TOLD_APART[case]
    for words in commands.split(" | "):
        made(outputs, 0.9, *words.split())
    comparison = compare(found([str(outputs)]))
    assert " ".join(comparison.differing) == keys
    assert comparison.rows[1].label == label
    assert set(comparison.settings()) > set()


def test_of_runs_that_say_no_choices_the_parts_tell_them_apart_not_what_only_one_of_them_has(outputs):
    for optimizer in ("sgd", "adam"):
        made(outputs, 0.9, f"optimizer={optimizer}", choices={}, origins={})
    differing = compare(found([str(outputs)])).differing
    assert "optimizer.name" in differing
    assert not {"optimizer.momentum", "optimizer.beta1"} & set(differing)


def test_of_many_columns_a_label_names_only_what_changed(outputs):
    words = ["optimizer.lr=0.5", "batch_size=32", "data.val_fraction=0.2", "regularization.dropout=0.5"]
    made(outputs, 0.9)
    made(outputs, 0.9, *words)
    made(outputs, 0.9, words[0])
    labels = [row.label for row in compare(found([str(outputs)])).rows]
    assert labels == ["baseline", "batch_size=32 val_fraction=0.2 lr=0.5 dropout=0.5", "lr=0.5"]


def test_what_no_column_shows_is_named(outputs):
    made(outputs, 0.9, "experiment=keras_notes/lenet_fashion")
    made(outputs, 0.9, "experiment=keras_notes/lenet_relu_sgd_fashion")
    (remark,) = compare(found([str(outputs)])).remarks()
    assert "differs in " in remark
    assert "optimizer.name" in remark


def test_the_baseline_may_be_a_choice(outputs):
    made(outputs, 0.9)
    made(outputs, 0.95, "model=lenet_v2")
    assert compare(found([str(outputs)]), baseline="model=lenet_v2").baseline.label == "lenet_v2"


# Answers --------------------------------------------------------------------------------------------------------------


def written(path: Path, **columns: list[float]) -> None:
    """Give a run the epochs whose values are these, by metric and split (as accuracy_val)."""
    epochs = range(1, 1 + len(next(iter(columns.values()))))
    rows = [
        {"row": "epoch", "epoch": epoch, "step": 10 * epoch}
        | {name.replace("_", "/"): values[epoch - 1] for name, values in columns.items()}
        for epoch in epochs
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_page_answers_which_learns_first_and_which_overfits(outputs):
    falling = [2.0, 1.0, 0.5, 0.25]
    for seed in (0, 1):
        fast = made(outputs, 0.90, "optimizer.lr=0.5", f"seed={seed}")
        slow = made(outputs, 0.95, "optimizer.lr=0.1", f"seed={seed}")
        written(fast, accuracy_val=[0.5, 0.8, 0.8, 0.7], loss_val=[2.0, 1.0, 1.2, 1.5], loss_train=falling)
        written(slow, accuracy_val=[0.2, 0.3, 0.8, 0.9], loss_val=falling, loss_train=falling)
    said = verdicts(comparison := compare(found([str(outputs)])), learnt(comparison))
    assert said[0].startswith("Highest accuracy of test images: lr=0.1, 0.9500 ± 0.0000 (2 seeds). Against the next, ")
    assert said[1] == (
        "First to 0.7920 on validation (99% of what every run came to): lr=0.5 in epoch 2 (3.33 s), then lr=0.1 in "
        "epoch 3 (5 s)."
    )
    assert said[2] == ("Overfit: the loss of validation ends above its lowest for lr=0.5 (1.50 times). Not so: lr=0.1.")
    assert said[3] == (
        "By heart: accuracy is better on training images than on test images by 0.0500 (lr=0.1) to 0.1000 (lr=0.5)."
    )
    table = learning_table(comparison, learnt(comparison)).content.set_index("configuration")
    assert table["epochs to 0.7920"].to_dict() == {"lr=0.5": 2, "lr=0.1": 3}
    assert table["best on validation"].to_dict() == {"lr=0.5": 0.8, "lr=0.1": 0.9}
    assert table["by heart"].to_dict() == pytest.approx({"lr=0.5": 0.1, "lr=0.1": 0.05})


def test_where_nothing_was_validated_training_tells_which_learns_first(outputs):
    for rate, values in (("0.5", [0.5, 0.9]), ("0.1", [0.1, 0.6])):
        written(made(outputs, 0.9, f"optimizer.lr={rate}"), accuracy_train=values)
    said = verdicts(comparison := compare(found([str(outputs)])), learnt(comparison))
    assert any(
        line.startswith("First to 0.5940 on training (99% of what every run came to): lr=0.5 in epoch 2")
        for line in said
    )
    assert not any("Overfit" in line for line in said)


def test_runs_without_epochs_still_have_a_page(outputs, report):
    for rate in ("0.5", "0.1"):
        (made(outputs, 0.9, f"optimizer.lr={rate}") / "metrics.jsonl").unlink()
    assert report(outputs).code == 0


def test_what_a_setting_changes_is_told_over_all_others(outputs):
    for dropout in (0.0, 0.5):
        for rate in (0.1, 0.5):
            words = [f"regularization.dropout={dropout}", f"optimizer.lr={rate}"]
            made(outputs, 0.5 + 0.2 * dropout + 0.1 * rate, *words)
    said = effect_sentences(compare(found([str(outputs)])))
    assert said == [
        "optimizer.lr from 0.1 to 0.5: +0.0400 ± 0.0000 over 2 pairs, more than chance (in 2 settings of the others)",
        "regularization.dropout from 0.0 to 0.5: +0.1000 ± 0.0000 over 2 pairs, more than chance "
        "(in 2 settings of the others)",
    ]


def test_published_figures_stand_beside_ours(outputs):
    path = made(outputs, 0.9)
    reference = {"metric": "accuracy", "value": 0.95, "split": "test", "source": "a book", "remark": "one seed"}
    result = json.loads((path / "result.json").read_text()) | {"references": [reference], "departures": ["epochs=1"]}
    (path / "result.json").write_text(json.dumps(result))
    (row,) = compare(found([str(outputs)])).references().to_dict("records")
    assert (row["published"], row["ours"], row["source"]) == (0.95, 0.9, "a book")
    assert row["remark"] == "one seed; epochs=1"


# The command ----------------------------------------------------------------------------------------------------------


def test_broken_running_and_foreign_folders_are_named_and_passed_over(shelf, report):
    made(shelf, None, "seed=9", status="paused")
    broken = shelf / "synthetic" / "lenet" / "broken"
    broken.mkdir()
    (broken / "run.json").write_text("{")
    (shelf / "notes.txt").write_text("mine")
    done = report(shelf)
    assert done.code == 0, done.err
    passed_over = done.out[done.out.index("Passed over:") :]
    assert passed_over.count(str(shelf / "synthetic")) == 3  # once in the reason why it cannot be read
    assert "paused" in passed_over
    assert f"{broken / 'run.json'} cannot be read" in done.out


def test_a_sweep_is_the_runs_that_it_made(shelf, report):
    folders = [str(path.parent.relative_to(shelf)) for path in sorted(shelf.glob("*/*/*/run.json"))][:2]
    (shelf / "sweeps").mkdir()
    sweep = shelf / "sweeps" / "1a2b3c4d.json"
    sweep.write_text(json.dumps({"jobs": [{"folder": folder} for folder in [*folders, None]]}))
    assert len(found([str(sweep)])) == 2
    assert report(sweep).code == 0
    sweep.write_text("[]")
    assert "is no sweep" in report(sweep).err


@pytest.mark.parametrize(
    ("words", "text"), [("nowhere", "there is no such run"), ("{shelf} --metric top9", "they have")]
)
def test_what_cannot_be_reported_is_refused(words, text, shelf, report):
    done = report(*words.format(shelf=shelf).split())
    assert (done.code, text in done.err) == (2, True)


def test_nothing_finished_is_nothing_to_report(outputs, report):
    made(outputs, None, status="paused")
    made(outputs, None, "seed=1", status="paused")
    done = report(outputs)
    assert (done.code, "no finished run to report on" in done.err) == (2, True)


def test_a_report_touches_no_run(shelf, report):
    before = fingerprints(shelf / "synthetic")
    assert report(shelf).code == 0
    assert fingerprints(shelf / "synthetic") == before
    (folder,) = (shelf / "reports").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["report.csv", "report.html", "report.md"]


def test_the_files_hold_the_same_table(shelf, report, tmp_path):
    report(shelf, "--out", tmp_path / "out")
    expected = compare(found([str(shelf)])).table()
    table = pd.read_csv(tmp_path / "out" / "report.csv", dtype={"regularization.dropout": str})
    assert table["accuracy"].tolist() == pytest.approx(expected["accuracy"].tolist())
    lines = (tmp_path / "out" / "report.md").read_text().splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("| regularization.dropout |"))
    assert lines[head].startswith("| regularization.dropout | n | accuracy | std | ±95% | Δ |")
    assert lines[head + 2].startswith("| 0.0 | 3 | 0.8967 |")


class Page(HTMLParser):
    """What of a page a browser would fetch or run, and what it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts = 0
        self.cells: list[Mapping[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        if tag in ("link", "img", "iframe", "object", "embed", "base"):
            self.fetched.append(tag)
        self.fetched += [
            f"{tag} {key}={value}"
            for key, value in attrs
            if key in ("src", "href", "xlink:href") and not str(value).startswith("#")
        ]
        self.cells += [given] if tag == "td" else []


def test_a_page_needs_nothing_but_itself_and_runs_nothing_that_it_shows(shelf, report, tmp_path):
    hostile = '<script>alert("1")</script>'
    reference = {"metric": "accuracy", "value": 0.5, "split": "test", "source": hostile, "remark": hostile * 50}
    for path in shelf.glob("*/*/*/result.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"references": [reference]}))
    assert report(shelf, "--out", tmp_path / "out").code == 0
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.fetched == []
    assert page.scripts == 1
    assert "&lt;script&gt;alert(" in text
    assert text.count("<svg") == 1  # there are no losses in these rows
    assert "url(http" not in text
    assert len(page.cells) == 2 * (9 + 7 + 7)  # configurations, how they learnt, published
    numbers = [cell["data-value"] for cell in page.cells if cell.get("class") is None]
    assert any(number and float(number) == pytest.approx(2.78 / 3) for number in numbers)


def test_two_hundred_runs_are_reported_on_within_seconds(outputs, report):
    path = made(outputs, 0.9)
    text = (path / "config.yaml").read_text()
    rows = [{"row": "epoch", "epoch": n, "step": n, "loss/train": 1 / n, "accuracy/val": 0.5} for n in range(1, 151)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for seed in range(1, 200):
        copy = path.parent / f"copy-{seed}"
        copy.mkdir()
        for name in ("run.json", "result.json"):
            (copy / name).write_text((path / name).read_text())
        (copy / "config.yaml").write_text(
            text.replace("seed: 0", f"seed: {seed}").replace("lr: 0.05", f"lr: 0.{seed % 9 + 1}")
        )
        (copy / "metrics.jsonl").write_text(lines)
    done = report(outputs)
    assert done.code == 0, done.err
    assert "page:" in done.out
