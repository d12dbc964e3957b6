"""Runs side by side: grouped over seeds, compared with a baseline, reported honestly."""

import json
import math
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from cnnbench.analysis.reports.columns import short_names
from cnnbench.analysis.reports.compared import answers, effect_sentences, learning_of, learning_table, page_of
from cnnbench.analysis.reports.comparison import compare
from cnnbench.errors import UserError
from cnnbench.store.files import write_sealed
from cnnbench.store.query import runs_named
from tests.conftest import ended
from tests.support.run_folders import replace_epochs, write_dropout_runs, write_run


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
    assert table["accuracy"].to_dict() == pytest.approx({"0.0": (0.90 + 0.88 + 0.91) / 3, "0.5": 2.78 / 3})
    assert table.loc["0.5", "Δ"] == pytest.approx((0.03 + 0.04 + 0.02) / 3)
    assert math.isnan(table.loc["0.0", "Δ"])
    assert comparison.best.label == "dropout=0.5"
    assert comparison.remarks() == [
        "dropout=0.5: +0.0300 (95 %: +0.0111 to +0.0489; 3 seeds and 10 000 images), more than chance"
    ]


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
    rows = [
        row
        for row in page.read_text().splitlines()
        if row.startswith("<tr") and 'td class="text" data-value="1"><a' in row
    ]
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
    assert answers(comparison, learning_of(comparison))[0].startswith(
        "Lowest test ece of 2 configurations tried: lr=0.1, 0.0200 (one seed). Compared with the next, lr=0.5: one seed"
    )


def test_the_baseline_can_be_named(several_runs):
    comparison = compare(runs_named([str(several_runs)]), baseline="regularization.dropout=0.5")
    (remark,) = comparison.remarks()
    assert remark.startswith("dropout=0.0: -0.0300 (95 %: -0.0489 to -0.0111; 3 seeds")
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
        "  regularization.dropout=0.0,regularization.batchnorm=false",
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
    assert list(table["regularization.dropout"]) == ["0.0", "0.5"]
    assert list(table["n"]) == [2, 2]


def test_columns_of_the_page_have_the_names_of_labels_and_those_of_the_csv_whole_ones(outputs):
    write_two_by_two(outputs)
    page = page_of(compare(runs_named([str(outputs)])), "mine")
    assert next(line for line in page.terminal() if " n " in line).split()[:3] == ["dropout", "batchnorm", "n"]
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


def test_an_unresolved_difference_names_the_seeds_needed(outputs):
    for seed, (one, other) in enumerate(((0.90, 0.93), (0.88, 0.87), (0.91, 0.92))):
        write_run(outputs, one, f"seed={seed}")
        write_run(outputs, other, "optimizer.lr=0.5", f"seed={seed}")
    (remark,) = compare(runs_named([str(outputs)]), "loss").remarks()
    said = r"lr=0\.5: -0\.0100 \(95 %: -0\.0597 to \+0\.0397; 3 seeds\), which may be chance; "
    assert re.fullmatch(said + r"if it is real, 34 seeds would show it with 80% probability", remark)


def test_where_more_seeds_would_not_do_more_images_are_needed(outputs):
    for seed, (one, other) in enumerate(((0.90, 0.903), (0.90, 0.901), (0.90, 0.902))):
        write_run(outputs, one, f"seed={seed}")
        write_run(outputs, other, "optimizer.lr=0.5", f"seed={seed}")
    (remark,) = compare(runs_named([str(outputs)])).remarks()
    assert remark.endswith("; with any number of seeds, the images are too few to show it")


def test_with_one_seed_chance_is_unknown(outputs):
    write_run(outputs, 0.9)
    write_run(outputs, 0.95, "optimizer.lr=0.5")
    write_run(outputs, 0.95, "optimizer.lr=0.7", "seed=4")
    remarks = compare(runs_named([str(outputs)])).remarks()
    assert remarks[0] == "lr=0.5: one seed; whether this is chance is unknown"
    assert remarks[1] == "lr=0.7: no seed in common; whether this is chance is unknown"


def test_other_differences_of_a_variant_are_named(outputs):
    write_run(outputs, 0.9)
    write_run(outputs, 0.95, "regularization.batchnorm=true", parameters={"total": 1200, "trainable": 1200})
    write_run(outputs, 0.95, "data.crop=24", data={"window": [1, 24, 24]})
    first, second = compare(runs_named([str(outputs)])).remarks()
    assert first.endswith("; 1 200 parameters, the baseline 1 000")
    assert second.endswith("; takes 1x24x24 images, the baseline 1x28x28")


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
    assert set(comparison.settings()) > set()


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


def test_differences_without_a_column_are_named(outputs):
    write_run(outputs, 0.9, "experiment=keras_notes/lenet_fashion")
    write_run(outputs, 0.9, "experiment=keras_notes/lenet_relu_sgd_fashion")
    (remark,) = compare(runs_named([str(outputs)])).remarks()
    assert "also differs in " in remark
    assert "optimizer.name" in remark


def test_the_baseline_may_be_an_option_of_a_group(outputs):
    write_run(outputs, 0.9)
    write_run(outputs, 0.95, "model=lenet_v2")
    assert compare(runs_named([str(outputs)]), baseline="model=lenet_v2").baseline.label == "lenet_v2"


# Answers --------------------------------------------------------------------------------------------------------------


def test_a_page_answers_which_learns_first_and_which_overfits(outputs):
    falling = [2.0, 1.0, 0.5, 0.25]
    for seed in (0, 1):
        fast = write_run(outputs, 0.90, "optimizer.lr=0.5", f"seed={seed}")
        slow = write_run(outputs, 0.95, "optimizer.lr=0.1", f"seed={seed}")
        replace_epochs(fast, accuracy_val=[0.5, 0.8, 0.8, 0.7], loss_val=[2.0, 1.0, 1.2, 1.5], loss_train=falling)
        replace_epochs(slow, accuracy_val=[0.2, 0.3, 0.8, 0.9], loss_val=falling, loss_train=falling)
    said = answers(comparison := compare(runs_named([str(outputs)])), learning_of(comparison))
    assert said[0].startswith(
        "Highest test accuracy of 2 configurations tried: lr=0.1, 0.9500 (2 seeds). Compared with the next, "
    )
    assert said[1] == (
        "First to 0.7920 on validation (99% of the level that most configurations reached): lr=0.5 in epoch 2 (3.33 s)"
        ", then lr=0.1 in epoch 3 (5 s)."
    )
    assert said[2] == "Overfitting: the validation loss ends above its lowest for lr=0.5 (1.50 times). Not for: lr=0.1."
    assert said[3] == (
        "Train-test gap: accuracy is better on training images than on test images by 0.0500 (lr=0.1) to 0.1000 "
        "(lr=0.5)."
    )
    table = learning_table(comparison, learning_of(comparison)).content.set_index("configuration")
    assert table["epochs to 0.7920"].to_dict() == {"lr=0.5": 2, "lr=0.1": 3}
    assert table["best on validation"].to_dict() == {"lr=0.5": 0.8, "lr=0.1": 0.9}
    assert table["train-test gap"].to_dict() == pytest.approx({"lr=0.5": 0.1, "lr=0.1": 0.05})


def test_that_no_validation_loss_rises_is_not_called_no_overfitting(outputs):
    for rate in ("0.5", "0.1"):
        replace_epochs(write_run(outputs, 0.8, f"optimizer.lr={rate}"), accuracy_val=[0.5, 0.8], loss_val=[2.0, 1.0])
    said = answers(comparison := compare(runs_named([str(outputs)])), learning_of(comparison))
    assert not any("verfitting" in line for line in said)
    assert any(line.startswith("Validation loss: none ends more than a tenth above its lowest; ") for line in said)


def test_without_validation_training_decides_which_learns_first(outputs):
    for rate, values in (("0.5", [0.5, 0.9]), ("0.1", [0.1, 0.6])):
        replace_epochs(write_run(outputs, 0.9, f"optimizer.lr={rate}"), accuracy_train=values)
    said = answers(comparison := compare(runs_named([str(outputs)])), learning_of(comparison))
    assert any(
        line.startswith(
            "First to 0.5940 on training (99% of the level that most configurations reached): lr=0.5 in epoch 2"
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
    rate, dropout = effect_sentences(compare(runs_named([str(outputs)])))
    assert rate.startswith("optimizer.lr from 0.1 to 0.5: +0.0400 (95 %: ")
    assert dropout.startswith("regularization.dropout from 0.0 to 0.5: +0.1025 (95 %: ")
    for said in (rate, dropout):
        assert said.endswith(
            "; 2 seeds and 10 000 images), more than chance (mean over 2 combinations of the other settings)"
        )


def test_published_figures_are_listed_next_to_ours(outputs):
    path = write_run(outputs, 0.9)
    reference = {"metric": "accuracy", "value": 0.95, "split": "test", "source": "a book", "remark": "one seed"}
    result = json.loads((path / "result.json").read_text()) | {"references": [reference], "departures": ["epochs=1"]}
    write_sealed(path / "result.json", result)
    (row,) = compare(runs_named([str(outputs)])).references().to_dict("records")
    assert (row["published"], row["ours"], row["source"]) == (0.95, 0.9, "a book")
    assert row["remark"] == "one seed; epochs=1"
