"""The cache of decoded images: complete or absent, with the same pixels as decoding again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cnnbench.data import cache as caching
from cnnbench.data.cache import decode_photographs
from cnnbench.data.decode import Unreadable, decode_whole
from cnnbench.data.images import Images
from cnnbench.data.packs import cache_dir
from cnnbench.data.statistics import channel_statistics
from cnnbench.errors import Stopped, TrainingError
from cnnbench.training.signals import StopRequests
from tests.support.decoded import NUM, SIDE, cache_folders, decode_all, load_all, photographs, write_photographs
from tests.support.photographs import photograph


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_photographs(tmp_path / "photos")


def refuse(*_args):
    raise AssertionError("decoded again")


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_images_are_those_that_decoding_gives(folder, cache, channels, fit):
    given = photographs(folder, cache=cache, fit=fit)
    for _ in range(2):  # written, then found
        assert torch.equal(load_all(given, SIDE, channels), decode_all(given, SIDE, channels))
    assert len(cache_folders()) == cache


def test_rows_come_in_the_order_requested(folder):
    for cache in (True, False):
        stream, *_ = decode_photographs(photographs(folder, cache=cache), SIDE, 3)
        some = stream[torch.tensor([7, 2, 2, 11])][torch.tensor([3, 0, 1])]
        assert torch.equal(some.load(some.rows), decode_all(photographs(folder))[[11, 7, 2]])
        assert some.shape == (3, 3, SIDE, SIDE)


def test_moved_images_are_found_by_their_content(folder, tmp_path, monkeypatch):
    load_all(photographs(folder))
    moved = shutil.move(folder, tmp_path / "elsewhere")
    monkeypatch.setattr(caching, "decode_whole", refuse)
    load_all(photographs(moved))


def test_another_size_channels_or_way_to_resize_is_another_folder(folder, monkeypatch):
    given = photographs(folder)
    load_all(given)
    for other, *sizes in ((given, 21, 3), (given, SIDE, 1), (photographs(folder, fit="stretch"), SIDE, 3)):
        assert torch.equal(load_all(other, *sizes), decode_all(other, *sizes))
    names = ["20-gray-shorter-v2", "20-rgb-both-v2", "20-rgb-shorter-v2", "21-rgb-shorter-v2"]
    assert [path.parent.name for path in cache_folders()] == names
    monkeypatch.setattr(caching, "CONVERSION", caching.CONVERSION + 1)
    load_all(given)
    assert [path.parent.name for path in cache_folders()] == sorted([*names, "20-rgb-shorter-v3"])


def count_decoded(monkeypatch) -> list:
    """Return a list that each file adds to that is decoded from now on."""
    decoded = []
    monkeypatch.setattr(caching, "decode_whole", lambda *words: decoded.append(1) or decode_whole(*words))
    return decoded


def test_subsets_orders_changed_sets_and_copies_share_what_was_decoded(folder, monkeypatch):
    decoded = count_decoded(monkeypatch)
    given = photographs(folder)
    for rows, expected in (
        ([3, 1], 2),  # a subset
        (range(NUM), NUM),  # all
        ([7, 2, 2, 11], NUM),  # in another order, with one of them twice
    ):
        some = given[torch.tensor(list(rows))]
        assert torch.equal(load_all(some), decode_all(some))
        assert len(decoded) == expected
    photograph(folder / "03.png", 99)
    photograph(folder / "zz.png", 100)
    shutil.copy(folder / "05.png", folder / "copy.png")
    assert torch.equal(load_all(photographs(folder)), decode_all(photographs(folder)))
    assert len(decoded) == NUM + 2
    assert torch.equal(load_all(photographs(folder, fit="whole")), decode_all(photographs(folder)))
    assert len(decoded) == NUM + 2


def test_problems_are_cached_with_the_images(folder, monkeypatch):
    (folder / "05.png").write_bytes(b"")
    (folder / "07.png").write_text("text")
    first = decode_photographs(photographs(folder), SIDE, 3)[1]
    assert first == {5: "is empty", 7: "is no image of a known format (JPEG, PNG, BMP, GIF, WEBP, PPM)"}
    assert decode_photographs(photographs(folder, cache=False), SIDE, 3)[1] == first
    monkeypatch.setattr(caching, "decode_whole", refuse)
    assert decode_photographs(photographs(folder), SIDE, 3)[1] == first


def test_a_file_that_is_replaced_while_it_is_needed_is_one_clear_error(folder):
    stream, *_ = decode_photographs(photographs(folder, cache=False), SIDE, 3)
    photograph(folder / "04.png", 99)
    assert torch.equal(stream.load(torch.tensor([3])), decode_all(photographs(folder))[3:4])
    with pytest.raises(TrainingError, match=r"04\.png has other content than when it was first read"):
        stream.load(torch.tensor([3, 4]))


def test_what_was_replaced_before_it_was_decoded_is_not_kept_as_what_it_was(folder):
    given = photographs(folder)
    before = (folder / "04.png").read_bytes()
    photograph(folder / "04.png", 99)
    assert decode_photographs(given, SIDE, 3)[1] == {4: "has other content than when it was first read"}
    (folder / "04.png").write_bytes(before)
    assert torch.equal(load_all(given), decode_all(given))


def test_what_could_not_be_read_is_tried_again(folder, monkeypatch):
    def fails(*_words):
        raise Unreadable("cannot be read: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(caching, "decode_whole", fails)
        assert len(decode_photographs(photographs(folder), SIDE, 3)[1]) == NUM
    load_all(photographs(folder))


@pytest.mark.parametrize("channels", [1, 3])
def test_means_are_exact_without_counting_again(folder, monkeypatch, channels):
    kept, *_ = decode_photographs(photographs(folder), SIDE, channels)
    decoded, *_ = decode_photographs(photographs(folder, cache=False), SIDE, channels)
    rows = torch.tensor([5, 0, 3, 3])
    expected = channel_statistics(Images(decoded[rows], torch.zeros(4, dtype=torch.int64)))
    monkeypatch.setattr(Images, "take", refuse)
    assert channel_statistics(Images(kept[rows], torch.zeros(4, dtype=torch.int64))) == expected


def test_a_file_that_vanishes_while_it_is_needed_is_one_clear_error(folder):
    stream, *_ = decode_photographs(photographs(folder, cache=False), SIDE, 3)
    (folder / "04.png").unlink()
    with pytest.raises(
        TrainingError, match=r"04\.png cannot be read: No such file or directory; it could be decoded when"
    ):
        stream.load(torch.tensor([3, 4]))


# Several processes ----------------------------------------------------------------------------------------------------

PROGRAM = r"""
import sys, time, hashlib, json
from pathlib import Path
from cnnbench.data import cache as caching
from tests.support.decoded import load_all, photographs
plain, calls = caching.decode_whole, []
def slow(file, *rest):
    calls.append(file.name)
    sys.stdout.write("decoding\n")  # at once, whatever other threads write
    sys.stdout.flush()
    time.sleep(float(sys.argv[2]))
    return plain(file, *rest)
caching.decode_whole = slow
pixels = load_all(photographs(Path(sys.argv[1])))
print(json.dumps([hashlib.sha256(pixels.contiguous().numpy().data).hexdigest(), len(calls)]))
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    words = [sys.executable, "-c", PROGRAM, str(folder), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> list:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out.splitlines()[-1])


def test_of_two_processes_one_decodes_and_the_other_waits(folder):
    processes = [start(folder, 0.1) for _ in range(2)]
    (one, calls), (other, calls_of_other) = (finish(process) for process in processes)
    assert one == other
    assert sorted((calls, calls_of_other)) == [0, NUM]
    assert len(cache_folders()) == 1


@pytest.mark.parametrize("cache", [True, False])
def test_a_signal_leaves_what_has_not_been_decoded_yet(folder, monkeypatch, cache):
    begun = []

    def decode_slowly(*words) -> torch.Tensor:
        begun.append(words)
        time.sleep(0.1)
        return decode_whole(*words)

    def interrupted(problems, *_args, **_settings):
        yield next(problems)
        os.kill(os.getpid(), signal.SIGTERM)  # while it is not waiting for a file
        yield from problems

    monkeypatch.setattr(caching, "decode_whole", decode_slowly)
    monkeypatch.setattr(caching, "tqdm", interrupted)
    given = photographs(folder, cache=cache)
    with pytest.raises(Stopped, match="SIGTERM"), StopRequests():
        decode_photographs(given, SIDE, 3)
    assert len(begun) < NUM
    assert not cache_folders()


def test_a_killed_writer_leaves_nothing_that_looks_complete(folder):
    process = start(folder, 0.3)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(NUM // 2)]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "decoding\n" in lines
    assert [path.suffix for path in cache_folders()] == [".tmp"]
    clock = time.monotonic()
    assert torch.equal(load_all(photographs(folder)), decode_all(photographs(folder)))
    assert time.monotonic() - clock < 30, "a dead process cannot hold a lock"
    assert [path.suffix for path in cache_folders()] == [""]


def test_the_cache_is_in_the_users_cache_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.setenv("CNNBENCH_CACHE", "~/decoded")
    assert cache_dir() == Path.home() / "decoded"
    monkeypatch.delenv("CNNBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "cnnbench" / "decoded"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "cnnbench" / "decoded"
