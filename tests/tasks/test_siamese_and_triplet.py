"""Losses of pairs and triplets, against slow obvious loops; which settings they cannot be learnt with."""

import math

import pytest
import torch

from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError, SettingError
from cnnbench.tasks.siamese import Siamese, contrastive, pairs_of
from cnnbench.tasks.triplet import Triplet, mined, triplet_margin, triplets_of
from tests.support.training import SMALL, first_batch, plan_of, prepared
from tests.support.zoo import LABELS

SPEC = DataSpec(1, 16, 16, ("a", "b", "c", "d"), (25, 15, 10, 50))
SIAMESE = (*SMALL, "task=siamese", "model=embedding_net", "model.maps=[4]", "model.units=[8]", "model.dimensions=6")
TRIPLET = (*SIAMESE[:-4], "task=triplet", *SIAMESE[-4:])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeddings(number: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 5, generator=generator(seed), dtype=torch.float64)


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_half_of_the_pairs_are_similar_and_every_image_is_an_anchor_once():
    pairs = Siamese(SPEC).order(LABELS, None, generator())
    assert sorted(pairs[:, 0].tolist()) == list(range(100))
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert int((LABELS[pairs[:, 0]] == LABELS[pairs[:, 1]]).sum()) == 50


def test_a_balanced_order_wants_anchors_of_rare_classes_as_often():
    pairs = Siamese(SPEC).order(LABELS, torch.ones(4), generator())
    counts = torch.bincount(LABELS[pairs[:, 0]], minlength=4)
    assert len(pairs) == 100
    assert counts.max() - counts.min() < 30 < torch.bincount(LABELS).max() - torch.bincount(LABELS).min()


def test_an_image_alone_of_its_class_is_in_dissimilar_pairs_only():
    labels = torch.tensor([0, 1, 1, 1, 1, 2])
    for seed in range(20):
        pairs = pairs_of(torch.arange(6), labels, generator(seed))
        assert (labels[pairs[[0, 5], 0]] != labels[pairs[[0, 5], 1]]).all()


def test_contrastive_loss_is_that_of_the_formula():
    one, other = embeddings(40), embeddings(40, 1) * torch.linspace(0, 2, 40).unsqueeze(1)
    is_dissimilar = torch.arange(40) % 2 == 0
    expected = []
    for row in range(40):
        d = math.dist(one[row].tolist(), other[row].tolist())
        expected.append(0.5 * max(0.0, 3.0 - d) ** 2 if is_dissimilar[row] else 0.5 * d**2)
    got = contrastive(one, other, is_dissimilar, 3.0)
    assert got.tolist() == pytest.approx(expected)
    assert 0 in expected


@pytest.mark.parametrize("is_dissimilar", [True, False])
def test_equal_embeddings_have_a_gradient_that_is_a_number(is_dissimilar):
    one = torch.ones(3, 4, requires_grad=True)
    contrastive(one, torch.ones(3, 4), torch.tensor([is_dissimilar] * 3), 2.0).sum().backward()
    assert torch.equal(one.grad, torch.zeros(3, 4))


def test_a_training_step_compares_the_two_images_of_each_pair():
    training = prepared(*SIAMESE)
    batch = first_batch(training)
    loss, sums = training.task.train_step(training.network, batch)
    found = training.network(batch.images)
    losses = []
    for pair in range(len(batch)):
        one, other = 2 * pair, 2 * pair + 1
        differs = batch.labels[one : one + 1] != batch.labels[other]
        losses.append(contrastive(found[one : one + 1], found[other : other + 1], differs, 2.0))
    assert len(batch) == 16
    assert len(batch.images) == 32
    assert loss.item() == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert sums.item() == pytest.approx(torch.cat(losses).sum().item(), rel=1e-5)


# Triplets -------------------------------------------------------------------------------------------------------------


def test_triplets_have_a_positive_and_a_negative():
    triplets = Triplet(SPEC).order(LABELS, None, generator())
    anchor, positive, negative = LABELS[triplets].unbind(1)
    assert sorted(triplets[:, 0].tolist()) == list(range(100))
    assert (anchor == positive).all()
    assert (anchor != negative).all()
    assert (triplets[:, 0] != triplets[:, 1]).all()
    assert torch.equal(triplets, triplets_of(triplets[:, 0], LABELS, _after(100)))


def _after(number: int) -> torch.Generator:
    drawn = generator()
    torch.randperm(number, generator=drawn)
    return drawn


def test_triplet_loss_is_that_of_torch():
    anchor, positive, negative = embeddings(30), embeddings(30, 1), embeddings(30, 2)
    to_positive, to_negative = (torch.linalg.norm(anchor - other, dim=1) for other in (positive, negative))
    expected = torch.nn.TripletMarginLoss(margin=0.7, eps=0.0, reduction="none")(anchor, positive, negative)
    assert torch.allclose(triplet_margin(to_positive, to_negative, 0.7), expected)


def slow_mined(found: torch.Tensor, labels: list[int], margin: float, how: str) -> list[float]:
    number, losses = len(labels), []
    d = [[math.dist(found[i].tolist(), found[j].tolist()) for j in range(number)] for i in range(number)]
    for i in range(number):
        positives = [j for j in range(number) if labels[j] == labels[i] and j != i]
        negatives = [j for j in range(number) if labels[j] != labels[i]]
        if not positives or not negatives:
            continue
        if how == "hard":
            losses.append(max(0.0, max(d[i][j] for j in positives) - min(d[i][j] for j in negatives) + margin))
            continue
        for j in positives:
            farther = [d[i][k] for k in negatives if d[i][k] > d[i][j]]
            chosen = min(farther) if farther else max(d[i][k] for k in negatives)
            losses.append(max(0.0, d[i][j] - chosen + margin))
    return losses


@pytest.mark.parametrize("how", ["hard", "semihard"])
@pytest.mark.parametrize("labels", [LABELS[:24].tolist(), [0, 0, 1, 2, 2, 2, 3], [1, 1, 1], [0, 1, 2], [0, 1, 1]])
def test_mined_triplets_are_those_of_a_slow_loop(how, labels):
    for seed, spread in ((0, 1.0), (1, 5.0)):
        found = embeddings(len(labels), seed) * spread
        got = mined(found, torch.tensor(labels), 1.0, how)
        assert got.tolist() == pytest.approx(slow_mined(found, labels, 1.0, how))


@pytest.mark.parametrize("how", ["hard", "semihard"])
def test_a_batch_in_which_nothing_can_be_mined_changes_nothing(how):
    training = prepared(*TRIPLET, f"task.mining={how}")
    batch = first_batch(training)
    batch.labels.zero_()
    loss, sums = training.task.train_step(training.network, batch)
    loss.backward()
    assert sums.tolist() == [0, 0]
    assert all(not weight.grad.any() for weight in training.network.parameters())


def test_mined_batches_have_several_images_of_each_class():
    training = prepared(*TRIPLET, "task.mining=hard", "task.per_class=8")
    labels = first_batch(training).labels
    assert len(labels) == 16
    for group in labels.split(8):
        assert len(set(group.tolist())) == 1


def test_active_is_the_share_of_triplets_with_a_loss():
    training = prepared(*TRIPLET, "task.margin=0.5")
    batch = first_batch(training)
    _, sums = training.task.train_step(training.network, batch)
    found = training.network(batch.images).view(16, 3, -1)
    to_positive, to_negative = (torch.linalg.norm(found[:, 0] - found[:, other], dim=1) for other in (1, 2))
    active = int((to_positive - to_negative + 0.5 > 0).sum())
    assert sums[1].item() == pytest.approx(active)
    assert 0 < active < 16


# Measuring ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [Siamese(SPEC), Triplet(SPEC)], ids=["siamese", "triplet"])
def test_a_split_is_measured_by_the_same_comparisons_every_time(task):
    found = embeddings(100).float()
    first, again = task.compute_metrics(found, LABELS), task.compute_metrics(found, LABELS)
    assert first == again
    if isinstance(task, Siamese):
        one, other = pairs_of(torch.arange(100), LABELS, generator()).unbind(1)
        losses = contrastive(found[one], found[other], LABELS[one] != LABELS[other], 2.0)
    else:
        anchor, positive, negative = found[triplets_of(torch.arange(100), LABELS, generator())].unbind(1)
        losses = torch.nn.TripletMarginLoss(margin=1.0, eps=0.0, reduction="none")(anchor, positive, negative)
    assert first["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)


@pytest.mark.parametrize("task", [Siamese(SPEC), Triplet(SPEC)], ids=["siamese", "triplet"])
@pytest.mark.parametrize("labels", [[0, 0, 0], [2]])
def test_a_split_of_one_class_has_no_loss(task, labels):
    assert math.isnan(task.compute_metrics(torch.randn(len(labels), 3), torch.tensor(labels))["loss"])


# What cannot be -------------------------------------------------------------------------------------------------------

REFUSED = {
    "data.subset.first=12 data.num_classes=9 batch_size=5": "to train on",
    "augmentation=cutmix": "mixes images of different classes, which task=siamese cannot learn from; set it to null",
    "task.dimensions=7": "task.dimensions=7  the model is an encoder with embeddings of 6",
    "task=triplet task.per_class=8": "has no effect with task.mining=none",
    "task=triplet task.mining=hard batch_size=18": "must be a multiple of task.per_class=4",
    "task=triplet task.mining=hard batch_size=4": "at least 8",
    "task=triplet task.mining=hard data.sampling=balanced": "which orders images itself",
    "regularization.label_smoothing=0.1": "is not supported by 'siamese'",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_compared_is_refused_before_anything_starts(words, cnnbench, outputs):
    ended = cnnbench(*SIAMESE, *words.split())
    assert ended.code == 2, ended.out
    assert REFUSED[words] in ended.err
    assert not outputs.exists()


def test_one_class_alone_cannot_be_compared():
    config = plan_of(*SIAMESE).config
    with pytest.raises(ConfigError, match="compares classes, and the data have one"):
        Siamese(DataSpec(1, 16, 16, ("a",), (9,))).validate(config)


@pytest.mark.parametrize(("size", "fitting"), [(18, 16), (4, 8), (7, 8), (33, 32)])
def test_a_batch_size_that_fits_is_offered(size, fitting):
    config = plan_of(*TRIPLET).config.model_copy(update={"batch_size": size})
    with pytest.raises(SettingError) as refused:
        Triplet(SPEC, mining="hard").validate(config)
    assert refused.value.mistakes[0].instead == {"batch_size": fitting}
    Triplet(SPEC, mining="hard").validate(config.model_copy(update={"batch_size": fitting}))


def test_a_model_with_auxiliary_classifiers_is_refused(cnnbench):
    words = (*SMALL, "data.image_size=32", "model=torchvision", "model.architecture=googlenet", "model.auxiliary=true")
    for task in ("siamese", "autoencoder"):
        ended = cnnbench(*words, f"task={task}")
        assert ended.code == 2
        assert f"model.auxiliary=true  adds auxiliary classifiers, which task={task} does not train" in ended.err


def test_any_other_network_ends_in_an_embedding_of_the_size_that_is_set():
    for words, expected in (((), 128), (("task.dimensions=9",), 9)):
        training = prepared(*SMALL, "task=siamese", "model=lenet", *words)
        assert training.network(torch.zeros(2, 1, 16, 16)).shape == (2, expected)
