"""`cnnbench data`: data sets listed, described, and imported from files downloaded by hand."""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore

from cnnbench.data import prepare as prepare_module
from cnnbench.data.cache import decode_photographs
from cnnbench.data.cifar import CIFAR10
from cnnbench.data.image_files import content_digest
from cnnbench.data.images import Photographs
from cnnbench.data.mnist import FASHION_MNIST, MNIST
from cnnbench.data.packs import cache_dir, locked
from cnnbench.registry import DATASETS
from tests.conftest import Outcome, ended
from tests.support.archives import idx, write_cifar, write_idx_set
from tests.support.photographs import write_classes

FILES = list(MNIST.files)


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: str) -> Outcome:
        return ended("data", words, capsys)

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return the contents of tiny files that pass for the originals of MNIST."""
    arrays = write_idx_set(tmp_path / "original")
    contents = {name: idx(array) for name, array in arrays.items()}
    for name, content in contents.items():
        monkeypatch.setitem(MNIST.files, name, hashlib.md5(content).hexdigest())
    return contents


def put(contents: dict[str, bytes], folder: Path, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def everything_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def with_another_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


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
    assert "split        0.25 of the training part is validation, seed 0; " in outcome.out


def test_info_takes_the_settings_of_the_main_command(data):
    words = ["data.folds=5", "data.fold=1", "data.label_noise=0.5", "data.crop=24", "data.subset.classes=[3,5]"]
    outcome = data("info", "digits", *words)
    assert set(rows_of(outcome)) == {"all", "3", "5"}
    assert "images       1x32x32, cropped to 24x24" in outcome.out
    assert "fold 1 of 5 is validation, seed 0" in outcome.out
    assert "training labels are wrong on purpose" in outcome.out


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


# prepare --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
def test_files_are_found_anywhere_and_copied_unpacked(data, root, tmp_path, digits, packed):
    away = put(digits, tmp_path / "away" / "deep" / "down", packed)
    before = everything_below(tmp_path / "away")
    outcome = data("prepare", "mnist", "--from", str(tmp_path / "away"))
    assert outcome.code == 0, outcome.err
    assert everything_below(root) == {f"MNIST/raw/{name}": content for name, content in digits.items()}
    assert everything_below(tmp_path / "away") == before
    for name in FILES:
        assert f"{name}: copied from {away / name}{'.gz' if packed else ''}\n" in outcome.out
    assert data("info", "mnist", "data.val_fraction=0").code == 0


OTHERWISE = {  # how a file of this name is called elsewhere, and whether its content is packed
    "dots": (lambda name: name.replace("-idx", ".idx"), False),
    "dots, packed": (lambda name: f"{name.replace('-idx', '.idx')}.gz", True),
    "called .gz, and unpacked": (lambda name: f"{name}.gz", False),
    "packed, and not called .gz": (lambda name: name.replace("-idx", ".idx"), True),
    "downloaded twice": (lambda name: f"{name} (1).gz", True),
    "anything": (lambda name: f"{name[0]}{len(name)}.bin", False),
}


@pytest.mark.parametrize(("called", "packed"), OTHERWISE.values(), ids=OTHERWISE)
def test_originals_under_other_names_are_known_by_their_content(data, root, tmp_path, digits, called, packed):
    for number, (name, content) in enumerate(digits.items()):
        other = put({f"{called(name)}": content}, tmp_path / "away" / str(number)) / called(name)
        if packed:
            other.write_bytes(gzip.compress(content))
    (tmp_path / "away" / "cut.gz").write_bytes(gzip.compress(b"other" * 99)[:20])
    os.mkfifo(tmp_path / "away" / "pipe")  # reading it never ends
    outcome = data("prepare", "mnist", "--from", str(tmp_path / "away"))
    assert outcome.code == 0, outcome.err
    assert everything_below(root) == {f"MNIST/raw/{name}": content for name, content in digits.items()}


def test_files_under_other_names_that_are_not_the_originals_are_taken_when_asked_for(data, root, tmp_path, digits):
    other = {name.replace("-idx", ".idx"): with_another_byte(content) for name, content in digits.items()}
    put(other, tmp_path / "away")
    outcome = data("prepare", "mnist", "--from", str(tmp_path / "away"))
    assert f"{FILES[0]}: not the original's content (its md5 is not {MNIST.files[FILES[0]]}): {tmp_path}" in outcome.err
    assert data("prepare", "mnist", "--unverified", "--from", str(tmp_path / "away")).code == 0
    assert sorted(everything_below(root).values()) == sorted(other.values())


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-python (1).tar.gz", "cifar-10-python.tar"])
def test_files_are_taken_out_of_the_archive(data, root, tmp_path, monkeypatch, name):
    write_cifar(tmp_path / "away", "cifar10")
    contents = {path.name: path.read_bytes() for path in (tmp_path / "away" / CIFAR10.folder).iterdir()}
    for file, content in contents.items():
        monkeypatch.setitem(CIFAR10.files, file, hashlib.md5(content).hexdigest())
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with tarfile.open(downloads / name, "w:gz" if name.endswith("gz") else "w") as archive:
        archive.add(tmp_path / "away" / CIFAR10.folder, CIFAR10.folder)
        extra = tarfile.TarInfo("../../outside")
        extra.size = 4
        archive.addfile(extra, io.BytesIO(b"evil"))
    outcome = data("prepare", "cifar10", "--from", str(downloads / name if "1" in name[15:] else downloads))
    assert outcome.code == 0, outcome.err
    assert everything_below(root) == {f"{CIFAR10.folder}/{file}": content for file, content in contents.items()}
    assert "data_batch_1: copied from " in outcome.out
    assert not list(tmp_path.rglob("outside"))


def test_originals_are_preferred_to_files_of_the_same_name(data, root, tmp_path, digits):
    clothes = {name: with_another_byte(content) for name, content in digits.items()}
    put(clothes, tmp_path / "away" / "FashionMNIST" / "raw")
    put(digits, tmp_path / "away" / "others")
    assert data("prepare", "mnist", "--from", str(tmp_path / "away")).code == 0
    assert everything_below(root / MNIST.folder) == digits


def test_what_is_there_is_never_overwritten(data, root, tmp_path, digits):
    put({FILES[0]: b"mine"}, root / MNIST.folder)
    put({FILES[1]: b"mine too"}, root / MNIST.folder, packed=True)
    before = everything_below(root)
    put(digits, tmp_path / "away")
    outcome = data("prepare", "mnist", "--from", str(tmp_path / "away"))
    assert f"{FILES[0]}: is there already, left as it is" in outcome.out
    after = everything_below(root)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {f"MNIST/raw/{name}" for name in FILES[2:]}


def test_where_a_file_is_missing_or_wrong_nothing_is_copied(data, root, tmp_path, digits):
    away = put({name: digits[name] for name in FILES[:2]}, tmp_path / "away")
    put({FILES[2]: with_another_byte(digits[FILES[2]])}, away)
    (away / f"{FILES[3]}.gz").write_bytes(b"<html>404</html>")
    outcome = data("prepare", "mnist", "--from", str(away))
    assert (outcome.code, outcome.out) == (2, "")
    assert "MNIST is not complete there; nothing was copied" in outcome.err
    assert f"{FILES[2]}: not the original's content (its md5 is not {MNIST.files[FILES[2]]}): {away}" in outcome.err
    assert f"{FILES[3]}: not found, nor as .gz, nor in the original's archive" in outcome.err
    assert f"{away / FILES[3]}.gz cannot be read" in outcome.err
    assert "--unverified takes files that are not the originals" in outcome.err
    assert f"{FILES[0]}:" not in outcome.err
    assert everything_below(root) == {}
    assert list(root.iterdir()) == []


def test_other_files_are_taken_when_asked_for(data, root, tmp_path, digits):
    other = digits | {FILES[0]: with_another_byte(digits[FILES[0]])}
    put(other, tmp_path / "away")
    outcome = data("prepare", "mnist", "--unverified", "--from", str(tmp_path / "away"), f"data.root={root}/else")
    assert everything_below(root / "else" / MNIST.folder) == other
    assert (
        f"{FILES[0]}: copied from {tmp_path}/away/{FILES[0]}; not the original: data.verify=false takes it"
        in outcome.out
    )
    assert outcome.out.count("not the original") == 1


def test_ambiguous_unverified_files_are_taken_only_from_the_folder_of_the_set(data, root, tmp_path, digits):
    clothes = {name: with_another_byte(content) for name, content in digits.items()}
    letters = {name: content + b"x" for name, content in digits.items()}
    put(clothes, tmp_path / "away" / "FashionMNIST" / "raw")
    put(letters, tmp_path / "away" / "letters")
    unknown = data("prepare", "mnist", "--unverified", "--from", str(tmp_path / "away"))
    assert unknown.code == 2
    assert f"{FILES[0]}: there are several that differ: {tmp_path}/away/FashionMNIST/raw/{FILES[0]}, " in unknown.err
    assert everything_below(root) == {}
    known = data("prepare", "fashion_mnist", "--unverified", "--from", str(tmp_path / "away"))
    assert known.code == 0, known.err
    assert everything_below(root / FASHION_MNIST.folder) == clothes


def test_files_below_the_root_can_be_brought_from_there(data, root, digits):
    put(digits, root / "unsorted")
    assert data("prepare", "mnist", "--from", str(root)).code == 0
    assert everything_below(root / MNIST.folder) == digits
    assert sorted(path.name for path in root.iterdir()) == ["MNIST", "unsorted"]


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info"], "info needs the name of one data set"),
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
        (["show"], "invalid choice: 'show'"),
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
