"""`cnnbench data`: data sets listed and described, and the cache of decoded photographs."""

import json
import os
import re
import time
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore

from cnnbench.data import prepare as prepare_module
from cnnbench.data.cache import decode_photographs
from cnnbench.data.image_files import content_digest
from cnnbench.data.images import Photographs
from cnnbench.data.mnist import FASHION_MNIST, MNIST
from cnnbench.data.packs import cache_dir, locked
from cnnbench.registry import DATASETS
from tests.conftest import Outcome
from tests.support.archives import put, with_another_byte
from tests.support.photographs import write_classes

FILES = list(MNIST.files)


# list -----------------------------------------------------------------------------------------------------------------


def state_of(outcome: Outcome, name: str) -> str:
    """Return what the list says of a data set, in one line."""
    rows = re.split(r"\n  (?=\S)", outcome.out.rstrip())[1:]
    (row,) = (row for row in rows if row.split()[0] == name)
    return " ".join(row.split()[1:])


def test_the_list_shows_which_files_are_there_and_their_folders(data, root, digits):
    put(digits, root / MNIST.folder)
    put({FILES[0]: b""}, root / FASHION_MNIST.folder, packed=True)
    outcome = data("list")
    assert outcome.out.startswith(f"data sets in {root}\n")
    assert state_of(outcome, "mnist") == "there: 4 of 4 files, MNIST/raw"
    missing = f"; missing {', '.join(FILES[1:])}"
    assert state_of(outcome, "fashion_mnist") == f"incomplete: 1 of 4 files, FashionMNIST/raw{missing}"
    assert state_of(outcome, "cifar10") == "not there: 0 of 7 files, cifar-10-batches-py"
    assert state_of(outcome, "caltech101") == "not there: 0 of 9 144 images, caltech101/101_ObjectCategories"
    assert state_of(outcome, "digits").startswith("needs no files: 1 797 handwritten digits")
    assert state_of(outcome, "image_folder") == "yours: data.folder=FOLDER names the place, here too"
    assert max(map(len, outcome.out.splitlines()[1:])) <= 80


def test_the_list_counts_photographs_of_ones_own(data, root):
    write_classes(Path("my_photos"), {"cat": 3, "dog": 2})
    (Path("my_photos") / "list.csv").write_text("path,label\n")
    write_classes(root / "PetImages", {"Cat": 3})
    outcome = data("list", "data.folder=my_photos")
    place = Path("my_photos").resolve()
    assert state_of(outcome, "image_folder") == f"there: 5 images in 2 folders, {place}"
    assert state_of(outcome, "csv") == f"there: 5 images in 2 folders, {place}; lists: list.csv"
    assert state_of(outcome, "cats_dogs") == "incomplete: 3 of 25 000 images in 1 folder, PetImages"


def test_the_list_for_programs(data, root):
    states = {one["name"]: one for one in json.loads(data("list", "--json").out)}
    assert set(states) == set(DATASETS)
    assert states["mnist"] | {"remark": ""} == {
        "name": "mnist", "state": "not there", "found": 0, "expected": 4, "unit": "files", "folders": None,
        "folder": str(root / "MNIST/raw"), "missing": FILES, "remark": "",
    }  # fmt: skip


def test_the_list_of_another_folder(data, tmp_path, digits):
    put(digits, tmp_path / "else" / MNIST.folder)
    assert state_of(data("list"), "mnist").startswith("not there")
    assert state_of(data("list", f"data.root={tmp_path}/else"), "mnist").startswith("there")


# info -----------------------------------------------------------------------------------------------------------------


def rows_of(outcome: Outcome) -> dict[str, list[int]]:
    """Return the images of each class: train, validation, test."""
    table = outcome.out.partition("\n\n")[2].splitlines()[1:]
    cut = [(line[:-32].strip(), [line[-32:-22], line[-22:-10], line[-10:]]) for line in table]
    return {label: [int(cell.replace(" ", "")) for cell in cells] for label, cells in cut}


def test_info_counts_the_images_of_every_class_and_split(data):
    outcome = data("info", "synthetic", "data.num_train=4000", "data.num_classes=4", "data.val_fraction=0.25")
    assert outcome.code == 0, outcome.err
    rows = rows_of(outcome)
    assert rows.pop("all") == [3000, 1000, 500]
    assert rows == {f"pattern {index}": [750, 250, 125] for index in range(4)}
    assert "files        none needed" in outcome.out
    assert (
        "split        0.25 of the training part is validation, seed 0; the test part is the data set's own; "
        in outcome.out
    )


def test_info_takes_the_settings_of_the_main_command(data):
    words = ["data.folds=5", "data.fold=1", "data.label_noise=0.5", "data.crop=24", "data.subset.classes=[3,5]"]
    outcome = data("info", "digits", *words)
    assert set(rows_of(outcome)) == {"all", "3", "5"}
    assert "images       1x32x32, cropped to 24x24" in outcome.out
    assert "fold 1 of 5 is validation, seed 0; before that, 0.2 of every class is held out for test; " in outcome.out
    assert "training labels are wrong on purpose" in outcome.out


def test_a_data_set_may_be_named_as_the_main_command_names_it(data):
    assert data("info", "data=digits").out == data("info", "digits").out


def test_info_verifies_the_files(data, root, digits):
    put(digits, root / MNIST.folder)
    outcome = data("info", "mnist", "data.val_fraction=0")
    assert f"files        4 in {root}/MNIST/raw; all of them the originals, by their md5" in outcome.out
    assert rows_of(outcome)["all"] == [20, 0, 10]
    put({FILES[2]: with_another_byte(digits[FILES[2]])}, root / MNIST.folder)
    prepare_module._load.cache_clear()  # another command is another process
    outcome = data("info", "mnist", "data.val_fraction=0")
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{FILES[2]} is not the original file of MNIST" in outcome.err
    outcome = data("info", "mnist", "data.val_fraction=0", "data.verify=false")
    assert f"; not the originals: {FILES[2]}\n" in outcome.out


def test_info_downloads_nothing(data, root, monkeypatch):
    monkeypatch.setattr("cnnbench.data.files._download", lambda *_: pytest.fail("asked the network"))
    outcome = data("info", "mnist")
    assert outcome.code == 2
    assert f"MNIST is not in {root}/MNIST/raw: missing are {', '.join(FILES)}" in outcome.err
    assert "cnnbench data prepare mnist --from FOLDER" in outcome.err
    assert not root.exists()


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info"], "info needs the name of a data set, one of those that cnnbench data list shows"),
        (["info", "image_folder", "my_photos"], "Type: cnnbench data info image_folder data.folder=my_photos"),
        (["prepare", "mnist", "my_photos"], "Type: cnnbench data prepare mnist --from my_photos"),
        (["info", "mnist", "cifar10"], "takes the name of one data set. Type: cnnbench data info mnist\n"),
        (["info", "data=image_folder", "root=my_photos"], "no such key; did you mean 'data.root'?"),
        (["info", "cifar"], "no such data; did you mean 'cifar10"),
        (["info", "digits", "data.crop=99"], "larger than the images"),
        (["info", "digits", "data.vla_fraction=0"], "did you mean 'data.val_fraction'?"),
        (["list", "mnist"], "list takes no name"),
        (
            ["list", "seed=3"],
            "'seed=3': only data.root=FOLDER, data.folder=FOLDER and plugins=FILE have an effect here",
        ),
        (["prepare", "mnist"], "prepare needs --from FOLDER"),
        (["prepare", "mnist", "--from", "nowhere"], "nowhere: there is no such folder or file"),
        (["prepare", "mnits", "--from", "."], "no data is called 'mnits'; did you mean 'mnist'?"),
        (["prepare", "digits", "--from", "."], "'digits' needs no files: there is nothing to prepare"),
        (["info", "digits", "--from", "."], "--from is for prepare"),
        (["info", "digits", "--unverified"], "--unverified is for prepare"),
        (["info", "digits", "--json"], "--json is for list"),
        (["show"], "there is no 'show'; there are 'list'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_one_clear_message(data, root, words, message):
    outcome = data(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not root.exists()


def test_data_sets_of_plugins_are_listed(data, tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS, "components", dict(DATASETS.components))
    monkeypatch.setitem(ConfigStore.instance().repo, "data", {})
    (tmp_path / "mine.py").write_text(
        "from cnnbench.data.synthetic import synthetic\nfrom cnnbench.registry import DATASETS\n\n\n"
        "@DATASETS.register('mine')\ndef mine(root):\n    '''Mine.'''\n"
        "    return synthetic(root, num_train=40, num_test=20, num_classes=2, noise=0.1)\n"
    )
    listed = data("list", f"plugins={tmp_path}/mine.py")
    assert state_of(listed, "mine") == "unknown: of mine.py, which does not say what files it needs"
    outcome = data("info", "mine", f"plugins={tmp_path}/mine.py", "data.val_fraction=0.1", "data.split_seed=0")
    assert outcome.code == 0, outcome.err
    assert rows_of(outcome)["all"] == [36, 4, 20]


# The cache of decoded photographs -------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Decode some photographs, as half of them and as all, and return the folder of their packs."""
    folder = write_classes(tmp_path / "photos", {"a": 4, "b": 4})
    paths = tuple(sorted(folder.rglob("*.png")))
    given = Photographs(paths, tuple(map(content_digest, paths)), "whole", True, False)
    decode_photographs(given[torch.arange(4)], 20, 3)
    decode_photographs(given, 20, 3)
    (packs,) = cache_dir().iterdir()
    return packs


def test_the_cache_is_listed(data, kept):
    earlier = cache_dir() / ("0" * 32)
    earlier.mkdir()
    (earlier / "pixels").write_bytes(bytes(2 * 10**6))
    listed = data("cache")
    assert listed.code == 0, listed.err
    heading, _, *lines = listed.out.splitlines()
    assert heading == f"decoded photographs in {cache_dir()}: 2 MB"
    assert [line.split()[0] for line in lines] == ["0" * 32, "of", "20-rgb-shorter-v2"]
    assert "of an earlier version, 2 MB, used 20" in lines[1]
    assert "8 images, 0 MB, used 20" in lines[2]


def test_what_was_not_used_for_some_days_is_removed_from_the_cache(data, kept):
    old, new = sorted((path for path in kept.glob("*/")), key=lambda path: path.stat().st_mtime)
    for path in old.iterdir():
        os.utime(path, (time.time() - 40 * 86400,) * 2)
    killed = kept / f"{'1' * 32}.tmp"
    killed.mkdir()
    assert data("cache", "--prune", "50").code == 0
    assert sorted(kept.glob("*/")) == sorted([old, new])
    assert data("cache", "--prune", "30").code == 0
    assert list(kept.glob("*/")) == [new]
    emptied = data("cache", "--prune", "0")
    assert emptied.out.splitlines()[:2] == ["removed: 0 MB", f"decoded photographs in {cache_dir()}: 0 MB"]
    assert not list(kept.glob("*/"))


def test_what_is_being_written_is_not_removed_from_the_cache(data, kept):
    written = kept / f"{'1' * 32}.tmp"
    written.mkdir()
    with locked(written.with_suffix(".lock")):
        assert data("cache", "--prune", "0").code == 0
    assert list(kept.glob("*/")) == [written]


def test_a_pack_that_is_used_again_counts_as_used_now(data, kept):
    paths = tuple(sorted((kept.parents[1] / "photos").rglob("*.png")))
    for path in kept.glob("*/*"):
        os.utime(path, (time.time() - 40 * 86400,) * 2)
    decode_photographs(Photographs(paths, tuple(map(content_digest, paths)), "crop", True, False), 20, 3)
    assert data("cache", "--prune", "30").code == 0
    assert len(list(kept.glob("*/"))) == 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("cache", "mnist"), "cache takes no name"),
        (("cache", "data.root=here"), "'data.root=here': has no effect here; CNNBENCH_CACHE=FOLDER names another"),
        (("cache", "--prune", "soon"), "'soon' is no number of days"),
        (("cache", "--prune", "-1"), "is no number of days"),
        (("list", "--prune", "1"), "--prune is for cache"),
    ],
)
def test_words_that_the_cache_does_not_take_are_refused(data, words, problem):
    refused = data(*words)
    assert refused.code == 2
    assert problem in refused.err
