"""A folder of photographs that is a level too high or too low: understood, or one error with what to type."""

import re
from pathlib import Path

import pytest

from cnnbench.data.layout import as_folder
from cnnbench.errors import UserError
from tests.support.photographs import labels_by_file, photograph, read, write_classes, write_parts


def own(root: Path, folder: str = "own", **settings):
    return read("image_folder", root, folder=folder, **settings)


# Parts ----------------------------------------------------------------------------------------------------------------

USUAL = {  # folders by the part that they are
    "Kaggle": {"train": "Training", "test": "Testing"},
    "sets": {"train": "training_set", "test": "test_set"},
    "sets, twice": {"train": "training_set/training_set", "test": "test_set/test_set"},
    "a word before": {"train": "seg_train", "test": "seg_test", "": "seg_pred"},
    "a word before, twice": {"train": "seg_train/seg_train", "test": "seg_test/seg_test", "": "seg_pred/seg_pred"},
    "evaluation": {"train": "training", "val": "validation", "test": "evaluation"},
    "dev": {"train": "train", "val": "dev", "test": "test"},
    "eval next to test": {"train": "train", "val": "eval", "test": "test"},
    "evaluation next to test": {"train": "train", "val": "evaluation", "test": "test"},
    "written together": {"train": "TrainSet", "test": "TestSet"},
    "numbered": {"train": "train2017", "val": "val2017"},
    "without labels": {"train": "train", "": "unlabeled"},
}


@pytest.mark.parametrize("folders", USUAL.values(), ids=USUAL)
def test_parts_are_known_by_all_usual_names(tmp_path, folders):
    for number, (part, name) in enumerate(folders.items()):
        write_classes(tmp_path / "own" / name, {"glioma": 6, "notumor": 6} if part else {".": 6}, first=100 * number)
    data = own(tmp_path)
    files = {"train": set(data.train.pixels.paths), "test": set(data.test.pixels.paths), "val": set()}
    if data.is_val is not None:
        files["val"] = {file for file, is_val in zip(data.train.pixels.paths, data.is_val, strict=True) if is_val}
    files["train"] -= files["val"]
    if "test" not in folders:
        assert len(files["test"]) == 3  # a fraction of the training part
        files["train"] |= files.pop("test")
    written = {part: set((tmp_path / "own" / name).rglob("*.png")) for part, name in folders.items() if part}
    assert {part: found for part, found in files.items() if found} == written
    assert data.classes == ("glioma", "notumor")
    assert [note for note in data.notes if "left out" in note] == (
        [f"left out, without labels by their names: '{folders[''].partition('/')[0]}'"] if "" in folders else []
    )


def test_what_parts_are_known_by_is_said(tmp_path):
    write_parts(tmp_path / "own", {"Training": {"a": 5, "b": 5}, "Testing": {"a": 2, "b": 1}, "pred": {".": 3}})
    assert own(tmp_path).notes == (
        "parts by their names: 'Testing' is test, 'Training' is train",
        "left out, without labels by their names: 'pred'",
    )


@pytest.mark.parametrize(
    "names",
    [("training", "match"), ("test_tube", "train_station"), ("freight_train", "steam_train"), ("dev", "design"),
     ("pred", "succ"), ("evaluation", "report"), ("trainer", "contest")],
)  # fmt: skip
def test_classes_whose_names_are_like_those_of_parts_are_classes(tmp_path, names):
    write_classes(tmp_path / "own", dict.fromkeys(names, 6))
    assert own(tmp_path).classes == tuple(sorted(names))


def test_a_class_called_train_is_one_on_request(tmp_path):
    write_classes(tmp_path / "own", {"bus": 6, "train": 6})
    with pytest.raises(UserError, match=r"besides them there may be no 'bus'\.\n  where all .*own data\.level=1$"):
        own(tmp_path)
    assert own(tmp_path, level=1).classes == ("bus", "train")


def test_two_folders_of_one_part_are_refused(tmp_path):
    write_parts(tmp_path / "own", {name: {"a": 5, "b": 5} for name in ("train", "val", "validation")})
    with pytest.raises(UserError, match="own: 'val' and 'validation' may both be the part 'val'; move one elsewhere"):
        own(tmp_path)


def test_a_test_part_without_labels_is_refused_with_what_to_type(tmp_path):
    write_parts(tmp_path / "own", {"train": {"a": 5, "b": 5}, "test": {".": 4}})
    with pytest.raises(UserError) as refused:
        own(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}/own/test: 4 images, and no folder of a class, which is what labels them.\n"
        f"  for those of 'train' alone: data.folder={tmp_path}/own/train"
    )


def test_parts_in_each_class_are_parts(tmp_path):
    for number, name in enumerate(("ants", "bees")):
        write_classes(tmp_path / "own" / name, {"train": 6, "test": 3}, first=100 * number)
    data = own(tmp_path)
    assert (data.classes, len(data.train), len(data.test)) == (("ants", "bees"), 12, 6)
    assert {file.parent.name for file in data.train.pixels.paths} == {"train"}
    assert data.notes == ("the classes are 'ants', 'bees'; the folders in them are the parts, 'test', 'train'",)


def test_parts_in_some_classes_are_asked_about(tmp_path):
    write_classes(tmp_path / "own" / "ants", {"train": 6, "test": 3})
    write_classes(tmp_path / "own", {"bees": 6}, first=100)
    with pytest.raises(UserError, match=r"own: 'ants' has folders of parts in it: 'test', 'train'\.") as refused:
        own(tmp_path)
    assert [line for line in typed(refused.value) if "level=2" in line] == []
    assert own(tmp_path, level=1).classes == ("ants", "bees")


def test_sets_of_parts_side_by_side_are_asked_about(tmp_path):
    for name in ("first", "second"):
        write_parts(tmp_path / "own" / name, {part: {"a": 2, "b": 2} for part in ("train", "test")})
    with pytest.raises(UserError, match="own: 'first' has folders of parts in it") as refused:
        own(tmp_path)
    assert f"data.folder={tmp_path}/own/second" in typed(refused.value)


@pytest.mark.parametrize("below", ["", "train"])
def test_classes_in_folders_are_asked_about(tmp_path, below):
    folder = tmp_path / "own" / below
    write_classes(folder / "2019", {"rose": 6, "tulip": 6})
    write_classes(folder / "2020", {"rose": 6, "tulip": 6, "lily": 6}, first=100)
    with pytest.raises(UserError, match="the classes may be its folders or those in them") as refused:
        own(tmp_path)
    assert [line.rpartition(" ")[2] for line in typed(refused.value)][:2] == ["data.level=1", "data.level=2"]
    assert own(tmp_path, level=1).classes == ("2019", "2020")
    inner = own(tmp_path, level=2)
    assert inner.classes == ("lily", "rose", "tulip")
    assert all(Path(file).parent.name == label or label in file for file, label in labels_by_file(inner).items())
    with pytest.raises(UserError, match="not in the folder of a class, at level 3: "):
        own(tmp_path, level=3)


def test_one_folder_in_each_class_leaves_no_question(tmp_path):
    for number, name in enumerate(("n01", "n02")):
        write_classes(tmp_path / "own" / name, {"images": 6}, first=100 * number)
    data = own(tmp_path)
    assert data.classes == ("n01", "n02")
    assert [note[:30] for note in data.notes] == ["12 images in deeper folders, su"[:30]]


def typed(error: UserError) -> list[str]:
    """Return what a message says to type, line by line."""
    return [line[line.index("data") :] for line in str(error).splitlines()[1:] if "data" in line]


# Too high -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["own", "own/deeper"])
def test_the_only_folder_with_classes_is_understood_and_named(tmp_path, above):
    write_classes(tmp_path / above / "photos", {"cat": 8, "dog": 8})
    (tmp_path / "own" / "docs").mkdir()
    (tmp_path / "own" / "setup.exe").write_bytes(b"MZ")
    data, meant = own(tmp_path), own(tmp_path, f"{above}/photos")
    assert data.classes == ("cat", "dog")
    assert data.fingerprint() == meant.fingerprint()
    assert data.notes[
        0
    ] == f"the classes are those of {tmp_path / above / 'photos'}, the only folder with images in " + (
        f"{tmp_path}/own"
    )


def test_parts_in_the_only_folder_are_parts(tmp_path):
    write_parts(tmp_path / "own" / "photos", {"train": {"a": 5, "b": 5}, "test": {"a": 2, "b": 1}})
    data = own(tmp_path)
    assert (len(data.train), len(data.test)) == (10, 3)


def test_a_valid_folder_means_what_it_meant(tmp_path):
    write_classes(tmp_path / "own", {"a": 8, "b": 8})
    data = own(tmp_path)
    assert (data.classes, data.notes) == (("a", "b"), ())
    assert set(labels_by_file(data).values()) == {"a", "b"}


def test_classes_that_may_be_others_get_a_note(tmp_path):
    write_classes(tmp_path / "own" / "photos", {"cat": 8, "dog": 8})
    write_classes(tmp_path / "own", {"holiday": 8}, first=100)
    data = own(tmp_path)
    assert data.classes == ("holiday", "photos")
    assert data.notes == (
        f"'photos' is a class; data.folder={tmp_path}/own/photos makes its folders the classes: 'cat', 'dog'",
    )


def test_images_beside_the_only_folder_are_not_left_out_silently(tmp_path):
    write_classes(tmp_path / "own" / "photos", {"cat": 8, "dog": 8})
    stray = photograph(tmp_path / "own" / "stray.png", 99)
    with pytest.raises(UserError) as refused:
        own(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}/own: not in the folder of a class: {stray}\n"
        f"  photos has folders of classes: data.folder={tmp_path}/own/photos"
    )


# Too low --------------------------------------------------------------------------------------------------------------


def test_the_folder_of_a_class_names_the_folder_above(tmp_path):
    write_classes(tmp_path / "own", {"cat": 8, "dog": 8})
    with pytest.raises(UserError) as refused:
        own(tmp_path, "own/cat")
    assert str(refused.value).startswith(
        f"{tmp_path}/own/cat: 8 images, and no folder of a class, which is what labels"
    )
    assert f"\n  where 'cat' is one of the classes, as 'dog': data.folder={tmp_path}/own\n" in str(refused.value)


def test_images_without_classes_are_told_where_classes_come_from(tmp_path):
    write_classes(tmp_path / "own", {"flat": 3})
    with pytest.raises(UserError) as refused:
        own(tmp_path, "own/flat")
    folder = f"{tmp_path}/own/flat"
    assert str(refused.value) == (
        f"{folder}: 3 images, and no folder of a class, which is what labels them.\n"
        f"  else move them into {folder}/CLASS; or name their classes: data=csv data.folder={folder} "
        "data.train=LIST.csv, a list in it with the header path,label"
    )


def test_images_of_which_a_list_names_the_classes_are_answered_with_the_list(tmp_path):
    write_classes(tmp_path / "own" / "archive", {"train": 3, "test": 2})
    for name in ("labels 1.csv", "train/a.csv"):
        (tmp_path / "own" / "archive" / name).write_text("id,breed\n")
    with pytest.raises(UserError) as refused:
        own(tmp_path, "own/archive/train")
    setting = f"data=csv data.folder={tmp_path}/own/archive/train"
    assert str(refused.value).splitlines()[1:3] == [
        f"  where a.csv names their classes: {setting} data.train=a.csv",
        f"  where labels 1.csv names their classes: {setting} 'data.train=../labels 1.csv'",
    ]
    assert "is one of the classes" not in str(refused.value)  # 'test' is no class


def test_images_below_one_folder_after_the_other_are_no_class(tmp_path):
    write_classes(tmp_path / "own" / "archive" / "Set", {"Images": 3})
    (tmp_path / "own" / "archive" / "Set" / "labels.csv").write_text("path,label\n")
    with pytest.raises(UserError) as refused:
        own(tmp_path)
    folder = f"{tmp_path}/own/archive/Set/Images"
    assert str(refused.value).startswith(f"{folder}: 3 images, and no folder of a class, which is what labels them.\n")
    assert f": data=csv data.folder={folder} data.train=../labels.csv\n" in str(refused.value)


def test_a_folder_is_named_as_it_is_typed_from_here(tmp_path):
    here = Path.cwd()
    assert as_folder(here / "photos" / "x") == "data.folder=photos/x"
    assert as_folder(Path("..") / "my photos") == f"'data.folder={tmp_path}/my photos'"
    assert as_folder(here) == f"data.folder={here}"


# Lists ----------------------------------------------------------------------------------------------------------------


def listed(root: Path, folder: str, train: str = "list.csv"):
    return read("csv", root, folder=folder, train=train)


def write_list(path: Path, prefix: str = "") -> Path:
    lines = [f"{prefix}{name}/{index:04}.png,{name}" for name in "xy" for index in range(6)]
    path.write_text("\n".join(["path,label", *lines]) + "\n")
    return path


def typed_in(message: str) -> list[tuple[str, str]]:
    """Return what a message says to type: folder, list."""
    ways = re.findall(r"data\.folder=(\S+)(?: data\.train=(\S+)|$)", message, re.M)
    return [(folder, train or "list.csv") for folder, train in ways]


def test_a_list_in_the_only_folder_that_has_it_is_found(tmp_path):
    folder = write_classes(tmp_path / "own" / "photos", {"x": 6, "y": 6})
    write_list(folder / "list.csv")
    data = listed(tmp_path, "own")
    assert data.fingerprint() == listed(tmp_path, "own/photos").fingerprint()
    assert data.notes == (
        f"list.csv and its images are in {folder}, the only folder in {tmp_path}/own with such a list",
    )


def test_a_list_in_two_folders_is_asked_about(tmp_path):
    for name in "ab":
        write_list(write_classes(tmp_path / "own" / name, {"x": 6, "y": 6}) / "list.csv")
    with pytest.raises(UserError, match=r"own/list\.csv: there is no such file\.") as refused:
        listed(tmp_path, "own")
    assert typed_in(str(refused.value)) == [(f"{tmp_path}/own/{name}", "list.csv") for name in "ab"]


OFF_BY_A_LEVEL = {
    # where images, list and the folder typed are; what paths in the list begin with
    "list above": ("own/photos", "own", "own/photos", "photos/"),
    "list above, paths relative to the images": ("own/photos", "own", "own/photos", ""),
    "images below": ("own/photos", "own", "own", ""),
    "images above": ("own", "own/lists", "own/lists", ""),
    "paths from above": ("own", "own", "own", "own/"),
}


@pytest.mark.parametrize(("images", "where", "typed", "prefix"), OFF_BY_A_LEVEL.values(), ids=OFF_BY_A_LEVEL)
def test_what_the_error_says_to_type_is_right(tmp_path, images, where, typed, prefix):
    write_classes(tmp_path / images, {"x": 6, "y": 6})
    (tmp_path / where).mkdir(exist_ok=True)
    write_list(tmp_path / where / "list.csv", prefix)
    with pytest.raises(UserError) as refused:
        listed(tmp_path, typed)
    read_by = []
    for folder, train in typed_in(str(refused.value)):
        try:
            read_by.append(len(listed(tmp_path, folder, train).train))
        except UserError:
            continue
    assert len(read_by) == 1
