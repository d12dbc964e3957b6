"""Published photographs brought by hand: found in folders and archives, counted, and there as a whole or not at all."""

import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from cnnbench.cli.data import bring_files
from cnnbench.config.compose import Composer
from cnnbench.data.prepare import prepare
from cnnbench.data.published import CALTECH101, CATS_DOGS, EIGHT_SCENES, published_of
from cnnbench.errors import UserError
from cnnbench.training.plan import plan_run
from tests.support.photographs import SCENES, photograph, write_caltech, write_classes, write_pets, write_scenes

CALTECH = "caltech101/101_ObjectCategories"


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def zipped(archive: Path, folder: Path, within: str = "") -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w") as target:
        for name, content in files_below(folder).items():
            target.writestr(f"{within}{name}", content)
    return archive


def tarred(archive: Path, folder: Path, within: str = "") -> Path:
    with tarfile.open(archive, "w:gz" if archive.suffix in (".gz", ".tgz") else "w") as target:
        target.add(folder, within)
    return archive


def brought(name: str, origin: Path, root: Path) -> str:
    return "\n".join(bring_files(name, origin, root, verify=True))


def publish_caltech(folder: Path, tmp_path: Path) -> Path:
    """Write caltech-101.zip as it is published: an archive in an archive, with what a Mac leaves in both."""
    write_caltech(tmp_path / "made")
    made = tmp_path / "made" / "caltech101"
    (made / "101_ObjectCategories" / "._ant").write_bytes(b"of a Mac")
    outer = tmp_path / "outer" / "caltech-101"
    outer.mkdir(parents=True)
    tarred(outer / "101_ObjectCategories.tar.gz", made / "101_ObjectCategories", "101_ObjectCategories")
    (outer / "Annotations.tar").write_bytes(b"not looked at")
    (outer.parent / "__MACOSX").mkdir()
    (outer.parent / "__MACOSX" / "._101_ObjectCategories.tar.gz").write_bytes(b"of a Mac")
    return zipped(folder / "caltech-101.zip", outer.parent)


def images_of(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_below(folder).items() if name.endswith(".jpg")}


def is_as_if_made(tmp_path: Path, root: Path) -> bool:
    return files_below(root / CALTECH) == images_of(tmp_path / "made" / CALTECH)


# Where a set is found -------------------------------------------------------------------------------------------------


def test_the_published_archive_is_unpacked_to_where_it_is_looked_for(tmp_path, root, away):
    publish_caltech(away, tmp_path)
    text = brought("caltech101", away, root)
    assert is_as_if_made(tmp_path, root)
    assert f"Caltech101 in {root}/{CALTECH}:\n" in text
    assert f"copied from {away}/caltech-101.zip/101_ObjectCategories.tar.gz/101_ObjectCategories\n" in text
    assert "48 images in 4 classes; without 'Faces_easy', 'Leopards'," in text
    assert text.endswith("; published are 9 144 in 102")
    assert sorted(path.name for path in root.iterdir()) == ["caltech101"]
    assert prepare(plan_run(Composer(), ["data=caltech101"]).config.data).spec.classes == ("Faces", "accordion", "ant")


@pytest.mark.parametrize(
    "given", ["caltech-101.zip", "renamed.zip", "inner.tgz", "inner.tar", "folder", "above", "class"]
)
def test_a_set_is_found_from_an_archive_a_folder_one_above_and_one_below(tmp_path, root, away, given):
    archive = publish_caltech(away / "deep", tmp_path)
    unpacked = tmp_path / "made" / CALTECH
    origins = {
        "caltech-101.zip": archive,
        "renamed.zip": archive.with_name("renamed.zip"),
        "inner.tgz": away / "inner.tgz",
        "inner.tar": away / "inner.tar",
        "folder": unpacked,
        "above": unpacked.parent.parent,
        "class": unpacked / "ant",
    }
    if given == "renamed.zip":
        archive.rename(origins[given])
    if given.startswith("inner"):
        tarred(origins[given], unpacked, "x")
    before = files_below(tmp_path / "made")
    brought("caltech101", origins[given], root)
    assert is_as_if_made(tmp_path, root)
    assert files_below(tmp_path / "made") == before


def test_scenes_and_pets_are_found_as_they_are_published(tmp_path, root, away):
    write_scenes(tmp_path / "made")
    zipped(away / f"{EIGHT_SCENES.folder}.zip", tmp_path / "made")
    assert "40 images in 8 classes; published are 2 688 in 8" in brought("eight_scenes", away, root)
    for number, name in enumerate(("cat", "dog")):
        for index in range(8):
            photograph(tmp_path / "kaggle" / "train" / f"{name}.{index}.jpg", 10 * number + index)
    photograph(tmp_path / "test" / "test1" / "1.jpg", 1)
    outer = tmp_path / "competition"
    zipped(outer / "train.zip", tmp_path / "kaggle")
    zipped(outer / "test1.zip", tmp_path / "test")
    zipped(away / "dogs-vs-cats.zip", outer)
    assert "16 images in 2 classes; published are 25 000 in 2" in brought("cats_dogs", away, root)
    for name, classes in (("eight_scenes", SCENES), ("cats_dogs", ("cat", "dog"))):
        data = prepare(plan_run(Composer(), [f"data={name}"]).config.data)
        assert data.spec.classes == classes


def test_pets_in_folders_keep_their_folders(tmp_path, root, away):
    write_pets(tmp_path / "made")
    zipped(away / "kagglecatsanddogs_5340.zip", tmp_path / "made")
    brought("cats_dogs", away, root)
    assert files_below(root / "PetImages") == images_of(tmp_path / "made" / "PetImages")


def test_a_set_as_published_says_so_and_is_preferred(monkeypatch, tmp_path, root, away):
    monkeypatch.setattr(
        "cnnbench.data.published.CATS_DOGS.__class__.is_complete", lambda _, counts: counts.total() == 40
    )
    write_pets(away / "z")
    write_classes(away / "a_few", {"cat": 3, "dog": 3})
    text = brought("cats_dogs", away, root)
    assert f"copied from {away}/z/PetImages\n  40 images in 2 classes, as published" in text


def test_the_numbers_are_those_that_were_published():
    assert (len(CALTECH101.classes), CALTECH101.images) == (102, 9144)
    assert (EIGHT_SCENES.classes, EIGHT_SCENES.images) == (SCENES, 2688)
    assert (len(CATS_DOGS.classes), CATS_DOGS.images) == (2, 25000)


@pytest.mark.parametrize("name", ["caltech101", "eight_scenes", "cats_dogs"])
def test_a_set_is_brought_to_where_the_preset_looks_for_it(name):
    assert plan_run(Composer(), [f"data={name}"]).config.data.settings["folder"] == published_of(name).folder


# What is not brought --------------------------------------------------------------------------------------------------


def test_what_is_there_stays_as_it_is(tmp_path, root, away):
    publish_caltech(away, tmp_path)
    mine = photograph(root / CALTECH / "ant" / "mine.jpg", 1)
    before = files_below(root)
    text = brought("caltech101", away, root)
    assert "is there already, left as it is: 1 image in 1 class; without " in text
    assert "to import it again, move that folder away first" in text
    assert files_below(root) == before
    mine.unlink()
    mine.parent.rmdir()
    brought("caltech101", away, root)  # an empty folder is nothing that could be lost
    assert is_as_if_made(tmp_path, root)


def test_sets_that_differ_are_asked_about(root, away):
    write_classes(away / "one", {"cat": 3, "dog": 3})
    write_classes(away / "two", {"cat": 3, "dog": 4})
    with pytest.raises(UserError) as refused:
        brought("cats_dogs", away, root)
    assert f"{away}/one: 6 images in 2 classes; published are 25 000 in 2\n" in str(refused.value)
    assert f"{away}/two: 7 images in 2 classes; " in str(refused.value)
    assert files_below(root) == {}
    assert "6 images" in brought("cats_dogs", away / "one", root)


def test_where_there_is_none_it_is_said_what_was_looked_for(root, away):
    write_classes(away, {"cat": 3, "bird": 3})
    (away / "train.zip").write_bytes(b"<html>404</html>")
    with pytest.raises(UserError) as refused:
        brought("cats_dogs", away, root)
    assert f"{away} has no cats and dogs; nothing was copied:\n  looked for: folders 'cat', 'dog'" in str(refused.value)
    assert f"{away}/train.zip cannot be read: File is not a zip file" in str(refused.value)
    assert "the original is train.zip of https://www.kaggle.com" in str(refused.value)
    assert list(root.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(root, away):
    with pytest.raises(UserError, match="nowhere: there is no such folder or file"):
        brought("cats_dogs", away / "nowhere", root)
    assert not root.exists()


def test_links_in_a_folder_are_not_followed(tmp_path, root, away):
    secret = photograph(tmp_path / "secret.jpg", 1)
    write_classes(away / "pets", {"cat": 3, "dog": 3})
    (away / "pets" / "cat" / "link.jpg").symlink_to(secret)
    os.mkfifo(away / "pets" / "dog" / "pipe.jpg")
    brought("cats_dogs", away, root)
    assert len(files_below(root / "PetImages")) == 6


def test_a_full_disk_is_told_before_anything_is_copied(monkeypatch, root, away):
    write_classes(away / "pets", {"cat": 3, "dog": 3})
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 10}))
    with pytest.raises(UserError, match=r"kB are needed, and 10 B free; data\.root=FOLDER names another place"):
        brought("cats_dogs", away, root)
    assert list(root.iterdir()) == []


SLOWLY = """
import sys, time
from pathlib import Path
from cnnbench.data import published
write = published._write
def slowly(*what):
    write(*what)
    print("written", flush=True)
    time.sleep(0.3)
published._write = slowly
published.import_photographs(published.CATS_DOGS, Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_kill_leaves_no_half_set(root, away):
    write_classes(away / "pets", {"cat": 6, "dog": 6})
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(away), str(root)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not (root / "PetImages").exists()
    assert len(files_below(root)) > 0  # it was copying
    brought("cats_dogs", away, root)
    assert len(files_below(root / "PetImages")) == 12
