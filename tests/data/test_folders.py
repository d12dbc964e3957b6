"""Folders of photographs: the label and part of each file; other files are reported or ignored."""

import json
import os
from unicodedata import normalize

import pytest
import torch

from cnnbench.config.schema import Subset
from cnnbench.data.image_files import find_images
from cnnbench.errors import SettingError, UserError
from tests.conftest import only_run
from tests.support.photographs import counts, labels_by_file, photograph, prepared, read, write_classes, write_parts


def own(root, **settings):
    return read("image_folder", root, folder="own", **settings)


# One folder per class -------------------------------------------------------------------------------------------------


def test_a_folder_is_a_class_and_classes_are_numbered_by_their_sorted_names(tmp_path):
    for first, (name, count, suffix) in enumerate((("b", 8, ".jfif"), ("a", 12, ".jpe"), ("C", 4, ".JFIF"))):
        write_classes(tmp_path / "own", {name: count}, 100 * first, suffix)  # unusual names of JPEG files
    data = own(tmp_path)
    assert data.classes == ("C", "a", "b")
    assert (counts(data.train, data), counts(data.test, data)) == ([3, 9, 6], [1, 3, 2])
    assert all(file.startswith(f"{name}/") for file, name in labels_by_file(data).items())
    assert len(labels_by_file(data)) == 24
    assert data.notes == ()


def test_the_test_part_depends_on_the_files_only(tmp_path):
    write_classes(tmp_path / "own", {"a": 20, "b": 20})
    first, second = own(tmp_path), own(tmp_path)
    assert first.test.pixels.paths == second.test.pixels.paths
    assert first.fingerprint() == second.fingerprint()
    one, other = (prepared("image_folder", tmp_path, {"split_seed": seed}, folder="own") for seed in (0, 1))
    assert torch.equal(one.test.pixels.rows, other.test.pixels.rows)
    assert not torch.equal(one.split.val, other.split.val)


def test_moving_a_data_set_keeps_its_fingerprint_and_changing_it_does_not(tmp_path):
    before = own(tmp_path / "here") if write_classes(tmp_path / "here" / "own", {"a": 8, "b": 8}) else None
    (tmp_path / "here").rename(tmp_path / "there")
    assert own(tmp_path / "there").fingerprint() == before.fingerprint()
    photograph(tmp_path / "there" / "own" / "a" / "0003.png", 777)
    assert own(tmp_path / "there").fingerprint() != before.fingerprint()


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_folders_named_like_parts_are_the_parts(tmp_path, val):
    write_parts(tmp_path / "own", {"train": {"a": 5, "b": 6}, val: {"b": 2, "a": 1}, "TEST": {"b": 3, "a": 4}})
    data = prepared("image_folder", tmp_path, folder="own")
    assert [counts(part, data.spec) for part in (data.train, data.val, data.test)] == [[5, 6], [1, 2], [4, 3]]
    assert "the data set has its own validation part; data.val_fraction is ignored" in data.notes
    assert all(file.startswith(f"{name}/") for file, name in labels_by_file(own(tmp_path)).items())


def test_missing_parts_are_held_out_of_the_training_part(tmp_path):
    write_parts(tmp_path / "own", {"train": {"a": 20, "b": 20}, "val": {"a": 3, "b": 3}})
    write_parts(tmp_path / "other", {"train": {"a": 20, "b": 20}, "test": {"a": 3, "b": 3}})
    data = prepared("image_folder", tmp_path, folder="own")
    assert (len(data.train), len(data.val), len(data.test)) == (30, 6, 10)
    data = prepared("image_folder", tmp_path, folder="other")
    assert (len(data.train), len(data.val), len(data.test)) == (32, 8, 6)


def test_a_subset_that_leaves_no_image_for_validation_is_an_error(tmp_path):
    write_parts(tmp_path / "own", {"train": {"a": 5, "b": 5}, "val": {"a": 5, "b": 5}})
    with pytest.raises(
        SettingError, match=r"data\.subset  leaves no image of the data set's own validation part; data\.val_frac"
    ):
        prepared("image_folder", tmp_path, {"subset": Subset(per_class=2)}, folder="own")
    data = prepared("image_folder", tmp_path, {"subset": Subset(per_class=2), "val_fraction": 0.0}, folder="own")
    assert (len(data.train), len(data.val)) == (4, 0)


def test_a_class_missing_from_validation_and_test_shifts_no_label(tmp_path):
    write_parts(tmp_path / "own", {"train": {"a": 4, "b": 4, "c": 4}, "val": {"c": 2}, "test": {"b": 2, "c": 2}})
    data = prepared("image_folder", tmp_path, folder="own")
    assert data.spec.classes == ("a", "b", "c")
    assert set(data.val.labels.tolist()) == {2}
    assert data.test.labels.tolist() == [1, 1, 2, 2]


def test_images_deep_in_a_folder_belong_to_its_class(tmp_path):
    write_classes(tmp_path / "own", {"a": 4, "b": 4})
    photograph(tmp_path / "own" / "a" / "b" / "c" / "x.JPEG", 50)
    data = own(tmp_path)
    assert labels_by_file(data)["c/x.JPEG"] == "a"
    folder = tmp_path / "own"
    found = f"1 image in deeper folders, such as {folder}/a/b/c/x.JPEG"
    assert data.notes == (f"{found}: the class is the first folder below {folder}",)


def test_files_that_are_no_images_are_reported_and_hidden_ones_and_system_files_ignored(tmp_path):
    folder = write_classes(tmp_path / "own", {"a": 4, "b": 4})
    (folder / "README.txt").write_text("about")
    (folder / "a" / "Thumbs.db").write_bytes(b"thumbs")
    (folder / "c").mkdir()
    for hidden in (".ipynb_checkpoints", "a/.ipynb_checkpoints", "__MACOSX/a"):
        photograph(folder / hidden / "._x.png", 60)
        photograph(folder / hidden.removeprefix("__MACOSX/") / ".y.png", 61)
    photograph(folder / "a" / "@eaDir" / "0000.png" / "SYNOPHOTO_THUMB_M.jpg", 9)
    (folder / "lost+found").mkdir()
    data = own(tmp_path)
    assert data.classes == ("a", "b")
    assert len(labels_by_file(data)) == 8
    assert data.notes == (
        f"folders without images, left out: {folder}/__MACOSX, {folder}/c",
        f"2 files are no image by name, left out: {folder}/README.txt, {folder}/a/Thumbs.db",
    )


def test_classes_that_differ_in_case_or_spaces_only_are_noted(tmp_path):
    write_classes(tmp_path / "own", {"Cat": 4, "cat": 4, "cat ": 4, "dog": 4, "hot dog": 4, "hotdog": 4})
    data = own(tmp_path)
    assert len(data.classes) == 6
    assert data.notes == (
        "classes whose names differ in case or spaces only: 'Cat', 'cat' and 'cat ', 'hot dog' and 'hotdog'; "
        "rename them if they are one",
    )


def test_many_files_that_are_left_out_are_counted_by_kind(tmp_path):
    folder = write_classes(tmp_path / "own", {"a": 4, "b": 4})
    for name in ("1.HEIC", "2.heic", "1.MOV", "2.mov", "3.MOV", "notes", "a.aae", "b.xml", "c.txt"):
        (folder / "a" / name).write_text("other")
    heic, others = own(tmp_path).notes
    assert heic == (
        f"2 images are of a format that is not read, left out; PNG would be: {folder}/a/1.HEIC, {folder}/a/2.heic"
    )
    assert others == (
        f"7 files are no image by name, left out: 3 .mov, 1 .aae, 1 .xml, 1 .txt, 1 other, such as {folder}/a/1.MOV"
    )


def test_patients_whose_images_are_in_several_parts_are_noted(tmp_path):
    for number, name in enumerate(("benign", "malignant")):
        write_classes(tmp_path / "own" / name, {f"patient{index}": 4 for index in range(6)}, first=100 * number)
    (note,) = prepared("image_folder", tmp_path, folder="own", level=1).notes
    assert note.startswith("folders: ")
    assert " of 12 folders within classes have images in several parts, such as " in note
    assert f"{tmp_path}/own/benign/patient" in note


def test_folders_that_are_classes_or_in_one_part_are_not_noted(tmp_path):
    for number, name in enumerate(("monday", "tuesday", "friday")):
        write_classes(tmp_path / "days" / name, {"a": 6, "b": 6}, first=100 * number)
    assert prepared("image_folder", tmp_path, folder="days", level=2).notes == ()
    for number, name in enumerate(("ants", "bees")):
        write_parts(tmp_path / "in_each" / name, {"train": {".": 9 + number}, "test": {".": 2 + number}})
    assert not any("folders: " in note for note in prepared("image_folder", tmp_path, folder="in_each").notes)
    patients = {f"a/patient{index}": 3 for index in range(4)} | {"b/other": 6}
    write_parts(tmp_path / "parts", dict.fromkeys(("train", "val", "test"), patients))
    (note,) = prepared("image_folder", tmp_path, folder="parts", level=1).notes
    assert "val_fraction is ignored" in note


def test_a_class_folder_without_images_is_reported_below_a_part_too(tmp_path):
    folder = write_parts(tmp_path / "own", {"train": {"a": 4, "b": 4}, "test": {"a": 1, "b": 1}})
    (folder / "train" / "c").mkdir()
    assert own(tmp_path).notes == (f"folders without images, left out: {folder}/train/c",)


WRONG = {
    "not there": ({}, r"own: there is no such folder, nor own in .*here\.\n  another place: data\.folder=FOLDER"),
    "one class": ({"a": {"": 3}}, r"own: there is only the class 'a'; at least two classes are required"),
    "no training part": (
        {"test": {"a": 2, "b": 2}},
        r"own: has folders of parts, 'test'; there is none called 'train'\.\n  for the classes in 'test': data\.folder",
    ),
    "another folder among parts": (
        {"train": {"a": 2, "b": 2}, "more": {"c": 2}},
        r"own: has folders of parts, 'train'; besides them there may be no 'more'",
    ),
    "class only in val": (
        {"train": {"a": 2, "b": 2}, "val": {"c": 2, "a": 1}, "test": {"a": 1}},
        r"own: no training image shows 'c'",
    ),
    "class only in test": (
        {"train": {"a": 2, "c": 2}, "test": {"b": 1}},
        r"own: no training image shows 'b'",
    ),
    "class spelt otherwise in training": (
        {"train": {"Cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}},
        r"no training image shows 'cat'; every .* one; there is 'Cat', spelt otherwise",
    ),
    "two classes of one name": (
        {"": {normalize(form, "café"): 4 for form in ("NFC", "NFD")}},
        r"own: two classes are called 'cafe?\S+', in two Unicode forms \(NFC, NFD\)",
    ),
}


@pytest.mark.parametrize(("parts", "problem"), WRONG.values(), ids=WRONG)
def test_folders_that_form_no_data_set_are_refused_by_name(tmp_path, parts, problem):
    write_parts(tmp_path / "own", parts)
    with pytest.raises(UserError, match=problem):
        own(tmp_path)


def test_a_class_without_training_images_is_blamed_on_the_test_fraction(tmp_path):
    write_classes(tmp_path / "own", {"a": 9, "b": 1})
    with pytest.raises(SettingError, match=r"data\.test_fraction=0\.75  class 1 has 1 image, none would be left"):
        own(tmp_path, test_fraction=0.75)
    with pytest.raises(SettingError, match=r"data\.test_fraction=0\.01  selects none of 10 images; give more$"):
        own(tmp_path, test_fraction=0.01)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_part_without_images_is_an_error(tmp_path, part):
    folder = write_parts(tmp_path / "own", {name: {"a": 2, "b": 2} for name in {"train", "val", "test"} - {part}})
    (folder / part / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=f"own: there is no image for '{part}'"):
        own(tmp_path)


def test_a_folder_without_images_names_the_suffixes_of_images(tmp_path):
    (tmp_path / "own" / "a").mkdir(parents=True)
    (tmp_path / "own" / "a" / "x.tiff").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"own: there is no image below it, but .*/x\.tiff; their names end in \.jpg, \.jpeg, \.png"
    ):
        own(tmp_path)


def test_an_image_outside_all_classes_is_an_error(tmp_path):
    write_classes(tmp_path / "own", {"a": 4, "b": 4})
    stray = photograph(tmp_path / "own" / "stray.png", 70)
    with pytest.raises(UserError, match=f"not in the folder of a class: {stray}"):
        own(tmp_path)


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("in_train", "in_test"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_class_in_two_unicode_forms_is_one(tmp_path, in_train, in_test):
    parts = {"train": {normalize(in_train, "café"): 4, "tea": 4}, "test": {normalize(in_test, "café"): 2, "tea": 2}}
    write_parts(tmp_path / "own", parts)
    data = own(tmp_path)
    assert data.classes == (normalize(in_train, "café"), "tea")  # as it is written in training
    assert counts(data.test, data) == [2, 2]


def test_a_folder_that_cannot_be_read_is_one_clear_error(tmp_path, monkeypatch):
    write_classes(tmp_path / "own", {"a": 4, "b": 4})
    iterdir = type(tmp_path).iterdir

    def refusing(self):  # a test may be run by root, who may read everything
        if self.name == "b":
            raise PermissionError(13, "Permission denied")
        return iterdir(self)

    monkeypatch.setattr(type(tmp_path), "iterdir", refusing)
    with pytest.raises(UserError, match="own/b cannot be read: Permission denied; make it readable, or move it else"):
        own(tmp_path)


# Links ----------------------------------------------------------------------------------------------------------------


def test_links_out_of_the_folder_are_followed_only_on_request(tmp_path):
    write_classes(tmp_path / "own", {"a": 4, "b": 4})
    write_classes(tmp_path / "elsewhere", {"c": 30}, first=100)
    (tmp_path / "own" / "c").symlink_to(tmp_path / "elsewhere" / "c")
    with pytest.raises(
        UserError, match=r"links lead out of it, to 30 files: .*and 10 more\n.*follow_links=true"
    ) as refused:
        own(tmp_path)
    assert str(refused.value).count("own/c/") == 20
    assert own(tmp_path, follow_links=True).classes == ("a", "b", "c")


def test_links_inside_the_folder_are_followed_and_those_that_lead_back_are_not(tmp_path):
    folder = write_classes(tmp_path / "own", {"b": 4, "c": 4})
    (folder / "a").symlink_to("b")
    (folder / "b" / "up").symlink_to("..")
    (folder / "c" / "x.png").symlink_to("0001.png")
    data = own(tmp_path)
    assert [len([name for name in labels_by_file(data).values() if name == label]) for label in "abc"] == [4, 4, 5]


def test_a_link_to_nothing_or_itself_is_a_damaged_image_and_a_pipe_is_none(tmp_path):
    folder = write_classes(tmp_path / "own", {"a": 8, "b": 8})
    (folder / "a" / "x.png").symlink_to("nowhere.png")
    (folder / "a" / "y.png").symlink_to("y.png")
    os.mkfifo(folder / "b" / "pipe.png")
    assert folder / "b" / "pipe.png" not in find_images(folder).images  # reading it never ends
    with pytest.raises(UserError) as refused:
        prepared("image_folder", tmp_path, folder="own")
    text = str(refused.value)
    assert text.startswith("2 of 18 images cannot be used:")
    assert f"{folder}/a/x.png cannot be read: No such file or directory" in text
    assert f"{folder}/a/y.png cannot be read: Too many levels of symbolic links" in text


def test_photographs_in_the_current_folder_come_first(cnnbench, tmp_path, outputs, monkeypatch):
    words = ("data=image_folder", "data.folder=own", "data.image_size=16", "epochs=1", "batch_size=4", "report=false",
             "model=mlp", "threads=1", "device=cpu")  # fmt: skip
    write_parts(tmp_path / "data" / "own", {"train": {"elsewhere": 8, "b": 8}, "test": {"b": 1}})
    write_parts(tmp_path / "here" / "own", {"train": {"here": 8, "b": 8}, "test": {"b": 1}})
    assert cnnbench(*words).code == 0
    run = only_run(outputs)
    assert json.loads((run / "run.json").read_text())["data"]["classes"] == ["b", "here"]
    assert "folder: own" in (run / "config.yaml").read_text()
    monkeypatch.chdir("/")  # where a resumption finds them again
    longer = cnnbench(f"resume={run}", "epochs=2")
    assert longer.code == 0, longer.err
