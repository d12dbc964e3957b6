"""`cnnbench data prepare`: files downloaded by hand are found, verified, and copied to where they are looked for."""

import gzip
import hashlib
import io
import os
import tarfile

import pytest

from cnnbench.data.cifar import CIFAR10
from cnnbench.data.mnist import FASHION_MNIST, MNIST
from tests.support.archives import everything_below, put, with_another_byte, write_cifar

FILES = list(MNIST.files)


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
