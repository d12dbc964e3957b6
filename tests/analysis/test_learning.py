"""How trainings went, from epoch rows whose answer is obvious."""

import math

import numpy as np
import pandas as pd
import pytest

from cnnbench.analysis.reports.curves import metric_curves, step_curves, visible
from cnnbench.analysis.reports.learning import LOSS, Fitted, Metric, course, first_epoch_at, principal
from cnnbench.analysis.reports.sections import Axis, line
from cnnbench.analysis.reports.statistics import Values, effects


def rows(**columns) -> pd.DataFrame:
    length = len(next(iter(columns.values())))
    named = {name.replace("_", "/"): values for name, values in columns.items()}
    return pd.DataFrame({"epoch": range(1, length + 1), **named})


ACCURACY = Metric("accuracy", higher_is_better=True)
OVERFITTING = rows(
    loss_train=[1.0, 0.5, 0.2, 0.1, 0.05], loss_val=[1.0, 0.6, 0.5, 0.7, 0.9], accuracy_val=[0.3, 0.8, 0.7, 0.8, 0.6]
)


def test_a_rising_validation_loss_and_a_falling_training_loss_are_overfitting():
    found = course(OVERFITTING, ACCURACY)
    assert (found.epochs, found.best, found.best_epoch) == (5, 0.8, 2)
    assert (found.lowest_epoch, found.rise, found.train_loss) == (3, pytest.approx(1.8), (0.2, 0.05))
    assert found.overfits
    best, said = found.remarks("accuracy")
    assert best == "best validation accuracy: 0.8000, in epoch 2 of 5"
    assert said.startswith("the validation loss is lowest in epoch 3 and ends at 1.80 times that value")
    assert "from 0.2000 to 0.0500: it overfits" in said


def test_a_loss_that_rises_without_accuracy_is_called_overconfidence():
    kept = OVERFITTING.assign(**{"accuracy/val": [0.3, 0.8, 0.7, 0.8, 0.69]})
    assert course(kept, ACCURACY).remarks("accuracy")[1].endswith(": it overfits")
    said = course(kept, ACCURACY, images=200).remarks("accuracy")[1]
    assert said.endswith("to 0.0500, but accuracy does not get worse: overconfident, not less accurate"), (
        "by two images"
    )
    assert course(OVERFITTING, ACCURACY, images=20_000).is_worse


def test_a_network_that_misses_most_of_its_training_images_underfits():
    falling = course(rows(loss_train=[3, 2, 1], loss_val=[3, 2, 1], accuracy_val=[0.2, 0.325, 0.3167]), ACCURACY)
    best, said = falling.remarks("accuracy", Fitted(ACCURACY, 0.3667, 0.325, (1080, 120), guessing=0.1))
    assert best.endswith("in epoch 2 of 3, 1 of 120 images ahead of the next best epoch")
    assert "lowest value; accuracy is 0.3667 on training images, where guessing gives 0.1000: it underfits" in said
    assert "underfits" not in falling.remarks("accuracy", Fitted(ACCURACY, 0.6, 0.59, (1080, 120), guessing=0.1))[1]


def test_a_training_without_a_finite_validation_has_no_best_epoch():
    found = course(rows(loss_train=[3, 2, 1], loss_val=[None] * 3, accuracy_val=[None] * 3), ACCURACY)
    assert math.isnan(found.best)
    assert found.best_epoch == 0


def test_a_loss_that_falls_to_the_end_is_not_overfitting():
    found = course(rows(loss_train=[3, 2, 1], loss_val=[3, 2, 1], accuracy_val=[0.1, 0.2, 0.3]), ACCURACY)
    assert not found.overfits
    best, said = found.remarks("accuracy")
    assert best.endswith("in epoch 3 of 3; more epochs might have helped")
    assert said == "the validation loss ends at its lowest value", "of the gap nothing is known"


def test_a_gap_between_training_and_validation_is_said_where_the_loss_does_not_rise():
    found = course(rows(loss_train=[3, 2, 1], loss_val=[3, 2, 1], accuracy_val=[0.5, 0.6, 0.7]), ACCURACY)
    _, said = found.remarks("accuracy", Fitted(ACCURACY, 1.0, 0.7))
    ends = "the validation loss ends at its lowest value"
    gap = "accuracy is 1.0000 on training and 0.7000 on validation images: a gap of 0.3000"
    assert said == f"{ends}; {gap}"
    measured = Fitted(ACCURACY, 0.7, 0.7)
    assert found.remarks("accuracy", measured)[1] == f"{ends}: no sign of overfitting"
    by_loss = course(rows(loss_train=[3, 2, 0.1], loss_val=[3, 2, 1.9]), LOSS)
    assert by_loss.remarks("loss", Fitted(LOSS, 0.1, 1.9))[1].endswith(
        "lowest value; loss is 0.1000 on training and 1.9000 on validation images: a gap of 1.8000"
    )


@pytest.mark.parametrize(
    ("fitted", "has_gap"),
    [
        (Fitted(ACCURACY, 1.0, 0.99, images=(1000, 100)), True),  # every training image
        (Fitted(ACCURACY, 0.99, 0.98, images=(1000, 100)), False),  # by chance
        (Fitted(ACCURACY, 0.99, 0.80, images=(1000, 100)), True),
        (Fitted(ACCURACY, 0.99, 0.98), True),
        (Fitted(ACCURACY, 0.80, 0.85, images=(1000, 100)), False),
        (Fitted(ACCURACY, 1.0, 1.0, images=(1000, 100)), False),
        (Fitted(LOSS, 0.50, 0.54), False),
        (Fitted(LOSS, 0.50, 0.56), True),
        (Fitted(ACCURACY, math.nan, 0.5), False),
        (Fitted(LOSS, math.nan, math.nan), False),
    ],
)
def test_a_gap_is_more_than_chance(fitted, has_gap):
    assert fitted.has_gap == has_gap


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            {"loss_train": [3, 2, 1], "loss_val": [1, 2, None], "accuracy_val": [0.5, 0.5, 0.5]},
            "the validation loss was not a number",
        ),
        (
            {"loss_train": [3, 2, 1], "loss_val": [None] * 3, "accuracy_val": [0.5, 0.5, 0.5]},
            "the validation loss was not a number",
        ),
        ({"loss_train": [3, 2, -1], "loss_val": [3, 2, 1]}, "the loss falls below zero"),
        ({"loss_train": [3, 2, 1], "loss_val": [3, 2, -1]}, "the loss falls below zero"),
        ({"loss_train": [3, 5, 4], "loss_val": [3, 5, 4]}, "the training loss did not fall"),
    ],
)
def test_losses_that_say_nothing_of_overfitting(columns, reason):
    table = rows(**({"accuracy_val": [0.1, 0.2, 0.3]} | columns))
    assert course(table, ACCURACY).remarks("accuracy")[1:] == [f"{reason}: nothing is said of overfitting"]


def test_epochs_that_are_not_validated_are_no_losses_that_are_not_a_number():
    table = rows(loss_train=[3, 2, 1], loss_val=[None, 2, None], accuracy_val=[None, 0.5, None])
    assert course(table, ACCURACY).remarks("accuracy")[1].startswith("the validation loss ends at")


def test_losses_that_rise_together_are_not_overfitting():
    assert not course(rows(loss_train=[2, 1, 3], loss_val=[2, 1, 3]), LOSS).overfits


def test_the_end_is_more_than_one_unlucky_epoch():
    losses = [1.0] * 19 + [1.08]
    found = course(rows(loss_val=losses, loss_train=[1 / n for n in range(1, 21)]), LOSS)
    assert found.rise == pytest.approx(1.04)
    assert not found.overfits


def test_without_validation_there_are_no_remarks_on_it():
    found = course(rows(loss_train=[2, 1]), ACCURACY)
    assert found.best_epoch == 0
    assert found.remarks("accuracy") == ["no validation: nothing was chosen, neither an epoch nor when to stop"]
    assert course(pd.DataFrame(), ACCURACY).epochs == 0


def test_epochs_without_a_validation_number_are_skipped():
    table = rows(accuracy_val=[None, 0.5, None, 0.4], loss_val=[None, math.nan, 2.0, 3.0], loss_train=[4, 3, 2, 1])
    found = course(table, ACCURACY)
    assert (found.best, found.best_epoch, found.lowest_epoch) == (0.5, 2, 3)


def test_the_last_of_several_validations_in_an_epoch_counts():
    table = pd.DataFrame({"epoch": [1, 1, 2], "accuracy/val": [0.9, 0.1, 0.5]})
    assert course(table, ACCURACY).best_epoch == 2


def test_of_epochs_that_are_equally_accurate_the_best_is_the_one_that_was_tested():
    """The checkpoint is that of the lowest loss among them, and the page must not name another epoch."""
    table = rows(accuracy_val=[0.8, 0.9, 0.9, 0.9], loss_val=[0.5, 0.3, 0.2, 0.2])
    assert course(table, ACCURACY).best_epoch == 3
    without_loss = rows(accuracy_val=[0.8, 0.9, 0.9])
    assert course(without_loss, ACCURACY).best_epoch == 2
    assert course(rows(loss_val=[0.5, 0.2, 0.2]), LOSS).best_epoch == 2


def test_the_principal_metric_was_measured_during_training():
    assert principal(["loss", "accuracy", "recall@1"], OVERFITTING, {}) == "accuracy"
    assert principal(["loss", "recall@1"], rows(loss_val=[1.0]), {}) == "loss"  # recall was measured at the end only
    assert principal(["loss", "accuracy"], rows(accuracy_train=[0.5]), {}) == "accuracy"
    watched = {"watched": [["error", False], ["loss", False]]}
    assert principal(["loss", "error"], rows(error_val=[0.5], loss_val=[1.0]), watched) == "error"
    assert principal(["accuracy", "loss"], OVERFITTING, {"watched": [["loss", False], ["accuracy", True]]}) == "loss"
    assert not Metric.of("error", watched).higher_is_better
    assert Metric.of("dice", watched).higher_is_better
    assert not Metric.of("ece", {}).higher_is_better


def test_the_first_epoch_at_a_level():
    assert first_epoch_at(OVERFITTING, "accuracy/val", 0.7, True) == 2
    assert first_epoch_at(OVERFITTING, "loss/val", 0.55, False) == 3
    assert math.isnan(first_epoch_at(OVERFITTING, "accuracy/val", 0.9, True))
    assert math.isnan(first_epoch_at(OVERFITTING, "recall/val", 0.9, True))


def test_an_effect_is_over_all_other_settings_and_seeds():
    settings, measured = [], []
    for dropout in ("0", "0.5"):
        for norm in ("false", "true"):
            settings.append({"dropout": dropout, "norm": norm})
            gained = 0.1 * (dropout == "0.5") + 0.02 * (norm == "true") * (1 if dropout == "0" else 3)
            measured.append(
                Values({seed: gained + 0.01 * seed + 0.001 * (norm == "true") * (seed == 2) for seed in (0, 1, 2)})
            )
    (dropout, of_dropout), (norm, of_norm), (_, together) = effects(settings, measured)
    assert (dropout, norm) == ("dropout from 0 to 0.5", "norm from false to true")
    assert of_dropout.estimate.n == 3  # seeds: other settings are no chance
    assert of_dropout.estimate.mean == pytest.approx((0.1 + 0.14) / 2)
    assert of_norm.estimate.mean == pytest.approx((0.02 + 0.06) / 2 + 0.001 / 3)
    assert of_norm.is_resolved
    assert together.estimate.mean == pytest.approx(0.04)


def test_settings_that_only_change_together_have_no_effect():
    settings = [{"model": "a", "pool": "max"}, {"model": "b", "pool": "avg"}]
    assert effects(settings, [Values({0: 0.5}), Values({0: 0.6})]) == []


def test_bad_first_epochs_are_cut_off():
    values = np.array([0.1, 0.5, *np.linspace(0.9, 1.0, 30)])
    bottom, top = visible(values, True)
    assert 0.5 < bottom < 0.9
    assert 1.0 < top < 1.05
    low, high = visible(-values, False)
    assert (-high, -low) == (bottom, top)


@pytest.mark.parametrize(
    "values", [[0.5] * 9, [], [math.nan], [0.1, 0.2, 0.3, 0.4], np.linspace(0, 1, 50), [0.5, *[1.0] * 39]]
)
def test_curves_without_outliers_are_drawn_whole(values):
    assert visible(np.array(values, dtype=float), True) is None


def test_values_that_are_not_finite_cut_nothing_off():
    values = np.array([1.0] * 40 + [math.nan, math.inf])
    assert visible(values, True) is None


def test_a_path_is_the_values_and_curves_of_training_are_labelled_as_running_means():
    plot = metric_curves([("", OVERFITTING)], ACCURACY, best_epoch=2)
    (panel,) = plot.panels
    (curve,) = panel.curves
    assert (curve.name, curve.path) == ("validation", "M1 .3 2 .8 3 .7 4 .8 5 .6")
    assert panel.guide == (2.0, "tested: epoch 2")
    plot = metric_curves([("", OVERFITTING)], LOSS)
    assert ("s3 dotted", "training (running mean during each epoch)") in plot.legend
    (panel,) = plot.panels
    assert panel.y.is_log, "it falls by more than a factor of four"
    assert panel.curves[1].path.startswith("M1 0 2 -.30103"), "the logarithm of 1 and of 0.5"


def test_few_configurations_share_a_panel_for_each_split_and_of_many_each_has_its_own():
    few = metric_curves([("a", OVERFITTING), ("b", OVERFITTING)], LOSS)
    assert [panel.title for panel in few.panels] == ["validation", "training (running mean during each epoch)"]
    assert [name for _, name in few.legend] == ["a", "b"]
    many = metric_curves([(str(number), OVERFITTING) for number in range(6)], LOSS)
    assert [panel.title for panel in many.panels] == list("012345")
    for place, panel in enumerate(many.panels):
        assert [curve.again for curve in panel.curves if curve.again] == [f"val{number}" for number in range(6)]
        assert [curve.key for curve in panel.curves if curve.key] == [f"val{place}"]
    assert "Only validation is drawn" in many.note


def test_what_is_cut_off_is_in_a_panel_of_all_values():
    rising = rows(accuracy_val=[0.1, 0.5, *np.linspace(0.9, 1.0, 30)])
    shown, everything = metric_curves([("", rising)], ACCURACY).panels
    assert 0.5 < shown.y.low < 0.9
    assert everything.y.low < 0.1 < 1.0 < everything.y.high < 1.1
    assert [curve.again for curve in everything.curves] == [shown.curves[0].key]
    several = metric_curves(
        [(name, rising.assign(**{"accuracy/train": [0.0, 0.4, *np.linspace(0.9, 1.0, 30)]})) for name in "ab"], ACCURACY
    )
    assert several.panels[-1].title == "validation, all values"
    assert several.panels[-1].y.low == everything.y.low, "it is as large as what is drawn in it"


def test_a_learning_rate_that_never_changes_is_a_sentence():
    steps = pd.DataFrame({"step": range(1, 101), "loss/train": np.linspace(1, 0.5, 100), "lr": 0.1})
    assert (len(step_curves(steps).panels), step_curves(steps).note) == (1, "Learning rate: 0.1 throughout.")
    falling = step_curves(steps.assign(lr=np.linspace(0.1, 0, 100)))
    assert (len(falling.panels), falling.note) == (2, "")


@pytest.mark.parametrize(
    ("axis", "texts"),
    [
        (Axis("", 0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (Axis("", 0.9751, 0.9899), ["0.976", "0.978", "0.980", "0.982", "0.984", "0.986", "0.988"]),
        (Axis("", 0.5, 3.5, is_whole=True), ["1", "2", "3"]),
        (Axis("", 1000, 60_000), ["10 000", "20 000", "30 000", "40 000", "50 000", "60 000"]),
        (Axis("", 0.03, 2.3, is_log=True), ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (Axis("", 1e-4, 150, is_log=True), ["0.0001", "0.001", "0.01", "0.1", "1", "10", "100"]),
        (Axis("", 0.05, 2e12, is_log=True, most=3), ["10⁻¹", "10²", "10⁵", "10⁸", "10¹¹"]),
        (Axis.of_ratios("", 0.06, 1.9), ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (Axis.of_ratios("", 3e-5, 0.9), ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹", "10⁰"]),
        (Axis.of_ratios("", 1e6, 9e6), ["10⁶", "2×10⁶", "5×10⁶", "10⁷"]),
        (Axis("", 0.012, 0.018, is_log=True), ["0.012", "0.013", "0.014", "0.015", "0.016", "0.017", "0.018"]),
    ],
)
def test_ticks_are_round_and_as_exact_as_they_need_to_be(axis, texts):
    assert [text for _, text in axis.ticks] == texts
    places = [axis.place(value) for value, _ in axis.ticks]
    assert places == sorted(places)
    assert all(-0.01 <= place <= 100.01 for place in places)


def test_ticks_fit_next_to_each_other():
    axis = Axis("parameters", 100_000, 700_000)
    assert [text for _, text, _ in axis.along] == ["200 000", "400 000", "600 000"]
    assert [look for *_, look in Axis("", 0.0, 1.0).along] == ["", "spare"] * 3
    assert len(axis.ticks) == 7


def test_a_number_that_is_missing_is_a_gap():
    axis = Axis("", 0, 1)
    assert line(axis, axis, [(0, 0.5), (0.5, math.nan), (0.75, 0.25), (1, 1)]) == "M0 .5M.75 .25 1 1"
    assert line(axis, axis, [(0, 0.5)]) == "M0 .5h0", "a single point is a dot"
