"""What a training minimises: each loss against a slow loop or torch's own, whatever is measured afterwards."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from cnnbench.data.loader import Mixed
from tests.conftest import TINY
from tests.support.training import first_batch, prepared, trained


def losses_of(*words: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, object]:
    """Return scores, labels and the loss that the task makes of them."""
    training = prepared(*TINY, *words)
    batch = first_batch(training)
    scores = training.network(batch.images).detach()
    loss, _ = training.task.train_step(lambda _: scores, batch)
    return scores, batch.labels, loss, training


def test_label_smoothing_spreads_the_target():
    scores, labels, loss, _ = losses_of("regularization.label_smoothing=0.2")
    targets = functional.one_hot(labels, 3) * 0.8 + 0.2 / 3
    assert loss.item() == pytest.approx(-(targets * scores.log_softmax(1)).sum(1).mean().item(), rel=1e-5)


def test_the_focal_loss_cares_less_for_what_is_easy():
    scores, labels, loss, _ = losses_of("task.loss=focal", "task.focal_gamma=3.0")
    slow = []
    for row, label in zip(scores, labels, strict=True):
        p = math.exp(row[label]) / sum(math.exp(score) for score in row)
        slow.append(-((1 - p) ** 3) * math.log(p))
    assert loss.item() == pytest.approx(sum(slow) / len(slow), rel=1e-4)


def test_class_weights_count_images_and_their_mean_over_the_training_images_is_1():
    scores, labels, loss, training = losses_of("task.class_weights=[1.0,2.0,5.0]")
    raw = torch.tensor([1.0, 2.0, 5.0])
    weights = raw / raw[training.data.train.labels].mean()
    each = functional.cross_entropy(scores, labels, reduction="none")
    assert loss.item() == pytest.approx((each * weights[labels]).mean().item(), rel=1e-5)
    assert weights[training.data.train.labels].mean().item() == pytest.approx(1)


def test_balanced_class_weights_make_every_class_count_as_much():
    words = ("data.subset.first=41", "data.val_fraction=0")
    training = prepared(*TINY, *words, "task.class_weights=balanced")
    weights = training.task._weights
    counts = torch.bincount(training.data.train.labels)
    assert len(set(counts.tolist())) > 1
    assert torch.allclose(weights * counts, (weights * counts).mean().expand(3))


def test_a_binary_loss_is_that_of_one_logit():
    training = prepared(*TINY, "data.num_classes=2", "task.loss=binary")
    batch = first_batch(training)
    logits = training.network(batch.images)
    assert logits.shape == (16, 1)
    loss, sums = training.task.train_step(training.network, batch)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0], batch.labels.float())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sums[1].item() == ((logits[:, 0] > 0) == batch.labels.bool()).sum().item()
    assert trained(*TINY, "data.num_classes=2", "task.loss=binary")[2].best.metrics["accuracy"] > 0.5


def test_blended_images_count_for_both_of_their_classes():
    training = prepared(*TINY)
    plain = first_batch(training)
    others, share = plain.labels.flip(0), torch.linspace(0, 1, 16)
    batch = replace(plain, mixed=Mixed(others, share))
    scores = training.network(batch.images).detach()
    loss, sums = training.task.train_step(lambda _: scores, batch)
    own, other = functional.one_hot(plain.labels, 3), functional.one_hot(others, 3)
    targets = own * share[:, None] + other * (1 - share[:, None])
    assert loss.item() == pytest.approx(functional.cross_entropy(scores, targets).item(), rel=1e-5)
    assert sums[1].item() == pytest.approx(targets[torch.arange(16), scores.argmax(1)].sum().item(), rel=1e-5)


def test_evaluations_measure_plain_cross_entropy_whatever_is_trained_on():
    plain = prepared(*TINY)
    batch = next(iter(plain.batches("val").epoch(torch.arange(7), 7)))
    expected = plain.task.eval_step(plain.network, batch)
    for words in (["task.loss=focal"], ["task.class_weights=balanced"], ["task.label_smoothing=0.3"]):
        training = prepared(*TINY, *words)
        assert torch.equal(training.task.eval_step(plain.network, batch), expected), words
