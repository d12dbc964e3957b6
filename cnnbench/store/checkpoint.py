"""Checkpoints: whole or not there, checked when read, tensors and plain values only.

A checkpoint is `step-N.pt` and its manifest `step-N.json`. Each is written under another name, flushed to disk and
renamed; the manifest comes last, and names the file and its checksum: what no valid manifest names was never finished.
Nothing that counts is ever written over. Saved again after the same step, the content has another name, `step-N-2.pt`,
and counts from the moment when the new manifest takes the place of the old one; only then are old ones removed.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard

import torch

from cnnbench.errors import DivergedError, UserError, shortened, writing_to
from cnnbench.store.files import DamagedError, write_atomically, write_sealed
from cnnbench.store.reading import read_json
from cnnbench.store.schema import Manifest
from cnnbench.store.tensor_files import TensorFileError, load_tensors

FORMAT = 2
NAMED = 3  # weights in a message
SIZES = r"size mismatch for (\S+): .*?Size\(\[(.*?)\]\) from checkpoint.*?Size\(\[(.*?)\]\)"  # as torch says it
KEYS = r'(Missing|Unexpected) key\(s\) in state_dict: ((?:(?:, )?"[^"]*")+)'


def save(folder: Path, step: int, content: dict[str, Any], facts: dict[str, Any], keep: int) -> None:
    """Write one checkpoint, then remove all but the newest `keep`.

    content: nested dicts and lists of tensors and plain values. facts: what can be known without loading it.
    Raises DivergedError where weights are not finite, and NotWrittenError; older checkpoints stay.
    """
    _refuse_non_finite(content, step)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    name = _free_name(folder, step)
    said = {
        "format": FORMAT,
        "step": step,
        "file": name,
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        **facts,
    }
    with writing_to(folder):
        folder.mkdir(exist_ok=True)
    write_atomically(folder / name, payload)
    write_sealed(_manifest_file(folder, step), said)
    _prune(folder, step, name, keep)


def _free_name(folder: Path, step: int) -> str:
    """Return the name of a file that no checkpoint counts on."""
    names = f"step-{step:09d}.pt", f"step-{step:09d}-2.pt"
    try:
        return names[1] if _content_file(folder, manifest(folder, step)).name == names[0] else names[0]
    except DamagedError:  # or there is none
        return names[0]


def _prune(folder: Path, step: int, named: str, keep: int) -> None:
    """Remove all but the newest checkpoints up to a step, whose file is named, and what a save left that was killed."""
    # Later ones were damaged, or this run would have gone on from them.
    others = [other for other in steps_in(folder) if other != step]
    kept = [other for other in others if other < step][-(keep - 1) :] if keep > 1 else []
    with suppress(OSError):  # what cannot be removed costs space, and is tried again after the next save
        for old in set(others) - set(kept):
            # The manifest first: without it, a file that is half removed counts for nothing.
            _manifest_file(folder, old).unlink(missing_ok=True)
        left = steps_in(folder)
        for path in folder.glob("step-*.pt"):
            match = re.fullmatch(r"step-(\d+)(-2)?\.pt", path.name)
            if match is not None and (int(match[1]) not in left or (int(match[1]) == step and path.name != named)):
                path.unlink(missing_ok=True)


def steps_in(folder: Path) -> list[int]:
    """Return the steps that have a manifest, ascending."""
    found = (re.fullmatch(r"step-(\d+)\.json", path.name) for path in folder.glob("step-*.json"))
    return sorted(int(match[1]) for match in found if match)


def why_none(record: Mapping[str, Any], way: str = "") -> str:
    """Return in words that a run has no checkpoint. record: of `run.json`; way: what to do if it never had one."""
    removed = str(record.get("checkpoints_removed", ""))[:10]
    if not removed and record.get("status") == "completed":
        return "has no checkpoints any more: its folder checkpoints/ is empty or gone; rerun=true trains it again"
    if not removed:
        return f"has no checkpoint yet{way}"
    return f"has no checkpoints: they were removed on {removed} to save space; rerun=true trains it again"


def newest(folder: Path, warn: Callable[[str], None], identity: str | None = None) -> dict[str, Any] | None:
    """Return the manifest of the newest checkpoint that is whole, or None where there has never been one.

    identity: of the run that they belong to. A damaged one is warned about and passed over. Raises UserError where all
    are damaged, which is no fresh start, and for one of another run.
    """
    return _newest(folder, warn, lambda step: _checked(folder, step, identity)[0])


def load_newest(folder: Path, warn: Callable[[str], None], identity: str | None = None) -> dict[str, Any] | None:
    """Return the content of that checkpoint."""
    return _newest(folder, warn, lambda step: load(folder, step, identity))


def _newest(folder: Path, warn: Callable[[str], None], read: Callable[[int], dict[str, Any]]) -> dict[str, Any] | None:
    steps = steps_in(folder)
    for step in reversed(steps):
        try:
            return read(step)
        except DamagedError as error:
            warn(str(error))
    if steps != steps_in(folder):  # a training has just replaced them
        return _newest(folder, warn, read)
    if steps:
        raise UserError(f"{folder}: no checkpoint is whole. Type rerun=true to train again in a new folder.")
    return None


def load(folder: Path, step: int, identity: str | None = None) -> dict[str, Any]:
    """Return the content of one checkpoint.

    Raises UserError where it is not what its manifest says, or belongs to another run than that of this identity.
    """
    said, payload = _checked(folder, step, identity)
    path = _content_file(folder, said)
    try:
        content = load_tensors(io.BytesIO(payload))
    except TensorFileError as error:
        raise DamagedError(f"{path} is no checkpoint: {error}") from error
    if not _is_complete(content):
        raise DamagedError(f"{path} is no checkpoint: it has no network, or does not say how far it was trained")
    _refuse_foreign(path, content, identity)  # manifests of before named no run
    return content


def _is_complete(content: Any) -> TypeGuard[dict[str, Any]]:
    """Tell whether values have the parts that every checkpoint has."""
    if not isinstance(content, dict) or not {"network", "progress", "best"} <= content.keys():
        return False
    has_state = isinstance(content["network"], dict) and isinstance(content["progress"], dict)
    best, others = content["best"], content.get("runners_up", [])
    kept = [*([] if best is None else [best]), *(others if isinstance(others, list) else [None])]
    return has_state and all(isinstance(one, dict) and {"epoch", "weights"} <= one.keys() for one in kept)


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Turn what goes wrong when the content of a checkpoint is put to use into a UserError that says where it is."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        if misfits := _misfits(said):
            more = f" and {len(misfits) - NAMED} more" if len(misfits) > NAMED else ""
            raise UserError(
                f"{folder}: the code makes another network than in the training: {', '.join(misfits[:NAMED])}{more}. "
                "Give the code as it was then, or train again with rerun=true."
            ) from error
        reason = shortened(f"{type(error).__name__}: {said}")
        raise UserError(f"{folder}: what its checkpoint holds does not fit this run: {reason}") from error


def _misfits(said: str) -> list[str]:
    """Return which weights do not fit a network, in words, where that is what torch says."""
    sizes = [
        f"{name} was {there.replace(', ', 'x') or 'a number'} and is {here.replace(', ', 'x') or 'a number'}"
        for name, there, here in re.findall(SIZES, said)
    ]
    words = {"Missing": "is new", "Unexpected": "is gone"}
    return sizes + [
        f"{name} {words[kind]}" for kind, names in re.findall(KEYS, said) for name in names.split('"')[1::2]
    ]


def _checked(folder: Path, step: int, identity: str | None) -> tuple[dict[str, Any], bytes]:
    """Return the manifest of a checkpoint, and the content of the file that it names."""
    said = manifest(folder, step, identity)
    path = _content_file(folder, said)
    try:
        payload = path.read_bytes() if path.stat().st_size == said["bytes"] else b""
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error}") from error
    if len(payload) != said["bytes"] or hashlib.sha256(payload).hexdigest() != said["sha256"]:
        raise DamagedError(f"{path} is damaged: its content does not match its checksum")
    return said, payload


def manifest(folder: Path, step: int, identity: str | None = None) -> dict[str, Any]:
    """Return what is known of a checkpoint without loading it.

    Raises UserError where that cannot be read, or it belongs to another run than that of this identity.
    """
    path = _manifest_file(folder, step)
    said = read_json(path, Manifest)
    if said["step"] != step:
        raise DamagedError(f"{path} is damaged: it is of step {said['step']}")
    if said["format"] != FORMAT:
        raise DamagedError(f"{path} has format {said['format']}; this version of cnnbench reads format {FORMAT}")
    _refuse_foreign(path, said, identity)
    return said


def _manifest_file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:09d}.json"


def _content_file(folder: Path, said: Mapping[str, Any]) -> Path:
    return folder / Path(str(said.get("file", f"step-{said['step']:09d}.pt"))).name  # manifests of before named none


def _refuse_foreign(path: Path, said: Mapping[str, Any], identity: str | None) -> None:
    owner = said.get("identity")
    if None not in (owner, identity) and owner != identity:
        raise UserError(
            f"{path} belongs to another run: its identity is {str(owner)[:8]}…, that of this run {str(identity)[:8]}…. "
            "Move what was copied here to where it belongs."
        )


def _refuse_non_finite(content: dict[str, Any], step: int) -> None:
    for name, part in content.items():
        if not _is_finite(part):
            what = "weights are" if name == "network" else f"the state of '{name}' is"
            raise DivergedError(f"{what} not finite after step {step}: the training diverged.")


def _is_finite(part: Any) -> bool:
    """Tell whether all tensors in nested dicts and lists are; a plain number may say that a metric is not."""
    if isinstance(part, torch.Tensor):
        return not part.is_floating_point() or bool(torch.isfinite(part).all())
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    return all(map(_is_finite, parts))
