"""A folder of photographs that is a level too high or too low: understood, or one error with what to type."""

import re
from pathlib import Path

import pytest

from cnnbench.data.layout import as_folder
from cnnbench.errors import UserError
from tests.support.photographs import labels_by_file, photograph, read, write_classes, write_parts


def own(root: Path, folder: str = "own", **settings):
    return read("image_folder", root, folder=folder, **settings)


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
    write_classes(tmp_path / "own" / "a", {"x": 8, "y": 8})
    write_classes(tmp_path / "own" / "b", {"x": 8, "y": 8}, first=100)
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
