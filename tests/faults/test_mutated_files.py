"""Files that were changed at random: each reader returns valid values, or says in an error which file it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from cnnbench.errors import SettingError, UserError
from cnnbench.store import checkpoint
from cnnbench.store.files import AXES, CHECKSUM, NUMBERS, checksum, last_row, read_rows
from cnnbench.store.folder import RunFolder
from cnnbench.store.query import runs_below
from tests.data.test_lists import lines_of, listed, write_list
from tests.faults.test_edited_files import change
from tests.support.interruption import PLAIN, finished
from tests.support.photographs import write_classes

Counts = tuple[int, int]
Mutate = Callable[[bytes, Random], bytes]
MUTANTS = 300
TOKENS = (
    b"null", b"[", b"]", b"{", b"}", b'"', b",", b":", b"\n", b"NaN", b"1e999", b"-1", b"\0", b"\xff", b"true",
    b"9" * 5000, b"[" * 50_000, b"&a [*a]", b"!!python/object/apply:os.system [x]", b"${seed}", b"  ", b"\t",
    b"\xef\xbb\xbf", b"\r",
)  # fmt: skip
VALUES = (
    None, True, False, -1, 0, 10**30, 1e308, 0.5, "", "x", "../../x", "1", [], {}, [[1]], [None], {"a": 1}, ["x", 1],
)  # fmt: skip


def changed_text(content: bytes, draw: Random) -> bytes:
    """Return bytes with up to three changes: flipped, cut, left out, repeated, inserted."""
    for _ in range(draw.randint(1, 3)):
        one, other = sorted(draw.randint(0, len(content)) for _ in range(2))
        kind = draw.randrange(5)
        if kind == 0 and content:
            at = draw.randrange(len(content))
            content = content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
        elif kind == 1:
            content = content[:one]
        elif kind == 2:
            content = content[:one] + content[other:]
        elif kind == 3:
            content = content[:other] + content[one:]
        else:
            content = content[:one] + draw.choice(TOKENS) + content[one:]
    return content


def changed_values(values: Any, draw: Random) -> Any:
    """Return nested values in which one is of another type, missing, or under another name."""
    if isinstance(values, dict | list) and values and draw.random() < 0.9:
        keys = list(values) if isinstance(values, dict) else range(len(values))
        key = draw.choice(keys)
        changed = values.copy()
        kind = draw.randrange(6)
        if kind == 0:
            del changed[key]
        elif kind == 1 and isinstance(changed, dict):
            changed[draw.choice(("", "x", f"{key}x", "_target_"))] = changed.pop(key)
        else:
            changed[key] = changed_values(values[key], draw)
        return changed
    return draw.choice(VALUES)


def mutant_of_json(content: bytes, draw: Random) -> bytes:
    """Return a file that was changed as text, or is whole and holds other values, with the checksum of those."""
    if draw.random() < 0.4:
        return changed_text(content, draw)
    values = changed_values(json.loads(content), draw)
    if isinstance(values, dict) and CHECKSUM in values:
        values[CHECKSUM] = checksum(values)
    return json.dumps(values).encode()


def mutant_of_yaml(content: bytes, draw: Random) -> bytes:
    if draw.random() < 0.4:
        return changed_text(content, draw)
    return yaml.safe_dump(changed_values(yaml.safe_load(content), draw)).encode()


def mutant_of_rows(content: bytes, draw: Random) -> bytes:
    """Return rows that were changed as text, or of which some are mutants."""
    if draw.random() < 0.4:
        return changed_text(content, draw)
    lines = content.splitlines()
    for at in draw.sample(range(len(lines)), 5):
        lines[at] = draw.choice((lines[at], b"[" * 5_000, mutant_of_json(lines[at], draw)))
    return b"\n".join(lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return finished(PLAIN, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run(whole, outputs) -> Path:
    shutil.copytree(whole.parents[2], outputs)
    return outputs / whole.relative_to(whole.parents[2])


def read_all(path: Path, mutate: Mutate, reader: Callable[[], Any], named: str = "") -> Counts:
    """Read mutants of a file; return how many were read, and how many refused. named: what a refusal has to name."""
    content, read, refused = path.read_bytes(), 0, 0
    for number in range(MUTANTS):
        mutant, said = mutate(content, Random(number)), ""
        path.write_bytes(mutant)
        try:
            reader()
        except UserError as error:
            said = str(error)
        except Exception as error:
            error.add_note(f"mutant {number}: {mutant!r}")
            raise
        assert not said or (named or path.name) in said, (number, mutant)
        read, refused = read + (not said), refused + bool(said)
    path.write_bytes(content)
    return read, refused


def look_at(run: Path) -> None:
    """Read everything that a listing reads of a run; what is wrong with one is shown in its line."""
    for one in runs_below(run.parents[2]):
        assert all(isinstance(key, str) for key in one.values)
        assert isinstance(one.status + one.error, str)
        assert one.epochs_done >= 0 or one.problem


@pytest.mark.timeout(120)
@pytest.mark.parametrize("has_copy", [True, False], ids=["", "of before, without a second copy"])
def test_a_changed_configuration_is_read_or_refused_by_its_name(run, has_copy):
    if not has_copy:
        change(run / "run.json", config=None)
    folder = RunFolder(run)

    def read() -> None:
        look_at(run)
        folder.run_config()

    _, refused = read_all(run / "config.yaml", mutant_of_yaml, read)
    assert refused > MUTANTS / 3


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["run.json", "result.json", "split.json"])
def test_a_changed_record_is_read_or_refused_by_its_name(run, name):
    folder = RunFolder(run)

    def read() -> None:
        look_at(run)
        {"run.json": folder.record, "result.json": folder.result, "split.json": folder.split}[name]()

    was_read, refused = read_all(run / name, mutant_of_json, read)
    assert was_read > MUTANTS / 20
    assert refused > MUTANTS / 3


@pytest.mark.timeout(120)
def test_a_changed_manifest_is_read_or_refused_by_its_name(run):
    step = checkpoint.steps_in(run / "checkpoints")[-1]

    def read() -> None:
        said = checkpoint.manifest(run / "checkpoints", step)
        assert (said["step"], said["format"]) == (step, checkpoint.FORMAT)
        assert {type(said[key]) for key in ("bytes", "epoch")} == {int}

    was_read, refused = read_all(run / "checkpoints" / f"step-{step:09d}.json", mutant_of_json, read)
    assert was_read > MUTANTS / 20
    assert refused > MUTANTS / 3


@pytest.mark.timeout(120)
def test_of_changed_rows_those_that_are_rows_are_read(run):
    path = run / "metrics.jsonl"

    def read() -> None:
        rows = list(read_rows(path))
        last = last_row(path)
        assert (last in rows) if rows else last is None
        for row in rows:
            assert {type(row[axis]) for axis in AXES} == {str, int}
            assert all(type(value) in NUMBERS for key, value in row.items() if key not in AXES)
        look_at(run)

    assert read_all(path, mutant_of_rows, read) == (MUTANTS, 0)


@pytest.mark.timeout(120)
def test_a_changed_list_of_images_is_read_or_refused_by_its_folder(tmp_path):
    folder = write_classes(tmp_path / "listed", {"x": 6, "y": 6})
    write_list(folder, lines_of())

    def read() -> None:
        try:
            data = listed(folder)
        except SettingError as error:  # the list is valid, and has too few images
            raise UserError(f"{folder}: {error}") from error
        assert len(data.classes) >= 2
        assert set(data.train.labels.tolist()) == set(range(len(data.classes)))

    was_read, refused = read_all(folder / "list.csv", changed_text, read, str(folder))
    assert was_read > 0
    assert refused > MUTANTS / 3
