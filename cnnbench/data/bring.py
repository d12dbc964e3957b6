"""Files that were brought by hand: found in a folder, and put where a data set is read from."""

import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cnnbench.data.files import Source, missing, move_new
from cnnbench.errors import UserError

PACKED = (".tar.gz", ".tgz", ".tar")
UNREADABLE = (OSError, EOFError, zlib.error, tarfile.TarError)


def bring(source: Source, origin: Path, root: Path, verify: bool = True) -> list[str]:
    """Copy what a data set still lacks out of a folder, or out of one file, and return what was done, a line a file.

    Looked for anywhere below `origin`: the files as they are, as .gz, and in the original's archive. Nothing that is
    there is touched. verify: only files with the original's md5 are taken; else, where several differ, the original, or
    the one that lies in a folder of the data set's own name.
    Raises UserError that says which files were not found, or are not the originals; then nothing has been copied.
    """
    if not origin.exists():
        raise UserError(f"{origin}: there is no such folder or file.")
    target = root / source.folder
    wanted = missing(source, target)
    lines = [f"{name}: is there already, left as it is" for name in source.files if name not in wanted]
    if not wanted:
        return lines
    paths = [Path(folder, name) for folder, _, names in os.walk(origin) for name in names] or [origin]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{root} cannot be made: {error}; data.root=FOLDER names another place.") from error
    with tempfile.TemporaryDirectory(prefix=".bring-", dir=root) as scratch:
        search = _Search(source, wanted, Path(scratch))
        for path in sorted(paths):
            search.look_into(path)
        chosen = search.chosen(verify)
        for name, copy in chosen.items():
            copy.path.rename(copy.path.with_name(name))
        move_new([copy.path.with_name(name) for name, copy in chosen.items()], target)
    for name, copy in chosen.items():
        remark = "" if copy.md5 == source.files[name] else "; not the original: data.verify=false takes it"
        lines.append(f"{name}: copied from {copy.where}{remark}")
    return lines


@dataclass(frozen=True)
class _Copy:
    """The content of something of the right name. where: it was found."""

    path: Path
    where: str
    md5: str


@dataclass
class _Search:
    """What has been found of the files wanted, copied into a folder of its own."""

    source: Source
    wanted: list[str]
    scratch: Path
    found: dict[str, list[_Copy]] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    def look_into(self, path: Path) -> None:
        """Copy what a file has of the files wanted."""
        archives = [address.rpartition("/")[2].partition(".tar")[0] for address in self.source.archives]
        try:
            if path.name in self.wanted:
                with path.open("rb") as stream:
                    self._copy(path.name, str(path), stream)
            elif path.name.endswith(".gz") and path.stem in self.wanted:
                with gzip.open(path) as stream:
                    self._copy(path.stem, str(path), stream)
            elif path.name.endswith(PACKED) and path.name.startswith(tuple(archives)):
                with tarfile.open(path) as archive:
                    for member in archive:
                        name = member.name.rpartition("/")[2]
                        content = archive.extractfile(member) if name in self.wanted else None
                        if content is not None:
                            self._copy(name, f"{path}/{member.name}", content)
        except UNREADABLE as error:
            self.damaged.append(f"{path} cannot be read: {error}")

    def _copy(self, name: str, where: str, stream: IO[bytes] | gzip.GzipFile) -> None:
        digest = hashlib.md5(usedforsecurity=False)
        copy = self.scratch / f"{name}.{len(self.found.get(name, []))}"
        with copy.open("wb") as file:
            while block := stream.read(1 << 20):
                digest.update(block)
                file.write(block)
        self.found.setdefault(name, []).append(_Copy(copy, where, digest.hexdigest()))

    def chosen(self, verify: bool) -> dict[str, _Copy]:
        """Return the copy to take of each file wanted. Raises UserError with every file that there is none for."""
        chosen: dict[str, _Copy] = {}
        problems = []
        for name in self.wanted:
            copies = self.found.get(name, [])
            originals = [copy for copy in copies if copy.md5 == self.source.files[name]]
            at_home = [copy for copy in copies if f"/{self.source.folder}/" in copy.where]
            candidates = originals or ([] if verify else at_home or copies)
            if len({copy.md5 for copy in candidates}) == 1:
                chosen[name] = candidates[0]
            elif candidates:
                problems.append(
                    f"{name}: there are several that differ: {', '.join(copy.where for copy in candidates)}"
                )
            elif copies:
                places = ", ".join(copy.where for copy in copies)
                problems.append(
                    f"{name}: not the original's content (its md5 is not {self.source.files[name]}): {places}"
                )
            else:
                problems.append(f"{name}: not found, nor as .gz, nor in the original's archive")
        if problems:
            hint = "--unverified takes files that are not the originals" if verify else "name the folder more closely"
            told = [*problems, *self.damaged, f"the originals are at {' '.join(self.source.archives)}", hint]
            raise UserError("\n  ".join([f"{self.source.title} is not complete there; nothing was copied:", *told]))
        return chosen
