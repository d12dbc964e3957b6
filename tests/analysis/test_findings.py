"""What a comparison says, and that it says no more than the runs show: conclusion, findings, facts, notes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cnnbench.analysis.reports.compared import conclusion, configurations, method, page_of
from cnnbench.analysis.reports.comparison import Comparison, compare
from cnnbench.analysis.reports.facts import published
from cnnbench.analysis.reports.findings import findings, learning_of
from cnnbench.analysis.reports.side_by_side import figures_of
from cnnbench.store.files import write_sealed
from cnnbench.store.query import runs_named
from tests.support.run_folders import replace_epochs, write_run


def said_of(comparison: Comparison) -> list[str]:
    return list(findings(comparison, learning_of(comparison)))


def differences_of(outputs: Path) -> list[str]:
    (figure,) = (
        one for one in figures_of(compare(runs_named([str(outputs)]))) if one.title.startswith("Difference to")
    )
    return figure.lines


def test_the_lowest_calibration_error_is_the_best(outputs):
    for rate, error in (("0.1", 0.02), ("0.5", 0.2)):
        path = write_run(outputs, 0.9, f"optimizer.lr={rate}") / "result.json"
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"test": result["test"] | {"ece": error}}))
    comparison = compare(runs_named([str(outputs)]), "ece")
    assert comparison.best.label == "lr=0.1"
    assert said_of(comparison)[0] == (
        "Best on test: lr=0.1, 0.0200 (10 000 images). Not tested, so whether by chance is unknown: lr=0.5 (0.1800 "
        "behind). There are no validation images: it was chosen by this figure, which is therefore too good."
    )


def test_an_unresolved_difference_names_what_could_be_detected_and_not_how_many_seeds_would_show_it(outputs):
    for seed, (one, other) in enumerate(((0.90, 0.93), (0.88, 0.87), (0.91, 0.92))):
        write_run(outputs, one, f"seed={seed}")
        write_run(outputs, other, "optimizer.lr=0.5", f"seed={seed}")
    comparison = compare(runs_named([str(outputs)]), "loss")
    concluded = conclusion(comparison)
    assert concluded.startswith("In test loss, lr=0.5 is not shown to differ from lr=0.05: -0.0100 (")
    (said,) = [line for line in said_of(comparison) if "detect" in line]
    least = [float(number) for number in re.findall(r"\d\.\d{4}", said)]
    for seeds, shift in zip((3, 10), np.divide(least, 0.02), strict=True):  # their standard deviation
        power = stats.nct.sf(stats.t.ppf(0.975, seeds - 1), seeds - 1, shift * seeds**0.5)
        assert power == pytest.approx(0.8, abs=0.002)
    assert concluded.endswith(f"; 3 seeds only detect differences above {least[0]:.4f}.")
    assert "with 10 seeds" in said
    assert said.endswith("(found in 80 % of cases, at the 5 % level).")


@pytest.mark.parametrize(
    ("rates", "concluded", "found"),
    [
        (("0.5",), "2 seeds can detect no difference that is possible", "none that is possible; with 10 seeds, 0.1420"),
        (
            ("0.5", "0.7"),
            "2 seeds only detect differences above 0.1856 in 1 of 2 variants, and none in the others",
            " in 1 of 2 variants, and none in the others; with",
        ),
    ],
)
def test_a_difference_that_is_impossible_is_not_called_the_smallest(rates, concluded, found, outputs):
    gains = {"0.1": (0, 0), "0.5": (-0.1, 0.1), "0.7": (0.01, 0.012)}
    for rate in ("0.1", *rates):
        for seed, gain in enumerate(gains[rate]):
            write_run(outputs, 0.8 + gain, f"optimizer.lr={rate}", f"seed={seed}")
    comparison = compare(runs_named([str(outputs)]))
    assert concluded in conclusion(comparison)
    assert any(line.startswith("Smallest difference that 2 seeds") and found in line for line in said_of(comparison))


def test_two_seeds_that_agree_are_cautioned_against(outputs):
    for seed in (0, 1, 2):
        write_run(outputs, 0.8 + seed / 1000, "optimizer.lr=0.1", f"seed={seed}")
        if seed < 2:
            write_run(outputs, 0.9 + seed / 1000, "optimizer.lr=0.5", f"seed={seed}")
    cautions = compare(runs_named([str(outputs)])).cautions()
    assert "two that happen to agree say little)" in conclusion(compare(runs_named([str(outputs)])))
    assert cautions[-1] == "Only 2 seeds: two that happen to agree say little, even of what is more than chance."
    write_run(outputs, 0.902, "optimizer.lr=0.5", "seed=2")
    assert compare(runs_named([str(outputs)])).cautions() == []


def test_a_configuration_that_shares_no_seed_with_the_baseline_says_so(outputs):
    for seed in (0, 1):
        write_run(outputs, 0.8 + seed / 100, "optimizer.lr=0.1", f"seed={seed}")
        write_run(outputs, 0.9 + seed / 100, "optimizer.lr=0.5", f"seed={seed + 2}")
    notes = {row.label: row.notes for row in compare(runs_named([str(outputs)])).rows}
    reason = "shares no seed, fold or split with the baseline, and is not compared with it"
    assert notes == {"lr=0.1": (), "lr=0.5": (reason,)}
    assert f"1. lr=0.5: unknown; {reason}" in differences_of(outputs)
    write_run(outputs, 0.95, "optimizer.lr=0.7", "data.noise=0.1", data={"fingerprint": "other"})
    assert any("unknown; measured on other test images than the baseline" in line for line in differences_of(outputs))


def test_an_error_that_is_never_negative_has_no_interval_below_zero(outputs):
    for rate, errors in (("0.1", (0.01, 0.05, 0.2)), ("0.5", (0.02, 0.01, 0.03))):
        for seed, error in enumerate(errors):
            path = write_run(outputs, 0.9, f"optimizer.lr={rate}", f"seed={seed}") / "result.json"
            result = json.loads(path.read_text())
            path.write_text(json.dumps(result | {"test": result["test"] | {"mae": error}, "watched": [["mae", False]]}))
    comparison = compare(runs_named([str(outputs)]), "mae")
    base, other = comparison.rows
    assert base.measured.low == 0.0
    assert base.measured.high > 0.2
    assert other.gained is not None
    assert other.gained.estimate.low < 0, "a difference may be"
    assert method(comparison)["formulas"].endswith(" Intervals end where mae does, at 0.")


def test_with_one_seed_chance_is_unknown(outputs):
    write_run(outputs, 0.9)
    write_run(outputs, 0.95, "optimizer.lr=0.5")
    write_run(outputs, 0.95, "optimizer.lr=0.7", "seed=4")
    comparison = compare(runs_named([str(outputs)]))
    assert conclusion(comparison) == (
        "No difference in test accuracy can be tested: that takes two finished runs of each configuration."
    )
    assert [row.gained.verdict for row in comparison.rows if row.gained] == ["no test is possible with one run"] * 2
    assert "(10 000 images, 95 % interval over images 0.9456 to 0.9541)" in said_of(comparison)[0]


def test_what_all_runs_share_is_listed_once_and_what_differs_with_each_value(outputs):
    usual = {
        "versions": {"cnnbench": "1", "torch": "2.11.0"}, "machine": {"device": "cpu", "name": "EPYC"}, "threads": 2,
        "git": {"commit": "abcdef123456", "dirty": True},
    }  # fmt: skip
    data = {"window": [1, 28, 28], "classes": ["a", "b"], "images": {"train": 900, "val": 100, "test": 50}}
    for rate in ("0.1", "0.5"):
        write_run(outputs, 0.9, f"optimizer.lr={rate}", data=data, **usual)
    facts = page_of(compare(runs_named([str(outputs)])), "cnnbench -m this").sections[0].facts
    assert facts["runs"] == "2: 2 configurations, 1 seed each"
    assert (facts["learning rate"], facts["data"]) == ("0.1 / 0.5", "synthetic, 2 classes, 1×28×28")
    assert facts["images"] == "900 training, 100 validation, 50 test"
    assert (facts["machine"], facts["versions"]) == ("EPYC, cpu, 2 threads", "cnnbench 1, torch 2.11.0")
    assert list(facts)[:2] == ["runs", "learning rate"], "what differs comes first"
    assert facts["commit"] == "abcdef1 with uncommitted changes"
    assert (facts["optimizer"], facts["schedule"]) == ("sgd (momentum 0.9)", "cosine")
    assert facts["regularization"] == "none"


def test_runs_at_the_same_time_make_seconds_say_little(outputs):
    def note(folder: Path) -> str:
        comparison = compare(runs_named([str(folder)]))
        return configurations(comparison, learning_of(comparison)).note

    times = ("2026-01-01T10:00:00Z", "2026-01-01T10:00:20Z", "2026-01-01T10:00:40Z", "2026-01-01T10:01:00Z")
    for name, ((one, end), (other, last)) in {
        "at once": (times[0::2], times[1::2]), "in turn": (times[:2], times[2:]),
    }.items():  # fmt: skip
        write_run(outputs / name, 0.9, "optimizer.lr=0.1", started=one, ended=end, machine={"host": "a"})
        write_run(outputs / name, 0.9, "optimizer.lr=0.5", started=other, ended=last, machine={"host": "a"})
    assert "shared a machine" in note(outputs / "at once")
    assert "shared a machine" not in note(outputs / "in turn")


def test_a_run_far_from_its_others_is_named_and_counted(outputs):
    for seed, (one, other) in enumerate(((0.95, 0.955), (0.956, 0.9138), (0.946, 0.9596))):
        write_run(outputs, one, "optimizer.lr=0.1", f"seed={seed}")
        write_run(outputs, other, "optimizer.lr=0.5", f"seed={seed}")
    comparison = compare(runs_named([str(outputs)]))
    (said,) = [line for line in said_of(comparison) if line.startswith("Outlying")]
    assert said == ("Outlying: lr=0.5 seed=1, 0.9138 (far below the mean of the others, 0.9573). Nothing was excluded.")
    assert comparison.rows[1].measured.n == 3


@pytest.mark.parametrize(
    ("kind", "gaps", "where", "is_expected"),
    [
        ("best", (0.01, 0.03), "above test accuracy in 2 of 2 runs, by 0.0200", True),
        ("last", (0.01, 0.03), "above test accuracy in 2 of 2 runs, by 0.0200", False),
        ("best", (0.03, -0.01), "above test accuracy in 1 of 2 runs, by 0.0100", False),
        ("best", (-0.01, 0.0), "below test accuracy in 1 of 2 runs, by 0.0050", False),
    ],
)
def test_validation_is_expected_above_test_where_it_chose_the_epoch(kind, gaps, where, is_expected, outputs):
    for rate, gap in zip(("0.1", "0.5"), gaps, strict=True):
        path = write_run(outputs, 0.9, f"optimizer.lr={rate}", val=0.9 + gap) / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": {"kind": kind, "epoch": 2}}))
    line = said_of(compare(runs_named([str(outputs)])))[-1]
    assert line.startswith(f"Validation against test: validation accuracy is {where}")
    assert ("that is expected, since the epoch was chosen on validation images" in line) == is_expected


def test_a_page_says_which_learns_first_and_which_overfits(outputs):
    falling = [2.0, 1.0, 0.5, 0.25]
    for seed in (0, 1):
        fast = write_run(outputs, 0.90, "optimizer.lr=0.5", f"seed={seed}")
        slow = write_run(outputs, 0.95, "optimizer.lr=0.1", f"seed={seed}")
        replace_epochs(fast, accuracy_val=[0.5, 0.8, 0.8, 0.7], loss_val=[2.0, 1.0, 1.2, 1.5], loss_train=falling)
        late = [0.2, 0.3, 0.8, 0.9] if seed else [0.2, 0.3, 0.4, 0.9]
        replace_epochs(slow, accuracy_val=late, loss_val=falling, loss_train=falling)
    comparison = compare(runs_named([str(outputs)]))
    said = said_of(comparison)
    assert said[0].startswith("Best on test: lr=0.1, 0.9500 (10 000 images).")
    assert said[2] == (
        "Speed of learning: epochs to validation accuracy 0.7920, 99 % of the best of lr=0.5 (range over seeds): "
        "2 for lr=0.5, 3.5 for lr=0.1 (3 to 4)."
    )
    assert said[3] == (
        "Validation loss: at the end more than a tenth above its lowest value for lr=0.5 (1.50 times, after epoch 2): "
        "overfitting."
    )
    table = configurations(comparison, learning_of(comparison)).content.set_index("lr")
    assert table["epochs to 0.7920"].to_dict() == {"0.5": 2, "0.1": 3.5}
    assert table["test accuracy"].to_dict() == pytest.approx({"0.5": 0.90, "0.1": 0.95})
    assert not {"low", "Δ", "p (Holm)"} & set(table)


def test_that_no_validation_loss_rises_is_not_called_no_overfitting(outputs):
    for rate in ("0.5", "0.1"):
        replace_epochs(write_run(outputs, 0.8, f"optimizer.lr={rate}"), accuracy_val=[0.5, 0.8], loss_val=[2.0, 1.0])
    said = said_of(compare(runs_named([str(outputs)])))
    assert not any("verfitting" in line for line in said)
    assert any(
        line == "Validation loss: in no configuration does it end more than a tenth above its lowest value."
        for line in said
    )


def test_without_validation_training_decides_which_learns_first(outputs):
    for rate, values in (("0.5", [0.5, 0.9]), ("0.1", [0.1, 0.6])):
        replace_epochs(write_run(outputs, 0.9, f"optimizer.lr={rate}"), accuracy_train=values)
    said = said_of(compare(runs_named([str(outputs)])))
    assert any(
        line.endswith("training accuracy 0.8910, 99 % of the best of lr=0.5: 2 for lr=0.5. Not reached: lr=0.1.")
        for line in said
    )
    assert not any("Overfitting" in line for line in said)


def test_runs_without_epochs_still_have_a_page(outputs, command_of):
    for rate in ("0.5", "0.1"):
        (write_run(outputs, 0.9, f"optimizer.lr={rate}") / "metrics.jsonl").unlink()
    assert command_of("report", str(outputs)).code == 0


def test_the_effect_of_a_setting_is_over_all_others(outputs):
    for seed, luck in enumerate((0.0, 0.01)):
        for dropout in (0.0, 0.5):
            for rate in (0.1, 0.5):
                words = [f"regularization.dropout={dropout}", f"optimizer.lr={rate}", f"seed={seed}"]
                write_run(outputs, 0.5 + (0.2 + luck) * dropout + 0.1 * rate, *words)
    (rate, of_rate), (dropout, of_dropout), (both, of_both) = compare(runs_named([str(outputs)])).effects()
    assert (rate, dropout) == ("lr from 0.1 to 0.5", "dropout from 0 to 0.5")
    assert both == "lr 0.5 and dropout 0.5 together, beyond the sum of each alone (interaction)"
    means = [one.estimate.mean for one in (of_rate, of_dropout, of_both)]
    assert means == pytest.approx([0.04, 0.1025, 0.0], abs=1e-9)
    assert of_rate.is_resolved
    assert not of_both.is_resolved


@pytest.mark.parametrize(
    ("accuracies", "departures", "verdict"),
    [
        ((0.90, 0.91, 0.92), [], "consistent"),
        ((0.97, 0.971, 0.972), [], "above"),
        ((0.9,), [], "below, of one seed"),
        ((0.97, 0.971, 0.972), ["epochs=1", "batch_size=7"], "not comparable: epochs=1, batch_size=7"),
    ],
)
def test_a_verdict_on_published_figures_leaves_room_for_one_run(accuracies, departures, verdict, outputs):
    """They are those of one run mostly: the interval is that of one further run, of a single one that over images."""
    reference = {"metric": "accuracy", "value": 0.93, "split": "test", "source": "a book", "remark": "one seed"}
    for seed, accuracy in enumerate(accuracies):
        path = write_run(outputs, accuracy, f"seed={seed}") / "result.json"
        write_sealed(path, json.loads(path.read_text()) | {"references": [reference], "departures": departures})
    (row,) = published(runs_named([str(outputs)]))
    assert (row["published"], row["ours is"], row["source"]) == (0.93, verdict, "a book")
    assert row["remark"] == "one seed"
    if len(accuracies) == 3:
        low, high = stats.t.interval(0.95, 2, np.mean(accuracies), np.std(accuracies, ddof=1) * (1 + 1 / 3) ** 0.5)
        assert row["one more run, 95 %"] == f"{low:.4f} to {high:.4f}"


def test_the_level_is_that_of_the_baseline(outputs):
    for rate, curve in (("0.1", [0.2, 0.8, 0.9]), ("0.5", [0.9, 0.95, 0.95])):
        replace_epochs(write_run(outputs, 0.9, f"optimizer.lr={rate}"), accuracy_val=curve)
    replace_epochs(write_run(outputs, 0.2, "optimizer.lr=0.5", "epochs=1"), accuracy_val=[0.2])
    learning = learning_of(compare(runs_named([str(outputs)])))
    assert learning.level == pytest.approx(0.99 * 0.9)
    assert learning.means == pytest.approx([3, 1, float("nan")], nan_ok=True)
    assert any(" Not reached: " in line for line in said_of(compare(runs_named([str(outputs)]))))


def test_one_seed_that_reached_it_does_not_stand_for_all(outputs):
    for seed, best in enumerate((0.9, 0.1)):
        replace_epochs(write_run(outputs, 0.9, "optimizer.lr=0.1", f"seed={seed}"), accuracy_val=[0.1, 0.8])
        replace_epochs(write_run(outputs, 0.9, "optimizer.lr=0.5", f"seed={seed}"), accuracy_val=[best, best])
    comparison = compare(runs_named([str(outputs)]))
    assert learning_of(comparison).means == pytest.approx([2, float("nan")], nan_ok=True)
    assert any(line.endswith("Not reached by all seeds: lr=0.5 (1 of 2 seeds).") for line in said_of(comparison))
