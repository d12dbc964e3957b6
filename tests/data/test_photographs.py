"""Training on photographs: the same bits with a cache, without it, with any number of workers, and after a kill."""

from itertools import product
from pathlib import Path

import pytest
import torch
from PIL import Image

from cnnbench.config.compose import Composer
from cnnbench.config.schema import Subset
from cnnbench.data import cache as caching
from cnnbench.data import prepare as preparing
from cnnbench.errors import TrainingError
from cnnbench.training.plan import plan_run
from cnnbench.training.trainer import Trainer, carry_out
from tests.conftest import only_run
from tests.support.interruption import differences, finished, kill, outcome_of, read
from tests.support.photographs import TINY_TRAINING, WRITERS, prepared
from tests.support.selection import everyday
from tests.support.training import plan_of


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Return the folder of all data sets; cached data sets are dropped."""
    preparing._load.cache_clear()
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.mark.parametrize("name", everyday(WRITERS, ("image_folder",)))
def test_a_training_ends_in_the_same_bits_with_or_without_cache_and_workers(tmp_path, root, name):
    words = (*WRITERS[name](root), *TINY_TRAINING)
    run = finished(words, tmp_path / "first")
    first = outcome_of(run)
    assert first["checkpoint"]["progress"]["samples_trained"] >= 20
    assert first["result"]["test"]["samples"] >= 8
    others = {"cached": (), "workers": ("num_workers=3",), "streamed": ("data.cache=false",)}
    others["streamed, workers"] = (*others["streamed"], *others["workers"])
    for folder, changes in others.items():
        other = finished((*words, *changes), tmp_path / folder)
        assert other.name == run.name, "the same experiment has the same name"
        assert differences(outcome_of(other), first) == []


@pytest.mark.parametrize(
    ("cache", "after_step"), everyday(product(["true", "false"], [1, 2]), [("true", 1), ("false", 2)])
)
def test_a_killed_run_ends_in_the_same_bits_whatever_became_of_the_cache(tmp_path, root, outputs, after_step, cache):
    words = (*WRITERS["image_folder"](root), *TINY_TRAINING, "epochs=2")
    unbroken = outcome_of(finished(words, tmp_path / "unbroken"))
    kill(plan_of(*words, f"data.cache={cache}"), after_step, saves_every=1)
    for path in caching.cache_dir().glob("*/*/*"):
        path.unlink()
    assert differences(outcome_of(finished(words, outputs)), unbroken) == []


def test_resuming_may_change_whether_images_are_cached(cnnbench, root, outputs):
    words = (*WRITERS["image_folder"](root), *TINY_TRAINING, "epochs=2")
    kill(plan_of(*words), after_step=2, saves_every=1)
    resumed = cnnbench(f"resume={only_run(outputs)}", "data.cache=false")
    assert resumed.code == 0, resumed.err
    assert read(only_run(outputs) / "run.json")["status"] == "completed"


def test_class_names_and_notes_are_saved_in_the_run(cnnbench, root, outputs):
    words = WRITERS["cats_dogs"](root)
    assert cnnbench(*words, *TINY_TRAINING).code == 0
    record = read(only_run(outputs) / "run.json")
    assert record["data"]["classes"] == ["Cat", "Dog"]
    (note,) = read(only_run(outputs) / "result.json")["notes"]
    assert note.startswith("2 files are no image by name, left out: ")


def test_images_changed_since_a_run_began_are_noticed(cnnbench, root, outputs):
    words = (*WRITERS["image_folder"](root), *TINY_TRAINING, "epochs=2")
    kill(plan_of(*words), after_step=2, saves_every=1)
    path = root / "own" / "train" / "a" / "0003.png"
    path.write_bytes((root / "own" / "train" / "a" / "0004.png").read_bytes())
    preparing._load.cache_clear()
    again = cnnbench(*words)
    assert again.code == 2
    assert "data" in again.err


def test_a_file_that_vanishes_while_training_ends_the_run_with_one_clear_error(root, outputs, monkeypatch):
    words = (*WRITERS["image_folder"](root), *TINY_TRAINING, "data.cache=false")
    on_step = Trainer.on_step

    def remove(self, row, progress) -> None:
        on_step(self, row, progress)
        for path in (root / "own" / "train").rglob("*.png"):
            path.unlink(missing_ok=True)

    monkeypatch.setattr(Trainer, "on_step", remove)
    with pytest.raises(TrainingError, match=r"png cannot be read: No such file or directory; it could be decoded when"):
        carry_out(plan_of(*words))
    assert read(only_run(outputs) / "run.json")["status"] == "failed"


def test_a_dry_run_shows_photographs_too(cnnbench, root, outputs):
    shown = cnnbench(*WRITERS["csv"](root), *TINY_TRAINING, "dry_run=true")
    assert shown.code == 0, shown.err
    assert "network sees 3x16x16" in shown.out
    assert [path.name for path in outputs.rglob("samples.png")] == ["samples.png"]


@pytest.mark.parametrize(
    ("statistics", "mean", "std"),
    [("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ("half", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))],
)
def test_statistics_may_be_those_of_pretrained_networks(root, statistics, mean, std):
    words = WRITERS["image_folder"](root)
    plan = plan_run(Composer(), [*words, *TINY_TRAINING, f"data.statistics={statistics}"])
    data = preparing.prepare(plan.config.data)
    assert (data.mean, data.std) == (mean, std)


def test_statistics_of_imagenet_need_three_channels(cnnbench, root):
    refused = cnnbench(*WRITERS["image_folder"](root), *TINY_TRAINING, "data.statistics=imagenet", "data.channels=1")
    assert refused.code == 2
    assert "data.statistics=imagenet  is for 3 channels, the images have 1; set data.channels=3" in refused.err


def test_photographs_need_a_size(cnnbench, root):
    refused = cnnbench(*WRITERS["image_folder"](root), *TINY_TRAINING, "data.image_size=null")
    assert refused.code == 2
    assert "data.image_size=null  photographs differ in size; give the side to resize them to, such as" in refused.err


def test_a_folder_must_be_given(cnnbench):
    refused = cnnbench("data=image_folder")
    assert refused.code == 2
    assert "data.folder=  must be given" in refused.err


LAYOUTS = {"one folder": "", "parts": "train"}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("subset", [{}, {"classes": ["d", "b"]}, {"fraction": 0.7, "test_per_class": 2}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_image_keeps_its_label_throughout(tmp_path, layout, subset, cache):
    """The gray value of an image encodes its class and number: 60 times the class plus the number."""
    for number, name in enumerate("abcd"):
        for index in range(24):
            part = ("train", "val", "test")[max(0, index // 4 - 3)] if layout else ""
            path = tmp_path / "own" / part / name / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (22, 20), 60 * number + index).save(path)
    (tmp_path / "own" / layout / "b" / "00x.png").write_bytes(b"")
    shared = {"subset": Subset(**subset), "split_seed": 1}
    settings = {"folder": "own", "cache": cache, "on_problem": "skip"}
    data = prepared("image_folder", tmp_path, shared, **settings)
    shown = []
    for part in (data.train, data.val, data.test):
        gray = part.take(torch.arange(len(part))).flatten(1).unique(dim=1)
        assert gray.shape[1] == 1, "all pixels of an image are the same"
        names = ["abcd".index(data.spec.classes[label]) for label in part.labels.tolist()]
        assert (gray[:, 0] // 60).tolist() == names
        shown += gray[:, 0].tolist()
    assert len(set(shown)) == len(shown)
    assert "left out of training" in data.notes[-1]
