"""Rows of a comparison: what is ranked on, what repeats a configuration, what failed, and what may not be paired."""

import json
from pathlib import Path

import pytest

from cnnbench.analysis.reports.compared import answers, how_to_read, learning_of, page_of
from cnnbench.analysis.reports.comparison import Comparison, compare
from cnnbench.store.query import runs_named
from tests.support.run_folders import replace_epochs, write_run


def compared(outputs: Path, *arguments: str | None) -> Comparison:
    return compare(runs_named([str(outputs)]), *arguments)


def first_answer(comparison: Comparison) -> str:
    return answers(comparison, learning_of(comparison))[0]


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
    assert first_answer(comparison).startswith(
        "Highest validation accuracy of 3 configurations tried: lr=0.5, 0.9300; on the test images 0.9150 (95 %: "
    )
    assert "Compared with the next, lr=0.7: +0.0100" in first_answer(comparison)
    assert list(comparison.table()["validation"]) == pytest.approx([0.90, 0.93, 0.92])


def test_without_validation_it_says_that_it_ranks_on_test(outputs):
    write_run(outputs, 0.95, "optimizer.lr=0.1", val=0.9)
    write_run(outputs, 0.91, "optimizer.lr=0.5")
    said = first_answer(compared(outputs))
    assert said.startswith("Highest test accuracy of 2 configurations tried: lr=0.1, 0.9500")
    assert said.endswith("Ranked on the test images, for want of validation: the figure of the best is too good.")


def test_a_tie_on_validation_is_said(outputs):
    write_run(outputs, 0.95, "optimizer.lr=0.1", val=0.9)
    write_run(outputs, 0.99, "optimizer.lr=0.5", val=0.9)
    assert "lr=0.1, 0.9000; on the test images 0.9500" in first_answer(compared(outputs))
    assert "lr=0.5 is as good on validation. " in first_answer(compared(outputs))


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
    assert page_of(comparison, "all").summary.endswith("; accuracy on the validation images.")
    said = first_answer(comparison)
    assert said.startswith("Highest validation accuracy of 2 configurations tried: lr=0.5, 0.9300 (95 %: ")
    assert said.endswith("It was chosen on these images: a figure for a report is measured on the test images.")


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
    said = first_answer(comparison)
    assert said.startswith("Highest validation accuracy: baseline, 0.9100 (95 %: ")
    assert "5 folds" in said
    assert "fold=" not in page_of(comparison, "folds").markdown()
    assert "share most of their training images" in how_to_read(comparison)
    assert page_of(comparison, "folds").summary.endswith("; accuracy on the held-out images.")


def test_two_configurations_are_paired_by_fold(outputs):
    for fold, val in enumerate((0.90, 0.92, 0.94)):
        for rate, gain in (("0.1", 0.0), ("0.5", 0.02 + 0.001 * fold)):
            words = ("data.folds=3", f"data.fold={fold}", f"optimizer.lr={rate}")
            write_run(outputs, 0.9, *words, val=val + gain, split=f"of fold {fold}")
    (remark,) = compared(outputs).remarks()
    assert remark.startswith("lr=0.5: +0.0210 (95 %: ")
    assert "3 folds), more than chance" in remark


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
    assert comparison.table().set_index("optimizer.lr")["lost"].to_dict() == {"0.1": "", "9.0": "2 diverged"}
    said = answers(comparison, learning_of(comparison))
    assert said[1] == ("Not ranked: lr=9.0; its mean, 0.9900, is over the 1 of 3 seeds that came through (2 diverged).")
    (remark,) = comparison.remarks()
    assert remark == "lr=9.0: one seed; whether this is chance is unknown; 2 diverged"


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
    write_run(outputs, None, "optimizer.lr=0.3", status="paused")
    comparison = compared(outputs)
    assert [row.label for row in comparison.rows] == ["lr=0.1", "lr=9.0", "lr=0.3"]
    assert comparison.remarks() == ["lr=9.0: no result: 1 diverged", "lr=0.3: no result: 1 paused"]
    assert page_of(comparison, "all").summary.startswith("3 configurations, 3 runs;")
    assert compared(outputs, None, "lr=0.3").remarks()[0] == "lr=0.1: the baseline has no result"


def test_unequal_seeds_are_said(outputs):
    for seed in range(4):
        write_run(outputs, 0.9 + seed / 100, "optimizer.lr=0.1", f"seed={seed}", val=0.9)
        if seed != 2:
            write_run(outputs, 0.91, "optimizer.lr=0.5", f"seed={seed}", val=0.91)
    comparison = compared(outputs)
    (said,) = comparison.cautions()
    assert said == (
        "Unequal seeds: the means are over different ones (lr=0.5 3, lr=0.1 4); differences are over those in common."
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
    assert comparison.remarks() == ["lr=0.5: measured on other test images than the baseline, and not compared with it"]
    assert comparison.cautions() == [
        "Other images: lr=0.5 is measured on other test images than lr=0.1; their order says little about the "
        "configurations."
    ]
    assert "The next, lr=0.1, was measured on other images" in first_answer(comparison)


def test_the_same_settings_on_changed_images_are_rows_of_their_own(outputs):
    for seed, print_ in enumerate(("before", "changed")):
        write_run(outputs, 0.9, f"seed={seed}", data={**IMAGES, "fingerprint": print_})
    comparison = compared(outputs)
    assert comparison.differing == ("data content",)
    assert comparison.remarks()[0].startswith("Rows that differ in `data content` alone")


UNLIKE = {
    "split": ({"split": "another"}, "trained and validated on another split than the baseline"),
    "code": ({"code": {"loop.py": "1"}}, "computed by other code than the baseline"),
    "versions": ({"versions": {"torch": "2.12.0"}}, "torch 2.12.0, the baseline torch 2.11.0"),
    "device": ({"machine": {"device": "cuda:0", "name": "H100"}}, "cuda:0 H100, the baseline cpu EPYC"),
}


@pytest.mark.parametrize("case", UNLIKE)
def test_what_else_differs_in_a_pair_is_said(case, outputs):
    facts, said = UNLIKE[case]
    usual = {"split": "one", "versions": {"torch": "2.11.0"}, "machine": {"device": "cpu", "name": "EPYC"}}
    for seed in (0, 1):
        write_run(outputs, 0.9 + seed / 100, "optimizer.lr=0.1", f"seed={seed}", **usual)
        write_run(outputs, 0.95, "optimizer.lr=0.5", f"seed={seed}", **(usual | facts))
    (remark,) = compared(outputs).remarks()
    assert remark.endswith(f"; {said}")


def test_a_row_of_several_devices_says_so(outputs):
    for seed, device in enumerate(("cpu", "cuda:0")):
        write_run(outputs, 0.9, "optimizer.lr=0.1", f"seed={seed}", machine={"device": device})
    (row,) = compared(outputs).rows
    assert row.notes == ("its runs were computed with cpu and cuda:0",)


SAME_NETWORK = ("regularization.dropout=0.0", "regularization.batchnorm=false", "regularization.label_smoothing=0.0")


@pytest.mark.parametrize("typed", SAME_NETWORK)
def test_null_and_what_it_means_are_one_row(typed, outputs):
    key, _, value = typed.partition("=")
    for seed, text in enumerate(("null", value)):
        write_run(outputs, 0.9, f"{key}={text}", f"seed={seed}")
    assert len(compared(outputs).rows) == 1


# Which learns first ---------------------------------------------------------------------------------------------------


def test_a_short_run_does_not_lower_the_level_that_is_raced_for(outputs):
    for rate, curve in (("0.1", [0.2, 0.8, 0.9]), ("0.5", [0.8, 0.9, 0.9])):
        replace_epochs(write_run(outputs, 0.9, f"optimizer.lr={rate}"), accuracy_val=curve)
    replace_epochs(write_run(outputs, 0.2, "optimizer.lr=0.5", "epochs=1"), accuracy_val=[0.2])
    learning = learning_of(compared(outputs))
    assert learning.level == pytest.approx(0.99 * 0.9)
    assert learning.rows["epochs"].tolist() == pytest.approx([3, 2, float("nan")], nan_ok=True)
    comparison = compared(outputs)
    assert any(
        "Not reached, or not by all: " in line and "(by 0 of 1 seeds)" in line
        for line in answers(comparison, learning_of(comparison))
    )


def test_a_run_that_learns_nothing_does_not_lower_the_level_either(outputs):
    for rate, best in (("0.1", 0.9), ("0.5", 0.8), ("9", 0.1)):
        replace_epochs(write_run(outputs, best, f"optimizer.lr={rate}"), accuracy_val=[0.1, best])
    assert learning_of(compared(outputs)).level == pytest.approx(0.99 * 0.8)


def test_one_seed_that_reached_it_does_not_stand_for_all(outputs):
    for seed, best in enumerate((0.9, 0.1)):
        replace_epochs(write_run(outputs, 0.9, "optimizer.lr=0.5", f"seed={seed}"), accuracy_val=[best, best])
        replace_epochs(write_run(outputs, 0.9, "optimizer.lr=0.1", f"seed={seed}"), accuracy_val=[0.1, 0.8])
    found = learning_of(compared(outputs)).rows.set_index("configuration")
    assert found.loc["lr=0.5", "reached"] == "1 of 2"
    assert found["epochs"].isna().to_dict() == {"lr=0.5": True, "lr=0.1": False}


# Images ---------------------------------------------------------------------------------------------------------------


def test_predictions_pair_the_images(outputs):
    """A dozen images are correct only with one of the two: surer than two independent counts of 500."""
    for seed in (0, 1, 2):
        one = [n >= 50 for n in range(500)]
        two = [n >= 36 + seed for n in range(500)]
        write_run(outputs, 0.0, "optimizer.lr=0.1", f"seed={seed}", right=one)
        write_run(outputs, 0.0, "optimizer.lr=0.5", f"seed={seed}", right=two)
    (remark,) = compared(outputs).remarks()
    assert "; 3 seeds and 500 images), more than chance" in remark
    for path in outputs.glob("*/*/*/evaluation/test-best/predictions.csv"):
        path.write_text("index,class,right\n0,a,True\n")  # of another evaluation
    (remark,) = compared(outputs).remarks()
    assert "; 3 seeds and 500 images), which may be chance" in remark
