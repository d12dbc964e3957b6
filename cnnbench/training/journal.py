"""The rows of a run: `metrics.jsonl` is the truth, TensorBoard a view of it.

Rows hold no times, so that an interrupted and continued run ends with the same rows as an unbroken one.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from cnnbench.store.files import AXES, finite, read_rows, write_atomically
from cnnbench.training.loop import Progress


class Journal:
    """Writes the rows of one run; `progress` says where it goes on from."""

    def __init__(self, folder: Path, metrics_file: Path, progress: Progress) -> None:
        kept = [row for row in read_rows(metrics_file) if _is_before(row, progress)]
        if metrics_file.exists():
            write_atomically(metrics_file, "".join(map(_line, kept)).encode())
        self._file = metrics_file.open("a", buffering=1, encoding="utf-8")  # a row is there as soon as it is written
        # TensorBoard forgets everything from `purge_step` on: the last step kept is purged too, and shown again,
        # because an epoch row of the same step may have been written after the checkpoint.
        self._writer = SummaryWriter(str(folder), purge_step=progress.step, max_queue=1000, flush_secs=10)
        self._events: Any = self._writer.file_writer
        for row in kept:
            if row["step"] == progress.step:
                self._show(row)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self._file.write(_line(row))
        self._show(row)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Show values in TensorBoard only."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._events.add_summary(summary, step)

    def picture(self, name: str, pixels: Any, step: int) -> None:
        """Show a picture, uint8 [H, W, 3], in TensorBoard."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def hparams(self, settings: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Fill TensorBoard's hparams tab: what was chosen, and what came out. The run stays one run there."""
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in settings.items()
        }
        for summary in hparams(plain, dict(metrics)):  # type: ignore[no-untyped-call]
            self._events.add_summary(summary)

    def flush(self) -> None:
        """Put every row on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._writer.flush()

    def close(self) -> None:
        """Put every row on disk, and end."""
        self.flush()
        self._file.close()
        self._writer.close()

    def _show(self, row: Mapping[str, Any]) -> None:
        # Two measurements of one name would draw one zigzag: the running values of steps get names of their own.
        values = {key: value for key, value in row.items() if key not in AXES and value is not None}
        if row["row"] == "step":
            values = {f"step/{key.removesuffix('/train')}": value for key, value in values.items()}
        self.scalars(values, row["step"])


def _is_before(row: Mapping[str, Any], progress: Progress) -> bool:
    if row["row"] == "epoch":
        return bool(row["epoch"] <= progress.epochs_done)
    return bool(row["step"] <= (progress.evaluated if row["row"] == "val" else progress.step))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(finite(dict(row))) + "\n"
