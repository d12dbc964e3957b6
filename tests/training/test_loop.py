"""The loop: what it computes, what it calls best, when it stops."""

import json
import math
from dataclasses import replace
from itertools import count

import pytest
import torch
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from torch.nn import functional

from cnnbench.errors import Stopped, TrainingError
from cnnbench.training import loop
from cnnbench.training.loop import Progress, fit, is_better
from cnnbench.training.step import evaluate
from tests.conftest import TINY, only_run
from tests.support.training import SMALL, Recorder, prepared, same, trained, weights_of

EVERYTHING = (
    "model=lenet_v2", "data.channels=3", "data.image_size=20", "data.crop=16", "augmentation=crop_flip_jitter",
    "regularization.dropout=0.3", "regularization.batchnorm=true",
)  # fmt: skip


# What it computes -----------------------------------------------------------------------------------------------------

GOLDEN = [
    1.0768504, 1.0606581, 1.1616678, 1.0197980, 0.7409813, 0.8657626, 0.6952842, 0.7671691, 0.6838002, 1.0955572,
    0.7791629, 0.6569057, 0.5740435, 0.5020630, 1.1140734, 0.4058207, 0.9677140, 0.6689443, 0.6085125, 0.5886869,
]  # fmt: skip


def test_losses_are_those_of_the_day_this_was_written():
    # With dropout, batch norm, crops, flips and jitter, so that no stream of draws changes unnoticed. Other processors
    # add in another order: code without AVX2 moved these losses by up to 3e-5 of themselves; another draw moves them by
    # 1e-2 and more. Hence images as they are (resizing rounds), smooth layers (max pools jump) and a small rate.
    smooth = ("model=lenet", "data.image_size=null", "data.channels=null", "data.crop=28", "optimizer.lr=0.01")
    recorder = trained(*SMALL, *EVERYTHING, *smooth, "epochs=4")[1]
    assert [row["loss/train"] for row in recorder.steps] == pytest.approx(GOLDEN, rel=1e-4)


def test_64_images_are_learnt_by_heart():
    training, _, _ = trained(
        *TINY, "model=lenet_v2", "data.num_train=64", "data.val_fraction=0", "epochs=30", "batch_size=8"
    )
    assert evaluate(training, training.network, training.batches("train"))["accuracy"] == 1.0


def test_the_same_words_give_the_same_bits_and_another_seed_others():
    first, again, other = (trained(*SMALL, *EVERYTHING, f"seed={seed}")[0] for seed in (3, 3, 4))
    assert same(weights_of(first), weights_of(again))
    assert not same(weights_of(first), weights_of(other))


def test_each_step_is_made_with_the_rate_of_its_row():
    _, recorder, _ = trained(*SMALL, "optimizer.lr=0.1", "scheduler=step", "scheduler.every=1", "log_every=2")
    expected = [0.1 * 0.1 ** ((step - 1) // 5) for step in range(2, 16, 2)]
    assert [row["step"] for row in recorder.steps] == list(range(2, 16, 2))
    assert [row["lr"] for row in recorder.steps] == pytest.approx(expected)


def test_every_epoch_has_its_own_order_of_all_images(monkeypatch):
    training = prepared(*SMALL)
    orders = []
    epoch = training.train.epoch
    monkeypatch.setattr(training.train, "epoch", lambda order, *more: orders.append(order) or epoch(order, *more))
    fit(training, Progress(), Recorder())
    assert len(orders) == 3
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(72))
    assert len({tuple(order.tolist()) for order in orders}) == 3


# Metrics --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [3, 7])
def test_metrics_are_means_over_images_as_a_slow_loop_has_them(num_classes):
    training, _, _ = trained(*SMALL, f"data.num_classes={num_classes}", "data.num_test=37", "batch_size=15")
    metrics = evaluate(training, training.network, training.batches("test"))
    data, scores = training.data, []
    with torch.no_grad():
        training.network.eval()
        for image in data.test.pixels:
            scores.append(training.network((image[None].float() / 255 - data.mean[0]) / data.std[0])[0])
    scores, labels = torch.stack(scores), data.test.labels
    losses = [float(functional.cross_entropy(one, label)) for one, label in zip(scores, labels, strict=True)]
    assert metrics["loss"] == pytest.approx(sum(losses) / 37, rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    if num_classes == 7:
        expected = top_k_accuracy_score(labels, scores.numpy(), k=5, labels=range(7))
        assert metrics["top5"] == pytest.approx(expected)
    else:
        assert "top5" not in metrics


def test_train_metrics_of_an_epoch_weigh_every_image_alike():
    # The steps are too small to change a weight: the running metrics are those of the whole part, measured at once.
    training, recorder, _ = trained(*SMALL, "optimizer.lr=1e-30", "epochs=1", "batch_size=25")
    measured = evaluate(training, training.network, training.batches("train"))
    row = recorder.epochs[0]
    assert row["loss/train"] == pytest.approx(measured["loss"], rel=1e-5)
    assert row["accuracy/train"] == pytest.approx(measured["accuracy"])
    sizes = (25, 25, 22)
    means = [step["loss/train"] for step in recorder.steps]
    assert row["loss/train"] == pytest.approx(sum(map(math.prod, zip(sizes, means, strict=True))) / 72, rel=1e-6)
    assert row["loss/train"] != pytest.approx(sum(means) / 3, rel=1e-5)


@pytest.mark.parametrize("interrupted", [False, True], ids=["to the end", "interrupted"])
def test_evaluation_leaves_weights_buffers_modes_and_randomness_as_they_were(interrupted):
    training = prepared(*SMALL, *EVERYTHING)
    network = training.network.train()
    next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()  # frozen by hand
    before, modes = weights_of(training), [module.training for module in network.modules()]
    state, calls = torch.get_rng_state(), count()

    def check_stop() -> None:
        if interrupted and next(calls) == 1:
            raise Stopped

    try:
        evaluate(training, training.network, training.batches("test"), check_stop)
        stopped = False
    except Stopped:
        stopped = True
    assert stopped is interrupted
    assert same(weights_of(training), before)
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_dropout_is_off_and_batch_norm_uses_its_statistics_while_measuring():
    training, _, _ = trained(*SMALL, *EVERYTHING, "regularization.dropout=0.9")
    test = training.batches("test")
    assert evaluate(training, training.network, test) == evaluate(training, training.network, test)
    one_by_one = evaluate(
        replace(training, config=training.config.model_copy(update={"batch_size": 1})), training.network, test
    )
    assert one_by_one == pytest.approx(evaluate(training, training.network, test), rel=1e-5)


# What is best ---------------------------------------------------------------------------------------------------------

NAN = math.nan
WATCHED = (("accuracy", True), ("loss", False))
COMPARISONS = {
    "the first is best": ((0.1, 9.0), None, True),
    "higher accuracy": ((0.6, 2.0), (0.5, 1.0), True),
    "lower accuracy": ((0.4, 0.5), (0.5, 1.0), False),
    "a tie goes to the lower loss": ((0.5, 0.9), (0.5, 1.0), True),
    "a tie with a higher loss": ((0.5, 1.1), (0.5, 1.0), False),
    "all alike: the earlier one stays": ((0.5, 1.0), (0.5, 1.0), False),
    "not a number beats nothing": ((0.9, NAN), (0.5, 1.0), False),
    "nor is it best when it comes first": ((0.9, NAN), None, False),
    "accuracy that is not a number": ((NAN, 0.1), (0.5, 1.0), False),
    "an infinite loss is never best": ((0.9, math.inf), None, False),
    "an infinite loss can be beaten": ((0.5, 1.0), (0.5, math.inf), True),
}


@pytest.mark.parametrize(("new", "best", "better"), COMPARISONS.values(), ids=COMPARISONS)
def test_which_epoch_is_better(new, best, better):
    def metrics(values):
        return None if values is None else dict(zip(("accuracy", "loss"), values, strict=True))

    assert is_better(metrics(new), metrics(best), WATCHED) is better


def test_without_validation_nothing_is_best():
    assert not is_better({}, None, WATCHED)


@pytest.fixture
def scripted(monkeypatch):
    """Return a training whose validation says what a script says."""

    def run(values, watched, patience=None, min_delta=0.0):
        training = prepared(*SMALL, f"epochs={len(values)}")
        stopping = training.config.regularization.early_stopping.model_copy(
            update={"patience": patience, "min_delta": min_delta}
        )
        regularization = training.config.regularization.model_copy(update={"early_stopping": stopping})
        training = replace(training, config=training.config.model_copy(update={"regularization": regularization}))
        training.task.watched = watched
        script = iter(values)
        monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": 1.0, "accuracy": 0.5} | next(script))
        recorder, progress = Recorder(), Progress()
        fit(training, progress, recorder)
        return recorder, progress

    return run


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.2, 0.9, 0.5], 2), ([0.2, 0.3, 0.3], 2), ([0.5, 0.4, 0.3], 1)],
    ids=["the middle one", "the earlier of two", "the first"],
)
def test_the_best_epoch_is_kept_with_its_weights(scripted, accuracies, best):
    training = prepared(*SMALL, "epochs=3")
    with pytest.raises(Stopped):
        fit(training, Progress(), Recorder(stop_after=5 * best))
    recorder, progress = scripted([{"accuracy": value} for value in accuracies], WATCHED)
    assert progress.best.epoch == best
    assert progress.best.step == 5 * best
    assert [index + 1 for index, is_best in enumerate(recorder.bests) if is_best][-1] == best
    assert same(progress.best.weights, weights_of(training))


def test_the_first_number_after_losses_that_are_none_is_best(scripted):
    _, progress = scripted([{"loss": NAN}, {"loss": NAN}, {"loss": 3.0}, {"loss": NAN}], (("loss", False),))
    assert progress.best.epoch == 3


def test_losses_that_are_all_no_number_leave_no_best(scripted):
    assert scripted([{"loss": NAN}] * 2, (("loss", False),))[1].best is None


# Early stopping -------------------------------------------------------------------------------------------------------

ACCURACY, LOSS = ("accuracy", True), ("loss", False)
STOPS = {
    "no patience set": (ACCURACY, [0.5, 0.5, 0.5, 0.5], None, 0.0, 4),
    "after two in vain": (ACCURACY, [0.5, 0.6, 0.6, 0.6, 0.9], 2, 0.0, 4),
    "after one in vain": (ACCURACY, [0.5, 0.4, 0.9], 1, 0.0, 2),
    "improvement restarts the count": (ACCURACY, [0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 2, 0.0, 5),
    "too little counts as none": (ACCURACY, [0.5, 0.55, 0.6, 0.9], 2, 0.25, 3),
    "exactly min_delta is too little": (ACCURACY, [0.5, 0.75, 0.75, 0.9], 2, 0.25, 3),
    "small gains add up": (ACCURACY, [0.5, 0.6, 0.8, 0.8, 0.8, 1.0], 2, 0.25, 5),
    "lower is better": (LOSS, [3.0, 2.0, 2.0, 2.5, 1.0], 2, 0.0, 4),
    "no number is no improvement": (LOSS, [3.0, NAN, NAN, 1.0], 2, 0.0, 3),
    "a number after none is one": (LOSS, [NAN, 3.0, 2.0, 1.0, 0.5], 2, 0.0, 5),
}


@pytest.mark.parametrize(("watched", "values", "patience", "min_delta", "epochs"), STOPS.values(), ids=STOPS)
def test_training_stops_early(scripted, watched, values, patience, min_delta, epochs):
    script = [{watched[0]: value} for value in values]
    recorder, progress = scripted(script, (watched,), patience, min_delta)
    assert len(recorder.epochs) == epochs
    assert progress.stopped_early is (epochs < len(values))


# Losses that are no numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_training_before_it_changes_a_weight(monkeypatch, bad):
    training = prepared(*SMALL, "optimizer.lr=0.0625", "scheduler=none", "optimizer.momentum=0.5")
    train_step, calls, before = training.task.train_step, count(1), []

    def poisoned(network, batch):
        loss, sums = train_step(network, batch)
        if next(calls) < 7:
            return loss, sums
        before.append(weights_of(training))
        return loss * bad, sums * torch.tensor([bad, 1.0])

    monkeypatch.setattr(training.task, "train_step", poisoned)
    recorder, progress = Recorder(), Progress()
    said = r"step 7 \(epoch 2\) is -?(nan|inf), the norm of its gradient nan, at a learning rate of 0\.0625"
    with pytest.raises(TrainingError, match=said):
        fit(training, progress, recorder)
    assert same(weights_of(training), before[0])
    assert progress.step == len(recorder.steps) == 6


def test_a_training_that_diverges_ends_with_exit_1_a_cause_and_a_finite_checkpoint(cnnbench, outputs):
    outcome = cnnbench(*SMALL, "model=lenet_v2", "optimizer.lr=1e5", "checkpoint.every_seconds=0")
    assert outcome.code == 1
    assert "the training diverged" in outcome.err
    assert "Traceback" not in outcome.err
    run = only_run(outputs)
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    assert not (run / "result.json").exists()
    for path in (run / "checkpoints").glob("*.pt"):
        network = torch.load(path, weights_only=True)["network"]
        assert all(tensor.isfinite().all() for tensor in network.values())


def test_a_stop_is_preceded_by_a_checkpoint():
    training = prepared(*SMALL)
    recorder = Recorder(stop_after=7)
    with pytest.raises(Stopped):
        fit(training, Progress(), recorder)
    assert recorder.saves == 1
    assert len(recorder.steps) == 7
