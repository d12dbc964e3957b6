"""The check before training: unusable images are counted and named, and never used for evaluation."""

import shutil
from pathlib import Path

import pytest

from cnnbench.data.prepare import PreparedData
from cnnbench.errors import UserError
from tests.support.photographs import counts, prepared, write_parts

EACH = {"a": 8, "b": 8}


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_parts(tmp_path / "own", {"train": EACH, "val": EACH, "test": EACH})


def prepare_folder(folder: Path, on_problem: str = "error", **settings) -> PreparedData:
    return prepared("image_folder", folder.parent, folder="own", on_problem=on_problem, **settings)


def refused(folder: Path, on_problem: str = "error", **settings) -> list[str]:
    with pytest.raises(UserError) as error:
        prepare_folder(folder, on_problem, **settings)
    return str(error.value).splitlines()


def spoil(path: Path) -> str:
    """Damage a file, and return what the check reports."""
    path.write_bytes(b"")
    return f"{path} is empty"


def test_intact_files_are_not_reported(folder):
    assert prepare_folder(folder).notes == ("the data set has its own validation part; data.val_fraction is ignored",)


def test_unusable_training_images_are_an_error_and_left_out_on_request(folder):
    problems = [spoil(folder / "train" / name) for name in ("a/0003.png", "b/0001.png")]
    assert refused(folder) == [
        "2 of 48 images cannot be used:",
        f"  2 for training: {', '.join(problems)}",
        "  repair or remove them; data.on_problem=skip trains without those for training",
    ]
    data = prepare_folder(folder, "skip")
    assert data.notes[-1] == f"2 left out of training: {', '.join(problems)}"
    assert [counts(part, data.spec) for part in (data.train, data.val, data.test)] == [[7, 7], [8, 8], [8, 8]]
    assert data.train.labels.tolist() == [0] * 7 + [1] * 7


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("on_problem", ["error", "skip"])
@pytest.mark.parametrize("part", ["val", "test"])
def test_unusable_evaluation_images_are_always_an_error(folder, part, on_problem, cache):
    problem = spoil(folder / part / "b" / "0002.png")
    assert refused(folder, on_problem, cache=cache) == [
        "1 of 48 images cannot be used:", f"  1 for validation or test: {problem}", "  repair or remove them",
    ]  # fmt: skip


def test_both_kinds_are_reported_at_once(folder):
    one, other = spoil(folder / "train" / "a" / "0000.png"), spoil(folder / "test" / "a" / "0000.png")
    assert refused(folder) == [
        "2 of 48 images cannot be used:",
        f"  1 for training: {one}",
        f"  1 for validation or test: {other}",
        "  repair or remove them; data.on_problem=skip trains without those for training",
    ]
    assert refused(folder, "skip")[1] == f"  1 for validation or test: {other}"


def test_twenty_are_named_and_the_rest_counted(tmp_path):
    folder = write_parts(tmp_path / "own", {"train": {"a": 40, "b": 8}, "val": EACH, "test": EACH})
    for path in sorted((folder / "train" / "a").iterdir())[:23]:
        spoil(path)
    _, line, _ = refused(folder)
    assert line.startswith("  23 for training: ")
    assert line.endswith(" and 3 more")
    assert line.count(" is empty") == 20


@pytest.mark.parametrize(("part", "word"), [("val", "validation"), ("test", "test")])
def test_an_evaluation_image_must_not_be_trained_on(folder, part, word):
    shutil.copy(folder / part / "a" / "0004.png", folder / "train" / "b" / "copy.png")
    problem = f"{folder}/train/b/copy.png is in {word} ({folder}/{part}/a/0004.png) too"
    assert refused(folder)[1] == f"  1 for training: {problem}"
    data = prepare_folder(folder, "skip")
    assert data.notes[-1] == f"1 left out of training: {problem}"
    assert [counts(part, data.spec) for part in (data.train, data.val, data.test)] == [[8, 8]] * 3


@pytest.mark.parametrize("on_problem", ["error", "skip"])
def test_an_image_in_validation_and_test_is_always_an_error(folder, on_problem):
    shutil.copy(folder / "test" / "a" / "0004.png", folder / "val" / "b" / "copy.png")
    assert refused(folder, on_problem)[1] == (
        f"  1 for validation or test: {folder}/val/b/copy.png is in test ({folder}/test/a/0004.png) too"
    )


def test_an_image_in_all_three_parts_is_reported_for_each(folder):
    original = folder / "test" / "a" / "0004.png"
    for part in ("train", "val"):
        shutil.copy(original, folder / part / "a" / "copy.png")
    lines = refused(folder)
    assert lines[0] == "2 of 50 images cannot be used:"
    assert lines[1].endswith(f"train/a/copy.png is in validation ({folder}/val/a/copy.png) and test ({original}) too")
    assert lines[2].endswith(f"val/a/copy.png is in test ({original}) too")


def test_copies_within_training_are_allowed(folder):
    shutil.copy(folder / "train" / "a" / "0004.png", folder / "train" / "a" / "copy.png")
    assert counts(prepare_folder(folder).train, prepare_folder(folder).spec) == [9, 8]


@pytest.mark.parametrize("class_name", ["a", "b"])
def test_a_class_without_usable_training_images_is_an_error(folder, class_name):
    for path in (folder / "train" / class_name).iterdir():
        spoil(path)
    assert refused(folder, "skip")[1:] == [f"  data.on_problem=skip  leaves no image to train on of '{class_name}'"]


def test_a_repaired_file_is_usable_again(folder):
    path = folder / "train" / "a" / "0003.png"
    content = path.read_bytes()
    spoil(path)
    refused(folder)
    path.write_bytes(content)
    assert len(prepare_folder(folder).train) == 16


def test_the_recorded_rows_are_those_of_the_usable_files(folder):
    spoil(folder / "train" / "a" / "0000.png")
    data = prepare_folder(folder, "skip")
    assert data.split.train.tolist() == list(range(1, 16))
    assert data.train.pixels.rows.tolist() == list(range(1, 16))
