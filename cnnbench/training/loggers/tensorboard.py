"""TensorBoard: scalars, images, the settings that runs differ in, and the configuration as text."""

import os
import re
import socket
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.registry import LOGGERS
from cnnbench.store.files import GrowingFile
from cnnbench.training.loggers.base import LoggedRun, Logger, Scalars, as_text

if TYPE_CHECKING:
    import numpy as np


@LOGGERS.register("tensorboard")
class TensorBoard(Logger):
    """Event files in the run folder: `tensorboard --logdir outputs`."""

    def begin(self, run: LoggedRun, known_as: str | None) -> None:
        """Continue in a new file; TensorBoard drops from earlier ones what comes after `run.step`."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._summary = Summary
        files = list(run.folder.glob("events.out.tfevents.*"))
        step = run.step if any(file.stat().st_size for file in files) else 0
        _wait_for_a_later_name(files)
        self._events = _EventFile(run.folder, step)
        self._curves = {tag for values, _ in run.history for tag in values}
        if step == 0:
            self._describe(run)
        for values, at in run.history:
            if at >= step:  # the step itself is dropped too: its epoch may have ended after the last checkpoint
                self.scalars(values, at)
        self.flush()  # all of it at once: a session that was killed before has shown nothing, or all that was known

    def scalars(self, values: Scalars, step: int) -> None:
        """Add a point to each curve."""
        self._curves |= values.keys()
        value = self._summary.Value
        self._events.add(
            self._summary(value=[value(tag=tag, simple_value=number) for tag, number in values.items()]), step
        )

    def image(self, name: str, pixels: "np.ndarray[Any, Any]", step: int) -> None:
        """Show an image."""
        from torch.utils.tensorboard.summary import image

        self._events.add(image(name, pixels, dataformats="HWC"), step)  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        """Put all events on disk."""
        self._events.flush()

    def result(self, metrics: Scalars, step: int) -> None:
        """Add the one point of each metric on the test images; where a curve shows it, it is a point of that."""
        self.scalars({tag: value for tag, value in metrics.items() if tag not in self._curves}, step)

    def end(self, status: str, files: Sequence[Path]) -> None:
        """Close the file; a trial of HPARAMS ends when its run is completed, since it cannot begin again."""
        if status == "completed":
            from tensorboard.plugins.hparams.api_pb2 import STATUS_SUCCESS
            from tensorboard.plugins.hparams.plugin_data_pb2 import SessionEndInfo

            self._hparams("session_end_info", SessionEndInfo(status=STATUS_SUCCESS, end_time_secs=time.time()))
        self._events.close()

    def _describe(self, run: LoggedRun) -> None:
        """Write what is known before the first step: settings, texts, and which curves belong in one chart."""
        from tensorboard.plugins.hparams.plugin_data_pb2 import SessionStartInfo
        from torch.utils.tensorboard.summary import custom_scalars

        # No summary of the whole experiment: without one TensorBoard itself finds the settings in which the runs that
        # it shows differ, and puts those first.
        started = SessionStartInfo(group_name=_trial_name(run.name), start_time_secs=time.time())
        for key, value in run.chosen.items():
            if isinstance(value, bool):
                started.hparams[key].bool_value = value
            elif isinstance(value, int | float) and not _is_label(key):
                started.hparams[key].number_value = value
            else:
                started.hparams[key].string_value = as_text(value)
        self._hparams("session_start_info", started)
        charts = {name: ["Multiline", [f"^{re.escape(name)}/(train|val|test)$"]] for name in run.metrics}
        self._events.add(custom_scalars({"train and validation": charts}), 0)  # type: ignore[no-untyped-call]
        self._text("command", f"    {run.command}")
        self._text("configuration", f"```\n{(run.folder / 'config.yaml').read_text(encoding='utf-8')}\n```")

    def _text(self, tag: str, markdown: str) -> None:
        from torch.utils.tensorboard.summary import text

        summary = text(tag, markdown)  # type: ignore[no-untyped-call]
        summary.value[0].tag = tag  # without a suffix that repeats what it is
        self._events.add(summary, 0)

    def _hparams(self, kind: str, content: Any) -> None:
        from tensorboard.plugins.hparams import metadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        about = metadata.create_summary_metadata(HParamsPluginData(**{kind: content}))
        value = self._summary.Value(tag=f"_hparams_/{kind}", metadata=about, tensor=metadata.NULL_TENSOR)
        self._events.add(self._summary(value=[value]), 0)


class _EventFile:
    """A new file of events, which writes them itself, every ten seconds and when it is asked to.

    TensorBoard's own one does that in a thread: with a full disk, that would end with a traceback at some other time.
    """

    EVERY = 10.0  # seconds

    def __init__(self, folder: Path, step: int) -> None:
        """step: from which on earlier files are not shown."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = Event
        self._pending = BytesIO()
        self._records = RecordWriter(self._pending)
        self._written = time.monotonic()
        name = f"events.out.tfevents.{int(time.time()):010}.{socket.gethostname()}.{os.getpid()}.0"
        self._file = GrowingFile(folder / name)
        self._add(Event(file_version="brain.Event:2"))
        self._add(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, summary: Any, step: int) -> None:
        """Add a summary of a step."""
        self._add(self._event(summary=summary, step=step))
        if time.monotonic() - self._written > self.EVERY:
            self.flush()

    def _add(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Write all events so far."""
        self._file.write(self._pending.getvalue())
        self._pending.seek(0)
        self._pending.truncate()
        self._written = time.monotonic()

    def close(self) -> None:
        """Write all events, and end."""
        try:
            self.flush()
        finally:
            self._file.close()


def _wait_for_a_later_name(files: Sequence[Path]) -> None:
    """Wait until a new file comes after all others: they are read in the order of their names, which hold a second.

    Else what the new one forgets would come after it. Not where the clock went back: that may take hours.
    """
    seconds = [int(found[1]) for file in files if (found := re.match(r"events\.out\.tfevents\.(\d+)\.", file.name))]
    missing = max(seconds, default=0) + 1 - time.time()
    if 0 < missing <= 2:
        time.sleep(missing)


def _trial_name(folder: str) -> str:
    """Return the name of a run folder with its hash first: columns of HPARAMS show no more than 13 characters."""
    parts = re.fullmatch(r"(.+)-([0-9a-f]{8}(?:-r\d+)?)", folder)
    return f"{parts[2]} {parts[1]}" if parts else folder


def _is_label(key: str) -> bool:
    """Return whether a number only tells things apart: `seed 3`, where TensorBoard would write 3.0000."""
    return key.rpartition(".")[2] in ("seed", "split_seed", "noise_seed", "fold")
