"""`checkpoint.top` keeps the weights of the best validations, and `checkpoint.average` tests their mean."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import cnnbench
from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError, UserError
from cnnbench.store import checkpoint
from cnnbench.store.checkpoint import load_newest
from cnnbench.training import loop
from cnnbench.training.loop import Progress, fit
from cnnbench.training.plan import plan_resume, plan_run
from cnnbench.training.trainer import carry_out
from tests.conftest import ended, only_run
from tests.support.interruption import child_of, differences, finished, go, outcome_of, read
from tests.support.training import SMALL, Recorder, prepared, same, trained, weights_of

pytestmark = pytest.mark.usefixtures("one_second_a_session", "undrawn")

NAN = math.nan
NORMED = (*SMALL, "model=lenet_v2", "regularization.batchnorm=true", "epochs=5")


def ranked_by_hand(script: list[float]) -> list[int]:
    """Return the epochs from the best to the worst, those alike in their order, without those that are no number."""
    numbers = [(-value, epoch) for epoch, value in enumerate(script, start=1) if not math.isnan(value)]
    return [epoch for _, epoch in sorted(numbers)]


@pytest.mark.parametrize(
    "script",
    [[0.1, 0.9, 0.5, 0.7], [0.9, 0.5, 0.5, 0.5], [NAN, 0.3, NAN, 0.2], [0.2, 0.2, 0.4, 0.4], [NAN, NAN]],
    ids=["any order", "the earlier of those alike", "not a number", "in pairs", "none"],
)
@pytest.mark.parametrize("top", [1, 2, 3])
def test_the_best_are_kept_in_their_order_each_with_its_weights(script, top, monkeypatch):
    training = prepared(*SMALL, f"epochs={len(script)}", f"checkpoint.top={top}")
    training.task.watched = (("accuracy", True),)
    values, weights = iter(script), {}
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"accuracy": next(values)})
    recorder = Recorder()
    recorder.on_epoch = lambda row, *_: weights.update({row["epoch"]: weights_of(training)})
    progress = Progress()
    fit(training, progress, recorder)
    assert [one.epoch for one in progress.ranked] == ranked_by_hand(script)[:top]
    assert all(same(one.weights, weights[one.epoch]) for one in progress.ranked)
    assert all(one.step == 5 * one.epoch for one in progress.ranked)
    assert progress.best is (progress.ranked[0] if progress.ranked else None)


def test_how_many_are_kept_changes_neither_the_run_nor_its_result(tmp_path):
    usual, kept = finished(NORMED, tmp_path / "a"), finished((*NORMED, "checkpoint.top=3"), tmp_path / "b")
    one, other = outcome_of(usual), outcome_of(kept)
    assert len(other["checkpoint"].pop("runners_up")) == 2
    assert next(value["epoch"] for value in other["result"].pop("kept")) == one["result"]["checkpoint"]["epoch"]
    assert differences(one, other) == []
    assert (usual.name, "kept" in one["result"]) == (kept.name, False)


def test_a_finished_run_that_kept_fewer_says_so(outputs, capsys):
    assert go(*NORMED) == go(*NORMED, "checkpoint.top=3") == 0
    assert "note: checkpoint.top=3: this run was trained without it; rerun=true trains" in capsys.readouterr().out


def test_no_save_removes_a_kept_one_and_each_is_what_was_validated(outputs, capsys):
    run = finished((*NORMED, "checkpoint.top=3", "checkpoint.keep=1", "checkpoint.every_seconds=0"), outputs)
    assert checkpoint.steps_in(run / "checkpoints") == [25]
    kept = read(run / "result.json")["kept"]
    assert len(kept) == 3
    for name, one in zip(("best", "best2", "best3"), kept, strict=True):
        assert cnnbench.load_run(run).epoch_of(name) == one["epoch"]
        assert ended("evaluate", [str(run), "--split", "val", "--checkpoint", name], capsys).code == 0
        metrics = read(run / "evaluation" / f"val-{name}" / "metrics.json")
        assert {key: metrics[key] for key in one["metrics"]} == one["metrics"]
    refused = ended("evaluate", [str(run), "--checkpoint", "best4"], capsys)
    assert refused.code == 2
    assert "no checkpoint 'best4'; did you mean 'best" in refused.err


# Their average --------------------------------------------------------------------------------------------------------


def mean_by_hand(states: list[dict[str, Tensor]], name: str) -> Tensor:
    total = sum(state[name].double() for state in states)
    assert isinstance(total, Tensor)
    return (total / len(states)).float()


def test_the_average_has_mean_weights_and_statistics_of_training_images():
    training, _, progress = trained(*NORMED, "checkpoint.average=3")
    states = [one.weights for one in progress.ranked]
    before = weights_of(training)
    network = training.averaged(states, 25)
    assert same(weights_of(training), before), "the network that was trained stays as it is"
    for name, weight in network.named_parameters():
        assert torch.equal(weight, mean_by_hand(states, name)), name
        assert not torch.equal(weight, states[0][name])
    first = next(layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    seen: list[Tensor] = []
    first.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        for batch in training.train.epoch(torch.arange(72), 16):
            network.train()(batch.images)
    expected = torch.stack([images.mean((0, 2, 3)) for images in seen]).mean(0)
    again = training.averaged(states, 25)
    measured = next(layer for layer in again.modules() if isinstance(layer, nn.BatchNorm2d)).running_mean
    assert torch.allclose(measured, expected, atol=1e-5)


def test_the_average_is_tested_and_every_other_command_finds_the_same(tmp_path, capsys):
    run = finished((*NORMED, "checkpoint.average=3"), tmp_path / "averaged")
    result, kept = read(run / "result.json"), read(run / "result.json")["kept"]
    assert result["checkpoint"]["kind"] == cnnbench.load_run(run).tested == "average"
    assert result["checkpoint"]["epoch"] == max(one["epoch"] for one in kept)
    assert f"of epochs {', '.join(str(one['epoch']) for one in kept)}" in result["checkpoint"]["chosen"]
    for split in ("test", "val"):
        assert ended("evaluate", [str(run), "--split", split], capsys).code == 0
        metrics = read(run / "evaluation" / f"{split}-average" / "metrics.json")
        assert (metrics["loss"], metrics["accuracy"]) == (result[split]["loss"], result[split]["accuracy"])
    assert result["val"]["loss"] not in [one["metrics"]["loss"] for one in kept]
    # The same from a run that only kept them.
    other = finished((*NORMED, "checkpoint.top=3"), tmp_path / "kept")
    assert other.name != run.name
    assert cnnbench.load_run(other).evaluate("test", "average").metrics == cnnbench.load_run(run).evaluate().metrics


def test_without_others_there_is_nothing_to_average(outputs):
    opened = cnnbench.load_run(finished(NORMED, outputs))
    with pytest.raises(UserError, match=r"kept only its best weights; checkpoint\.top=3 keeps more"):
        opened.model("average")


@pytest.mark.parametrize("top", [1, 3])
def test_what_a_longer_run_averages_does_not_depend_on_what_its_parent_happened_to_keep(top, outputs, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.8, 0.7, 0.1, 0.2])
    monkeypatch.setattr(loop, "evaluate", lambda *_: {"loss": 1.0, "accuracy": next(accuracies)})
    assert go(*SMALL, "epochs=4", f"checkpoint.top={top}") == 0
    parent = only_run(outputs)
    assert carry_out(plan_resume(str(parent), ["epochs=6", "checkpoint.average=3"])) == 0
    content = load_newest(child_of(parent) / "checkpoints", pytest.fail)
    assert [one["epoch"] for one in (content["best"], *content["runners_up"])] == [2, 6, 5]


REFUSED = {
    "checkpoint.average=1": "must be a whole number at least 2 or null",
    "checkpoint.top=0": "must be a whole number above 0",
    "checkpoint.average=2 tested=last": "tests the mean of the best on validation, and tested=last the last one",
    "checkpoint.average=4": "exceeds the 3 evaluations in 3 epochs",
    "checkpoint.average=2 data.val_fraction=0": "has no effect with data.val_fraction=0",
    "checkpoint.top=2 data.val_fraction=0": "has no effect with data.val_fraction=0",
}


@pytest.mark.parametrize(("words", "reason"), REFUSED.items(), ids=REFUSED)
def test_what_nothing_can_be_kept_for_is_refused(words, reason):
    with pytest.raises(ConfigError, match=reason):
        plan_run(Composer(), [*SMALL, *words.split()])


def test_a_last_batch_of_one_image_is_too_small_for_the_statistics_of_an_average():
    words = ("task=siamese", "model=embedding_net", "data.num_train=90", "regularization.batchnorm=true")
    with pytest.raises(ConfigError, match="makes a batch of one"):
        prepared(*SMALL, *words, "checkpoint.average=2")


@pytest.mark.parametrize("damaged", ["none", [None], [{"epoch": 3}]], ids=["no list", "no weights", "half of it"])
def test_a_checkpoint_whose_others_are_not_whole_is_none(damaged, tmp_path):
    _, _, progress = trained(*SMALL)
    content = {"network": {}, "progress": {}, "best": vars(replace(progress.ranked[0])), "runners_up": damaged}
    checkpoint.save(tmp_path, 15, content, {"epoch": 3}, 1)
    with pytest.raises(checkpoint.DamagedError, match="is no checkpoint"):
        checkpoint.load(tmp_path, 15)
