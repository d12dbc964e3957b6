"""Checkpoints: whole or not there, checked when read, tensors and plain values only.

A checkpoint is `step-N.pt` and its manifest `step-N.json`. Each is written under another name, flushed to disk and
renamed; the manifest comes last and holds the checksum, so what has no valid manifest was never finished.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cnnbench.errors import TrainingError, UserError
from cnnbench.store.files import write_atomically, write_json

FORMAT = 2


def save(folder: Path, step: int, content: dict[str, Any], facts: dict[str, Any], keep: int) -> None:
    """Write one checkpoint, then remove all but the newest `keep`.

    content: nested dicts and lists of tensors and plain values. facts: what shall be known without loading it.
    Raises TrainingError where weights are not finite, or the disk is full; older checkpoints stay.
    """
    _refuse_non_finite(content, step)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    payload = buffer.getvalue()
    name = f"step-{step:09d}"
    said = {
        "format": FORMAT,
        "step": step,
        "bytes": len(payload),
        "sha256": hashlib.sha256(payload).hexdigest(),
        **facts,
    }
    try:
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{name}.pt", payload)
        write_json(folder / f"{name}.json", said)
    except OSError as error:
        raise TrainingError(f"the checkpoint of step {step} cannot be written to {folder}: {error}") from error
    # Later ones were damaged, or this run would have gone on from them.
    others = [other for other in steps_in(folder) if other != step]
    kept = [other for other in others if other < step][-(keep - 1) :] if keep > 1 else []
    for old in set(others) - set(kept):
        # The manifest first: without it, a file that is half removed counts for nothing.
        (folder / f"step-{old:09d}.json").unlink(missing_ok=True)
        (folder / f"step-{old:09d}.pt").unlink(missing_ok=True)


def steps_in(folder: Path) -> list[int]:
    """Return the steps that have a manifest, ascending."""
    found = (re.fullmatch(r"step-(\d+)\.json", path.name) for path in folder.glob("step-*.json"))
    return sorted(int(match[1]) for match in found if match)


def load_newest(folder: Path, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the content of the newest checkpoint that is whole, or None where there has never been one.

    A damaged one is warned about and passed over. Raises UserError where all are damaged: that is no fresh start.
    """
    steps = steps_in(folder)
    for step in reversed(steps):
        try:
            return load(folder, step)
        except UserError as error:
            warn(str(error))
    if steps:
        raise UserError(f"{folder}: no checkpoint is whole. Type rerun=true to train again in a new folder.")
    return None


def load(folder: Path, step: int) -> dict[str, Any]:
    """Return the content of one checkpoint. Raises UserError where it is not what its manifest says."""
    path = folder / f"step-{step:09d}.pt"
    said = manifest(folder, step)
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if len(payload) != said["bytes"] or hashlib.sha256(payload).hexdigest() != said["sha256"]:
        raise UserError(f"{path} is damaged: its content does not match its checksum")
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} is no checkpoint of tensors and plain values: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    return content


def manifest(folder: Path, step: int) -> dict[str, Any]:
    """Return what is known of a checkpoint without loading it. Raises UserError where that cannot be read."""
    path = folder / f"step-{step:09d}.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        missing = {"format", "step", "epoch", "bytes", "sha256"} - said.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if missing:
        raise UserError(f"{path} is damaged: it says nothing of {', '.join(sorted(missing))}")
    if said["format"] != FORMAT:
        raise UserError(f"{path} has format {said['format']}; this version of cnnbench reads format {FORMAT}")
    assert isinstance(said, dict)
    return said


def _refuse_non_finite(content: dict[str, Any], step: int) -> None:
    for name, part in content.items():
        if not _is_finite(part):
            what = "weights are" if name == "network" else f"the state of '{name}' is"
            raise TrainingError(f"{what} not finite after step {step}: the training diverged.")


def _is_finite(part: Any) -> bool:
    """Tell whether all tensors in nested dicts and lists are; a plain number may say that a metric is not."""
    if isinstance(part, torch.Tensor):
        return not part.is_floating_point() or bool(torch.isfinite(part).all())
    parts = part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    return all(map(_is_finite, parts))
