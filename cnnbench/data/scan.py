"""What is wrong with photographs, before anything is trained on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cnnbench.data.photographs import some
from cnnbench.data.split import Split
from cnnbench.errors import UserError, grouped


@dataclass(frozen=True)
class Scanned:
    """The photographs of a data set: those of the training part first, then those for testing.

    problems: what is wrong with an image, by its place among all. digests: of the content of each.
    """

    paths: Sequence[Path]
    digests: Sequence[str]
    problems: Mapping[int, str]
    num_train: int


def usable(scanned: Scanned, split: Split, skip: bool) -> tuple[Split, tuple[str, ...]]:
    """Return the split without images that cannot be trained on, and notes on those left out.

    Such images are damaged, or in a part for measuring too. skip: leave them out of what trains; those that are
    damaged in the parts for measuring, or in both of these, always are an error.
    Raises UserError that names up to twenty of each kind.
    """
    parts = {"validation": split.val.tolist(), "test": range(scanned.num_train, len(scanned.paths))}
    measured = {part: {scanned.digests[row]: scanned.paths[row] for row in rows} for part, rows in parts.items()}

    def copies(row: int, *places: str) -> str:
        digest = scanned.digests[row]
        return " and ".join(f"{part} ({measured[part][digest]})" for part in places if digest in measured[part])

    bad, left_out = {}, {}
    for row in (row for rows in parts.values() for row in rows):
        if row in scanned.problems:
            bad[row] = scanned.problems[row]
        elif row < scanned.num_train and (others := copies(row, "test")):
            bad[row] = f"is in {others} too"
    for row in split.train.tolist():
        if row in scanned.problems:
            left_out[row] = scanned.problems[row]
        elif others := copies(row, "validation", "test"):
            left_out[row] = f"is in {others} too"
    if bad or (left_out and not skip):
        raise UserError(_message(scanned, bad, {} if skip else left_out))
    if not left_out:
        return split, ()
    keep = torch.tensor([row not in left_out for row in split.train.tolist()])
    note = _told(scanned, left_out, "left out of training")
    return Split(split.train[keep], split.val), (note,)


def _message(scanned: Scanned, bad: Mapping[int, str], left_out: Mapping[int, str]) -> str:
    lines = [f"{grouped(len(bad) + len(left_out))} of {grouped(len(scanned.paths))} images cannot be used:"]
    if left_out:
        lines.append(f"  {_told(scanned, left_out, 'for training')}")
    if bad:
        lines.append(f"  {_told(scanned, bad, 'for validation or test')}")
    hint = "; data.on_problem=skip trains without those for training" if left_out else ""
    return "\n".join([*lines, f"  mend or remove them{hint}"])


def _told(scanned: Scanned, problems: Mapping[int, str], what: str) -> str:
    told = (f"{scanned.paths[row]} {problem}" for row, problem in sorted(problems.items()))
    return f"{grouped(len(problems))} {what}: {some(told)}"
