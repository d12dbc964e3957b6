"""A disk that is full, read-only or gone, in every file: one sentence, nothing half done, and later the same bits."""

import errno
import hashlib
import os
import shutil
from itertools import count
from pathlib import Path

import pytest

from cnnbench.cli.data import bring_files
from cnnbench.data.mnist import MNIST
from cnnbench.errors import ExitCode, NotWrittenError, TrainingError, UserError
from cnnbench.store.files import GrowingFile, write_atomically
from cnnbench.store.folder import RunFolder
from cnnbench.training.trainer import Trainer, carry_out
from tests.conftest import latest, only_run
from tests.faults.test_edited_files import change
from tests.support.archives import idx, write_idx_set
from tests.support.full_disks import full, small_disk
from tests.support.interruption import PLAIN, WORDS, assert_same, fingerprints, finished, go, read
from tests.support.photographs import write_caltech
from tests.support.training import SMALL, plan_of

pytestmark = pytest.mark.usefixtures("undrawn")

SAVING = (*WORDS, "checkpoint.every_seconds=0", "checkpoint.keep=1")
SENTENCE = r"cannot be (written|created): No space left on device"


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".import-")]


# In a training, at each call to the system ----------------------------------------------------------------------------


def fails_and_goes_on(outputs: Path, unbroken: dict, first: int, last: int | None = None) -> None:
    """Let what a training writes fail from a call on, or until another; then go on with it, with space again."""
    with full(outputs, first, last) as made:
        try:
            assert go(*SAVING) == ExitCode.FINISHED
            failed = None
        except (TrainingError, UserError) as error:
            failed = error
    assert made[-1] >= first, "a run makes fewer calls than that"
    assert leftovers(outputs) == []
    record = read(only_run(outputs) / "run.json") if list(outputs.glob("*/*/*/run.json")) else {}
    if failed is None:
        assert record["status"] == "completed"
    else:
        assert "No space left on device" in str(failed)
        is_whole = bool(list(outputs.glob("*/*/*/result.json")))  # only the last call failed, which puts that on disk
        assert record.get("status") in (None, "running", "failed", *["completed"] * is_whole)
    assert go(*SAVING) == ExitCode.FINISHED
    run = only_run(outputs)
    measured = read(run / "result.json")["test_measured"]
    assert measured in (1, 2)  # the result may not have been written
    assert_same(run, unbroken | {"result": unbroken["result"] | {"test_measured": measured}})


@pytest.mark.usefixtures("one_second_a_session")
@pytest.mark.parametrize("first", [1, 8, 40])
def test_a_disk_that_is_full_from_a_call_on_costs_no_bit(outputs, unbroken, first):
    fails_and_goes_on(outputs, unbroken, first)


@pytest.fixture(scope="module")
def number_of_calls(tmp_path_factory) -> int:
    """Return how many calls to the system an undisturbed run makes."""
    folder = tmp_path_factory.mktemp("counted")
    with full(folder, 10**9) as made:
        finished(SAVING, folder)
    return len(made)


@pytest.mark.faults
@pytest.mark.usefixtures("one_second_a_session")
@pytest.mark.parametrize("lasting", [True, False], ids=["from then on", "once"])
@pytest.mark.parametrize("first", range(1, 300))
def test_a_disk_that_is_full_at_any_call_costs_no_bit(outputs, unbroken, number_of_calls, first, lasting):
    if first > number_of_calls:
        pytest.skip("a run makes fewer calls than that")
    fails_and_goes_on(outputs, unbroken, first, None if lasting else first)


@pytest.mark.usefixtures("one_second_a_session")
@pytest.mark.parametrize("call", [2, 5, 9])
def test_events_without_room_end_the_training_so_that_none_is_missing_later(outputs, unbroken, monkeypatch, call):
    write, calls = GrowingFile.write, count(1)

    def fail(self: GrowingFile, content: bytes) -> None:
        if "tfevents" in self._path.name and next(calls) == call:
            raise NotWrittenError(self._path, OSError(errno.ENOSPC, "No space left on device"))
        write(self, content)

    monkeypatch.setattr(GrowingFile, "write", fail)
    with pytest.raises(TrainingError, match=r"tfevents\..* cannot be written: No space left on device"):
        go(*SAVING)
    assert go(*SAVING) == ExitCode.FINISHED
    assert_same(only_run(outputs), unbroken)


# In real life ---------------------------------------------------------------------------------------------------------


def test_a_process_whose_files_may_not_grow_says_one_sentence_and_goes_on_later(forked, outputs):
    words = latest((*PLAIN, "checkpoint.every_seconds=0", "model=mlp", "model.units=[256]"))
    first = "os.dup2(os.open(os.devnull, os.O_WRONLY), 1); import resource; "
    limited = forked(words, first=f"{first} resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))")
    assert limited.ended() == ExitCode.FAILED
    assert limited.said().count("\n") == 2
    assert "checkpoints/step-000000001.pt cannot be written: File too large. Make room there, and" in limited.said()
    assert limited.said().endswith("There is no checkpoint yet.\n")
    run = only_run(outputs)
    assert read(run / "run.json")["status"] == "failed"
    assert leftovers(outputs) == []
    assert go(*words) == ExitCode.FINISHED


def test_a_small_disk_that_fills_up_keeps_the_last_checkpoint(cnnbench, outputs, tmp_path):
    words = (*PLAIN, "checkpoint.every_seconds=0", "checkpoint.keep=1")
    assert go(*words) == ExitCode.FINISHED
    one_run = sum(path.stat().st_size for path in outputs.rglob("*"))
    shutil.rmtree(outputs)
    with small_disk(outputs, kilobytes=one_run // 1000) as remount:
        done = cnnbench(*words)
        assert done.code == ExitCode.FAILED
        assert done.err.count("\n") == 2
        assert "cannot be written: No space left on device. Make room there, and type the same command" in done.err
        assert "The last checkpoint, of step " in done.err
        run = only_run(outputs)
        assert read(run / "run.json")["status"] in ("running", "failed")
        assert not (run / "result.json").exists()
        assert leftovers(outputs) == []
        remount("size=50m")
        assert cnnbench(*words).code == ExitCode.FINISHED
        assert read(run / "run.json")["sessions"][1]["step"] > 0


def test_a_read_only_disk_is_said_at_the_start_and_can_still_be_looked_at(cnnbench, command_of, outputs):
    with small_disk(outputs, kilobytes=9000) as remount:
        assert cnnbench(*PLAIN, "epochs=1").code == ExitCode.FINISHED
        run = only_run(outputs)
        shutil.copytree(run, run.with_name("killed"))
        change(run.with_name("killed") / "run.json", status="running")
        remount("ro")
        before = fingerprints(outputs)
        swept = cnnbench("-m", *PLAIN, "epochs=1", "seed=0,1")
        assert (swept.code, "[1/2]" in swept.out) == (ExitCode.MISTAKE, False)
        assert "nothing was started.\n" in swept.err
        assert "sweeps cannot be written: Read-only file system. Make sure that it can be written" in swept.err
        begun = cnnbench(*PLAIN, "epochs=1", "seed=1")
        assert begun.code == ExitCode.MISTAKE
        assert "cannot be created: Read-only file system; CNNBENCH_OUTPUTS=FOLDER names another" in begun.err
        shown = cnnbench(*PLAIN, "epochs=1")
        assert (shown.code, shown.err) == (ExitCode.FINISHED, "")
        assert "stopped" in command_of("list").out
        evaluated = command_of("evaluate", str(run))
        assert (evaluated.code, evaluated.err.count("\n")) == (ExitCode.MISTAKE, 1)
        assert "cannot be written: Read-only file system; --out FOLDER names another place" in evaluated.err
        assert fingerprints(outputs) == before


# Folders that vanish, and what cannot be recorded ---------------------------------------------------------------------


def test_a_folder_that_vanishes_while_training_is_said_and_not_made_again(outputs, monkeypatch):
    on_epoch = Trainer.on_epoch

    def remove(self: Trainer, *arguments) -> None:
        on_epoch(self, *arguments)
        shutil.rmtree(self.folder.path, ignore_errors=True)

    monkeypatch.setattr(Trainer, "on_epoch", remove)
    with pytest.raises(TrainingError, match=r"cannot be written: No such file or directory\. Make sure that"):
        carry_out(plan_of(*PLAIN))
    assert not list(outputs.rglob("*.json"))


def test_a_mistake_is_not_hidden_by_a_disk_that_is_full_when_it_is_recorded(outputs, monkeypatch):
    monkeypatch.setattr(Trainer, "on_epoch", lambda *_: 1 / 0)
    update = RunFolder.update

    def fail(self: RunFolder, **changes):
        if changes.get("status") == "failed":
            raise NotWrittenError(self.record_file, OSError(errno.ENOSPC, "No space left on device"))
        return update(self, **changes)

    monkeypatch.setattr(RunFolder, "update", fail)
    with pytest.raises(ZeroDivisionError):
        carry_out(plan_of(*PLAIN))
    assert read(only_run(outputs) / "run.json")["status"] == "running"


# Data sets that are brought -------------------------------------------------------------------------------------------


def bring_digits(folder: Path) -> str:
    arrays = write_idx_set(folder / "original")
    for name, array in arrays.items():
        MNIST.files[name] = hashlib.md5(idx(array)).hexdigest()
    return "mnist"


def bring_photographs(folder: Path) -> str:
    write_caltech(folder / "original")
    return "caltech101"


@pytest.mark.parametrize("write", [bring_digits, bring_photographs])
def test_data_without_room_are_brought_later(tmp_path, monkeypatch, write):
    for name, md5 in dict(MNIST.files).items():
        monkeypatch.setitem(MNIST.files, name, md5)  # as it was, afterwards
    name = write(tmp_path)
    with full(tmp_path / "counted", 10**9) as made:
        bring_files(name, tmp_path / "original", tmp_path / "counted", verify=True)
    for first in range(1, len(made) + 1):
        root = tmp_path / f"data{first}"
        with full(root, first), pytest.raises(UserError) as refused:
            bring_files(name, tmp_path / "original", root, verify=True)
        said = f"{root} cannot be written: No space left on device; data.root=FOLDER names another place."
        assert str(refused.value) == said
        assert leftovers(root) == []
        bring_files(name, tmp_path / "original", root, verify=True)
        assert fingerprints(root) == fingerprints(tmp_path / "counted")


# Primitives -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_error_of_writing_names_the_file_and_leaves_what_was_there(tmp_path, number, call):
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_text("before")
    with full(path.parent, call, number=number), pytest.raises(NotWrittenError) as raised:
        write_atomically(path, b"after")
    assert str(raised.value).startswith(f"{path} cannot be written: {os.strerror(number)}. Make ")
    assert [file.read_text() for file in path.parent.iterdir()] == ["before"]


def test_a_file_that_is_read_meanwhile_is_replaced_a_moment_later_where_a_system_needs_that(tmp_path, monkeypatch):
    replace, calls = Path.replace, count(1)

    def refuse_twice(self: Path, target: Path) -> Path:
        if next(calls) <= 2:
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(self, target)

    monkeypatch.setattr("cnnbench.store.files.PAUSES", (0.0, 0.0))
    monkeypatch.setattr(Path, "replace", refuse_twice)
    write_atomically(tmp_path / "file", b"after")
    assert [file.read_text() for file in tmp_path.glob("*file*")] == ["after"]


def test_a_growing_file_is_not_written_again_when_it_is_closed(tmp_path, monkeypatch):
    file = GrowingFile(tmp_path / "rows")
    file.write(b"first\n")
    with full(tmp_path, 1), pytest.raises(NotWrittenError):
        file.write(b"second\n")
    file.close()
    assert (tmp_path / "rows").read_bytes() == b"first\n"
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, content[:2]))  # as a nearly full disk does
    GrowingFile(tmp_path / "rows").write(b"second\n")
    assert (tmp_path / "rows").read_bytes() == b"first\nsecond\n"


# Other commands -------------------------------------------------------------------------------------------------------

COMMANDS = {
    "evaluate": "evaluate {run}",
    "evaluate val": "evaluate {run} --split val --out {out}/new",
    "explain": "explain {run} --what kernels",
    "report": "report {run}",
    "export": "export {run} --format safetensors",
    "predict": "predict {run} --index 0 --picture {out}/picture.png",
    "label": "resume={run} notes=hello",
    "dry run": f"{' '.join(SMALL)} dry_run=true",
    "lr_find": f"{' '.join(SMALL)} model=mlp lr_find=true",
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_every_command_that_writes_says_one_sentence_and_leaves_nothing(command_of, run, tmp_path, words, number):
    out = tmp_path / "out"
    out.mkdir()
    before = fingerprints(tmp_path)
    verb, *rest = words.format(run=run, out=out).split()
    is_verb = verb in ("evaluate", "explain", "report", "export", "predict")
    with full(tmp_path, 1, number=number) as made:
        done = command_of(verb, *rest) if is_verb else command_of("", verb, *rest)
    assert made
    assert done.code in (ExitCode.FAILED, ExitCode.MISTAKE), done.err
    assert done.err.count("\n") == 1, done.err
    assert f"cannot be written: {os.strerror(number)}" in done.err
    assert "Traceback" not in done.err
    assert fingerprints(tmp_path) == before


def test_an_export_without_room_for_its_description_is_not_kept(command_of, run):
    with full(run, 10**9) as made:
        assert command_of("export", str(run), "--format", "safetensors").code == ExitCode.FINISHED
    shutil.rmtree(run / "export")
    for first in range(1, len(made) + 1):
        with full(run, first):
            done = command_of("export", str(run), "--format", "safetensors")
        assert (done.code, done.err.count("\n")) == (ExitCode.MISTAKE, 1)
        assert len(list((run / "export").glob("*"))) in (0, 2), first


def test_a_sweep_whose_folder_has_no_room_starts_nothing(cnnbench, outputs, monkeypatch):
    def fail(*_):
        raise NotWrittenError(outputs / "sweeps" / "sweep.json", OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr("cnnbench.sweeps.folder.create_whole", fail)
    done = cnnbench("-m", *PLAIN, "epochs=1", "seed=0,1")
    assert done.code == ExitCode.MISTAKE
    assert "nothing was started.\n" in done.err
    assert "sweep.json cannot be written: No space left on device" in done.err
    assert list(outputs.glob("*/*/*/run.json")) == []
