"""Packs of decoded images on disk: whatever happens to them, no pixel changes, and a note or one error says so."""

import itertools
import json
import os
import shutil
import zlib
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from cnnbench.data import cache as caching
from cnnbench.data.cache import decode_photographs
from cnnbench.data.packs import cache_dir
from cnnbench.errors import TrainingError
from cnnbench.store.files import checksum
from tests.support.decoded import NUM, SIDE, cache_folders, decode_all, load_all, photographs, write_photographs
from tests.support.full_disks import full


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_photographs(tmp_path / "photos")


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("why", ["full", "not writable"])
def test_without_a_writable_cache_images_are_decoded_for_every_batch_and_a_note_says_so(folder, monkeypatch, why):
    if why == "full":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, NUM * SIDE * SIDE * 3))
    else:
        cache_dir().parent.mkdir(exist_ok=True)
        cache_dir().write_text("a file where a folder should be")
    stream, problems, notes = decode_photographs(photographs(folder), SIDE, 3)
    assert torch.equal(stream.load(stream.rows), decode_all(photographs(folder)))
    assert not problems
    assert not cache_folders()
    assert len(notes) == 1
    assert notes[0].startswith("images are decoded for every batch, since ")
    assert str(cache_dir()) in notes[0]
    assert "CNNBENCH_CACHE=FOLDER names another place" in notes[0]


def test_a_disk_that_is_full_from_any_call_on_costs_no_pixel_and_leaves_no_half_pack(folder, tmp_path, monkeypatch):
    expected = decode_all(photographs(folder))
    for first in itertools.count(1):
        monkeypatch.setenv("CNNBENCH_CACHE", str(tmp_path / f"cache{first}"))
        with full(cache_dir(), first) as calls:
            stream, problems, notes = decode_photographs(photographs(folder), SIDE, 3)
        assert torch.equal(stream.load(stream.rows), expected)
        assert not problems
        assert not [path for path in cache_folders() if path.suffix]
        assert torch.equal(load_all(photographs(folder)), expected), "with room again"
        if len(calls) < first:
            break
        assert len(notes) == 1
    assert first > 5


def test_a_full_disk_does_not_matter_to_a_complete_cache(folder, monkeypatch):
    before = load_all(photographs(folder))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    monkeypatch.setattr(caching, "decode_whole", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(load_all(photographs(folder)), before)


def test_a_pack_without_its_index_is_filled_again(folder):
    before = load_all(photographs(folder))
    (folder_of_cache,) = cache_folders()
    (folder_of_cache / "index.json").unlink()
    assert torch.equal(load_all(photographs(folder)), before)
    assert cache_folders() == [folder_of_cache]


def invert(pixels: Path, place: int) -> None:
    """Invert a byte of a pack, as nothing would notice by the size of the file."""
    content = bytearray(pixels.read_bytes())
    content[place] = 255 - content[place]
    pixels.write_bytes(content)


PIXELS, COUNTS = SIDE * 25 * 3, 3 * 256 * 4  # bytes of one image, resized from 30x24, and of its counts
DAMAGES = {
    "a pixel": (lambda pack: invert(pack / "pixels", 7 * (PIXELS + COUNTS)), "pixels: 1 image changed after being"),
    "a count": (lambda pack: invert(pack / "pixels", PIXELS), "pixels: 1 image changed after being written"),
    "pixels cut": (lambda pack: os.truncate(pack / "pixels", 9000), f"pixels: {NUM - 1} images changed after being"),
    "no pixels": (lambda pack: (pack / "pixels").unlink(), "pixels cannot be read: No such file"),
    "index cut": (lambda pack: os.truncate(pack / "index.json", 40), "index.json cannot be read"),
    "index emptied": (lambda pack: (pack / "index.json").write_text(""), "index.json cannot be read"),
    "index of another kind": (lambda pack: (pack / "index.json").write_text("[1]"), "it holds no mapping"),
    "index edited": (lambda pack: edit(pack / "index.json"), "its checksum does not match"),
    "index of other entries": (lambda pack: edit(pack / "index.json", sealed=True), "index.json is damaged"),
}


def edit(index: Path, sealed: bool = False) -> None:
    values = json.loads(index.read_text())
    changed = values | {"images": {digest: entry[1:] for digest, entry in values["images"].items()}}
    index.write_text(json.dumps(changed | ({"checksum": checksum(changed)} if sealed else {})))


@pytest.mark.parametrize(("damage", "why"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_never_used_but_decoded_again_with_a_note(folder, damage, why):
    before = load_all(photographs(folder))
    (folder_of_cache,) = cache_folders()
    damage(folder_of_cache)
    stream, problems, notes = decode_photographs(photographs(folder), SIDE, 3)
    assert torch.equal(stream.load(stream.rows), before)
    assert not problems
    (note,) = notes
    assert note.startswith("images were decoded again: ")
    assert why in note
    assert decode_photographs(photographs(folder), SIDE, 3)[2] == ()
    assert cache_folders() == [folder_of_cache]


def test_damage_in_a_cache_that_cannot_be_written_is_not_used_either(folder, monkeypatch):
    before = load_all(photographs(folder))
    (folder_of_cache,) = cache_folders()
    invert(folder_of_cache / "pixels", 7)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 0))
    stream, _, (note,) = decode_photographs(photographs(folder), SIDE, 3)
    assert torch.equal(stream.load(stream.rows), before)
    assert note.startswith("images are decoded for every batch, since ")


def test_a_file_is_checked_once_by_a_process_while_it_stays_the_same(folder, monkeypatch):
    load_all(photographs(folder))
    checks = []
    crc32 = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda *content: checks.append(content) or crc32(*content))
    load_all(photographs(folder))
    assert not checks
    (folder_of_cache,) = cache_folders()
    os.utime(folder_of_cache / "pixels")
    load_all(photographs(folder))
    assert len(checks) == NUM


def digests_in_order(index: dict) -> list[str]:
    return sorted(index["images"], key=lambda digest: index["images"][digest][0])


def test_a_file_that_is_cut_while_it_is_used_is_one_clear_error_and_kills_nothing(folder):
    stream, *_ = decode_photographs(photographs(folder), SIDE, 3)
    (folder_of_cache,) = cache_folders()
    index = json.loads((folder_of_cache / "index.json").read_text())
    first, last = (digests_in_order(index)[place] for place in (0, -1))
    rows = {digest: row for row, digest in enumerate(photographs(folder).digests)}
    os.truncate(folder_of_cache / "pixels", (NUM - 1) * (PIXELS + COUNTS) + 1)
    kept, lost = rows[first], rows[last]
    assert torch.equal(stream.load(torch.tensor([kept])), decode_all(photographs(folder))[[kept]])
    with pytest.raises(TrainingError, match=r"pixels was cut while it was in use; the same command again replaces it"):
        stream.load(torch.tensor([kept, lost]))
    assert torch.equal(load_all(photographs(folder)), decode_all(photographs(folder)))


def test_a_cache_that_is_removed_while_it_is_used_is_still_there_for_who_uses_it(folder):
    stream, *_ = decode_photographs(photographs(folder), SIDE, 3)
    shutil.rmtree(cache_dir())
    assert torch.equal(stream.load(stream.rows), decode_all(photographs(folder)))


def test_images_are_the_same_where_a_system_cannot_read_at_a_place(folder, monkeypatch):
    monkeypatch.delattr(os, "preadv")  # as on Windows
    assert torch.equal(load_all(photographs(folder)), decode_all(photographs(folder)))
