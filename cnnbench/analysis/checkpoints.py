"""The checkpoints of a run by name, and which weights they hold."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from cnnbench.config.schema import CheckpointConfig
from cnnbench.errors import UserError, closest, listed
from cnnbench.store import checkpoint
from cnnbench.store.folder import RunFolder
from cnnbench.training.console import error

Checkpoint = str | int
"""`tested`: the one that was tested; `best` on validation, `best2` the second best, as many as `checkpoint.top` kept;
`average`: the mean of their weights; `last`; or the step after which it was saved."""

warn_once = cache(lambda text: error(f"warning: {text}."))


def _warn_of_damage(text: str) -> None:
    warn_once(f"{text}; the checkpoint before it is used")


def content_of(folder: RunFolder, which: Checkpoint) -> dict[str, Any]:
    """Return the content of the checkpoint that has these weights. Raises UserError if there are none."""
    record, steps = folder.record(), checkpoint.steps_in(folder.checkpoints)
    identity = record["identity"]
    if not steps:
        raise UserError(f"{folder.path} {checkpoint.why_none(record)}.")
    if isinstance(which, int) and which in steps:
        return checkpoint.load(folder.checkpoints, which, identity)
    newest = checkpoint.load_newest(folder.checkpoints, _warn_of_damage, identity) or {}
    if which in ("last", "best", "average") or _rank(which) in range(1, len(_ranked(newest)) + 1):
        return newest
    others = [f"best{rank + 1}" for rank in range(1, len(_ranked(newest)))]
    names = ["tested", "best", *others, *(["average"] if others else []), "last"]
    meant = closest(str(which), names)
    hint = f"did you mean '{meant}'?" if meant else f"there are {listed([*names, *map(str, steps)])}."
    raise UserError(f"{folder.path} has no checkpoint '{which}'; {hint}")


def validations_of(
    folder: RunFolder, settings: CheckpointConfig, content: Mapping[str, Any], which: Checkpoint
) -> list[dict[str, Any]]:
    """Return the validations, with their weights, that `best`, `best2` or `average` mean; none for the others.

    Raises UserError where there are none, or fewer than two to average.
    """
    ranked, rank = _ranked(content), _rank(which)
    if which != "average" and rank is None:
        return []
    if not ranked:
        raise UserError(f"{folder.path} was never validated, and has no best checkpoint; use 'last'.")
    if rank is not None:
        return [ranked[rank - 1]]
    if settings.num_best < 2:
        raise UserError(f"{folder.path} kept only its best weights; checkpoint.top=3 keeps more to average.")
    return ranked[: settings.average or settings.num_best]


def _ranked(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [one for one in (content["best"], *content.get("runners_up", ())) if one is not None]


def _rank(which: Checkpoint) -> int | None:
    """Return the place of `best` or `best2`, from 1; None for another name."""
    match = re.fullmatch(r"best([2-9]|[1-9]\d+)?", str(which))
    return int(match[1] or 1) if match else None
