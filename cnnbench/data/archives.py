"""What is in a folder or an archive, file by file: where anything is written is never decided by a name in it."""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from cnnbench.errors import FULL, NotWrittenError, UserError, grouped, shortened, sized

TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar")
SUFFIXES = (*TAR_SUFFIXES, ".zip")
MAX_BYTES = 4 * 10**9  # of all files in an archive: several times the largest of the published sets
MAX_FILES = 200_000
UNREADABLE = (
    OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
    RuntimeError,  # of zipfile, for encrypted files and, as NotImplementedError, compression that it does not know
)  # fmt: skip
OTHERS = "unpack it yourself, and give the folder"


@dataclass(frozen=True)
class Member:
    """A file in a folder or an archive. path: within it. size: in bytes. open: only while members are iterated."""

    path: PurePosixPath
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def copy_out(source: IO[bytes], path: Path) -> None:
    """Write what an open file holds into a new one. Raises NotWrittenError where there is no room for it."""
    try:
        with path.open("xb") as target:
            shutil.copyfileobj(source, target)
    except OSError as error:
        if error.errno in FULL:
            raise NotWrittenError(path, error) from error
        raise


def is_archive(path: Path | PurePosixPath) -> bool:
    """Tell by its name whether a file is an archive that can be read."""
    return path.name.lower().endswith(SUFFIXES)


def members(place: Path) -> Iterator[Member]:
    """Yield the files of a folder, at any depth, or of an archive, without hidden ones and links of a folder.

    Raises UserError for an archive with links, devices or paths that lead out of it, and for one that unpacks to more
    than MAX_BYTES or MAX_FILES; one of UNREADABLE for a damaged archive.
    """
    if place.is_dir():
        yield from _in_folder(place)
        return
    total = 0
    entries = _in_tar(place) if place.name.lower().endswith(TAR_SUFFIXES) else _in_zip(place)
    for number, member in enumerate(entries, 1):
        total += member.size  # as declared: what is read of a file is never more
        if total > MAX_BYTES or number > MAX_FILES:
            limits = f"{sized(MAX_BYTES)} or {grouped(MAX_FILES)} files"
            raise UserError(f"{place}: unpacks to more than {limits}, and was not unpacked; {OTHERS}.")
        if not any(_is_hidden(part) for part in member.path.parts):
            yield member


def _in_folder(folder: Path) -> Iterator[Member]:
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for path in (Path(above, name) for name in sorted(names) if not _is_hidden(name)):
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                within = PurePosixPath(path.relative_to(folder).as_posix())
                yield Member(within, status.st_size, partial(_open, path))


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def _in_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            name = _checked(path, entry.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
            if not entry.is_dir():
                yield Member(name, entry.file_size, partial(archive.open, entry))


def _in_tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        for entry in archive:
            name = _checked(path, entry.name, entry.isfile() or entry.isdir())
            content = archive.extractfile(entry) if entry.isfile() else None
            if content is not None:
                yield Member(name, entry.size, partial(_as_it_is, content))


def _as_it_is(content: IO[bytes]) -> IO[bytes]:
    return content


def _checked(archive: Path, name: str, is_plain: bool) -> PurePosixPath:
    """Return a name in an archive as a path. Raises UserError for links, devices, and what leads out of the archive."""
    path = PurePosixPath(name.replace("\\", "/"))
    problem = "" if is_plain else "is a link or a device"
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        problem = "leads out of it"
    if problem:
        raise UserError(f"{archive}: {shortened(name)!r} {problem}; nothing was unpacked. If you trust it, {OTHERS}.")
    return path


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
