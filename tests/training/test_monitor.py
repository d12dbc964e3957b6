"""`data.monitor=test`: a curve of the test images, by which nothing is chosen."""

import pytest

from cnnbench.analysis.reports.page import Lines, Plot
from cnnbench.analysis.reports.single import page_of
from cnnbench.errors import ConfigError
from cnnbench.store.folder import RunFolder
from cnnbench.training.plan import plan_run
from tests.optim.test_freezing import plan
from tests.support.interruption import differences, finished, kill, outcome_of, read, rows_of, scalars_of
from tests.support.training import SMALL, same, trained, weights_of

pytestmark = pytest.mark.usefixtures("one_second_a_session")

MONITOR = "data.monitor=test"
UNVALIDATED = (*SMALL, "data.val_fraction=0")
CASES = {
    "no validation": ("data.val_fraction=0",),
    "validation, which stops early": ("regularization.early_stopping.patience=1", "task.watch=loss"),
    "a schedule that waits for validation": ("scheduler=plateau", "scheduler.patience=1", "epochs=5"),
    "an average": ("regularization.average.kind=swa", "regularization.average.start=0.5"),
    "within epochs": ("eval_unit=step", "eval_every=2"),
}


@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_it_changes_no_weight_no_choice_and_no_other_row(words):
    training, without, before = trained(*SMALL, *words)
    monitored, recorder, after = trained(*SMALL, *words, MONITOR)
    assert same(weights_of(training), weights_of(monitored))
    assert (before.best and (before.best.epoch, before.best.metrics)) == (
        after.best and (after.best.epoch, after.best.metrics)
    )
    assert (recorder.steps, recorder.bests) == (without.steps, without.bests)
    rows = [*recorder.epochs, *recorder.validations]
    assert any("accuracy/test" in row for row in rows)
    unmonitored = [{key: row[key] for key in row if not key.endswith("/test")} for row in rows]
    assert unmonitored == [*without.epochs, *without.validations]


def test_each_epoch_has_a_measurement_of_test_and_all_of_them_are_counted(outputs):
    run = finished((*UNVALIDATED, MONITOR), outputs)
    result, epochs = read(run / "result.json"), [row for row in rows_of(run) if row["row"] == "epoch"]
    losses = [row["loss/test"] for row in epochs]
    assert len(set(losses)) == 3
    assert (losses[-1], epochs[-1]["accuracy/test"]) == (result["test"]["loss"], result["test"]["accuracy"])
    assert result["test_measured"] == 4, "three epochs, and the end"
    assert any(note.startswith(MONITOR) for note in result["notes"])
    curve = scalars_of(run)
    assert [step for step, _ in curve["accuracy/test"]] == [5, 10, 15], "the end is a point of the curve"
    assert [step for step, _ in curve["ece/test"]] == [15]


def test_the_page_draws_it_and_says_what_it_must_not_be_used_for(outputs):
    run = finished((*UNVALIDATED, MONITOR), outputs)
    sections = page_of(RunFolder(run)).sections
    (said,) = (section for section in sections if isinstance(section, Lines) and section.title == "Findings")
    (remark,) = (line for line in said.lines if "data.monitor=test" in line)
    assert remark.startswith("the test images were measured 3 times in the course of the training")
    assert not any("evaluated" in line for line in said.lines)
    drawings = [section for section in sections if isinstance(section, Plot) and section.title.endswith("by epoch")]
    assert len(drawings) == 2
    assert all([curve.name for curve in drawing.panels[0].curves] == ["test", "training"] for drawing in drawings)


def test_an_interrupted_run_ends_as_an_unbroken_one(outputs, tmp_path):
    words = (*UNVALIDATED, MONITOR)
    unbroken = outcome_of(finished(words, tmp_path / "unbroken"))
    kill(plan(*words), after_step=12, saves_every=4)
    assert differences(outcome_of(finished(words, outputs)), unbroken) == []


def test_it_is_no_part_of_an_identity_but_said_where_a_finished_run_has_none(composer, outputs, cnnbench):
    assert plan_run(composer, [MONITOR]).config.identity() == plan_run(composer, []).config.identity()
    finished(UNVALIDATED, outputs)
    shown = cnnbench(*UNVALIDATED, MONITOR)
    assert f"note: {MONITOR}: this run was trained without it; rerun=true trains it again with it" in shown.out
    assert "trained without" not in cnnbench(*UNVALIDATED).out


def test_the_terminal_shows_it_from_epoch_to_epoch(cnnbench):
    out = cnnbench(*UNVALIDATED, MONITOR).out
    assert out.count("test accuracy 0.") == 3
    assert f"note: {MONITOR}: these images are measured in the course of the training too" in out


def test_only_test_can_be_monitored_and_as_often_as_is_typed(composer):
    with pytest.raises(ConfigError, match=r"data\.monitor=val"):
        plan_run(composer, ["data.monitor=val"])
    words = ["data.val_fraction=0", "eval_every=2"]
    with pytest.raises(ConfigError, match="nothing is evaluated during training"):
        plan_run(composer, words)
    assert plan_run(composer, [*words, MONITOR]).config.eval_every == 2
    with pytest.raises(ConfigError, match=r"eval_every=50  ?exceeds the 40 epochs"):
        plan_run(composer, ["data.val_fraction=0", "eval_every=50", MONITOR])


def test_what_a_published_curve_shows_is_monitored_by_its_experiment(composer):
    for name in ("lenet_mnist", "minialexnet_v4_cifar100", "mlp_mnist"):
        config = plan_run(composer, [f"experiment=cnn_lab/{name}"]).config
        assert (config.data.monitor, config.data.val_fraction) == ("test", 0.0)


def test_test_images_that_are_left_unmeasured_are_not_monitored(composer):
    with pytest.raises(ConfigError, match=r"data\.monitor=test\s+measures the test images .* test=false"):
        plan_run(composer, ["test=false", MONITOR])
    plan = plan_run(composer, ["experiment=cnn_lab/lenet_mnist", "test=false"])
    assert plan.config.data.monitor is None
