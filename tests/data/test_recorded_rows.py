"""`split.json` says which images were used for what, and with which wrong label: enough to repeat a run elsewhere."""

import json
from pathlib import Path

import pytest
import torch

from cnnbench.data.prepare import prepare
from cnnbench.registry import DATASETS
from tests.conftest import TINY, only_run
from tests.support.photographs import TINY_TRAINING, write_classes
from tests.support.training import plan_of

NOISY = ("data.label_noise=0.25", "data.noise_seed=3")
SUBSETS = {
    "all": (),
    "classes": ("data.subset.classes=[2,0]", "data.subset.test_per_class=3"),
    "first": ("data.subset.first=50",),
    "a fold": ("data.folds=3", "data.fold=1"),
}


@pytest.mark.parametrize("words", SUBSETS.values(), ids=SUBSETS)
def test_rows_and_wrong_labels_of_all_parts_are_recorded(cnnbench, outputs, words):
    assert cnnbench(*TINY, *NOISY, *words).code == 0
    split = json.loads((only_run(outputs) / "split.json").read_text())
    data = prepare(plan_of(*TINY, *NOISY, *words).config.data)
    whole = DATASETS["synthetic"].factory(None, num_train=72, num_test=20, num_classes=3, noise=0.25)
    classes = [whole.classes.index(name) for name in data.spec.classes]
    for part, source in (("train", whole.train), ("val", whole.train), ("test", whole.test)):
        true = [classes.index(label) for label in source.labels[split[part]].tolist()]
        wrong = split["wrong_labels"] if part == "train" else {}
        labels = [wrong.get(str(row), label) for row, label in zip(split[part], true, strict=True)]
        assert labels == getattr(data, part).labels.tolist()
        assert all(wrong[str(row)] != label for row, label in zip(split[part], true, strict=True) if str(row) in wrong)
    assert len(split["wrong_labels"]) == round(0.25 * len(split["train"]))
    assert {int(row) for row in split["wrong_labels"]} <= set(split["train"])
    assert "files" not in split


def test_rows_of_digits_are_those_of_the_set_as_it_is_published(cnnbench, outputs):
    from sklearn.datasets import load_digits

    assert cnnbench("data=digits", "model=mlp", "model.units=[4]", "data.subset.per_class=5", "epochs=1",
                    "threads=1", "batch_size=8", "report=false", "data.crop=null").code == 0  # fmt: skip
    split = json.loads((only_run(outputs) / "split.json").read_text())
    data = prepare(plan_of("data=digits", "data.subset.per_class=5").config.data)
    pixels, labels = torch.from_numpy(load_digits().images), load_digits().target
    for part in ("train", "val", "test"):
        assert labels[split[part]].tolist() == getattr(data, part).labels.tolist()
    assert not set(split["train"]) & set(split["test"])
    assert len({*split["train"], *split["val"], *split["test"]}) == 50 + len(data.test)
    assert len(pixels) == 1797


def test_photographs_are_named(cnnbench, outputs, tmp_path):
    own = write_classes(tmp_path / "own", {"a": 20, "b": 20})
    assert cnnbench("data=image_folder", f"data.folder={own}", *TINY_TRAINING).code == 0
    split = json.loads((only_run(outputs) / "split.json").read_text())
    files = split["files"]
    assert [len(files[part]) for part in files] == [len(split[part]) for part in ("train", "val", "test")]
    named = [name for part in files.values() for name in part]
    assert sorted(named) == sorted(str(path.relative_to(own)) for path in own.rglob("*.png"))
    assert Path(own, named[0]).is_file()


def test_a_hundred_thousand_rows_are_a_few_lines(cnnbench, outputs):
    assert cnnbench(*TINY).code == 0
    assert len((only_run(outputs) / "split.json").read_text().splitlines()) < 15
