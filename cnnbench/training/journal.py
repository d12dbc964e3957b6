"""The rows of a run: `metrics.jsonl` is the truth, and loggers show it elsewhere.

Rows hold no times, so that an interrupted and continued run ends with the same rows as an unbroken one.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cnnbench.errors import NotWrittenError, quoted
from cnnbench.store.files import AXES, GrowingFile, RowCount, read_rows, row_line, write_atomically
from cnnbench.training import console
from cnnbench.training.loggers.base import LoggedRun, Logger, Scalars, make_logger
from cnnbench.training.loop import Progress

WAITS = 0.5  # seconds at most, for rows of steps


class Journal:
    """Writes the rows of one run; `progress` says where it continues.

    A logger that fails is left out from then on, with a warning; but a disk that is full ends the training, whoever
    notices it first, so that what a checkpoint counts is shown as well. recorded: number and hash of its rows, as the
    checkpoint has them. loss: what is missing of them, in words.
    """

    def __init__(self, metrics_file: Path, progress: Progress, recorded: Mapping[str, Any] | None = None) -> None:
        kept = [row for row in read_rows(metrics_file) if _is_before(row, progress)]
        if metrics_file.exists():
            write_atomically(metrics_file, "".join(map(row_line, kept)).encode())
        self.rows = RowCount(kept)
        self.loss = self.rows.loss(recorded)
        self._file = GrowingFile(metrics_file)
        self._waiting: list[Mapping[str, Any]] = []
        self._written = time.monotonic()
        self._loggers: dict[str, Logger] = {}
        self.history = [_scalars(row) for row in kept]

    def begin(self, names: Iterable[str], run: LoggedRun, known_as: Mapping[str, str]) -> dict[str, str]:
        """Let loggers begin to show the run, and return what each knows it by."""
        ids: dict[str, str | None] = dict(known_as)
        for name in dict.fromkeys(names):
            try:
                logger = make_logger(name)
                ids[name] = logger.begin(run, known_as.get(name))
                self._loggers[name] = logger
            except NotWrittenError:
                raise
            except Exception as error:  # noqa: BLE001 - no training should be lost for it
                _warn(name, error)
        return {name: known for name, known in ids.items() if known is not None}

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; those of steps wait a moment, since many at once take a fifth of the time of one by one.

        What a kill then loses comes after the last checkpoint, and is trained again.
        """
        self._waiting.append(row)
        if row["row"] != "step" or time.monotonic() - self._written > WAITS:
            self._write_waiting()

    def _write_waiting(self) -> None:
        rows, self._waiting, self._written = self._waiting, [], time.monotonic()
        lines = [row_line(row) for row in rows]
        self._file.write("".join(lines).encode())
        for line in lines:
            self.rows.add(line)
        points = [_scalars(row) for row in rows]

        def show(logger: Logger) -> None:
            for values, step in points:
                logger.scalars(values, step)

        self._each(show)

    def image(self, name: str, pixels: Any, step: int) -> None:
        """Show an image, uint8 [H, W, 3]."""
        self._each(lambda logger: logger.image(name, pixels, step))

    def result(self, metrics: Scalars, step: int) -> None:
        """Show the metrics on the test images, of the network as it was after a step."""
        self._each(lambda logger: logger.result(metrics, step))

    def flush(self) -> None:
        """Put every row on disk."""
        self._write_waiting()
        self._file.flush()
        self._each(lambda logger: logger.flush())

    def close(self, status: str, files: Sequence[Path] = ()) -> None:
        """End, after `flush` where anything counts. files: what loggers may keep of the run folder."""
        with suppress(NotWrittenError):  # what ended the training says that
            self._write_waiting()
        self._file.close()
        for name, logger in self._loggers.items():
            try:
                logger.end(status, files)
            except Exception as error:  # noqa: BLE001 - as above
                if status == "completed" or not isinstance(error, NotWrittenError):  # else what ended it says that
                    _warn(name, error)

    def _each(self, act: Callable[[Logger], None]) -> None:
        for name, logger in tuple(self._loggers.items()):
            try:
                act(logger)
            except NotWrittenError:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                del self._loggers[name]
                _warn(name, error)


def _warn(name: str, error: Exception) -> None:
    console.say(f"  warning: logger '{name}' is disabled: {quoted(error)}")


def _scalars(row: Mapping[str, Any]) -> tuple[Scalars, int]:
    """Return what loggers show of a row, and its step."""
    values = {key: value for key, value in row.items() if key not in AXES and value is not None}
    if row["row"] == "step":  # under names of their own: one name for two measurements would draw one zigzag
        values = {f"step/{key.removesuffix('/train')}": value for key, value in values.items()}
    return values, row["step"]


def _is_before(row: Mapping[str, Any], progress: Progress) -> bool:
    if row["row"] == "epoch":
        return bool(row["epoch"] <= progress.epochs_done)
    return bool(row["step"] <= (progress.evaluated if row["row"] == "val" else progress.step))
