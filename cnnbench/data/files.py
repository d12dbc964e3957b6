"""Where data sets lie, whether their files are the originals, and how they are fetched where a network is there."""

import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cnnbench.errors import UserError


def data_root(root: str | None) -> Path:
    """Return the folder of all data sets: the one given, else $CNNBENCH_DATA, else one in the user's cache folder."""
    chosen = root or os.environ.get("CNNBENCH_DATA")
    if chosen:
        return Path(chosen).expanduser().resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "cnnbench" / "data"


@dataclass(frozen=True)
class Source:
    """The files that a data set needs, and the archive or archives that bring them.

    folder: below the root, in torchvision's layout. files: name -> md5 of the content, unpacked.
    archives: address -> md5 of the archive.
    """

    title: str
    folder: str
    files: dict[str, str]
    archives: dict[str, str]


def read_verified(source: Source, root: Path, verify: bool) -> dict[str, bytes]:
    """Return the content of a data set's files by name, unpacked where they lie as .gz.

    Files that are missing are downloaded, with a network; those there are never touched.
    verify: a file whose md5 is not the original's is an error.
    Raises UserError that says which file is expected where.
    """
    folder = root / source.folder
    if missing(source, folder):
        _download(source, root)
    contents = {}
    for name, md5 in source.files.items():
        path = folder / name
        packed = path.with_name(name + ".gz")
        try:
            contents[name] = path.read_bytes() if path.is_file() else gzip.decompress(packed.read_bytes())
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{packed if packed.is_file() else path} cannot be read: {error}") from error
        if verify and md5_of(contents[name]) != md5:
            raise UserError(
                f"{path} is not the original file of {source.title} (its md5 is not {md5}): it is damaged, or another "
                f"data set's. Remove it to have it fetched anew, or say data.verify=false to take it as it is."
            )
    return contents


def altered(source: Source, root: Path) -> list[str]:
    """Return the names of a data set's files whose content is not the original's. They must be there."""
    contents = read_verified(source, root, verify=False)
    return [name for name, md5 in source.files.items() if md5_of(contents[name]) != md5]


def md5_of(content: bytes) -> str:
    """Return the md5 (hex) of a file's content: it tells originals from damaged copies, not from forgeries."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def missing(source: Source, folder: Path) -> list[str]:
    """Return the names of the files that are not in the folder, neither as they are nor as .gz."""

    def is_there(name: str) -> bool:
        return (folder / name).is_file() or (folder / f"{name}.gz").is_file()

    return [name for name in source.files if not is_there(name)]


def _download(source: Source, root: Path) -> None:
    """Fetch a data set into a folder of its own first: what is there is whole, whenever the process is killed."""
    # Imported here: torchvision takes as long to import as a short training takes to run.
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as scratch:
            for address, md5 in source.archives.items():
                name = address.rpartition("/")[2]
                if name.endswith(".tar.gz"):
                    download_and_extract_archive(address, scratch, filename=name, md5=md5)
                else:
                    download_url(address, str(Path(scratch) / source.folder), filename=name, md5=md5)
            move_new(_files_below(Path(scratch) / source.folder), root / source.folder)
    except (OSError, RuntimeError) as error:
        folder = root / source.folder
        names = ", ".join(missing(source, folder))
        archives = " ".join(source.archives)
        raise UserError(
            f"{source.title} is not in {folder}, and could not be downloaded ({error}).\n"
            f"  missing there: {names} (also as .gz)\n"
            f"  to bring by hand: {archives}\n"
            f"  another folder: data.root=FOLDER, or the environment variable CNNBENCH_DATA"
        ) from error


def _files_below(folder: Path) -> Iterable[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def move_new(files: Iterable[Path], folder: Path) -> None:
    """Move files into a folder, those left out that are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            shutil.move(file, folder / file.name)
