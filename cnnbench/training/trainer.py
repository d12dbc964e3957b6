"""One run, from its plan to its result: trained or continued, tested once, recorded."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

from cnnbench.config.values import flat
from cnnbench.errors import ExitCode, Stopped, StoppedAtOnce, TrainingError, counted, exits_explained
from cnnbench.store import checkpoint, provenance
from cnnbench.store.files import read_rows, row_line, write_atomically, write_sealed
from cnnbench.store.folder import RunFolder
from cnnbench.tasks.context import EvalContext, Splits
from cnnbench.training import console
from cnnbench.training.compilation import compiled
from cnnbench.training.ending import WritePage, kept_checkpoint, say_stopped, show_finished
from cnnbench.training.journal import Journal
from cnnbench.training.loggers.base import LoggedRun, chosen_settings
from cnnbench.training.loop import Progress, fit
from cnnbench.training.plan import Plan
from cnnbench.training.resolve import begin_run_dir, prepare_run_dir, record_session, resolve_run, schedule_notes
from cnnbench.training.result import measure, result_record, select_checkpoint, write_samples
from cnnbench.training.setup import DEFAULT_THREADS, TrainingSetup, set_up_torch
from cnnbench.training.signals import StopRequests
from cnnbench.training.state import restore, restore_parent, snapshot
from cnnbench.training.step import evaluating, map_images

FIRST_SAVE = 3.0  # seconds after the start; later checkpoints keep their distance
OnEpoch = Callable[[RunFolder, Mapping[str, Any]], None]
"""Is called with the row of each epoch after it is written; raises Stopped to stop after this epoch."""


def carry_out(plan: Plan, write_page: WritePage | None = None, stop: StopRequests | None = None) -> ExitCode:
    """Do what the plan says, and return the exit code. stop: what listens to signals already."""
    with StopRequests() if stop is None else nullcontext(stop) as listening:
        return carried_out(plan, listening, write_page)[0]


def carried_out(
    plan: Plan, stop: StopRequests, write_page: WritePage | None = None, on_epoch: OnEpoch | None = None
) -> tuple[ExitCode, RunFolder]:
    """Do what the plan says, and return the exit code and the run, which is not finished where it was stopped.

    A stopped run is continued; the result of a finished one is shown. Raises UserError where the plan cannot be
    carried out, or code or data changed since it began, Stopped where that came before the run was found or begun, and
    TrainingError where training fails.
    """
    try:
        with exits_explained():
            plan, training, folder, changes = resolve_run(plan)
            if folder.is_completed:
                show_finished(folder, changes, write_page if plan.config.report else None, plan.opens_page)
                return ExitCode.FINISHED, folder
            init_record = begin_run_dir(folder, training)
    except StoppedAtOnce:
        raise Stopped(f"stopped by {stop.cause} before the training began; the same command starts again.") from None
    with folder.lock():
        prepare_run_dir(folder, plan, training, init_record, changes)
        try:
            with exits_explained():
                trainer = Trainer(plan, training, folder, stop, on_epoch)
                trainer.run(write_page if plan.config.report else None)
            return ExitCode.FINISHED, folder
        except (Stopped, StoppedAtOnce) as error:
            say_stopped(folder, stop, error, training.horizon.num_steps)
            return stop.exit_code, folder
        except KeyboardInterrupt:
            folder.end("stopped")
            raise KeyboardInterrupt(f"stopped at once; {kept_checkpoint(folder)}") from None
        except BaseException as error:
            folder.end("failed", error=f"{type(error).__name__}: {error}")
            if isinstance(error, TrainingError):
                raise TrainingError(f"{error}\n{kept_checkpoint(folder).capitalize()}") from error.__cause__
            raise


class Trainer:
    """A run while it is being worked on; the observer of its loop."""

    def __init__(
        self, plan: Plan, training: TrainingSetup, folder: RunFolder, stop: StopRequests, on_epoch: OnEpoch | None
    ) -> None:
        self.plan, self.training, self.folder, self.stop = plan, training, folder, stop
        self.epoch_callback = on_epoch
        self.config = plan.config
        self.began = self.last_save = time.monotonic()
        self.has_saved = False
        record = folder.record()
        self.identity: str = record["identity"]
        self.threads = plan.config.threads or record.get("threads") or DEFAULT_THREADS
        if record.get("threads") not in (None, self.threads):
            before = counted(record["threads"], "thread")
            console.say(f"  note: {before} before, {self.threads} now: results may not be bit-identical.")
        set_up_torch(training.device, plan.config, self.threads)
        self.init_notes = record.get("init", {}).get("notes", ())
        self.restored: dict[str, Any] = {}  # the manifest of the checkpoint that it goes on from
        self.progress = self._restore()
        # What earlier sessions took; of one that was killed, until its last checkpoint.
        self.seconds_before = max(float(record.get("seconds", 0.0)), float(self.restored.get("seconds", 0.0)))
        self.memory_before: dict[str, int] = record.get("memory", {})
        record_session(folder, plan.command, self.progress.step, str(training.device), self.threads)

    def run(self, write_page: WritePage | None = None) -> None:
        """Train to the end, test and record. Raises Stopped or StoppedAtOnce when asked to stop before that."""
        self.stop.limit(self.config.max_minutes)
        console.announce(self.plan, self.training, self.folder, self.threads, self.progress)
        for note in (*self._notes(), *self._stretched(), *(remark.text for remark in self.training.remarks)):
            console.say(f"  note: {note}")
        self.training = compiled(self.training) if self.config.compile else self.training
        self.journal = Journal(self.folder.metrics_file, self.progress, self.restored.get("rows"))
        self._note_lost_rows(self.journal.loss)
        self._begin_logging()
        num_steps, columns = self.training.horizon.num_steps, self.training.displayed_metrics()
        self.display = console.ProgressDisplay(self.config.epochs, num_steps, self.progress.step, columns)
        try:
            with self.stop.deferred():
                self._train()
            self.stop.check_signal()
            self.display.close()
            result = self._test()
        except (Stopped, StoppedAtOnce):
            self._end("stopped")
            raise
        except BaseException:
            self._end("failed")
            raise
        finally:
            self.display.close()
        page = None
        try:
            if write_page is not None:
                with console.tolerating("its page"):
                    page = write_page(self.folder)
        finally:
            files = (self.folder.result_file, self.folder.page)
            self.journal.close("completed", [file for file in files if file.is_file()])
        console.summary(result, self.folder, page, self.plan.opens_page)

    def _train(self) -> None:
        """Train from wherever the run is to the end, and save."""
        if self.config.parent is not None and not checkpoint.steps_in(self.folder.checkpoints):
            self.save()  # from now on this run needs its parent no more
        if self.folder.record().get("unshown") == self.progress.epochs_done:
            self._log_progress()
            self.folder.update(unshown=None)
        fit(self.training, self.progress, self)
        self.save()

    # What the loop reports ----------------------------------------------------------------------------------------

    def on_step(self, row: dict[str, Any], progress: Progress) -> None:
        """Record a step."""
        self.journal.write(row)
        self.display.step(row, progress)

    def on_validation(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        """Record a validation in the midst of an epoch."""
        self.journal.write(row)
        self.display.validation(row, progress, is_best)

    def on_epoch(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        """Record an epoch, and let the task show samples where that is due."""
        self.journal.write(row)
        self.display.epoch(row, progress, is_best)
        every = self.training.task.show_every
        if every is not None and progress.epochs_done % every == 0:
            self._log_progress()
        if self.epoch_callback is not None:
            self.epoch_callback(self.folder, row)

    def check_stop(self) -> None:
        """Raise Stopped if a signal has come, or the time is over."""
        self.stop.check()

    def stopping_at_once(self) -> AbstractContextManager[None]:
        """Allow StoppedAtOnce anywhere in what takes long, and changes nothing that a checkpoint holds."""
        return self.stop.at_once()

    def save_is_due(self) -> bool:
        """Tell whether it is time for a checkpoint."""
        every = self.config.checkpoint.every_seconds
        return time.monotonic() - self.last_save >= (every if self.has_saved else min(every, FIRST_SAVE))

    def save(self) -> None:
        """Write a checkpoint."""
        progress, best = self.progress, self.progress.best
        self.journal.flush()
        content = {"identity": self.identity, **snapshot(self.training, progress)}
        facts = {
            "identity": self.identity,
            "epoch": progress.epochs_done,
            "seconds": self._seconds(),
            "rows": self.journal.rows.recorded(),
            "best": None if best is None else {"epoch": best.epoch, "step": best.step, "metrics": best.metrics},
        }
        checkpoint.save(self.folder.checkpoints, progress.step, content, facts, self.config.checkpoint.keep)
        self.last_save, self.has_saved = time.monotonic(), True

    def _log_progress(self) -> None:
        """Let the task show samples of what the network does by now; where that is stopped, the next session does."""
        progress = self.progress
        try:
            with self.stop.at_once():
                network = self.training.evaluated(progress.step)
                context = self._context(network, progress.epochs_done, progress.step, ("train", "val"))
                with evaluating(network):
                    self.training.task.log_progress(context)
        except (Stopped, StoppedAtOnce):
            self.folder.update(unshown=progress.epochs_done)
            raise

    def _begin_logging(self) -> None:
        progress, record = self.progress, self.folder.record()
        # Also of a run whose test was stopped, which is not counted.
        is_tested = record.get("test_measured") or progress.is_over(self.training)
        measured = progress.best.step if is_tested and progress.best is not None else progress.step
        run = LoggedRun(
            self.folder.path, self.plan.command, flat(self.config.to_dict()),
            chosen_settings(self.config, record, tuple(self.plan.typed)), self.training.task.train_metrics,
            min(progress.step, measured), self.journal.history,
        )  # fmt: skip
        ids = self.journal.begin(self.config.logger, run, record.get("loggers", {}))
        self.folder.update(loggers=ids or None)

    def _context(self, network: nn.Module, epoch: int, step: int, splits: tuple[str, ...]) -> EvalContext:
        """Return what a task may look at: these splits, without augmentation."""
        data = self.training.data
        return EvalContext(
            network, data,
            Splits(self.training.batches, (name for name in splits if len(getattr(data, name)))),
            lambda batches, step: map_images(network, batches, step, self.config), self.folder.path, epoch,
            lambda name, picture: self.journal.image(name, picture, step),
        )  # fmt: skip

    # Beginning and end --------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def _restore(self) -> Progress:
        """Put network and optimizer where the newest checkpoint left them, this run's or else its parent's."""
        content = checkpoint.load_newest(
            self.folder.checkpoints,
            lambda text: console.say(f"  warning: {text}; continuing from the checkpoint before it."),
            self.identity,
        )
        if content is not None:
            with checkpoint.fitting(self.folder.checkpoints):
                progress = restore(self.training, content)
            self.restored = checkpoint.manifest(self.folder.checkpoints, progress.step)
            return progress
        if self.config.parent is None:
            return Progress()
        parent = self.folder.parent()
        identity, _, step = self.config.parent.partition("@")
        content = checkpoint.load(parent.checkpoints, int(step), identity)
        self.restored = checkpoint.manifest(parent.checkpoints, int(step))
        with checkpoint.fitting(parent.checkpoints):
            progress = restore_parent(self.training, content, parent.run_config())
        rows = [row for row in read_rows(parent.metrics_file) if row["step"] <= progress.step]
        write_atomically(self.folder.metrics_file, "".join(map(row_line, rows)).encode())
        return progress

    def _note_lost_rows(self, loss: str) -> None:
        """Say and record what is lost of the rows; weights, scores and the best epoch are in the checkpoint."""
        if loss:
            what = f"{loss}, up to step {self.progress.step}"
            console.warn(f"  warning: {what}; the training continues without them.")
            self.folder.record_damage(what)
            self.folder.update(rows_are_lost=True)

    def _notes(self) -> list[str]:
        return [*self.plan.notes, *self.training.notes, *self.init_notes, *self.folder.record().get("damage", ())]

    def _stretched(self) -> list[str]:
        """Say what a new horizon does to the learning rate of a run that continues another one, when it begins."""
        if self.config.parent is None or checkpoint.steps_in(self.folder.checkpoints):
            return []
        before = self.folder.parent().run_config()
        return schedule_notes(self.training, before, self.progress.step, self.progress.scores)

    def _test(self) -> dict[str, Any]:
        """Measure the selected checkpoint on every split, test once or with test=false not at all; write the result.

        Where that is stopped it is not counted: nobody has seen what came out.
        """
        progress = self.progress
        network, chosen = select_checkpoint(self.training, progress)
        before = self.folder.record().get("test_measured", 0)
        record = self.folder.update(test_measured=before + self.config.test or None)
        splits = ("train", "val", "test") if self.config.test else ("train", "val")
        try:
            context = self._context(network, chosen["epoch"], chosen["step"], splits)
            metrics, report = measure(self.training, progress, context, chosen)
            test = {f"{name}/test": value for name, value in metrics.get("test", {}).items() if name != "samples"}
            self.journal.result(test, chosen["step"])
            rows = read_rows(self.folder.metrics_file)
            seconds, notes = self._seconds(), self._notes()
            result = result_record(self.training, progress, chosen, metrics, rows, record, seconds, notes)
            if self.config.report:
                with console.tolerating(f"evaluation files, as cnnbench evaluate {self.folder.shown_path} does"):
                    report.write(self.folder.evaluation(context.held_out, chosen["kind"]), context.log_image)
                    write_samples(self.training, context, self.folder.path / "samples")
        except StoppedAtOnce:
            self.folder.update(test_measured=before or None)
            raise
        with self.stop.deferred():
            self.journal.flush()
            write_sealed(self.folder.result_file, {**result, "rows": self.journal.rows.recorded()})
            self._end("completed")
        return result

    def _end(self, status: str) -> None:
        memory = provenance.peak_memory(str(self.training.device), self.memory_before)
        self.folder.end(status, seconds=self._seconds(), step=self.progress.step, memory=memory)
        if status != "completed":  # else loggers are given the page as well
            self.journal.close(status)
