"""Checkpoints: whole or not there, the newest whole one counts, and none of them can run anything."""

import errno
import hashlib
import json
import os
import pickletools
import zipfile
from pathlib import Path

import pytest
import torch

from cnnbench.errors import TrainingError, UserError
from cnnbench.store.checkpoint import load, load_newest, save, steps_in
from cnnbench.store.files import CHECKSUM, checksum, write_atomically
from tests.conftest import TINY, only_run
from tests.support.archives import Hostile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def content_of(step: int) -> dict:
    draws = torch.Generator().manual_seed(step)
    weights = {"layer.weight": torch.randn(300, 40, generator=draws), "norm.seen": torch.tensor(step)}
    return {
        "network": weights,
        "optimizer": {"state": {0: {"momentum": torch.randn(300, 40, generator=draws)}}, "param_groups": [{"lr": 0.1}]},
        "progress": {"step": step, "sums": [1.5, 2.0], "stopped_early": False, "to_beat": None},
        "best": {"epoch": 1, "metrics": {"loss": 0.25}, "weights": {"layer.weight": torch.zeros(300, 40)}},
    }  # fmt: skip


def save_steps(folder: Path, *steps: int, keep: int = 9) -> None:
    for step in steps:
        save(folder, step, content_of(step), {"epoch": 1}, keep)


def equal(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other and type(one) is type(other)


def no_warning(text: str) -> None:
    raise AssertionError(text)


# What is written ------------------------------------------------------------------------------------------------------


def test_what_is_loaded_and_saved_again_has_the_same_bytes(tmp_path):
    save_steps(tmp_path / "a", 5)
    loaded = load(tmp_path / "a", 5)
    assert equal(loaded, content_of(5))
    save(tmp_path / "b", 5, loaded, {"epoch": 1}, 1)
    for name in ("step-000000005.pt", "step-000000005.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_checkpoint_of_a_run_holds_tensors_and_plain_values_only(cnnbench, outputs):
    assert cnnbench(*TINY, "model=lenet_v2", "optimizer=adam").code == 0
    path = max((only_run(outputs) / "checkpoints").glob("*.pt"))
    assert torch.load(path, weights_only=True).keys() == {"identity", "network", "optimizer", "progress", "best"}
    with zipfile.ZipFile(path) as archive:
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    used = {argument for operation, argument, _ in pickletools.genops(pickled) if operation.name == "GLOBAL"}
    kinds = {f"torch {kind}Storage" for kind in ("Float", "Long", "Int", "Bool", "Double")}
    assert used <= {"torch._utils _rebuild_tensor_v2", "collections OrderedDict"} | kinds


def test_the_manifest_says_what_the_file_is(folder):
    best = {"epoch": 1, "step": 5}
    save(folder, 7, content_of(7), {"epoch": 2, "best": best | {"metrics": {"loss": float("nan")}}}, 1)
    manifest = json.loads((folder / "step-000000007.json").read_text(), parse_constant=no_warning)
    payload = (folder / "step-000000007.pt").read_bytes()
    assert manifest["step"] == 7
    assert manifest["bytes"] == len(payload)
    assert manifest["sha256"] == hashlib.sha256(payload).hexdigest()
    assert manifest["best"] == best | {"metrics": {"loss": None}}


@pytest.mark.parametrize(
    ("steps", "keep", "left"),
    [
        ([8, 9, 10, 11], 2, [10, 11]),
        ([999_999_998, 999_999_999, 1_000_000_000, 1_000_000_001], 2, [1_000_000_000, 1_000_000_001]),
        ([1, 2, 3], 9, [1, 2, 3]),
        ([3, 3, 3], 1, [3]),
    ],
    ids=["two", "numbers, not names", "fewer than that", "the same again"],
)
def test_the_newest_checkpoints_are_kept(folder, steps, keep, left):
    save_steps(folder, *steps, keep=keep)
    assert steps_in(folder) == left
    assert load_newest(folder, no_warning)["progress"]["step"] == left[-1]
    assert len(list(folder.iterdir())) == 2 * len(left)


def test_a_checkpoint_just_written_is_never_the_one_that_is_removed(folder):
    save_steps(folder, 8, 12, keep=2)
    (folder / "step-000000012.pt").write_bytes(b"damaged")
    assert load_newest(folder, lambda _: None)["progress"]["step"] == 8
    save_steps(folder, 9, keep=1)  # continued from 8, with checkpoint.keep=1
    assert load_newest(folder, lambda _: None)["progress"]["step"] == 9


# What is refused ------------------------------------------------------------------------------------------------------


def rewrite(path: Path, change) -> None:
    path.write_bytes(change(path.read_bytes()))


def sealed(content: bytes, **changes) -> bytes:
    values = json.loads(content) | changes
    return json.dumps(values | {CHECKSUM: checksum(values)}).encode()


def flip_a_bit(content: bytes) -> bytes:
    middle = len(content) // 2  # in the numbers of a tensor, where torch.load would not mind
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "emptied": (".pt", lambda content: b"", "does not match its checksum"),
    "cut in half": (".pt", lambda content: content[: len(content) // 2], "does not match its checksum"),
    "cut at 99 %": (".pt", lambda content: content[: len(content) * 99 // 100], "does not match its checksum"),
    "one bit flipped": (".pt", flip_a_bit, "does not match its checksum"),
    "longer": (".pt", lambda content: content + b"0", "does not match its checksum"),
    "manifest emptied": (".json", lambda content: b"", "cannot be read"),
    "manifest cut": (".json", lambda content: content[:50], "cannot be read"),
    "manifest a list": (".json", lambda content: b"[1, 2]", "is damaged: it holds no mapping"),
    "manifest with another number": (
        ".json", lambda content: content.replace(b'"epoch": 1', b'"epoch": 3'), "its checksum does not match",
    ),
    "manifest without a checksum": (".json", lambda content: b'{"format": 2}', "says nothing of 'step'"),
    "manifest of another format": (
        ".json", lambda content: sealed(content, format=9), "has format 9; .* reads format 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "change", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_checkpoint_is_warned_about_and_passed_over(folder, suffix, change, reason):
    save_steps(folder, 5, 10)
    rewrite(folder / f"step-000000010{suffix}", change)
    warnings: list[str] = []
    assert equal(load_newest(folder, warnings.append), content_of(5))
    assert len(warnings) == 1
    assert f"{folder}/step-000000010{suffix}" in warnings[0]
    with pytest.raises(UserError, match=reason):
        load(folder, 10)


def test_a_file_that_is_gone_is_warned_about_and_passed_over(folder):
    save_steps(folder, 5, 10)
    (folder / "step-000000010.pt").unlink()
    warnings: list[str] = []
    assert load_newest(folder, warnings.append)["progress"]["step"] == 5
    assert "step-000000010.pt cannot be read" in warnings[0]


def test_where_all_are_damaged_that_is_an_error_and_no_fresh_start(folder):
    save_steps(folder, 5, 10)
    for path in folder.glob("*.pt"):
        rewrite(path, flip_a_bit)
    with pytest.raises(UserError, match=r"no checkpoint is whole\. Type rerun=true to train again in a new folder"):
        load_newest(folder, lambda _: None)


def test_where_there_has_never_been_one_there_is_none(folder):
    assert load_newest(folder, no_warning) is None
    folder.mkdir()
    (folder / "step-000000003.pt").write_bytes(b"killed before its manifest was written")
    assert load_newest(folder, no_warning) is None


def test_a_file_without_a_manifest_was_never_finished_and_does_not_count(folder):
    save_steps(folder, 5)
    (folder / "step-000000010.pt").write_bytes((folder / "step-000000005.pt").read_bytes())
    assert load_newest(folder, no_warning)["progress"]["step"] == 5


def test_a_run_without_a_whole_checkpoint_is_not_trained_again_unasked(cnnbench, outputs):
    assert cnnbench(*TINY, "max_minutes=1e-6").code == 75
    run = only_run(outputs)
    for path in (run / "checkpoints").glob("*.pt"):
        rewrite(path, flip_a_bit)
    files = {path: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    outcome = cnnbench(*TINY)
    assert outcome.code == 2
    assert "no checkpoint is whole. Type rerun=true" in outcome.err
    assert {path: path.read_bytes() for path in (run / "checkpoints").iterdir()} == files
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_that_wants_to_run_something_is_refused_and_does_not(folder, zipped):
    save_steps(folder, 5)
    canary, path = folder.parent / "canary", folder / "step-000000005.pt"
    torch.save(content_of(5) | {"more": Hostile(canary)}, path, _use_new_zipfile_serialization=zipped)
    payload = path.read_bytes()
    said = {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
    rewrite(path.with_suffix(".json"), lambda content: sealed(content, **said))
    with pytest.raises(UserError, match=r"step-000000005\.pt"):
        load(folder, 5)
    assert not canary.exists()
    torch.load(path, weights_only=False)  # the canary would have sung
    assert canary.exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_saved(folder, bad):
    save_steps(folder, 5)
    content = content_of(6)
    content["network"]["layer.weight"][299, 39] = bad
    with pytest.raises(TrainingError, match="weights are not finite after step 6: the training diverged"):
        save(folder, 6, content, {}, 1)
    assert equal(load_newest(folder, no_warning), content_of(5))
    assert len(list(folder.iterdir())) == 2


# Disks that are full, processes that are killed -----------------------------------------------------------------------


def full_disk(monkeypatch, where: str, calls: int) -> None:
    """Let the call number `calls` of os.fsync or os.replace find no space."""
    real, count = getattr(os, where), [0]

    def fail(*arguments, **more):
        count[0] += 1
        if count[0] == calls:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **more)

    monkeypatch.setattr(os, where, fail)


# A save flushes the file, its folder, the manifest, and the folder again.
@pytest.mark.parametrize(
    ("where", "calls"), [("fsync", 1), ("fsync", 3), ("replace", 1), ("replace", 2)],
    ids=["file", "manifest", "renaming the file", "renaming the manifest"],
)  # fmt: skip
def test_a_full_disk_is_a_clear_error_and_costs_no_checkpoint(folder, monkeypatch, where, calls):
    save_steps(folder, 4, 5)
    full_disk(monkeypatch, where, calls)
    with pytest.raises(TrainingError, match=r"step-000000006\.(pt|json) cannot be written: No space left.* Make room"):
        save_steps(folder, 6, keep=1)
    assert steps_in(folder) == [4, 5]
    assert equal(load_newest(folder, no_warning), content_of(5))
    assert not list(folder.glob(".*"))
    save_steps(folder, 6, keep=1)
    assert steps_in(folder) == [6]


def test_a_run_on_a_full_disk_ends_with_a_clear_error_and_goes_on_when_there_is_space(cnnbench, outputs, monkeypatch):
    words = (*TINY, "checkpoint.every_seconds=0")
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "step-000000007.pt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    outcome = cnnbench(*words)
    assert outcome.code == 1
    assert "step-000000007.pt cannot be written" in outcome.err
    assert "No space left" in outcome.err
    run = only_run(outputs)
    assert steps_in(run / "checkpoints") == [5, 6]
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    monkeypatch.setattr(Path, "replace", replace)
    assert cnnbench(*words).code == 0
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "completed"
    assert record["sessions"][1]["step"] == 6
    assert "error" not in record, "the error of an earlier session is still recorded"


@pytest.mark.parametrize("there_before", [True, False])
def test_writing_that_is_broken_off_leaves_what_was_there(tmp_path, monkeypatch, there_before):
    path = tmp_path / "file"
    if there_before:
        path.write_text("before")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"after")
    assert [file.read_text() for file in tmp_path.iterdir() if file.is_file()] == ["before"] * there_before


def test_what_a_killed_process_left_half_written_is_removed_by_the_next(cnnbench, outputs):
    assert cnnbench(*TINY, "max_minutes=1e-6").code == 75
    run = only_run(outputs)
    scratch = [run / ".run.json.123.tmp", run / "checkpoints" / ".step-000000009.pt.123.tmp"]
    for path in scratch:
        path.write_bytes(b"half")
    assert cnnbench(*TINY).code == 0
    assert not any(path.exists() for path in scratch)
