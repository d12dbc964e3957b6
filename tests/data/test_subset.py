"""Subsets of a data set, and k-fold splits."""

import pytest
import torch

from cnnbench.config.schema import Subset
from cnnbench.config.validate import adapt_until_valid, validate
from cnnbench.data.prepare import prepare
from cnnbench.data.split import k_fold, select_subset, stratified_split
from cnnbench.errors import ConfigError, SettingError
from cnnbench.training.plan import plan_run
from tests.support.mistakes import mistakes_in
from tests.support.zoo import LABELS, NAMES, UNEVEN, prepared, rows_of, zoo

# Subset ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["fox", "cat", "owl"], [3, 0, 2], ["owl", 2, "cat"]], ids=str)
def test_selected_classes_are_renumbered_in_the_order_of_the_data_set(names):
    selected, rows = select_subset(zoo(), Subset(classes=names), 0)
    assert selected.classes == ("cat", "fox", "owl")
    for part, whole in ((selected.train, zoo().train), (selected.test, zoo().test)):
        old = whole.labels[rows_of(part)].tolist()
        assert [NAMES[label] for label in old] == [selected.classes[label] for label in part.labels.tolist()]
        assert rows_of(part).tolist() == [row for row, label in enumerate(whole.labels.tolist()) if label != 1]
    assert torch.equal(rows, rows_of(selected.train))


def test_first_counts_images_of_the_selected_classes():
    selected, rows = select_subset(zoo(), Subset(classes=[1, 3], first=7), 0)
    expected = [row for row, label in enumerate(LABELS.tolist()) if label in (1, 3)][:7]
    assert rows.tolist() == rows_of(selected.train).tolist() == expected
    assert len(selected.test) == 10


def test_per_class_keeps_the_first_of_every_class():
    selected, rows = select_subset(zoo(), Subset(per_class=6), 0)
    labels = zoo().train.labels
    expected = sorted(row for index in range(4) for row in (labels == index).nonzero()[:6, 0].tolist())
    assert rows.tolist() == rows_of(selected.train).tolist() == expected
    assert torch.equal(selected.train.labels, LABELS[rows])
    assert len(selected.test) == 20


def test_a_fraction_is_drawn_from_every_class_by_its_seed():
    counts = torch.bincount(LABELS)
    drawn = [select_subset(zoo(), Subset(fraction=0.4), seed)[1] for seed in (0, 0, 1)]
    for rows in drawn:
        assert torch.bincount(LABELS[rows]).tolist() == (counts * 0.4).tolist()
        assert torch.equal(rows, rows.unique())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], stratified_split(LABELS, 4, 0.4, 0).val), "independent of the draws of the split"


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (
            {"classes": ["cta", "dog"]},
            r"no class is called 'cta'; did you mean 'cat'\? There are: 'cat', .*0 to 3",
        ),
        ({"classes": ["emu", 4, -1]}, r"no class is called 'emu', '4', '-1'\. There are: 'cat'"),
        ({"classes": ["dog"]}, "at least two classes are required"),
        ({"classes": []}, "at least two classes are required"),
        ({"classes": ["dog", 1]}, "names a class twice"),
        ({"first": 101}, r"data\.subset\.first=101  there are only 100 training images"),
        ({"per_class": 20}, r"data\.subset\.per_class=20  these classes have fewer: 'dog' \(15\), 'owl' \(10\)$"),
        ({"fraction": 0.001}, r"data\.subset\.fraction=0\.001  leaves no image of 'cat', 'dog', 'fox', 'owl'"),
        ({"fraction": 0.04}, r"leaves no image of 'owl'; give more"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_impossible_subset_is_a_clear_error(subset, message):
    with pytest.raises(SettingError, match=message):
        prepared(subset=Subset(**subset))


def test_without_a_subset_nothing_is_copied():
    whole = zoo()
    selected, rows = select_subset(whole, Subset(), 0)
    assert selected is whole
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


def test_every_subset_and_fold_is_another_split_of_the_same_data():
    choices = [
        {}, {"subset": Subset(classes=[0, 1, 2])}, {"subset": Subset(first=99)}, {"subset": Subset(per_class=9)},
        {"subset": Subset(fraction=0.8)}, {"folds": 5, "fold": 0}, {"folds": 5, "fold": 1}, {"folds": 4, "fold": 0},
    ]  # fmt: skip
    data = [prepared(**choice) for choice in choices]
    assert len({each.split.hash() for each in data}) == len(choices)
    assert len({each.fingerprint for each in data}) == 1


def test_without_a_subset_the_split_is_the_stratified_one():
    data, split = prepared(), stratified_split(LABELS, 4, 0.2, 0)
    assert data.split.hash() == split.hash()
    assert torch.equal(data.train.labels, LABELS[split.train])
    assert data.notes == ()


# Folds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
@pytest.mark.parametrize("labels", [LABELS, UNEVEN[:-2], torch.arange(40) % 20], ids=["zoo", "uneven", "two per class"])
def test_folds_are_disjoint_complete_and_of_equal_size(labels, folds):
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
        (torch.arange(3) % 2, 4, r"data\.folds=4  there are only 3 images; give fewer folds"),
        (torch.tensor([0] * 9 + [1]), 2, r"data\.folds=2 data\.fold=\d  class 1 has 1 image, none would be left"),
    ],
    ids=["fewer images than folds", "one image of a class"],
)
def test_too_few_images_for_folds_are_a_clear_error(labels, folds, message):
    def every_fold() -> None:
        for fold in range(folds):
            k_fold(labels, 2, folds, fold, 0)

    with pytest.raises(SettingError, match=message):
        every_fold()


@pytest.mark.parametrize(
    ("words", "given", "problem"),
    [
        (["data.folds=5"], "data.folds=5", "needs data.fold, the one to validate on: 0 to 4"),
        (["data.fold=1"], "data.fold=1", "needs data.folds, the number of folds"),
        (["data.folds=5", "data.fold=5"], "data.fold=5", "must be below data.folds=5; folds are counted from 0"),
        (
            ["data.folds=5", "data.fold=0", "data.val_fraction=0.2"],
            "data.val_fraction=0.2",
            "and data.folds=5 exclude each other: the folds define the validation part",
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
def test_conflicting_settings_are_mistakes(composer, words, given, problem):
    assert mistakes_in(composer, *words, sees_data=False) == {given: problem}


def test_classes_combine_with_any_other_setting(composer):
    config = plan_run(composer, ["data.subset.classes=[3,5]", "data.subset.per_class=20"]).config
    assert prepare(config.data).spec.classes == ("3", "5")


def test_with_folds_the_recorded_fraction_is_theirs_and_no_preset_renames_the_run(composer):
    values = composer.compose(["data.folds=4", "data.fold=3"]).values
    configs = []
    for fraction in (0.1, 0.3):
        configs.append(validate(values | {"data": values["data"] | {"val_fraction": fraction}})[0])
    assert {config.data.val_fraction for config in configs} == {0.25}
    assert configs[0].identity() == configs[1].identity()
    again = validate(configs[0].to_dict(), is_recorded=True)[0]
    assert again == configs[0]
    other = validate(values | {"data": values["data"] | {"fold": 2}})[0]
    assert other.identity() != configs[0].identity()


# The number of classes ------------------------------------------------------------------------------------------------


def test_more_classes_than_there_may_be_become_the_first_of_them(composer):
    plan = plan_run(composer, ["data=digits", "data.subset.max_classes=3"])
    config, data, notes = adapt_until_valid(plan.config, plan.typed, lambda config: prepare(config.data))
    assert config.data.subset.classes == [0, 1, 2]
    assert data.spec.classes == ("0", "1", "2")
    assert notes == [
        "data.subset.classes=null keeps 10 classes, more than data.subset.max_classes=3: "
        "data.subset.classes=[0, 1, 2] is used instead"
    ]
    chosen = plan_run(composer, ["data=digits", "data.subset.classes=[0,1,2]"])
    assert config.identity() == chosen.config.identity() != plan.config.identity()


def test_classes_that_were_typed_are_kept_and_a_number_of_them_is_kept_to(composer):
    words = ["debug=fast", "data=synthetic", "data.num_classes=20", "data.subset.classes=[0,1,2,3,4,5,6,7,8,9,10]"]
    plan = plan_run(composer, words)
    config, data, _ = adapt_until_valid(plan.config, plan.typed, lambda config: prepare(config.data))
    assert (len(data.spec.classes), config.data.subset.max_classes) == (11, 11)
    plan = plan_run(composer, [*words, "data.subset.max_classes=2"])
    with pytest.raises(ConfigError, match=r"max_classes=2 +is less than the 11 that data\.subset\.classes names"):
        adapt_until_valid(plan.config, plan.typed, lambda config: prepare(config.data))


def test_a_preset_with_more_images_a_class_than_there_are_takes_the_number_of_the_smallest(composer):
    words = ["debug=fast", "data=synthetic", "data.num_train=30", "data.num_test=10"]
    plan = plan_run(composer, words)
    config, data, _ = adapt_until_valid(plan.config, plan.typed, lambda config: prepare(config.data))
    assert config.data.subset.per_class == 3
    assert len(data.train) + len(data.val) == 30
    typed = plan_run(composer, [*words, "data.subset.per_class=4"])
    with pytest.raises(ConfigError, match="these classes have fewer"):
        adapt_until_valid(typed.config, typed.typed, lambda config: prepare(config.data))
