"""Files that outlast a kill: written whole or not at all, under another name first; rows that may be cut short."""

import hashlib
import json
import math
import os
import platform
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from cnnbench.errors import UserError, writing_to

AXES = ("row", "epoch", "step")
"""What every row of `metrics.jsonl` has."""
NUMBERS = int, float, type(None)
"""What the other values of a row are; None stands for what is not finite."""
TAIL = 65536  # bytes: more than the longest rows
PAUSES = (0.01, 0.1, 1.0) if os.name == "nt" else ()  # Windows replaces no file while somebody reads it
CHECKSUM = "checksum"
"""The entry of a file of plain values that holds the hash of all others."""


class DamagedError(UserError):
    """A file that is not there, cannot be read, or does not hold what was written: another copy may."""


def write_atomically(path: Path, content: bytes, outlasts_power: bool = True) -> None:
    """Write a file so that it holds either all of the new content or what was there before, even after a power cut.

    outlasts_power: without it, that takes a tenth of the time, and a power cut may leave an empty file. Raises
    NotWrittenError.
    """
    scratch = _scratch(path)
    with writing_to(path):
        try:
            with scratch.open("xb") as file:
                file.write(content)
                file.flush()
                if outlasts_power:
                    os.fsync(file.fileno())
            _replace(scratch, path)
            if outlasts_power:
                _flush_folder(path.parent)
        except BaseException:
            with suppress(OSError):  # the folder may be gone
                scratch.unlink(missing_ok=True)
            raise


def _replace(scratch: Path, path: Path) -> None:
    for pause in PAUSES:
        with suppress(PermissionError):
            scratch.replace(path)
            return
        time.sleep(pause)
    scratch.replace(path)


def _scratch(path: Path) -> Path:
    """Return the name under which this process writes a file first; two nodes may have processes of one number."""
    return path.with_name(f".{path.name}.{platform.node()[:32]}-{os.getpid()}.tmp")


def create_whole(path: Path, content: bytes) -> bool:
    """Create a file with its content, and tell whether it was this process that did; of several, it is one.

    Where a file system knows no links, a reader may see it empty for a moment. Raises NotWrittenError.
    """
    scratch = _scratch(path)
    with writing_to(path):
        try:
            scratch.write_bytes(content)
            try:
                os.link(scratch, path)
            except FileExistsError:
                return False
            except OSError:
                if path.exists():
                    return False
                with path.open("xb") as file:
                    file.write(content)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
    return True


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where they are missing. Raises NotWrittenError."""
    with writing_to(path):
        path.mkdir(parents=True, exist_ok=True)


def file_system_time(folder: Path) -> int:
    """Return the time in nanoseconds by the clock that a folder's files are dated by. Raises OSError."""
    with TemporaryFile(dir=folder, prefix=".clock-", suffix=".tmp") as file:
        return os.fstat(file.fileno()).st_mtime_ns


def check_writable(folder: Path) -> None:
    """Make a folder where it is missing, and a file in it for a moment. Raises NotWrittenError where that fails."""
    make_folder(folder)
    with writing_to(folder):
        file_system_time(folder)


class GrowingFile:
    """A file that is added to at once: nothing waits in memory that could not be written later, when it is closed.

    Every method raises NotWrittenError, but for `close`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with writing_to(path):
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self._close = weakref.finalize(self, os.close, self._handle)  # also where nobody does: a logger may fail

    def write(self, content: bytes) -> None:
        """Add to the file; of what cannot be written, a part may be."""
        with writing_to(self._path):
            while content:
                content = content[os.write(self._handle, content) :]

    def flush(self) -> None:
        """Put everything on disk."""
        with writing_to(self._path):
            os.fsync(self._handle)

    def close(self) -> None:
        """End writing."""
        with suppress(OSError):
            self._close()


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON, atomically; what is not finite becomes null."""
    write_atomically(path, json_bytes(values))


def json_bytes(values: Any) -> bytes:
    """Return plain values as a file of JSON holds them; what is not finite becomes null."""
    return (json.dumps(finite(values), indent=2, allow_nan=False) + "\n").encode()


def write_sealed(path: Path, values: Mapping[str, Any], long_lines: bool = False) -> None:
    """Write plain values as JSON, atomically, with a checksum of them. long_lines: each entry on a line of its own."""
    sealed = {**values, CHECKSUM: checksum(values)}
    if not long_lines:
        return write_json(path, sealed)
    lines = (f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in finite(sealed).items())
    return write_atomically(path, "\n".join(["{", ",\n".join(lines), "}\n"]).encode())


def checksum(values: Mapping[str, Any]) -> str:
    """Return the hash of plain values as JSON, whatever its layout; an entry that is one counts as absent."""
    plain = as_json({key: value for key, value in values.items() if key != CHECKSUM})
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def as_json(values: Any) -> Any:
    """Return plain values as they are read again after they were written as JSON: lists for tuples, text for keys."""
    return json.loads(json.dumps(finite(values), default=str))


def finite(values: Any) -> Any:
    """Return plain values with None in place of NaN and infinities, which JSON does not know."""
    if isinstance(values, dict):
        return {key: finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


class RowCount:
    """How many rows there are, and a hash of them in their order: what a checkpoint and a result say of them."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._count, self._hash = 0, hashlib.sha256()
        for row in rows:
            self.add(row_line(row))

    def add(self, line: str) -> None:
        """Count the line of a row."""
        self._count += 1
        self._hash.update(line.encode())

    def recorded(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"count": self._count, "sha256": self._hash.hexdigest()}

    def loss(self, expected: Mapping[str, Any] | None) -> str:
        """Say what is lost of the rows that were written; nothing where nothing is.

        expected: what was recorded of them; None: by a version that did not.
        """
        if expected is None or self.recorded() == expected:
            return ""
        missing = expected["count"] - self._count
        if missing > 0:
            return f"metrics.jsonl: {missing} of {expected['count']} rows are lost"
        return "metrics.jsonl: its rows are not those that were written"


def row_line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of a metrics file."""
    try:
        return json.dumps(row, allow_nan=False) + "\n"
    except ValueError:
        return json.dumps(finite(dict(row))) + "\n"


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metrics file; a last line that was cut short by a kill, and what is none, is passed over."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from filter(None, map(_row, file))


def last_row(path: Path) -> dict[str, Any] | None:
    """Return the last row of a metrics file, without reading what comes before; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next(filter(None, map(_row, reversed(lines))), None)


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("row") not in ("step", "epoch", "val"):
        return None
    is_placed = all(type(row.get(axis)) is int for axis in ("epoch", "step"))
    return row if is_placed and all(type(row[key]) in NUMBERS for key in row if key not in AXES) else None


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half written, in a folder and in those below it."""
    for scratch in folder.rglob(".*.tmp"):  # which follows no links
        scratch.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
