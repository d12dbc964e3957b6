"""The rows of `metrics.jsonl`: one a logged step, a validation within an epoch, or an epoch."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

AXES = ("row", "epoch", "step")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metrics file; a last line that was cut short by a kill is passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and all(axis in row for axis in AXES):
                yield row
