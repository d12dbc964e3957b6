"""The files of downloadable data sets: where they are, whether they are the originals, and how they get there."""

import errno
import gzip
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import GzipFile
from io import BufferedReader
from pathlib import Path
from typing import IO

from cnnbench.data.archives import TAR_SUFFIXES, copy_out
from cnnbench.errors import NotWrittenError, UserError, writing_to
from cnnbench.registry import DATASETS

UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)
GZIP = b"\x1f\x8b"  # how packed files begin


def data_root(root: str | None) -> Path:
    """Return the folder of all data sets: the one given, else $CNNBENCH_DATA, else one in the user's cache folder."""
    given = root or os.environ.get("CNNBENCH_DATA")
    return Path(given).expanduser().resolve() if given else user_cache_dir() / "data"


def user_cache_dir() -> Path:
    """Return the folder for files of this program that can be fetched or computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "cnnbench"


@dataclass(frozen=True)
class Source:
    """The files that a data set needs, and the archives that contain them.

    folder: below the root, in torchvision's layout. files: name -> md5 of the content, unpacked.
    archives: URL -> md5 of the archive. begin: how every file begins, where that is known: files are then looked for by
    their content too.
    """

    title: str
    folder: str
    files: dict[str, str]
    archives: dict[str, str]
    begin: bytes = b""

    def missing(self, root: Path) -> list[str]:
        """Return the names of the files that are not there, neither as they are nor as .gz."""
        folder = root / self.folder
        return [name for name in self.files if not any((folder / f"{name}{end}").is_file() for end in ("", ".gz"))]


def source_of(name: str) -> Source | None:
    """Return the files that a data set is read from, or None where it needs none."""
    source = DATASETS[name].facts.get("source")
    assert source is None or isinstance(source, Source)
    return source


def _name_of(source: Source) -> str:
    return next(name for name in DATASETS if DATASETS[name].facts.get("source") is source)


def read_verified(source: Source, root: Path, verify: bool) -> dict[str, bytes]:
    """Return the content of a data set's files by name, unpacked where they are stored as .gz.

    Missing files are downloaded; existing ones are never touched. verify: a file whose md5 is not the original's is an
    error. Raises UserError that says which file is expected where.
    """
    if source.missing(root):
        _download(source, root)
    contents = {}
    for name, md5 in source.files.items():
        path = root / source.folder / name
        packed = path.with_name(f"{name}.gz")
        try:
            contents[name] = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        except UNREADABLE as error:
            raise UserError(f"{packed if packed.is_file() else path} cannot be read: {error}") from error
        if verify and _md5(contents[name]) != md5:
            raise UserError(
                f"{path} is not the original file of {source.title} (its md5 is not {md5}): it is damaged, or another "
                f"data set's. Remove it to have it downloaded again, or set data.verify=false to use it as it is."
            )
    return contents


def altered_files(source: Source, root: Path) -> list[str]:
    """Return the names of a data set's files whose content is not the original's. They must be there."""
    contents = read_verified(source, root, verify=False)
    return [name for name, md5 in source.files.items() if _md5(contents[name]) != md5]


def _md5(content: bytes) -> str:  # tells originals from damaged copies, not from forgeries
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _download(source: Source, root: Path) -> None:
    """Download to a scratch folder first: what is in place is complete, whenever the process is killed."""
    # Imported here: torchvision takes as long to import as a short training takes to run.
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    folder = root / source.folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as scratch:
            downloaded = Path(scratch) / source.folder
            for url, md5 in source.archives.items():
                name = url.rpartition("/")[2]
                if name.endswith(".tar.gz"):
                    download_and_extract_archive(url, scratch, filename=name, md5=md5)
                else:
                    download_url(url, str(downloaded), filename=name, md5=md5)
            _move_new((path for path in downloaded.iterdir() if path.is_file()), folder)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{source.title} is not in {folder}, and could not be downloaded ({error}).\n"
            f"  missing there: {', '.join(source.missing(root))} (also as .gz)\n"
            f"  to download by hand: {' '.join(source.archives)}\n"
            f"  then: cnnbench data prepare {_name_of(source)} --from FOLDER\n"
            f"  another folder: data.root=FOLDER, or the environment variable CNNBENCH_DATA"
        ) from error


def _move_new(files: Iterable[Path], folder: Path) -> None:
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file in list(files):
            target = folder / file.name
            if target.exists():
                continue
            try:
                file.rename(target)
            except OSError as error:
                if error.errno != errno.EXDEV:  # that folder is a link to another disk
                    raise
                shutil.move(file, target)


@dataclass(frozen=True)
class _Copy:
    """A copy of a file in the scratch folder. origin: where its content was found."""

    path: Path
    origin: str
    md5: str


def import_files(source: Source, origin: Path, root: Path, verify: bool = True) -> list[str]:
    """Copy the missing files of a data set from a folder or a single file, and return a line per file on what was done.

    Searched is everything below `origin`: the files as they are, as .gz, in the original's archive, and under other
    names where they are known by their content. Existing files are never touched. verify: only files with the
    original's md5 are taken; else, where several differ, the original, or the one in a folder of the data set's name.
    Raises UserError that says which files were not found, or are not the originals; then nothing has been copied.
    """
    if not origin.exists():
        raise UserError(f"{origin}: there is no such folder or file.")
    missing = source.missing(root)
    lines = [f"{name}: is there already, left as it is" for name in source.files if name not in missing]
    if not missing:
        return lines
    paths = [Path(folder, name) for folder, _, names in os.walk(origin) for name in names] or [origin]
    with scratch_folder(root) as scratch:
        copies, unreadable = _copy_matches(source, missing, sorted(paths), scratch)
        selected = _select_copies(source, missing, copies, unreadable, verify)
        with writing_to(scratch):
            named = [copy.path.rename(copy.path.with_name(name)) for name, copy in selected.items()]
        _move_new(named, root / source.folder)
    for name, copy in selected.items():
        remark = "" if copy.md5 == source.files[name] else "; not the original: data.verify=false takes it"
        lines.append(f"{name}: copied from {copy.origin}{remark}")
    return lines


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Yield a new folder below that of all data sets, and remove it afterwards: what is copied is moved from there.

    Raises UserError where one of them cannot be written.
    """
    try:
        with writing_to(root):
            root.mkdir(parents=True, exist_ok=True)
            scratch = tempfile.TemporaryDirectory(prefix=".import-", dir=root)
        with scratch as folder:
            yield Path(folder)
    except NotWrittenError as error:
        raise UserError(f"{root} cannot be written: {error.strerror}; data.root=FOLDER names another place.") from error


def _copy_matches(
    source: Source, names: Collection[str], paths: Iterable[Path], scratch: Path
) -> tuple[defaultdict[str, list[_Copy]], list[str]]:
    """Copy every file of these names to the scratch folder; return the copies by name, and what could not be read."""
    stems = tuple(url.rpartition("/")[2].partition(".tar")[0] for url in source.archives)
    copies: defaultdict[str, list[_Copy]] = defaultdict(list)
    unreadable = []
    for path in paths:
        try:
            for name, origin, stream in _matches(path, source, names, stems):
                target = scratch / f"{name}.{len(copies[name])}"
                copy_out(stream, target)
                with target.open("rb") as file:
                    md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
                copies[name].append(_Copy(target, origin, md5))
        except NotWrittenError:
            raise
        except UNREADABLE as error:
            unreadable.append(f"{path} cannot be read: {error}")
    return copies, unreadable


def _matches(
    path: Path, source: Source, names: Collection[str], stems: tuple[str, ...]
) -> Iterator[tuple[str, str, IO[bytes]]]:
    """Yield name, origin and content of what a file is or contains. stems: of the names of the original archives."""
    name = next((name for name in names if path.name in (name, f"{name}.gz")), "")
    if path.name.endswith(TAR_SUFFIXES) and path.name.startswith(stems):
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                content = archive.extractfile(member) if name in names else None
                if content is not None:
                    yield name, f"{path}/{member.name}", content
    elif name or (source.begin and path.is_file()):
        try:
            name = name or _name_by_content(path, source, names)
        except UNREADABLE:  # something else
            return
        if name:
            with _unpacked(path, source.begin) as stream:
                yield name, str(path), stream  # type: ignore[misc]


def _name_by_content(path: Path, source: Source, names: Collection[str]) -> str:
    """Return the name of the original that a file of another name is, or is meant to be; empty: of none."""
    with _unpacked(path, source.begin) as stream:
        if stream.read(len(source.begin)) != source.begin:
            return ""
        stream.seek(0)
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    alike = (name for name in names if _letters(path.name).startswith(_letters(name)))
    return next((name for name in names if source.files[name] == md5), next(alike, ""))


def _letters(name: str) -> str:
    """Return what a name has in common with others for the same: `train-images.idx3-ubyte`, `train_images_idx3 (1)`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _unpacked(path: Path, begin: bytes) -> BufferedReader | GzipFile:
    """Return the content of a file, unpacked if necessary. begin: of plain content, whatever the file is called."""
    with path.open("rb") as file:
        head = file.read(max(len(begin), len(GZIP)))
    is_plain, is_packed = (bool(begin) and head.startswith(start) for start in (begin, GZIP))
    return GzipFile(path) if is_packed or (path.suffix == ".gz" and not is_plain) else path.open("rb")


def _select_copies(
    source: Source, names: Iterable[str], copies: defaultdict[str, list[_Copy]], unreadable: list[str], verify: bool
) -> dict[str, _Copy]:
    """Return which copy to use of each file. Raises UserError that names every file without one."""
    selected: dict[str, _Copy] = {}
    problems = []
    for name in names:
        originals = [copy for copy in copies[name] if copy.md5 == source.files[name]]
        at_home = [copy for copy in copies[name] if f"/{source.folder}/" in copy.origin]
        candidates = originals or ([] if verify else at_home or copies[name])
        places = ", ".join(copy.origin for copy in candidates or copies[name])
        if len({copy.md5 for copy in candidates}) == 1:
            selected[name] = candidates[0]
        elif candidates:
            problems.append(f"{name}: there are several that differ: {places}")
        elif copies[name]:
            problems.append(f"{name}: not the original's content (its md5 is not {source.files[name]}): {places}")
        else:
            otherwise = ", nor by its content" if source.begin else ""
            problems.append(f"{name}: not found, nor as .gz, nor in the original's archive{otherwise}")
    if problems:
        hint = "--unverified takes files that are not the originals" if verify else "name the folder more closely"
        urls = f"the originals are at {' '.join(source.archives)}"
        heading = f"{source.title} is not complete there; nothing was copied:"
        raise UserError("\n  ".join([heading, *problems, *unreadable, urls, hint]))
    return selected
