"""One update: gradients in training, bounded, of scaled losses; averages of the weights; validation by steps."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cnnbench.config.schema import Averaging
from cnnbench.data.loader import Batch, Mixed
from cnnbench.optim.average import WeightAverage
from cnnbench.training.loop import Progress, fit
from cnnbench.training.step import apply_gradients, compute_gradients
from tests.conftest import TINY
from tests.support.training import SMALL, Recorder, first_batch, prepared, same, trained, weights_of

PLAIN = (*SMALL, "optimizer.momentum=0", "optimizer.lr=1.0", "scheduler=none")


def gradients(training) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in training.network.parameters()])


# Parts of a batch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3, 5, 16])
def test_a_batch_is_split_into_parts_that_miss_nothing(number):
    labels = torch.arange(16)
    batch = Batch(torch.rand(16, 1, 2, 2), labels, Mixed(labels.flip(0), torch.rand(16)))
    training = batch.parts(number)
    assert len(training) == number
    assert max(map(len, training)) - min(map(len, training)) <= 1
    assert torch.equal(torch.cat([part.images for part in training]), batch.images)
    assert torch.equal(torch.cat([part.mixed.labels for part in training]), batch.mixed.labels)
    assert torch.equal(torch.cat([part.mixed.share for part in training]), batch.mixed.share)


def test_a_batch_without_parts_is_itself():
    batch = Batch(torch.rand(2, 1, 2, 2), torch.arange(2))
    assert batch.parts(1)[0] is batch
    assert [len(part) for part in batch.parts(5)] == [1, 1]


@pytest.mark.parametrize("task", [(), ("task.class_weights=[1.0,2.0,5.0]",), ("augmentation=mixup",)], ids=str)
@pytest.mark.parametrize("number", [2, 3])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(number, task):
    whole = prepared(*PLAIN, *task)
    sums = compute_gradients(whole, first_batch(whole))
    in_parts = prepared(*PLAIN, *task, f"accumulate={number}")
    assert torch.allclose(compute_gradients(in_parts, first_batch(in_parts)), sums, rtol=1e-5)
    assert torch.allclose(gradients(in_parts), gradients(whole), rtol=1e-4, atol=1e-7)


def test_penalties_are_added_once_however_many_parts_there_are():
    batch_of, found = {}, {}
    for number in (1, 4):
        training = prepared(*PLAIN, "regularization.l1=0.01", "regularization.l2=0.02", f"accumulate={number}")
        batch_of[number] = first_batch(training)
        compute_gradients(training, batch_of[number])
        found[number] = gradients(training)
    training = prepared(*PLAIN)
    compute_gradients(training, batch_of[1])
    weights = training.network.parameters()
    terms = [0.01 * weight.sign() + 0.04 * weight if weight.ndim > 1 else 0 * weight for weight in weights]
    expected = gradients(training) + torch.cat([term.detach().flatten() for term in terms])
    assert torch.allclose(found[1], expected, rtol=1e-4, atol=1e-7)
    assert torch.allclose(found[4], expected, rtol=1e-4, atol=1e-7)


def test_more_parts_than_the_smallest_batch_has_images_are_refused(cnnbench):
    ended = cnnbench(*TINY, "data.num_train=75", "data.val_fraction=0", "batch_size=36", "accumulate=4")
    assert ended.code == 2
    assert "accumulate=4" in ended.err
    assert "smallest batch has images, which is 3" in ended.err


# Bounds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "applies"), [(0.01, True), (1e9, False)])
def test_the_norm_of_the_gradient_is_bounded(bound, applies):
    training = prepared(*PLAIN, f"regularization.clip.norm={bound}")
    compute_gradients(training, first_batch(training))
    before = weights_of(training)
    gradient = gradients(training).clone()
    apply_gradients(training)
    moved = torch.cat([(before[name] - now).flatten() for name, now in training.network.named_parameters()])
    expected = gradient * (bound / gradient.norm() if applies else 1)
    assert torch.allclose(moved, expected, rtol=1e-3, atol=1e-7)


def test_each_value_of_the_gradient_is_bounded():
    training = prepared(*PLAIN, "regularization.clip.value=0.001")
    compute_gradients(training, first_batch(training))
    before = weights_of(training)
    gradient = gradients(training).clone()
    apply_gradients(training)
    moved = torch.cat([(before[name] - now).flatten() for name, now in training.network.named_parameters()])
    assert gradient.abs().max() > 0.001
    assert torch.allclose(moved, gradient.clamp(-0.001, 0.001), atol=1e-7)


# Short numbers --------------------------------------------------------------------------------------------------------


def test_the_scaler_does_nothing_outside_fp16():
    training = prepared(*TINY)
    assert not training.scaler.is_enabled()
    assert training.scaler.state_dict() == {}
    assert replace(training, average=None).evaluated(3) is training.network


@pytest.mark.parametrize("clip", [None, 0.01])
def test_scaled_losses_give_the_step_of_losses_that_are_not(clip):
    words = () if clip is None else (f"regularization.clip.norm={clip}",)
    moved = {}
    for scale in (None, 1024.0):
        training = prepared(*PLAIN, *words)
        if scale is not None:  # in fp32 here: a processor has no need of it
            training = replace(training, scaler=torch.amp.GradScaler("cpu", init_scale=scale))
        before = weights_of(training)
        compute_gradients(training, first_batch(training))
        apply_gradients(training)
        moved[scale] = torch.cat([(before[name] - now).flatten() for name, now in training.network.named_parameters()])
    assert moved[None].abs().max() > 0
    assert torch.allclose(moved[1024.0], moved[None], rtol=1e-3, atol=1e-6)


def test_a_step_whose_scaled_gradients_overflow_is_left_out():
    training = prepared(*PLAIN)
    training = replace(training, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    before = weights_of(training)
    compute_gradients(training, first_batch(training))
    next(training.network.parameters()).grad.fill_(math.inf)
    apply_gradients(training)
    assert same(before, weights_of(training))
    assert training.scaler.get_scale() == 512


def test_bf16_on_a_processor_without_it_is_noted(cnnbench, monkeypatch):
    for flags, noted in (({"avx2"}, True), ({"avx2", "avx512_bf16"}, False)):
        monkeypatch.setattr("cnnbench.training.setup.cpu_flags", lambda flags=flags: flags)
        ended = cnnbench(*TINY, "precision=bf16", "epochs=1", "rerun=true")
        assert ended.code == 0, ended.err
        assert ("it is emulated, and slower than fp32" in ended.out) == noted


# Averages -------------------------------------------------------------------------------------------------------------


def a_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def step(network: nn.Module, number: int) -> None:
    for weight in network.parameters():
        weight.data += number + torch.arange(weight.numel()).view_as(weight)
    network[1].running_mean += number


def test_the_exponential_average_is_that_of_a_slow_loop():
    network = a_network()
    average = WeightAverage(Averaging(kind="ema", decay=0.8), network, 10, pytest.fail)
    assert not average.has_begun
    expected = None
    for number in range(30):
        step(network, number)
        average.after_step()
        average.after_epoch(number + 1)
        now = torch.cat([network[0].weight.flatten(), network[1].running_mean]).detach()
        decay = min(0.8, (1 + number) / (10 + number))
        expected = now.clone() if expected is None else decay * expected + (1 - decay) * now
    averaged = average.network_at(30)
    got = torch.cat([averaged[0].weight.flatten(), averaged[1].running_mean])
    assert torch.allclose(got, expected, rtol=1e-5)
    assert not torch.allclose(got, now, rtol=1e-2)


def test_the_average_of_epochs_is_a_plain_mean_from_the_share_of_the_training_that_was_said():
    network, refreshed = a_network(), []
    average = WeightAverage(
        Averaging(kind="swa", start=0.5), network, 4, lambda network, step: refreshed.append((network, step))
    )
    seen = []
    for epoch in range(1, 5):
        step(network, epoch)
        average.after_step()
        average.after_epoch(epoch)
        average.after_epoch(epoch)  # as after a stop in the validation that follows
        seen.append(network[0].weight.detach().clone())
        assert average.has_begun == (epoch > 2)
    averaged = average.network_at(40)
    assert torch.allclose(averaged[0].weight, (seen[2] + seen[3]) / 2)
    assert average.network_at(40) is averaged
    assert refreshed == [(averaged, 40)]


def test_norms_of_averaged_weights_are_measured_on_the_training_images():
    words = ("model=lenet_v2", "regularization.batchnorm=true", "regularization.average.kind=swa")
    training, _, progress = trained(*SMALL, *words, "regularization.average.start=0")
    network = training.evaluated(progress.step)
    norm = network.features.norm2
    seen = []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.eval()
    order = torch.arange(len(training.train))
    with torch.no_grad():
        for batch in training.train.epoch(order, training.config.batch_size):
            network(batch.images)
    handle.remove()
    means = torch.stack([values.mean((0, 2, 3)) for values in seen])
    assert torch.allclose(norm.running_mean, means.mean(0), atol=1e-5)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_the_average_is_what_is_validated_and_kept(kind):
    start = ["regularization.average.start=0"] if kind == "swa" else []
    training, recorder, progress = trained(*TINY, f"regularization.average.kind={kind}", *start)
    average = training.evaluated(progress.step)
    assert average is not training.network
    assert not same(average.state_dict(), training.network.state_dict())
    plain = trained(*TINY)
    assert same(weights_of(training), weights_of(plain[0])), "averaging does not touch the training"
    assert [row["loss/train"] for row in recorder.steps] == [row["loss/train"] for row in plain[1].steps]
    assert progress.best.weights.keys() == training.network.state_dict().keys()


# When validation is measured ------------------------------------------------------------------------------------------


def val_steps(recorder: Recorder) -> list[int]:
    rows = sorted([*recorder.validations, *recorder.epochs], key=lambda row: row["step"])
    return [row["step"] for row in rows if "loss/val" in row]


@pytest.mark.parametrize(
    ("every", "unit", "steps"),
    [(1, "epoch", [5, 10, 15]), (2, "epoch", [10, 15]), (3, "epoch", [15]), (4, "step", [4, 8, 12, 15]),
     (5, "step", [5, 10, 15]), (1, "step", list(range(1, 16))), (15, "step", [15])],
)  # fmt: skip
def test_validation_is_measured_when_it_was_asked_for_and_at_the_end(every, unit, steps):
    training, recorder, progress = trained(*SMALL, f"eval_every={every}", f"eval_unit={unit}")
    assert val_steps(recorder) == steps
    assert [row["step"] for row in recorder.epochs] == [5, 10, 15]
    assert len(progress.scores) == len(steps)
    assert all(row["row"] == "val" for row in recorder.validations)
    plain = trained(*SMALL)
    assert same(weights_of(training), weights_of(plain[0])), "measuring changes nothing"


def test_early_stopping_counts_validations_and_can_end_within_an_epoch(monkeypatch):
    training = prepared(*SMALL, "eval_every=2", "eval_unit=step", "regularization.early_stopping.patience=2")
    monkeypatch.setattr("cnnbench.training.loop.evaluate", lambda *_: {"loss": 1.0, "accuracy": 0.5})
    recorder, progress = Recorder(), Progress()
    fit(training, progress, recorder)
    assert (progress.step, progress.stopped_early) == (6, True)
    assert val_steps(recorder) == [2, 4, 6]
