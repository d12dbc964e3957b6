"""Archives of photographs that are damaged or hostile: nothing is unpacked, and it is said why."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from cnnbench.data import archives
from cnnbench.data.archives import members
from cnnbench.errors import UserError
from tests.data.test_published import brought, publish_caltech, zipped
from tests.support.photographs import write_classes, write_pets


def entry(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, target
    return info


def tar_with(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in ("cat", "dog"):
            archive.addfile(entry(f"pets/{name}/1.jpg", size=3), io.BytesIO(b"abc"))
        for one in entries:
            archive.addfile(one, io.BytesIO(b"x" * one.size))
    return path


HOSTILE = {
    "a path upwards": (entry("../../cat/evil.jpg"), r"'\.\./\.\./cat/evil\.jpg' leads out of it"),
    "an absolute path": (entry("/tmp/cat/evil.jpg"), "leads out of it"),
    "a path of Windows": (entry("C:\\cat\\evil.jpg"), "leads out of it"),
    "a path upwards of Windows": (entry("..\\cat\\evil.jpg"), "leads out of it"),
    "a link": (entry("pets/cat/2.jpg", tarfile.SYMTYPE, target="/etc/passwd"), "is a link or a device"),
    "a hard link": (entry("pets/cat/2.jpg", tarfile.LNKTYPE, target="pets/cat/1.jpg"), "is a link or a device"),
    "a device": (entry("pets/cat/2.jpg", tarfile.CHRTYPE), "is a link or a device"),
    "a pipe": (entry("pets/cat/2.jpg", tarfile.FIFOTYPE), "is a link or a device"),
}


@pytest.mark.parametrize(("bad", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_an_archive_with_links_devices_or_paths_that_lead_out_is_refused(tmp_path, root, away, bad, problem):
    archive = tar_with(away / "cats_dogs.tgz", bad)
    with pytest.raises(UserError, match=f"cats_dogs.tgz: {problem}|{problem}; nothing was unpacked"):
        brought("cats_dogs", archive, root)
    assert list(root.iterdir()) == []
    assert not list(tmp_path.rglob("evil.jpg"))


@pytest.mark.parametrize("name", ["../cat/evil.jpg", "/cat/evil.jpg", "pets/cat/link.jpg"])
def test_a_zip_is_judged_alike(root, away, name):
    with zipfile.ZipFile(away / "train.zip", "w") as archive:
        for pet in ("cat", "dog"):
            archive.writestr(f"pets/{pet}/1.jpg", b"abc")
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK if "link" in name else stat.S_IFREG) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match=r"train\.zip: .*(leads out of it|is a link or a device); nothing was unpacked"):
        brought("cats_dogs", away, root)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("kind", ["tgz", "zip"])
def test_an_archive_that_unpacks_to_too_much_is_refused_with_the_limit(monkeypatch, root, away, kind):
    monkeypatch.setattr(archives, "MAX_BYTES", 5_000)
    if kind == "tgz":
        tar_with(away / "train.tgz", entry("pets/other.bin", size=5_000))
    else:
        with zipfile.ZipFile(away / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for pet in ("cat", "dog"):
                archive.writestr(f"pets/{pet}/1.jpg", bytes(3_000))
    with pytest.raises(
        UserError, match=r"unpacks to more than 5\.0 kB or 200 000 files, and was not unpacked; unpack it"
    ):
        brought("cats_dogs", away, root)
    assert list(root.iterdir()) == []


def test_a_refused_archive_does_not_stand_in_the_way_of_another(tmp_path, root, away):
    tar_with(away / "train.tgz", entry("../evil.jpg"))
    write_pets(tmp_path / "made")
    zipped(away / "train.zip", tmp_path / "made")
    assert "40 images" in brought("cats_dogs", away, root)


def test_too_many_files_are_refused(monkeypatch, away):
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(UserError, match="or 2 files"):
        list(members(tar_with(away / "train.tgz", entry("pets/cat/2.jpg"))))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_cut_archive_brings_nothing(tmp_path, root, away, share):
    archive = publish_caltech(away, tmp_path)
    inner = away / "101_ObjectCategories.tar.gz"
    with zipfile.ZipFile(archive) as whole:
        inner.write_bytes(whole.read("caltech-101/101_ObjectCategories.tar.gz"))
    archive.unlink()
    inner.write_bytes(inner.read_bytes()[: int(inner.stat().st_size * share)])
    with pytest.raises(UserError, match=r"101_ObjectCategories\.tar\.gz cannot be read"):
        brought("caltech101", away, root)
    assert list(root.iterdir()) == []


def test_an_encrypted_zip_is_one_clear_error(root, away):
    archive = zipped(away / "train.zip", write_classes(away / "pets", {"cat": 2, "dog": 2}))
    content = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + flags] |= 1
            place = content.find(signature, place + 4)
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"is encrypted, password required.*; nothing was brought to .*PetImages"):
        brought("cats_dogs", archive, root)
    assert list(root.iterdir()) == []
