"""CSV lists of photographs: the right label for each, or an error that names the line."""

from pathlib import Path
from unicodedata import normalize

import pytest

from cnnbench.data.images import ImageData
from cnnbench.errors import UserError
from tests.support.photographs import counts, labels_by_file, photograph, prepared, read, write_classes


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder with six images of each of two classes."""
    return write_classes(tmp_path / "listed", {"x": 6, "y": 6})


def lines_of(names: str = "xy", numbers: range = range(6), label=str) -> list[str]:
    return [f"{name}/{index:04}.png,{label(name)}" for name in names for index in numbers]


def write_list(folder: Path, lines: list[str], name: str = "list.csv", header: str = "path,label") -> None:
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")


def listed(folder: Path, train: str = "list.csv", **settings) -> ImageData:
    return read("csv", folder.parent, folder=folder.name, train=train, **settings)


def test_one_list_is_split_and_every_image_keeps_its_label(folder):
    write_list(folder, lines_of()[::-1])
    data = listed(folder, test_fraction=0.5)
    assert data.classes == ("x", "y")
    assert labels_by_file(data) == dict(line.split(",") for line in lines_of())
    assert (counts(data.train, data), counts(data.test, data)) == ([3, 3], [3, 3])


def test_one_list_can_be_split_into_60_10_and_30_per_cent(tmp_path):
    folder = write_classes(tmp_path / "listed", {"x": 50, "y": 50})
    write_list(folder, lines_of(numbers=range(50)))
    settings = {"folder": "listed", "train": "list.csv", "test_fraction": 0.3}
    data = prepared("csv", tmp_path, {"val_fraction": 0.142857}, **settings)
    assert (len(data.train), len(data.val), len(data.test)) == (60, 10, 30)


def test_one_list_per_part(folder):
    for name, numbers in (("a", range(3)), ("b", range(3, 4)), ("c", range(4, 6))):
        write_list(folder, lines_of(numbers=numbers), f"{name}.csv")
    settings = {"folder": "listed", "train": "a.csv", "val": "b.csv", "test": "c.csv"}
    data = prepared("csv", folder.parent, **settings)
    assert [counts(part, data.spec) for part in (data.train, data.val, data.test)] == [[3, 3], [1, 1], [2, 2]]
    del settings["test"]
    data = prepared("csv", folder.parent, **settings, test_fraction=1 / 3)
    assert [counts(part, data.spec) for part in (data.train, data.val, data.test)] == [[2, 2], [1, 1], [1, 1]]


def test_the_order_of_a_list_does_not_matter(folder):
    write_list(folder, lines_of())
    write_list(folder, lines_of()[::-1], "reversed.csv")
    assert listed(folder).fingerprint() == listed(folder, "reversed.csv").fingerprint()


def test_columns_may_have_other_names_and_there_may_be_more(folder):
    lines = [f"{number},{line.split(',')[1]},{line.split(',')[0]}" for number, line in enumerate(lines_of())]
    write_list(folder, lines, header="id,breed,file")
    data = listed(folder, path_column="file", label_column="breed")
    assert labels_by_file(data) == dict(line.split(",") for line in lines_of())


def test_numbers_are_named_by_a_list_of_classes(folder):
    write_list(folder, lines_of(label=lambda name: {"x": 10, "y": 9}[name]))
    write_list(folder, ["9,apple", "10,zebra", "11,unused"], "names.csv", "id,class")
    data = listed(folder, classes="names.csv")
    assert data.classes == ("apple", "zebra")
    assert all(label == {"x": "zebra", "y": "apple"}[file[0]] for file, label in labels_by_file(data).items())


def test_labels_are_literal_text(folder):
    write_list(folder, lines_of(label=lambda name: {"x": "007", "y": "NA"}[name]))
    assert listed(folder).classes == ("007", "NA")


def test_spaces_marks_quotes_and_any_suffix_are_accepted(tmp_path):
    folder = tmp_path / "listed"
    for index, name in enumerate(("a, b.jpg", "ü.png", "x/y.dat.png", "z.gif")):
        photograph(folder / name, index)
    (folder / "x" / "y.dat.png").rename(folder / "x" / "y.dat")
    text = 'path,label\r\n"a, b.jpg", cat \r\nü.png,dog\r\n x/y.dat,cat\r\n./z.gif,dog\r\n'
    (folder / "list.csv").write_text(text, encoding="utf-8-sig", newline="")
    data = prepared("csv", tmp_path, {"val_fraction": 0.0}, folder="listed", train="list.csv", test_fraction=0.5)
    assert data.spec.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (2, 2)


def test_absolute_paths_are_accepted_on_request(folder, tmp_path):
    elsewhere = photograph(tmp_path / "elsewhere" / "1.png", 99)
    write_list(folder, [*lines_of(), f"{elsewhere},x"])
    assert labels_by_file(listed(folder, follow_links=True))["elsewhere/1.png"] == "x"


WRONG = {
    "no such list": (None, {}, r"listed/list\.csv: there is no such file\.$"),
    "empty": ("", {}, r"list\.csv cannot be read as CSV: No columns"),
    "no header": ("x/0000.png,x\n", {}, r"has 'x/0000\.png', 'x'; .*\n.*, write this line above it: path,label$"),
    "another separator": ("file;label\nx/0000.png;x\n", {}, r"no column 'path'; it has 'file', 'label'; data\.path_c"),
    "no header, and tabs": ("x/0.png\tx\n", {}, r"has 'x/0\.png', 'x'; .*\n.* this line above it: path\tlabel$"),
    "a field more in each": ("path,label\nx/0000.png,x,\n", {}, r"cannot be read as CSV: Length of header .* not"),
    "header only": ("path,label\n", {}, r"there is no image for 'train'"),
    "no label": ("path,label\nx/0.png,x\nx/1.png,\nx/2.png, \n", {}, r"without a value in 'path', 'label': lines 3, 4"),
    "not utf-8": (b"path,label\nx/0000.png,\xff\n", {}, r"list\.csv cannot be read as CSV: .*; save it as UTF-8$"),
    "a field more": ("path,label\nx/0000.png,x\nx/0001.png,x,y\n", {}, r"list\.csv cannot be read as CSV: .*line 3"),
    "not there": ("path,label\nx/9.png,x\nx/8.png,x\n", {}, r"2 of its 2 files are not there:\n  line 2: x/9.*\n.*8"),
    "a folder": ("path,label\nx,x\n", {}, r"1 of its 1 files are not there"),
    "twice": ("path,label\nx/0000.png,x\n./x/0000.png,y\n", {}, r"0000\.png: list\.csv line 2 \(x\), list\.csv line 3"),
    "one class": ("path,label\nx/0000.png,x\nx/0001.png,x\n", {}, r"there is only the class 'x'"),
    "no names": ("path,label\nx/0000.png,1\n", {"classes": "names.csv"}, r"names\.csv: there .*\n  lists there: list"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "settings", "problem"), WRONG.values(), ids=WRONG)
def test_a_list_that_cannot_be_used_is_one_clear_error(folder, content, settings, problem):
    if content is not None:
        (folder / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=problem) as refused:
        listed(folder, **settings)
    assert str(folder) in str(refused.value)


NAMES = {
    "a number without a name": (["0,apple"], r"list\.csv: labels that data\.classes does not name: 1$"),
    "a number with two names": (["0,apple", "1,pear", "1,plum"], r"names\.csv: named more than once: 1$"),
    "no name": (["0,apple", "1,"], r"names\.csv: without a value in 'id', 'class': lines 3"),
}


@pytest.mark.parametrize(("lines", "problem"), NAMES.values(), ids=NAMES)
def test_a_list_of_classes_that_does_not_fit_is_one_clear_error(folder, lines, problem):
    write_list(folder, lines_of(label="xy".index))
    write_list(folder, lines, "names.csv", "id,class")
    with pytest.raises(UserError, match=problem):
        listed(folder, classes="names.csv")


def test_a_file_in_two_lists_is_an_error(folder):
    write_list(folder, lines_of())
    write_list(folder, lines_of(numbers=range(2)), "test.csv")
    with pytest.raises(UserError, match=r"listed: 4 files listed more than once:\n") as refused:
        listed(folder, test="test.csv")
    assert str(refused.value).splitlines()[-1] == f"  {folder}/y/0001.png: list.csv line 9 (y), test.csv line 5 (y)"


def test_a_class_that_only_the_test_list_has_is_an_error(folder):
    write_list(folder, lines_of(numbers=range(4)))
    write_list(folder, lines_of(numbers=range(4, 6), label=lambda name: {"x": "x", "y": "z"}[name]), "test.csv")
    with pytest.raises(UserError, match="no training image shows 'z'"):
        listed(folder, test="test.csv")


@pytest.mark.parametrize("again", ["x/../x/0000.png", "y/../x/0000.png", "{folder}/x/0000.png", "link/0000.png"])
def test_a_file_that_is_listed_twice_by_other_paths_is_an_error(folder, again):
    (folder / "link").symlink_to("x")
    write_list(folder, [*lines_of(), f"{again.format(folder=folder)},y"])
    with pytest.raises(UserError, match=r"1 file listed more than once:\n  \S+/x/0000\.png: list\.csv line 2"):
        listed(folder)


@pytest.mark.parametrize("separator", [";", "\t", " ; "])
def test_columns_may_be_separated_otherwise(folder, separator):
    lines = [line.replace(",", separator) for line in lines_of()]
    write_list(folder, lines, header=f'"path"{separator}label')
    assert labels_by_file(listed(folder)) == dict(line.split(",") for line in lines_of())


def test_a_suffix_that_paths_lack_is_a_setting_and_suggested(folder):
    write_list(folder, [line.replace(".png", "") for line in lines_of()])
    with pytest.raises(UserError, match=r"csv: 12 of its 12 files are not there:") as refused:
        listed(folder)
    typed = f"data.folder={folder} data.train=list.csv data.suffix=.png"
    assert str(refused.value).endswith(f"\n  all are in {folder}: {typed}")
    for suffix in (".png", "png"):
        assert labels_by_file(listed(folder, suffix=suffix)) == dict(line.split(",") for line in lines_of())
    write_list(folder, lines_of())
    assert len(labels_by_file(listed(folder, suffix=".png"))) == 12


def test_missing_files_are_skipped_like_damaged_ones_in_training_only(folder):
    write_list(folder, [*lines_of(numbers=range(4)), "x/9.png,x"])
    write_list(folder, lines_of(numbers=range(4, 6)), "test.csv")
    settings = {"folder": "listed", "train": "list.csv", "test": "test.csv", "on_problem": "skip"}
    data = prepared("csv", folder.parent, {"val_fraction": 0.0}, **settings)
    assert (counts(data.train, data.spec), counts(data.test, data.spec)) == ([4, 4], [2, 2])
    assert any("1 left out of training" in note and "x/9.png" in note for note in data.notes)
    write_list(folder, [*lines_of(numbers=range(4, 6)), "x/8.png,x"], "test.csv")
    with pytest.raises(UserError, match=r"for validation or test: \S+x/8\.png cannot be read: No such file"):
        prepared("csv", folder.parent, {"val_fraction": 0.0}, **settings)
    write_list(folder, ["x/9.png,x", "y/9.png,y"])
    with pytest.raises(UserError, match="2 of its 2 files are not there"):  # another folder is meant
        prepared("csv", folder.parent, {"val_fraction": 0.0}, **settings)


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_paths_of_another_unicode_form_are_found(tmp_path, on_disk, in_list):
    folder = write_classes(tmp_path / "listed", {normalize(on_disk, "café"): 4, "tea": 4})
    names = {name: normalize(in_list, name) for name in ("café", "tea")}
    write_list(folder, [f"{names[name]}/{index:04}.png,{name}" for name in names for index in range(4)])
    assert len(labels_by_file(listed(folder))) == 8


@pytest.mark.parametrize("path", ["{above}/elsewhere.png", "../elsewhere.png", "link.png"])
def test_paths_out_of_the_folder_are_refused_a_line_each(folder, tmp_path, path):
    photograph(tmp_path / "elsewhere.png", 99)
    (folder / "link.png").symlink_to(tmp_path / "elsewhere.png")
    write_list(folder, [*lines_of(), f"{path.format(above=tmp_path)},x"])
    with pytest.raises(UserError, match=r"csv: 1 of its paths are not used:\n  line 14: \S+\.png leads out of the"):
        listed(folder)


def test_a_list_that_is_typed_from_the_current_folder_is_answered_with_what_to_type(folder, tmp_path, monkeypatch):
    write_list(folder, lines_of())
    write_list(tmp_path, ["a/0000.png,x"], "val list.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"listed/listed/list\.csv: there is no such file\.\n  .*: data\.train=list\.csv$"
    ):
        listed(folder, "listed/list.csv")
    with pytest.raises(UserError, match=r"looked for in data\.folder: 'data\.val=\.\./val list\.csv'$"):
        listed(folder, val="val list.csv")
