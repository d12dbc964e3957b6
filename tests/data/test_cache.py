"""The cache of decoded images: whole or not there, the same numbers with it and without."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from cnnbench.data import cache as caching
from cnnbench.data.cache import cache_dir, opened
from cnnbench.data.decode import decode
from cnnbench.data.images import Photographs
from cnnbench.data.photographs import _digest
from cnnbench.errors import TrainingError
from tests.support.photographs import photograph

NUM, SIDE = 12, 20


def photographs(folder: Path, **changes) -> Photographs:
    paths = tuple(sorted(folder.glob("*.png")))
    kept = {"fit": "crop", "cache": True, "skip": False} | changes
    return Photographs(paths, tuple(_digest(path) for path in paths), **kept)


@pytest.fixture
def folder(tmp_path) -> Path:
    for index in range(NUM):
        photograph(tmp_path / "photos" / f"{index:02}.png", index)
    return tmp_path / "photos"


def everything(given: Photographs, side: int = SIDE, channels: int = 3) -> torch.Tensor:
    stream, problems, _ = opened(given, side, channels)
    assert not problems
    return stream.make(stream.rows)


def slowly(given: Photographs, side: int = SIDE, channels: int = 3) -> torch.Tensor:
    return torch.stack([decode(path, side, channels, given.fit).permute(2, 0, 1) for path in given.paths])


def made() -> list[Path]:
    return sorted(path for path in cache_dir().glob("*") if path.is_dir())


def refuse(*_args):
    raise AssertionError("decoded again")


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_images_are_what_decoding_each_gives(folder, cache, channels, fit):
    given = photographs(folder, cache=cache, fit=fit)
    for _ in range(2):  # made, and found again
        assert torch.equal(everything(given, SIDE, channels), slowly(given, SIDE, channels))
    assert len(made()) == cache


def test_rows_come_in_the_order_in_which_they_are_asked_for(folder):
    for cache in (True, False):
        stream, *_ = opened(photographs(folder, cache=cache), SIDE, 3)
        some = stream[torch.tensor([7, 2, 2, 11])][torch.tensor([3, 0, 1])]
        assert torch.equal(some.make(some.rows), slowly(photographs(folder))[[11, 7, 2]])
        assert some.shape == (3, 3, SIDE, SIDE)


def test_what_was_decoded_once_is_not_decoded_again(folder, monkeypatch):
    before = everything(photographs(folder))
    monkeypatch.setattr(caching, "decode", refuse)
    assert torch.equal(everything(photographs(folder)), before)


def test_images_that_lie_elsewhere_are_found_by_their_content(folder, tmp_path, monkeypatch):
    everything(photographs(folder))
    moved = shutil.move(folder, tmp_path / "elsewhere")
    monkeypatch.setattr(caching, "decode", refuse)
    everything(photographs(moved))


def test_another_content_order_size_or_conversion_has_a_place_of_its_own(folder, monkeypatch):
    given = photographs(folder)
    everything(given)
    turned = given[torch.arange(NUM).flip(0)]
    for other, *sizes in (
        (given, 21, 3),
        (given, SIDE, 1),
        (photographs(folder, fit="stretch"), SIDE, 3),
        (turned, SIDE, 3),
    ):
        assert torch.equal(everything(other, *sizes), slowly(other, *sizes))
    photograph(folder / "03.png", 99)
    assert torch.equal(everything(photographs(folder)), slowly(photographs(folder)))
    assert len(made()) == 6
    monkeypatch.setattr(caching, "CONVERSION", caching.CONVERSION + 1)
    everything(given[torch.arange(3)])
    everything(photographs(folder))
    assert len(made()) == 8


def test_problems_are_kept_with_the_images(folder, monkeypatch):
    (folder / "05.png").write_bytes(b"")
    (folder / "07.png").write_text("text")
    first = opened(photographs(folder), SIDE, 3)[1]
    assert first == {5: "is empty", 7: "is no image of a known format (JPEG, PNG, BMP, GIF, WEBP, PPM)"}
    assert opened(photographs(folder, cache=False), SIDE, 3)[1] == first
    monkeypatch.setattr(caching, "decode", refuse)
    assert opened(photographs(folder), SIDE, 3)[1] == first


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("why", ["full", "not writable", "fills up"])
def test_where_nothing_can_be_kept_images_are_decoded_for_every_batch_and_a_note_says_so(folder, monkeypatch, why):
    if why == "full":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, NUM * SIDE * SIDE * 3))
    elif why == "not writable":
        cache_dir().parent.mkdir(exist_ok=True)
        cache_dir().write_text("a file where a folder should be")
    else:
        monkeypatch.setattr(os, "fsync", lambda _: refuse_space())
    stream, problems, notes = opened(photographs(folder), SIDE, 3)
    assert torch.equal(stream.make(stream.rows), slowly(photographs(folder)))
    assert not problems
    assert not made()
    assert len(notes) == 1
    assert notes[0].startswith("images are decoded for every batch, since ")
    assert str(cache_dir()) in notes[0]
    assert "CNNBENCH_CACHE=FOLDER names another place" in notes[0]


def refuse_space():
    raise OSError(28, "No space left on device")


def test_a_full_disk_does_not_matter_to_what_is_kept_already(folder, monkeypatch):
    before = everything(photographs(folder))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, 0))
    monkeypatch.setattr(caching, "decode", refuse)
    assert torch.equal(everything(photographs(folder)), before)


@pytest.mark.parametrize("damage", ["pixels cut", "no pixels", "no problems"])
def test_what_was_damaged_in_the_cache_is_made_again(folder, damage):
    before = everything(photographs(folder))
    (kept,) = made()
    if damage == "pixels cut":
        (kept / "pixels").write_bytes((kept / "pixels").read_bytes()[:-1])
    else:
        (kept / {"no pixels": "pixels", "no problems": "problems.json"}[damage]).unlink()
    assert torch.equal(everything(photographs(folder)), before)
    assert made() == [kept]


def test_a_file_that_is_lost_while_it_is_still_needed_is_one_clear_error(folder):
    stream, *_ = opened(photographs(folder, cache=False), SIDE, 3)
    (folder / "04.png").unlink()
    with pytest.raises(TrainingError, match=r"04\.png cannot be read: No such file or directory; it was whole when"):
        stream.make(torch.tensor([3, 4]))


# Several processes ----------------------------------------------------------------------------------------------------

PROGRAM = r"""
import sys, time, hashlib, json
from pathlib import Path
from cnnbench.data import cache as caching
from tests.data.test_cache import everything, photographs
plain, calls = caching.decode, []
def slow(path, *rest):
    calls.append(path.name)
    sys.stdout.write("decoding\n")  # at once, whatever other threads write
    sys.stdout.flush()
    time.sleep(float(sys.argv[2]))
    return plain(path, *rest)
caching.decode = slow
pixels = everything(photographs(Path(sys.argv[1])))
print(json.dumps([hashlib.sha256(pixels.contiguous().numpy().data).hexdigest(), len(calls)]))
"""


def begin(folder: Path, seconds: float) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    words = [sys.executable, "-c", PROGRAM, str(folder), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def end(process: subprocess.Popen[str]) -> list:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def test_of_two_processes_one_decodes_and_the_other_waits_for_it(folder):
    processes = [begin(folder, 0.1) for _ in range(2)]
    (one, calls), (other, calls_of_other) = (end(process) for process in processes)
    assert one == other
    assert sorted((calls, calls_of_other)) == [0, NUM]
    assert len(made()) == 1


def test_a_writer_that_is_killed_leaves_nothing_that_is_taken_for_whole(folder):
    process = begin(folder, 0.3)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(NUM // 2)]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "decoding\n" in said
    assert [path.suffix for path in made()] == [".tmp"]
    clock = time.monotonic()
    assert torch.equal(everything(photographs(folder)), slowly(photographs(folder)))
    assert time.monotonic() - clock < 30, "a dead process cannot hold a lock"
    assert [path.suffix for path in made()] == [""]


def test_the_cache_is_in_the_users_cache_folder_unless_said_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("CNNBENCH_CACHE", "~/decoded")
    assert cache_dir() == Path.home() / "decoded"
    monkeypatch.delenv("CNNBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "cnnbench" / "decoded"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "cnnbench" / "decoded"
