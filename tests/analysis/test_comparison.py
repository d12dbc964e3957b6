"""Runs side by side: grouped over seeds, compared with a baseline, reported honestly."""

import json
import math
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from scipy import stats

from cnnbench.analysis.reports.columns import as_typed, short_names
from cnnbench.analysis.reports.compared import conclusion, configurations, page_of, title_of
from cnnbench.analysis.reports.comparison import Comparison, compare
from cnnbench.analysis.reports.facts import published
from cnnbench.analysis.reports.findings import findings, learning_of
from cnnbench.errors import UserError
from cnnbench.store.files import write_sealed
from cnnbench.store.query import runs_named
from tests.conftest import ended
from tests.support.run_folders import replace_epochs, write_dropout_runs, write_run


def said_of(comparison: Comparison) -> list[str]:
    return list(findings(comparison, learning_of(comparison)))


@pytest.fixture
def several_runs(outputs) -> Path:
    return write_dropout_runs(outputs)


@pytest.fixture
def report(capsys):
    return lambda *words: ended("report", [str(word) for word in words], capsys)


def test_configurations_are_rows_and_seeds_are_not(several_runs):
    comparison = compare(runs_named([str(several_runs)]))
    assert comparison.differing == ("regularization.dropout",)
    table = comparison.table().set_index("regularization.dropout")
    assert list(table["n"]) == [3, 3]
    assert table["accuracy"].to_dict() == pytest.approx({"0": (0.90 + 0.88 + 0.91) / 3, "0.5": 2.78 / 3})
    assert table.loc["0.5", "Δ"] == pytest.approx((0.03 + 0.04 + 0.02) / 3)
    assert math.isnan(table.loc["0", "Δ"])
    assert [as_typed(value) for value in (1e6, 1e-5, 0.05, 0.12345678, 7, None)] == [
        "1e6", "1e-5", "0.05", "0.12345678", "7", "null",
    ]  # fmt: skip
    assert comparison.best.label == "dropout=0.5"
    assert title_of(comparison) == "Effect of dropout: lenet on synthetic"
    # Of the seeds alone: with the images it would be +0.0111 to +0.0489, which is narrower.
    assert conclusion(comparison) == (
        "In test accuracy, dropout=0.5 is better than dropout=0 by more than chance: "
        "+0.0300 (95 % interval +0.0052 to +0.0548, 3 seeds, p = 0.035)."
    )


def test_rows_link_to_the_pages_of_their_runs(outputs, tmp_path):
    runs = {
        (rate, seed): write_run(outputs, 0.9, f"optimizer.lr={rate}", f"seed={seed}", f"name='a#{seed}'")
        for rate, seed in (("0.1", 0), ("0.1", 1), ("0.5", 0))
    }
    without = page_of(compare(runs_named([str(outputs)])), "a title").write(tmp_path / "pages")
    assert "pages</button>" not in without.read_text()
    for key in (("0.1", 1), ("0.5", 0)):  # the other one has no page
        (runs[key] / "report.html").write_text("a page")
    page = page_of(compare(runs_named([str(outputs)])), "a title").write(tmp_path / "pages")
    rows = [row for row in page.read_text().splitlines() if row.startswith("<tr") and 'td class="text"><a' in row]
    links = [re.findall('<a href="([^"]+)">([^<]+)</a>', row) for row in rows]
    assert [[name for _, name in row] for row in links] == [["seed=1"], ["page"]]
    targets = [(page.parent / unquote(target)).resolve() for row in links for target, _ in row]
    assert targets == [runs[key] / "report.html" for key in (("0.1", 1), ("0.5", 0))]
    assert "href" not in (page.parent / "report.md").read_text()


def test_the_lowest_loss_is_the_best(several_runs):
    assert compare(runs_named([str(several_runs)]), "loss").best.label == "dropout=0.5"


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


def test_the_baseline_can_be_named(several_runs):
    comparison = compare(runs_named([str(several_runs)]), baseline="regularization.dropout=0.5")
    assert conclusion(comparison).startswith("In test accuracy, dropout=0 is worse than dropout=0.5 by ")
    for wrong in ("regularization.dropout=0.7", "epochs=40", "nothing"):
        with pytest.raises(UserError, match="of 2 configurations; name one by KEY=VALUE,…"):
            compare(runs_named([str(several_runs)]), baseline=wrong)


def write_two_by_two(outputs: Path) -> None:
    for seed in (0, 1):
        for dropout in ("0.0", "0.5"):
            for batchnorm in ("true", "false"):
                words = (f"regularization.dropout={dropout}", f"regularization.batchnorm={batchnorm}", f"seed={seed}")
                write_run(outputs, 0.9, *words)


NAMES_OF_ONE = (
    "regularization.dropout=0.5,regularization.batchnorm=false",
    "regularization.dropout=0.5 regularization.batchnorm=false",
    "regularization.batchnorm=false,regularization.dropout=0.50",
    "dropout=0.5 batchnorm=false",
)


@pytest.mark.parametrize("name", NAMES_OF_ONE)
def test_a_baseline_can_take_several_settings_to_name(name, outputs):
    write_two_by_two(outputs)
    assert compare(runs_named([str(outputs)]), baseline=name).baseline.label == "dropout=0.5 batchnorm=false"


def test_a_baseline_that_fits_several_configurations_is_refused_with_what_would_name_each(outputs):
    write_two_by_two(outputs)
    with pytest.raises(UserError) as refused:
        compare(runs_named([str(outputs)]), baseline="regularization.batchnorm=false")
    assert str(refused.value).splitlines() == [
        "--baseline regularization.batchnorm=false: matches 2 of 4 configurations; name one by KEY=VALUE,…:",
        "  regularization.dropout=0,regularization.batchnorm=false",
        "  regularization.dropout=0.5,regularization.batchnorm=false",
    ]


def test_the_same_run_is_of_one_configuration_however_it_was_typed(outputs):
    # An ablation finds the runs that were there: dropout=0.0 is what the network has anyhow.
    write_run(outputs, 0.9)
    write_run(outputs, 0.8, "regularization.dropout=0.0", "regularization.batchnorm=false", "seed=1")
    for seed in (0, 1):
        write_run(outputs, 0.9, "regularization.dropout=0.5", f"seed={seed}")
    comparison = compare(runs_named([str(outputs)]))
    assert comparison.differing == ("regularization.dropout",)
    table = comparison.table()
    assert list(table["regularization.dropout"]) == ["0", "0.5"]
    assert list(table["n"]) == [2, 2]


def test_columns_of_the_page_have_the_names_of_labels_and_those_of_the_csv_whole_ones(outputs):
    write_two_by_two(outputs)
    page = page_of(compare(runs_named([str(outputs)])), "mine")
    (table,) = [one for one in page.sections if one.title == "Configurations"]
    assert list(table.content)[:3] == ["dropout", "batchnorm", "n"]
    assert list(page.data)[:2] == ["regularization.dropout", "regularization.batchnorm"]
    assert short_names(["model", "model.dropout", "regularization.dropout", "optimizer.name", "task.model"]) == {
        "optimizer.name": "optimizer"
    }


def test_a_setting_that_a_model_and_an_override_have_is_one_column(outputs):
    write_run(outputs, 0.9, "model.dropout=0.1")
    write_run(outputs, 0.9, "regularization.dropout=0.3")
    comparison = compare(runs_named([str(outputs)]))
    assert comparison.differing == ("regularization.dropout",)
    assert list(comparison.table()["regularization.dropout"]) == ["0.1", "0.3"]


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
    assert said.endswith("(80 % power at the 5 % level).")


@pytest.mark.parametrize(
    ("rates", "concluded", "found"),
    [
        (("0.5",), "2 seeds can detect no difference that is possible", "none that is possible; with 10 seeds, 0.1420"),
        (
            ("0.5", "0.7"),
            "2 seeds only detect differences above 0.1856 for 1 of 2 variants, for",
            " others none that is possible; with",
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
    assert cautions[-1] == "Only 2 seeds: two that happen to agree say little, even of what is more than chance."
    write_run(outputs, 0.902, "optimizer.lr=0.5", "seed=2")
    assert compare(runs_named([str(outputs)])).cautions() == []


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
def test_keys_that_distinguish_configurations(case, outputs):
    commands, keys, label = TOLD_APART[case]
    for words in commands.split(" | "):
        write_run(outputs, 0.9, *words.split())
    comparison = compare(runs_named([str(outputs)]))
    assert " ".join(comparison.differing) == keys
    assert comparison.rows[1].label == label


def test_without_recorded_options_component_names_distinguish_runs(outputs):
    for optimizer in ("sgd", "adam"):
        write_run(outputs, 0.9, f"optimizer={optimizer}", choices={}, origins={})
    differing = compare(runs_named([str(outputs)])).differing
    assert "optimizer.name" in differing
    assert not {"optimizer.momentum", "optimizer.beta1"} & set(differing)


def test_with_many_columns_a_label_names_only_what_changed(outputs):
    words = ["optimizer.lr=0.5", "batch_size=32", "data.val_fraction=0.2", "regularization.dropout=0.5"]
    write_run(outputs, 0.9)
    write_run(outputs, 0.9, *words)
    write_run(outputs, 0.9, words[0])
    labels = [row.label for row in compare(runs_named([str(outputs)])).rows]
    assert labels == ["baseline", "batch_size=32 val_fraction=0.2 lr=0.5 dropout=0.5", "lr=0.5"]


def test_settings_without_a_column_are_a_table(outputs):
    write_run(outputs, 0.9, "experiment=keras_notes/lenet_fashion")
    write_run(outputs, 0.9, "experiment=keras_notes/lenet_relu_sgd_fashion")
    page = page_of(compare(runs_named([str(outputs)])), "a title")
    (table,) = [one for one in page.sections if one.title == "Settings that differ"]
    assert {"configuration", "optimizer.name", "model.activation"} <= set(table.content)
    assert page.title == "lenet_fashion against lenet_relu_sgd_fashion on synthetic"


def test_the_baseline_may_be_an_option_of_a_group(outputs):
    write_run(outputs, 0.9)
    write_run(outputs, 0.95, "model=lenet_v2")
    assert compare(runs_named([str(outputs)]), baseline="model=lenet_v2").baseline.label == "lenet_v2"


# Findings -------------------------------------------------------------------------------------------------------------


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
        "Speed of learning: epochs to validation accuracy 0.7920, 99 % of the best of lr=0.5, with range over seeds: "
        "lr=0.5 2, lr=0.1 3.5 (3 to 4)."
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
        line.endswith(
            "training accuracy 0.8910, 99 % of the best of lr=0.5, with range over seeds: lr=0.5 2. "
            "Reached by fewer: lr=0.1 (0 of 1 seeds)."
        )
        for line in said
    )
    assert not any("Overfitting" in line for line in said)


def test_runs_without_epochs_still_have_a_page(outputs, report):
    for rate in ("0.5", "0.1"):
        (write_run(outputs, 0.9, f"optimizer.lr={rate}") / "metrics.jsonl").unlink()
    assert report(outputs).code == 0


def test_the_effect_of_a_setting_is_over_all_others(outputs):
    for seed, luck in enumerate((0.0, 0.01)):
        for dropout in (0.0, 0.5):
            for rate in (0.1, 0.5):
                words = [f"regularization.dropout={dropout}", f"optimizer.lr={rate}", f"seed={seed}"]
                write_run(outputs, 0.5 + (0.2 + luck) * dropout + 0.1 * rate, *words)
    (rate, of_rate), (dropout, of_dropout), (both, of_both) = compare(runs_named([str(outputs)])).effects()
    assert (rate, dropout) == ("lr from 0.1 to 0.5", "dropout from 0 to 0.5")
    assert both == "lr 0.5 and dropout 0.5 together, minus what each alone changes (interaction)"
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
