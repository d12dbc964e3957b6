"""Rows of a comparison: what is ranked on, what repeats a configuration, what failed, and what may not be paired."""

import json
from pathlib import Path

import pytest

from cnnbench.analysis.reports.compared import conclusion, method, page_of
from cnnbench.analysis.reports.comparison import Comparison, Row, compare
from cnnbench.analysis.reports.findings import findings, learning_of
from cnnbench.store.query import runs_named
from tests.support.run_folders import write_run


def compared(outputs: Path, *arguments: str | None) -> Comparison:
    return compare(runs_named([str(outputs)]), *arguments)


def said_of(comparison: Comparison) -> list[str]:
    return list(findings(comparison, learning_of(comparison)))


def gain_of(row: Row) -> str:
    return f"{row.gained.estimate.mean:+.4f}, n = {row.gained.estimate.n}; {row.gained.verdict}"


def failed(outputs: Path, *words: str) -> None:
    error = "TrainingError: the loss is nan after step 3, at a learning rate of 9: the training diverged."
    write_run(outputs, None, *words, status="failed", error=error)


# Test stays out of choosing -------------------------------------------------------------------------------------------


def test_validation_decides_which_is_best_and_the_test_figure_is_its(outputs):
    for seed in (0, 1):
        write_run(outputs, 0.95 + seed / 100, "optimizer.lr=0.1", f"seed={seed}", val=0.90)
        write_run(outputs, 0.91 + seed / 100, "optimizer.lr=0.5", f"seed={seed}", val=0.93)
        write_run(outputs, 0.90 + seed / 100, "optimizer.lr=0.7", f"seed={seed}", val=0.92)
    comparison = compared(outputs)
    assert comparison.best.label == "lr=0.5"
    assert said_of(comparison)[0].startswith(
        "Best on validation: lr=0.5, 0.9300 (1 000 images); its test accuracy is 0.9150. Tied with it on the "
        "1 000 validation images, within chance: lr=0.7 (0.0100 or 10 images behind); differences to the baseline are "
        "judged on the test images."
    )
    assert list(comparison.table()["validation"]) == pytest.approx([0.90, 0.93, 0.92])


def test_without_validation_it_says_that_it_ranks_on_test(outputs):
    write_run(outputs, 0.95, "optimizer.lr=0.1", val=0.9)
    write_run(outputs, 0.91, "optimizer.lr=0.5")
    said = said_of(compared(outputs))[0]
    assert said.startswith("Best on test: lr=0.1, 0.9500")
    assert said.endswith("There are no validation images: it was chosen by this figure, which is therefore too good.")


def test_one_seed_ties_with_nothing(outputs):
    for seed in (0, 1, 2):
        write_run(outputs, 0.90 + seed / 100, "optimizer.lr=0.1", f"seed={seed}", val=0.93 + seed / 100)
        write_run(outputs, 0.91 + seed / 90, "optimizer.lr=0.2", f"seed={seed}", val=0.93 + seed / 90)
    for rate, val, seed in (("9", 0.1, 0), ("8", 0.92, 7)):
        write_run(outputs, val, f"optimizer.lr={rate}", f"seed={seed}", val=val)
    comparison = compared(outputs)
    said = said_of(comparison)[0]
    assert "Tied with it on the 1 000 validation images, within chance: lr=0.1 (0.0011 or 1 image behind)" in said
    assert "unknown: lr=8 (0.0211 or 21 images behind), lr=9 (0.8300 or 830 images behind)." in said
    assert conclusion(comparison).endswith(". 2 more variants have fewer than two seeds to compare: unknown.")


def test_a_tie_on_validation_is_said(outputs):
    write_run(outputs, 0.95, "optimizer.lr=0.1", val=0.9)
    write_run(outputs, 0.99, "optimizer.lr=0.5", val=0.9)
    said = said_of(compared(outputs))[0]
    assert said.startswith(
        "Best on validation: lr=0.1, 0.9000 (1 000 images, 95 % interval over images 0.8798 to 0.9171)"
    )
    assert said.endswith("its test accuracy is 0.9500. Not tested, so whether by chance is unknown: lr=0.5 (equal).")


def test_where_test_is_not_measured_validation_is_compared(outputs):
    for rate, vals in (("0.1", (0.90, 0.91)), ("0.5", (0.92, 0.94))):
        for seed, val in enumerate(vals):
            path = write_run(outputs, 0.5, f"optimizer.lr={rate}", f"seed={seed}", val=val) / "result.json"
            result = json.loads(path.read_text())
            if rate == "0.1" or seed:  # one was evaluated since
                del result["test"]
            path.write_text(json.dumps(result))
    comparison = compared(outputs)
    assert (comparison.split, comparison.ranks_on) == ("val", "val")
    assert comparison.measure == "validation accuracy"
    said = said_of(comparison)[0]
    assert said.startswith("Best on validation: lr=0.5, 0.9300 (1 000 images, 95 % interval over 2 seeds ")
    assert said.endswith("It was chosen by this figure: for a report, measure the test images (cnnbench evaluate).")


# Folds, and seeds of splits and of noise, repeat ----------------------------------------------------------------------


def test_folds_are_one_row_measured_on_what_they_hold_out(outputs):
    held_out = (0.90, 0.92, 0.94, 0.88, 0.91)
    for fold, val in enumerate(held_out):
        write_run(outputs, 0.9, "data.folds=5", f"data.fold={fold}", val=val, split=f"of fold {fold}")
    comparison = compared(outputs)
    (row,) = comparison.table().to_dict("records")
    assert (row["n"], row["accuracy"], row["test"]) == (5, pytest.approx(0.91), pytest.approx(0.9))
    assert row["std"] == pytest.approx(0.0223607, abs=1e-6)
    assert row["high"] - row["low"] == pytest.approx(2 * 2.776445 * 0.0223607 * (1 / 5 + 1 / 4) ** 0.5, abs=1e-5)
    said = said_of(comparison)[0]
    assert said.startswith("Best on validation: baseline, 0.9100 (1 000 images, 95 % interval over 5 folds ")
    assert "fold=" not in page_of(comparison, "folds").markdown()
    assert "folds share training images" in method(comparison)["formulas"]
    assert "not covered" not in method(comparison)
    assert page_of(comparison, "folds").summary.startswith("Mean held-out accuracy 0.9100 [")


def test_two_configurations_are_paired_by_fold(outputs):
    for fold, val in enumerate((0.90, 0.92, 0.94)):
        for rate, gain in (("0.1", 0.0), ("0.5", 0.02 + 0.001 * fold)):
            words = ("data.folds=3", f"data.fold={fold}", f"optimizer.lr={rate}")
            write_run(outputs, 0.9, *words, val=val + gain, split=f"of fold {fold}")
    assert gain_of(compared(outputs).rows[1]).startswith("+0.0210, n = 3; more than chance, p = ")


@pytest.mark.parametrize(
    ("key", "more", "unit"),
    [("data.split_seed", (), "splits"), ("data.noise_seed", ("data.label_noise=0.1",), "noise seeds")],
)
def test_other_seeds_repeat_too(key, more, unit, outputs):
    for seed in (0, 1, 2):
        write_run(outputs, 0.9 + seed / 100, f"{key}={seed}", *more, val=0.9)
    comparison = compared(outputs)
    assert len(comparison.rows) == 1
    assert comparison.unit == unit
    assert (comparison.overlap > 0) == (key == "data.split_seed")


# Rows -----------------------------------------------------------------------------------------------------------------


def test_survivors_do_not_win(outputs):
    for seed, (one, other) in enumerate(((0.90, 0.99), (0.91, None), (0.92, None))):
        write_run(outputs, one, "optimizer.lr=0.1", f"seed={seed}", val=one)
        if other is None:
            failed(outputs, "optimizer.lr=9", f"seed={seed}")
        else:
            write_run(outputs, other, "optimizer.lr=9", f"seed={seed}", val=other)
    comparison = compared(outputs)
    assert comparison.best.label == "lr=0.1"
    assert comparison.table().set_index("optimizer.lr")["lost"].to_dict() == {"0.1": "", "9": "2 diverged"}
    said = said_of(comparison)
    assert conclusion(comparison).startswith("lr=9 diverged with 2 of 3 seeds. No difference")
    assert list(comparison.numbers.values()) == ["1. ", "a. "], "which is not ranked"
    assert said[1] == ("Not ranked: lr=9; its mean, 0.9900, is over the 1 of 3 seeds that have a result (2 diverged).")
    assert gain_of(comparison.rows[1]) == "+0.0900, n = 1; no test is possible with one run"
    assert comparison.rows[1].lost == {"diverged": 2}


def test_what_never_came_through_is_a_finding(outputs):
    for seed in (0, 1):
        write_run(outputs, 0.9 + seed / 100, "optimizer.lr=0.05", f"seed={seed}")
        failed(outputs, "optimizer.lr=1e30", f"seed={seed}")
    comparison = compared(outputs)
    assert comparison.cautions() == ["Not ranked: lr=1e30 diverged with 2 of 2 seeds."]
    assert conclusion(comparison) == (
        "lr=1e30 diverged with 2 of 2 seeds. No difference in test accuracy can be tested: "
        "that takes two finished runs of each configuration."
    )


def test_a_baseline_with_one_run_is_why_nothing_can_be_tested(outputs):
    write_run(outputs, 0.9, "optimizer.lr=0.1")
    for seed in (0, 1):
        write_run(outputs, 0.8 + seed / 100, "optimizer.lr=0.5", f"seed={seed}")
    assert conclusion(compared(outputs)) == (
        "No difference in test accuracy can be tested: the baseline, lr=0.1, has one finished run; "
        "--baseline KEY=VALUE,… names another configuration."
    )


def test_a_result_that_is_not_a_number_diverged(outputs):
    for seed in (0, 1):
        write_run(outputs, 0.9, "optimizer.lr=0.1", f"seed={seed}")
        path = write_run(outputs, 0.95, "optimizer.lr=0.5", f"seed={seed}") / "result.json"
        if seed:
            result = json.loads(path.read_text())
            path.write_text(json.dumps(result | {"test": result["test"] | {"accuracy": None}}))
    comparison = compared(outputs)
    assert comparison.best.label == "lr=0.1"
    assert comparison.rows[1].lost == {"diverged": 1}


def test_a_configuration_that_never_finished_is_a_row(outputs):
    write_run(outputs, 0.9, "optimizer.lr=0.1")
    failed(outputs, "optimizer.lr=9")
    write_run(outputs, None, "optimizer.lr=0.3", status="stopped")
    comparison = compared(outputs)
    assert [row.label for row in comparison.rows] == ["lr=0.1", "lr=9", "lr=0.3"]
    assert [dict(row.lost) for row in comparison.rows[1:]] == [{"diverged": 1}, {"stopped": 1}]
    assert (
        page_of(comparison, "all").sections[0].facts["runs"] == "3: 3 configurations, 1 seed each (1 failed, 1 stopped)"
    )
    assert page_of(compared(outputs, None, "lr=0.3"), "all").summary.endswith(
        "takes two finished runs of each configuration."
    )


def test_unequal_seeds_are_said(outputs):
    for seed in range(4):
        write_run(outputs, 0.9 + seed / 100, "optimizer.lr=0.1", f"seed={seed}", val=0.9)
        if seed != 2:
            write_run(outputs, 0.91, "optimizer.lr=0.5", f"seed={seed}", val=0.91)
            write_run(outputs, 0.89, "optimizer.lr=0.7", f"seed={seed}", val=0.89)
    comparison = compared(outputs)
    (said,) = comparison.cautions()
    assert said == (
        "Unequal seeds: the means are over different ones (1 configuration with 4 seeds, "
        "2 configurations with 3 seeds); differences are over those in common."
    )
    assert comparison.rows[1].gained is not None
    assert comparison.rows[1].gained.estimate.n == 3


IMAGES = {"window": [1, 28, 28], "classes": ["a", "b"]}


@pytest.mark.parametrize("facts", [{"fingerprint": "b"}, {"classes": ["a", "c"]}, {"images": {"test": 7}}])
def test_runs_on_other_test_images_are_not_paired(facts, outputs):
    data = {**IMAGES, "fingerprint": "a", "images": {"test": 9}}
    for seed in (0, 1, 2):
        write_run(outputs, 0.9 + seed / 100, "optimizer.lr=0.1", f"seed={seed}", data=data)
        write_run(outputs, 0.95 + seed / 90, "optimizer.lr=0.5", f"seed={seed}", data=data | facts)
    comparison = compared(outputs)
    assert comparison.rows[1].gained is None
    assert comparison.rows[1].notes == ("measured on other test images than the baseline, and not compared with it",)
    assert comparison.cautions() == [
        "Other images: lr=0.5 is measured on other test images than lr=0.1; their order says little about the "
        "configurations."
    ]
    assert "lr=0.1" not in said_of(comparison)[0]


def test_the_same_settings_on_changed_images_are_rows_of_their_own(outputs):
    for seed, print_ in enumerate(("before", "changed")):
        write_run(outputs, 0.9, f"seed={seed}", data={**IMAGES, "fingerprint": print_})
    comparison = compared(outputs)
    assert comparison.differing == ("data content",)
    assert comparison.cautions()[0].startswith("Changed images: configurations that differ in `data content` alone")


UNLIKE = {
    "split": ({"split": "another"}, "trained and validated on another split than the baseline"),
    "code": ({"code": {"loop.py": "1"}}, "computed with code 31ddcada, the baseline with code 4f53cda1"),
    "versions": ({"versions": {"torch": "2.12.0"}}, "computed with torch 2.12.0, the baseline with torch 2.11.0"),
    "device": (
        {"machine": {"device": "cuda:0", "name": "H100"}},
        "computed with H100, cuda:0, the baseline with EPYC, cpu",
    ),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_what_else_differs_in_a_pair_is_said(case, outputs):
    facts, said = UNLIKE[case]
    usual = {"split": "one", "versions": {"torch": "2.11.0"}, "machine": {"device": "cpu", "name": "EPYC"}}
    for seed in (0, 1):
        write_run(outputs, 0.9 + seed / 100, "optimizer.lr=0.1", f"seed={seed}", **usual)
        write_run(outputs, 0.95, "optimizer.lr=0.5", f"seed={seed}", **(usual | facts))
    assert compared(outputs).rows[1].notes == (said,)


def test_a_row_of_several_devices_says_so(outputs):
    for seed, device in enumerate(("cpu", "cuda:0")):
        write_run(outputs, 0.9, "optimizer.lr=0.1", f"seed={seed}", machine={"device": device})
    (row,) = compared(outputs).rows
    assert row.notes == ("computed with cpu and cuda:0",)


SAME_NETWORK = ("regularization.dropout=0.0", "regularization.batchnorm=false", "regularization.label_smoothing=0.0")


@pytest.mark.parametrize("typed", SAME_NETWORK)
def test_null_and_what_it_means_are_one_row(typed, outputs):
    key, _, value = typed.partition("=")
    for seed, text in enumerate(("null", value)):
        write_run(outputs, 0.9, f"{key}={text}", f"seed={seed}")
    assert len(compared(outputs).rows) == 1


# Images ---------------------------------------------------------------------------------------------------------------


def test_predictions_pair_the_images(outputs):
    """A dozen images are correct only with one of the two: surer than two independent counts of 500."""
    for seed in (0, 1, 2):
        one = [n >= 50 for n in range(500)]
        two = [n >= 36 + seed for n in range(500)]
        write_run(outputs, 0.0, "optimizer.lr=0.1", f"seed={seed}", right=one)
        write_run(outputs, 0.0, "optimizer.lr=0.5", f"seed={seed}", right=two)
    assert compared(outputs).rows[1].gained.is_resolved
    for path in outputs.glob("*/*/*/evaluation/test-best/predictions.csv"):
        path.write_text("index,class,right\n0,a,True\n")  # of another evaluation
    assert not compared(outputs).rows[1].gained.is_resolved
