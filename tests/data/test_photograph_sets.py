"""The published sets of photographs: their classes, and the splits that were published with them."""

import shlex

import pytest
import torch

from cnnbench.cli.data import bring_files, state_of
from cnnbench.config.compose import Composer
from cnnbench.data.folders import BACKGROUND
from cnnbench.data.prepare import prepare
from cnnbench.data.published import published_of
from cnnbench.data.split import stratified_split
from cnnbench.errors import UserError
from cnnbench.training.plan import plan_run
from tests.support.photographs import (
    SCENES,
    WRITERS,
    counts,
    labels_by_file,
    photograph,
    read,
    write_caltech,
    write_classes,
    write_parts,
    write_pets,
    write_scenes,
)

SETS = {"training": 6, "test": 2}


def test_caltechs_background_is_a_class_only_on_request_and_the_stray_file_is_reported(tmp_path):
    write_caltech(tmp_path)
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    with_background = read("caltech101", tmp_path, folder=str(folder))
    stray = f"1 file is no image by name, left out: {folder}/{BACKGROUND}/tmp"
    assert with_background.classes == (BACKGROUND, "Faces", "accordion", "ant")
    assert with_background.notes == (stray,)
    without = read("caltech101", tmp_path, folder=str(folder), background=False)
    assert without.classes == ("Faces", "accordion", "ant")
    assert without.notes == (stray, f"the class '{BACKGROUND}' is left out")
    assert counts(without.train, without) == [9, 9, 9]
    assert all(file.startswith(f"{name}/") for file, name in labels_by_file(without).items())


def test_the_splits_of_caltech_are_those_that_were_published():
    sizes = [40 + (index * 37) % 90 for index in range(102)]
    sizes[0] += 9145 - sum(sizes)
    labels = torch.repeat_interleave(torch.arange(102), torch.tensor(sizes))
    test = stratified_split(labels, 102, 0.3, 0)
    val = stratified_split(labels[test.train], 102, 0.142857, 0)
    assert (len(val.train), len(val.val), len(test.val)) == (5487, 914, 2744)


def test_the_balanced_caltech_has_15_7_and_9_of_every_class(tmp_path):
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    write_classes(folder, {"a": 31, "b": 47, "c": 80, "d": 31})
    (folder / "a" / "tmp").write_text("")
    words = ["subset.per_class=22", "subset.test_per_class=9", "test_fraction=0.2904", "val_fraction=0.3182"]
    plan = plan_run(Composer(), ["data=caltech101", f"data.root={tmp_path}", *(f"data.{word}" for word in words)])
    data = prepare(plan.config.data)
    assert [counts(part, data.spec) for part in (data.train, data.val, data.test)] == [[15] * 4, [7] * 4, [9] * 4]


def test_scenes_are_labelled_by_file_name_or_folder(tmp_path):
    write_scenes(tmp_path / "names")
    write_classes(tmp_path / "folders" / "scenes", dict.fromkeys(SCENES, 5))
    names = read("eight_scenes", tmp_path / "names", folder="spatial_envelope_256x256_static_8outdoorcategories")
    folders = read("eight_scenes", tmp_path / "folders", folder="scenes")
    assert names.classes == folders.classes == SCENES
    assert all(file.split("/")[1].startswith(f"{name}_") for file, name in labels_by_file(names).items())
    assert len(names.train) + len(names.test) == 40


def test_cats_and_dogs_are_labelled_by_folder_or_file_name(tmp_path):
    write_pets(tmp_path)
    for number, name in enumerate(("cat", "dog")):
        for index in range(8):
            photograph(tmp_path / "kaggle" / "train" / f"{name}.{index}.jpg", 10 * number + index)
    assert read("cats_dogs", tmp_path, folder="PetImages").classes == ("Cat", "Dog")
    data = read("cats_dogs", tmp_path, folder="kaggle")
    assert data.classes == ("cat", "dog")
    assert all(file.startswith(f"train/{name}.") for file, name in labels_by_file(data).items())


def test_parts_of_cats_and_dogs_are_known(tmp_path):
    write_parts(tmp_path / "sets", {f"{name}_set/{name}_set": {"cats": n, "dogs": n} for name, n in SETS.items()})
    for number, (part, count) in enumerate(SETS.items()):
        for index in range(count):
            for name in ("cat", "dog"):
                photograph(tmp_path / "names" / part / f"{name}.{index}.jpg", 100 * number + index)
    for folder in ("sets", "names"):
        data = read("cats_dogs", tmp_path, folder=folder)
        assert [len(data.classes), len(data.train), len(data.test)] == [2, 12, 4]
    photograph(tmp_path / "names" / "test" / "1.jpg", 99)
    with pytest.raises(
        UserError, match=r"no class, .*test/1\.jpg\n  for those of 'training' alone: data\.folder=\S+training"
    ):
        read("cats_dogs", tmp_path, folder="names")


WRITTEN = {"caltech101": write_caltech, "eight_scenes": write_scenes, "cats_dogs": write_pets}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("elsewhere", [True, False], ids=["data.root", "CNNBENCH_DATA"])
def test_what_is_said_of_a_missing_set_can_be_typed(cnnbench, command_of, tmp_path, name, elsewhere):
    root = tmp_path / ("some where" if elsewhere else "data")
    words = (f"data={name}", *([f"data.root={root}"] if elsewhere else []), "dry_run=true", "model=mlp",
             "data.image_size=16", "data.crop=null", "batch_size=2", "report=false", "device=cpu")  # fmt: skip
    outcome = cnnbench(*words)
    folder = published_of(name).folder
    assert outcome.err.startswith(f"cnnbench: {root / folder}: there is no such folder, nor {folder} in ")
    assert f"to get it: {published_of(name).source}\n" in outcome.err
    (said,) = (line for line in outcome.err.splitlines() if line.startswith("  to import it: cnnbench "))
    typed = shlex.split(said.removeprefix("  to import it: cnnbench ").partition("; ")[0])
    WRITTEN[name](tmp_path / "Downloads")
    verb, *others = [str(tmp_path / "Downloads") if word == "FOLDER" else word for word in typed]
    assert command_of(verb, *others).code == 0
    assert (root / folder).is_dir()
    outcome = cnnbench(*words)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("name", WRITERS)
def test_the_list_counts_images_in_the_folder_of_a_set(tmp_path, name):
    words = WRITERS[name](tmp_path)
    folder = next((word.partition("=")[2] for word in words if word.startswith("data.folder=")), None)
    state = state_of(name, tmp_path, folder)
    images = sum(path.suffix in (".jpg", ".png") for path in tmp_path.rglob("*"))
    assert (state.found, state.unit) == (images, "images")
    assert state.state == ("there" if folder else "incomplete")
    assert state_of(name, tmp_path / "nowhere", folder).state == "not there"


def test_photographs_of_ones_own_cannot_be_brought(tmp_path):
    with pytest.raises(UserError, match=r"'csv' reads photographs where data\.folder=FOLDER says: there is nothing to"):
        bring_files("csv", tmp_path, tmp_path, verify=True)
