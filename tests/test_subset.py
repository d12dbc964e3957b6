"""Which images there are, which of them validate, what they are labelled, and how often they are trained on."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from cnnbench.check import check
from cnnbench.compose import Composer
from cnnbench.config import DataConfig, Subset
from cnnbench.data.images import DataSpec, ImageData, Images
from cnnbench.data.noise import wrong_on_purpose
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.data.sampling import class_weights, weighted_order
from cnnbench.data.split import k_fold, stratified_split
from cnnbench.data.subset import select
from cnnbench.errors import ConfigError, UserError
from cnnbench.plan import plan_run
from cnnbench.registry import DATASETS, Component, Selection

LABELS = torch.tensor([2, 0, 1, 2, 3, 0, 2, 2, 0, 1, 2, 0, 3, 2, 2, 2, 0, 2, 1, 2] * 5)  # 25, 15, 10, 50 of 100
NAMES = ("cat", "dog", "fox", "owl")
UNEVEN = torch.repeat_interleave(torch.arange(5), torch.tensor([40, 7, 21, 11, 2]))


def numbered(labels: torch.Tensor) -> Images:
    """Return images of one pixel that says which image it is."""
    return Images(torch.arange(len(labels)).byte().view(-1, 1, 1, 1), labels)


def zoo(_root: object = None) -> ImageData:
    """Images that each know their row."""
    return ImageData(numbered(LABELS), numbered(torch.arange(20) % 4), NAMES)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS._components, "zoo", Component("zoo", zoo, {}))


def prepared(**settings: Any) -> PreparedData:
    values = {"part": Selection("zoo", {}), "val_fraction": 0.2, "split_seed": 0, **settings}
    return prepare(DataConfig(**values))


def rows_of(part: Images) -> torch.Tensor:
    return part.pixels.flatten().long()


# Subset ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [["fox", "cat", "owl"], [3, 0, 2], ["owl", 2, "cat"]], ids=str)
def test_chosen_classes_are_numbered_anew_in_the_order_of_the_data_set(wanted):
    chosen, rows = select(zoo(), Subset(classes=wanted), 0)
    assert chosen.classes == ("cat", "fox", "owl")
    for part, whole in ((chosen.train, zoo().train), (chosen.test, zoo().test)):
        old = whole.labels[rows_of(part)].tolist()
        assert [NAMES[label] for label in old] == [chosen.classes[label] for label in part.labels.tolist()]
        assert rows_of(part).tolist() == [row for row, label in enumerate(whole.labels.tolist()) if label != 1]
    assert torch.equal(rows, rows_of(chosen.train))


def test_first_are_the_first_of_the_classes_that_were_chosen():
    chosen, rows = select(zoo(), Subset(classes=[1, 3], first=7), 0)
    expected = [row for row, label in enumerate(LABELS.tolist()) if label in (1, 3)][:7]
    assert rows.tolist() == rows_of(chosen.train).tolist() == expected
    assert len(chosen.test) == 10


def test_so_many_of_every_class_are_the_first_of_each():
    chosen, rows = select(zoo(), Subset(per_class=6), 0)
    labels = zoo().train.labels
    expected = sorted(row for index in range(4) for row in (labels == index).nonzero()[:6, 0].tolist())
    assert rows.tolist() == rows_of(chosen.train).tolist() == expected
    assert torch.equal(chosen.train.labels, LABELS[rows])
    assert len(chosen.test) == 20


def test_a_share_is_the_same_of_every_class_and_drawn_by_its_seed():
    counts = torch.bincount(LABELS)
    drawn = [select(zoo(), Subset(fraction=0.4), seed)[1] for seed in (0, 0, 1)]
    for rows in drawn:
        assert torch.bincount(LABELS[rows]).tolist() == (counts * 0.4).tolist()
        assert torch.equal(rows, rows.unique())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], stratified_split(LABELS, 4, 0.4, 0).val), "a draw of its own"


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (
            {"classes": ["cta", "dog"]},
            r"no class is called 'cta'; did you mean 'cat'\? There are: 'cat', .*0 to 3",
        ),
        ({"classes": ["emu", 4, -1]}, r"no class is called 'emu', '4', '-1'\. There are: 'cat'"),
        ({"classes": ["dog"]}, "nothing to tell apart; name two classes or more"),
        ({"classes": []}, "nothing to tell apart"),
        ({"classes": ["dog", 1]}, "named twice"),
        ({"first": 101}, r"data\.subset\.first=101: there are only 100 training images"),
        ({"per_class": 20}, r"data\.subset\.per_class=20: these classes have fewer: 'dog' \(15\), 'owl' \(10\)\."),
        ({"fraction": 0.001}, r"data\.subset\.fraction=0\.001: leaves no image of 'cat', 'dog', 'fox', 'owl'"),
        ({"fraction": 0.04}, r"leaves no image of 'owl'; give more"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_subset_that_cannot_be_had_is_a_clear_error(subset, message):
    with pytest.raises(UserError, match=message):
        prepared(subset=Subset(**subset))


def test_without_a_subset_nothing_is_chosen_or_copied():
    whole = zoo()
    chosen, rows = select(whole, Subset(), 0)
    assert chosen is whole
    assert torch.equal(rows, torch.arange(100))


@pytest.mark.parametrize("more", [{}, {"folds": 4, "fold": 1, "val_fraction": 0.25}], ids=["fraction", "fold"])
@pytest.mark.parametrize(
    "subset", [{}, {"classes": [3, 0]}, {"first": 50}, {"fraction": 0.5, "classes": [0, 2]}], ids=str
)
def test_the_recorded_rows_are_those_of_the_data_set_as_it_was_read(subset, more):
    data = prepared(subset=Subset(**subset), **more)
    for rows, part in ((data.split.train, data.train), (data.split.val, data.val)):
        assert torch.equal(rows, rows_of(part))
        assert [NAMES[label] for label in LABELS[rows]] == [data.spec.classes[label] for label in part.labels]
    assert data.spec.counts == tuple(torch.bincount(data.train.labels, minlength=data.spec.num_classes).tolist())


def test_every_choice_is_a_split_of_its_own_of_the_same_data():
    choices = [
        {}, {"subset": Subset(classes=[0, 1, 2])}, {"subset": Subset(first=99)}, {"subset": Subset(per_class=9)},
        {"subset": Subset(fraction=0.8)}, {"folds": 5, "fold": 0}, {"folds": 5, "fold": 1}, {"folds": 4, "fold": 0},
    ]  # fmt: skip
    data = [prepared(**choice) for choice in choices]
    assert len({each.split.hash() for each in data}) == len(choices)
    assert len({each.fingerprint for each in data}) == 1


def test_with_nothing_on_the_images_and_their_split_are_those_of_before():
    data, split = prepared(), stratified_split(LABELS, 4, 0.2, 0)
    assert data.split.hash() == split.hash()
    assert torch.equal(data.train.labels, LABELS[split.train])
    assert (data.wrong_labels, data.notes) == (0, ())


# Folds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("labels", [LABELS, UNEVEN[:-2], torch.arange(40) % 20], ids=["zoo", "uneven", "two a class"])
def test_folds_are_everything_share_nothing_and_are_alike(labels, folds):
    splits = [k_fold(labels, 20, folds, fold, seed=3) for fold in range(folds)]
    assert torch.equal(torch.cat([split.val for split in splits]).sort().values, torch.arange(len(labels)))
    sizes = torch.stack([torch.bincount(labels[split.val], minlength=20) for split in splits])
    assert (sizes.max(0).values - sizes.min(0).values).max() <= 1
    assert sizes.sum(1).max() - sizes.sum(1).min() <= 1
    for split in splits:
        assert torch.equal(torch.cat([split.train, split.val]).sort().values, torch.arange(len(labels)))
        assert torch.equal(split.val, split.val.sort().values)


def test_folds_are_drawn_by_their_seed():
    first, again, other = (k_fold(LABELS, 4, 5, 0, seed) for seed in (0, 0, 1))
    assert first.hash() == again.hash() != other.hash()
    assert first.val.tolist() != list(range(20))


@pytest.mark.parametrize(
    ("labels", "folds", "message"),
    [
        (torch.arange(3) % 2, 4, r"data\.folds=4: there are only 3 images; give fewer parts"),
        (torch.tensor([0] * 9 + [1]), 2, r"data\.folds=2 data\.fold=\d: class 1 has 1 image\(s\), none would be left"),
    ],
    ids=["fewer images than folds", "one image of a class"],
)
def test_too_few_images_for_folds_are_a_clear_error(labels, folds, message):
    def every_fold() -> None:
        for fold in range(folds):
            k_fold(labels, 2, folds, fold, 0)

    with pytest.raises(UserError, match=message):
        every_fold()


def mistakes_in(composer: Composer, *words: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as refused:
        plan_run(composer, words)
    return {mistake.given: mistake.problem for mistake in refused.value.mistakes}


@pytest.mark.parametrize(
    ("words", "given", "problem"),
    [
        (["data.folds=5"], "data.folds=5", "needs data.fold, which of them validates: 0 to 4"),
        (["data.fold=1"], "data.fold=1", "is one of data.folds; give their number too"),
        (["data.folds=5", "data.fold=5"], "data.fold=5", "must be below data.folds=5; they count from 0"),
        (
            ["data.folds=5", "data.fold=0", "data.val_fraction=0.2"],
            "data.val_fraction=0.2",
            "and data.folds=5 exclude each other: the folds say what validates",
        ),
        (["data.folds=1", "data.fold=0"], "data.folds=1", "must be a whole number at least 2 or null"),
        (
            ["data.subset.first=9", "data.subset.fraction=0.5"],
            "data.subset.fraction=0.5",
            "and data.subset.first exclude each other; give one",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_choices_that_do_not_go_together_are_mistakes(composer, words, given, problem):
    assert mistakes_in(composer, *words) == {given: problem}


def test_classes_go_together_with_any_other_choice(composer):
    config = plan_run(composer, ["data.subset.classes=[3,5]", "data.subset.per_class=20"]).config
    assert prepare(config.data).spec.classes == ("3", "5")


def test_with_folds_the_recorded_share_is_theirs_and_no_preset_renames_the_run(composer):
    values = composer.compose(["data.folds=4", "data.fold=3"]).values
    configs = []
    for share in (0.1, 0.3):
        configs.append(check(values | {"data": values["data"] | {"val_fraction": share}})[0])
    assert {config.data.val_fraction for config in configs} == {0.25}
    assert configs[0].identity() == configs[1].identity()
    again = check(configs[0].to_dict(), is_recorded=True)[0]
    assert again == configs[0]
    other = check(values | {"data": values["data"] | {"fold": 2}})[0]
    assert other.identity() != configs[0].identity()


# Label noise ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.25, 0.9])
def test_so_many_labels_are_wrong_and_no_more(rate):
    noisy, number = wrong_on_purpose(LABELS, 4, rate, seed=0)
    assert number == round(rate * 100) == int((noisy != LABELS).sum())
    assert set(noisy.tolist()) <= {0, 1, 2, 3}


def test_wrong_labels_are_any_other_class_alike():
    labels = torch.arange(4000) % 4
    noisy, _ = wrong_on_purpose(labels, 4, 0.75, seed=0)
    steps = torch.bincount((noisy - labels) % 4, minlength=4)
    assert steps[0] == 1000
    assert (steps[1:] - 1000).abs().max() < 130  # 1 000 of 3 000 draws have a deviation of 26
    by_class = torch.bincount(labels[noisy != labels])
    assert (by_class - 750).abs().max() < 70  # a deviation below 14


def test_wrong_labels_follow_from_labels_rate_and_seed_only():
    torch.manual_seed(1)
    first, again, other = (wrong_on_purpose(LABELS, 4, 0.3, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_what_is_wrong_at_one_rate_is_as_wrong_at_a_higher_one():
    low, high = (wrong_on_purpose(LABELS, 4, rate, 5)[0] for rate in (0.2, 0.5))
    changed = low != LABELS
    assert torch.equal(low[changed], high[changed])


def test_validation_and_test_stay_true_and_the_noise_is_noted():
    true, noisy = prepared(), prepared(label_noise=0.25)
    assert torch.equal(noisy.val.labels, true.val.labels)
    assert torch.equal(noisy.test.labels, true.test.labels)
    assert int((noisy.train.labels != true.train.labels).sum()) == noisy.wrong_labels == 20
    assert noisy.notes == ("label_noise: 20 of 80 training labels are wrong on purpose",)
    assert noisy.spec.counts == tuple(torch.bincount(noisy.train.labels).tolist()) != true.spec.counts
    assert noisy.split.hash() == true.split.hash()
    assert torch.equal(prepared().train.labels, true.train.labels), "the data set that is kept in memory stays true"


def test_large_numbers_are_noted_with_thin_groups(composer):
    data = prepare(plan_run(composer, ["data.label_noise=0.1"]).config.data)
    assert data.notes == ("label_noise: 129 of 1 294 training labels are wrong on purpose",)


@pytest.mark.parametrize(
    ("num_classes", "rate", "message"),
    [(4, 0.001, "selects none of 100 images"), (1, 0.5, "with one class there is no wrong label")],
)
def test_noise_that_cannot_be_is_a_clear_error(num_classes, rate, message):
    with pytest.raises(UserError, match=message):
        wrong_on_purpose(LABELS, num_classes, rate, 0)


# Sampling -------------------------------------------------------------------------------------------------------------


def test_weights_by_name_and_by_class():
    assert class_weights("natural", (3, 4)) is None
    assert class_weights("balanced", (3, 4)).tolist() == [1, 1]
    assert class_weights([1.0, 2.5], (3, 4)).tolist() == [1, 2.5]


def test_weights_that_do_not_fit_the_classes_are_refused_before_anything_starts():
    message = r"data\.sampling=\[1\.0, 2\.0\]: 2 weights, 4 classes; give one for each\."
    with pytest.raises(UserError, match=message):
        prepared(sampling=[1.0, 2.0])


@pytest.mark.parametrize(
    ("sampling", "share"),
    [("balanced", [1, 1, 1, 1, 1]), ([1.0, 2.0, 3.0, 4.0, 10.0], [0.25, 0.5, 0.75, 1, 2.5])],
    ids=["balanced", "weights"],
)
def test_classes_are_drawn_in_proportion_and_images_of_a_class_alike(sampling, share):
    labels = UNEVEN[torch.randperm(len(UNEVEN), generator=torch.Generator().manual_seed(0))].repeat(100)
    weights = class_weights(sampling, torch.bincount(labels).tolist())
    order = weighted_order(labels, weights, torch.Generator().manual_seed(1))
    assert (len(order), order.dtype) == (8100, torch.int64)
    drawn = torch.bincount(labels[order], minlength=5)
    expected = torch.tensor(share) * 8100 / 5
    assert ((drawn - expected).abs() < 5 * expected.sqrt()).all()
    of_one = torch.bincount(order, minlength=8100)[labels == 4]  # of 200 images
    mean = float(expected[4]) / 200
    assert abs(of_one.double().var() - mean) < 0.5 * mean  # draws with replacement: variance and mean are the same
    assert (of_one > 0).double().mean() > 0.99


def test_an_order_follows_from_its_generator():
    weights = torch.ones(4)
    first, again, other = (weighted_order(LABELS, weights, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_class_without_images_is_never_drawn():
    order = weighted_order(torch.tensor([0, 2, 2, 0]).repeat(50), torch.ones(4), torch.Generator().manual_seed(0))
    assert order.max() < 200


# What a model is told -------------------------------------------------------------------------------------------------


def test_a_network_returns_as_many_numbers_as_classes_unless_the_data_say_otherwise():
    spec = DataSpec(1, 8, 8, NAMES)
    assert (spec.num_outputs, spec.counts) == (4, ())
    assert replace(spec, outputs=1).num_outputs == 1
