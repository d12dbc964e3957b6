"""Validation is held out of the training part: in proportion, by its own seed, and never trained on."""

import json
from functools import lru_cache

import numpy as np
import pytest
import torch

from cnnbench.data import loader
from cnnbench.data.prepare import prepare, resize_and_convert
from cnnbench.data.split import stratified_split
from cnnbench.errors import SettingError
from cnnbench.registry import DATASETS
from tests.conftest import TINY, only_run
from tests.support.training import plan_of

LABELS = {
    "balanced": torch.arange(1000) % 10,
    "uneven": torch.repeat_interleave(torch.arange(5), torch.tensor([400, 37, 211, 3, 12])),
    "a class without images": torch.tensor([0, 2] * 50),
    "two images a class": torch.arange(40) % 20,
}


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.34, 0.5])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_each_class_contributes_in_proportion_and_the_total_is_exact(labels, fraction):
    split = stratified_split(labels, 20, fraction, seed=0)
    assert len(split.val) == round(fraction * len(labels))
    for index in range(20):
        share = fraction * int((labels == index).sum())
        assert abs(int((labels[split.val] == index).sum()) - share) < 1


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_parts_are_disjoint_and_complete(labels):
    split = stratified_split(labels, 20, 0.3, seed=5)
    assert torch.equal(torch.cat([split.train, split.val]).sort().values, torch.arange(len(labels)))
    for rows in (split.train, split.val):
        assert torch.equal(rows, rows.sort().values)


def test_the_rows_of_a_class_are_drawn_at_random():
    labels = torch.zeros(1000, dtype=torch.int64)
    chosen = torch.stack([stratified_split(labels, 1, 0.1, seed).val for seed in range(40)]).flatten()
    assert abs(chosen.double().mean() - 499.5) < 20  # the mean of 4 000 draws has a deviation of 4.6
    assert len(chosen.unique()) > 950


@pytest.mark.parametrize(
    ("labels", "fraction", "seed", "same"),
    [
        (LABELS["balanced"], 0.1, 0, True),
        (LABELS["balanced"], 0.1, 1, False),
        (LABELS["balanced"], 0.2, 0, False),
        (LABELS["balanced"].flip(0), 0.1, 0, False),
    ],
    ids=["nothing", "its seed", "the fraction", "the labels"],
)
def test_a_split_and_its_hash_change_with(labels, fraction, seed, same):
    torch.manual_seed(seed + 100)  # the global generator is not used
    first, second = stratified_split(LABELS["balanced"], 10, 0.1, 0), stratified_split(labels, 10, fraction, seed)
    assert (first.hash() == second.hash()) is same
    assert torch.equal(first.val, second.val) is same


def test_the_hash_distinguishes_training_from_validation_rows():
    split = stratified_split(torch.arange(10) % 2, 2, 0.4, 0)
    assert split.hash() != type(split)(split.val, split.train).hash()
    assert split.hash() != type(split)(torch.cat([split.train, split.val[:1]]), split.val[1:]).hash()


def test_a_split_never_changes():
    split = stratified_split(torch.arange(20) % 4, 4, 0.25, seed=0)
    assert split.val.tolist() == [4, 7, 8, 10, 13]
    assert split.hash() == "b1c1c194984e713cdedc6732ad6024c960ee6618c809c358e30192756d725430"


def test_a_fraction_of_0_holds_out_nothing():
    split = stratified_split(LABELS["uneven"], 5, 0.0, seed=0)
    assert torch.equal(split.train, torch.arange(len(LABELS["uneven"])))
    assert len(split.val) == 0


@pytest.mark.parametrize(
    ("labels", "fraction", "message"),
    [
        (torch.arange(1), 0.05, r"data\.val_fraction=0\.05  selects none of 1 image; give more, or 0 for none"),
        (torch.arange(5) % 2, 0.05, r"data\.val_fraction=0\.05  selects none of 5 images; give more, or 0 for none"),
        (torch.tensor([0] * 9 + [1]), 0.9, r"class 1 has 1 image, none would be left to train on"),
    ],
    ids=["one image", "none to validate", "none to train"],
)
def test_too_few_images_are_a_clear_error(labels, fraction, message):
    with pytest.raises(SettingError, match=message):
        stratified_split(labels, 2, fraction, seed=0)


# The split of a run ---------------------------------------------------------------------------------------------------

AUGMENTED = ("data.crop=12", "augmentation=crop_flip_jitter", "augmentation.jitter.saturation=0")


@lru_cache
def split_of(*words: str) -> str:
    return prepare(plan_of(*TINY, *words).config.data).split.hash()


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (("seed=1",), True),
        (AUGMENTED, True),
        (("batch_size=8", "epochs=2", "model=lenet_v2"), True),
        (("data.image_size=20", "data.channels=3"), True),
        (("data.split_seed=1",), False),
        (("data.val_fraction=0.2",), False),
    ],
    ids=["the seed of the run", "augmentation", "how it is trained", "how images are adapted", "its seed", "fraction"],
)
def test_the_split_of_a_run_depends_on_labels_fraction_and_its_own_seed_only(words, same):
    assert (split_of() == split_of(*words)) is same


def test_the_recorded_split_is_the_one_used_and_no_validation_image_is_ever_trained_on(cnnbench, outputs, monkeypatch):
    seen: dict[str, list[np.ndarray]] = {"train": [], "evaluated": []}
    epoch = loader.Batches.epoch

    def spy(self, *arguments, **more):
        kind = "evaluated" if torch.is_inference_mode_enabled() else "train"
        mean, std = self._mean[0], 1 / self._inverse_std[0]
        scale = 255 if self._changes_pixels else 1
        for batch in epoch(self, *arguments, **more):
            seen[kind].append((batch.images * std + mean).mul(scale).round().byte().numpy())
            yield batch

    monkeypatch.setattr(loader.Batches, "epoch", spy)
    assert cnnbench(*TINY).code == 0
    run = only_run(outputs)
    record = json.loads((run / "split.json").read_text())
    whole = DATASETS["synthetic"].factory(None, num_train=72, num_test=20, num_classes=3, noise=0.25)
    pixels = resize_and_convert(whole.train.pixels, 16, 1).numpy()
    trained = {image.tobytes() for batch in seen["train"] for image in batch}
    validation = {pixels[row].tobytes() for row in record["val"]}
    assert len(record["val"]) == 7
    assert trained == {image.tobytes() for image in pixels} - validation
    assert not trained & {image.tobytes() for image in resize_and_convert(whole.test.pixels, 16, 1).numpy()}
    assert {image.tobytes() for image in np.concatenate(seen["evaluated"])} >= validation
    counts = torch.bincount(whole.train.labels[record["val"]], minlength=3).tolist()
    assert record["images_per_class"]["val"] == counts
    assert record["sha256"] == json.loads((run / "run.json").read_text())["split"]


def test_a_run_with_another_split_is_not_continued(cnnbench, outputs):
    assert cnnbench(*TINY, "max_minutes=1e-6").code == 75
    record = only_run(outputs) / "run.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps(values | {"split": "another"}))
    outcome = cnnbench(*TINY)
    assert outcome.code == 2
    assert "the split into training and validation has changed; nothing was touched" in outcome.err
