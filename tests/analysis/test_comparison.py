"""Runs side by side: grouped over seeds, compared with a baseline, and called by what differs."""

import json
import math
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from cnnbench.analysis.reports.columns import as_typed, short_names
from cnnbench.analysis.reports.compared import conclusion, page_of, title_of
from cnnbench.analysis.reports.comparison import compare
from cnnbench.analysis.reports.learning import Metric
from cnnbench.cli.run_table import table
from cnnbench.errors import UserError
from cnnbench.store.query import runs_named
from tests.support.run_folders import replace_epochs, write_dropout_runs, write_run


@pytest.fixture
def several_runs(outputs) -> Path:
    return write_dropout_runs(outputs)


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


def test_runs_are_ranked_by_what_chose_their_epochs(outputs):
    """The listing begins with it, too; runs that chose by different metrics are compared by what tells most."""
    paths = [write_run(outputs, accuracy, f"seed={seed}") for seed, accuracy in enumerate((0.9, 0.8))]
    for path in paths:
        result = json.loads((path / "result.json").read_text())
        result |= {"watched": [["mae", False], ["loss", False]], "test": result["test"] | {"mae": 0.1}}
        (path / "result.json").write_text(json.dumps(result))
        replace_epochs(path, accuracy_val=[0.5], mae_val=[0.2])
    runs = runs_named([str(outputs)])
    assert compare(runs).metric == Metric("mae", higher_is_better=False)
    headings = table(runs, dict, outputs)[0].split()
    assert headings.index("mae") < headings.index("accuracy")
    (paths[0] / "result.json").write_text(json.dumps(result | {"watched": [["loss", False]]}))
    assert compare(runs_named([str(outputs)])).metric.name == "accuracy"


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
    assert short_names(["data.seed", "freeze.epochs"]) == {}  # `seed` and `epochs` are the run's


def test_a_setting_that_a_model_and_an_override_have_is_one_column(outputs):
    write_run(outputs, 0.9, "model.dropout=0.1")
    write_run(outputs, 0.9, "regularization.dropout=0.3")
    comparison = compare(runs_named([str(outputs)]))
    assert comparison.differing == ("regularization.dropout",)
    assert list(comparison.table()["regularization.dropout"]) == ["0.1", "0.3"]


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
