"""One run, from its plan to its result: trained or continued, tested once, recorded."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from cnnbench.config.values import flat
from cnnbench.errors import Stopped, UserError
from cnnbench.plugins import register_everything
from cnnbench.store import checkpoint, provenance
from cnnbench.store.files import read_rows, row_line, write_atomically, write_sealed
from cnnbench.store.folder import RunFolder, now
from cnnbench.tasks.context import EvalContext, Splits
from cnnbench.training import console
from cnnbench.training.journal import Journal
from cnnbench.training.loggers.base import LoggedRun, chosen_settings
from cnnbench.training.loop import Progress, fit, restore, snapshot
from cnnbench.training.plan import Plan
from cnnbench.training.resolve import prepare_run_dir, resolve, resolve_run_dir, with_code
from cnnbench.training.result import measure, result_record, select_checkpoint
from cnnbench.training.setup import DEFAULT_THREADS, TrainingSetup, make_horizon, make_schedule, set_up_torch
from cnnbench.training.signals import StopRequests
from cnnbench.training.step import evaluating, map_images

WritePage = Callable[[RunFolder], Path]
"""Makes the page of a finished run, and returns where it lies."""
OnEpoch = Callable[[RunFolder, Mapping[str, Any]], None]
"""Is called with the row of each epoch after it is written; raises Stopped to stop after this epoch."""


def carry_out(plan: Plan, write_page: WritePage | None = None) -> int:
    """Do what the plan says, and return the exit code: 0, or 128 + the number of the signal that stopped it."""
    return carried_out(plan, write_page)[0]


def carried_out(
    plan: Plan, write_page: WritePage | None = None, on_epoch: OnEpoch | None = None
) -> tuple[int, RunFolder]:
    """Do what the plan says, and return the exit code and the run, which is not finished where it was stopped.

    An interrupted run is continued; the result of a finished one is shown. Raises UserError where it cannot be carried
    out, or code or data changed since it began, and TrainingError where training fails.
    """
    modules = register_everything(plan.plugins)
    plan = with_code(plan, provenance.code_hashes(modules) | provenance.typed_code(plan.config))
    plan, training = resolve(plan)
    folder, changes = resolve_run_dir(plan, training)
    if folder.is_completed:
        console.say(f"finished {folder.record()['ended']}; rerun=true trains it again.")
        for change in changes:
            console.warn(f"note: made with other {change}")
        console.summary(folder.result(), folder, folder.page if folder.page.is_file() else None, plan.opens_page)
        return 0, folder
    init_record: dict[str, Any] = {}
    if plan.config.source is not None and not checkpoint.steps_in(folder.checkpoints):
        from cnnbench.training.init import load_initial_weights

        init_record = load_initial_weights(training)  # before anything is written: they may not fit
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder.path} cannot be created: {error}; CNNBENCH_OUTPUTS=FOLDER names another place."
        ) from error
    with folder.lock():
        prepare_run_dir(folder, plan, training, init_record)
        try:
            with StopRequests(plan.config.max_minutes) as stop:
                trainer = Trainer(plan, training, folder, stop, on_epoch)
                return trainer.run(write_page if plan.config.report else None), folder
        except BaseException as error:
            status = "paused" if isinstance(error, KeyboardInterrupt) else "failed"
            folder.update(status=status, error=f"{type(error).__name__}: {error}", ended=now())
            raise


class Trainer:
    """A run while it is being worked on; the observer of its loop."""

    def __init__(
        self,
        plan: Plan,
        training: TrainingSetup,
        folder: RunFolder,
        stop: StopRequests,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.plan, self.training, self.folder, self.stop = plan, training, folder, stop
        self.epoch_callback = on_epoch
        self.config = plan.config
        self.began = self.last_save = time.monotonic()
        record = folder.record()
        self.identity: str = record["identity"]
        self.threads = plan.config.threads or record.get("threads") or DEFAULT_THREADS
        if record.get("threads") not in (None, self.threads):
            console.say(
                f"  note: {record['threads']} threads before, {self.threads} now: results may not be bit-identical."
            )
        set_up_torch(training.device, plan.config, self.threads)
        self.init_notes = record.get("init", {}).get("notes", ())
        self.restored: dict[str, Any] = {}  # the manifest of the checkpoint that it goes on from
        self.progress = self._restore()
        self.seconds_before = self._seconds_spent(record)
        computed_with = provenance.environment(str(training.device), self.threads)
        session = {"time": now(), "command": plan.command, "step": self.progress.step, "process": os.getpid()}
        sessions = [*record.get("sessions", []), session | computed_with]
        folder.update(status="running", error=None, sessions=sessions, **computed_with)

    def run(self, write_page: WritePage | None = None) -> int:
        """Train to the end, test and record; or until asked to stop. Return the exit code."""
        console.announce(self.plan, self.training, self.folder, self.threads, self.progress)
        for note in (*self._notes(), *self._schedule_notes(), *self.training.remarks):
            console.say(f"  note: {note}")
        self.journal = Journal(self.folder.metrics_file, self.progress, self.restored.get("rows"))
        self._note_lost_rows(self.journal.loss)
        self._begin_logging()
        task, num_steps = self.training.task, self.training.horizon.num_steps
        shown = {*task.train_metrics, *task.own_metrics, *(name for name, _ in task.watched)}  # others are in the rows
        columns = [f"{name}/train" for name in task.train_metrics]
        columns += [f"{name}/val" for name in task.eval_metrics if name in shown and len(self.training.data.val)]
        self.display = console.ProgressDisplay(self.config.epochs, num_steps, self.progress.step, columns)
        try:
            if self.config.parent is not None and not checkpoint.steps_in(self.folder.checkpoints):
                self.save()  # from now on this run needs its parent no more
            fit(self.training, self.progress, self)
            self.save()
            self.display.close()
            result = self._test()
        except Stopped:
            self.display.close()
            self._end(self.stop.status)
            console.say(f"  {self.stop.status} at step {self.progress.step} of {num_steps}")
            console.say(f"  to go on, type the same command again, or: cnnbench resume {self.folder.shown_path}")
            return self.stop.exit_code
        except BaseException:
            self._end("failed")
            raise
        finally:
            self.display.close()
        page = None
        if write_page is not None:
            with console.tolerating("its page"):
                page = write_page(self.folder)
        files = (self.folder.result_file, self.folder.page)
        self.journal.close("completed", [file for file in files if file.is_file()])
        console.summary(result, self.folder, page, self.plan.opens_page)
        return 0

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
        every, epoch = self.training.task.show_every, progress.epochs_done
        if every is not None and epoch % every == 0:
            network = self.training.evaluated(progress.step)
            with evaluating(network):
                self.training.task.log_progress(self._context(network, epoch, progress.step, ("train", "val")))
        if self.epoch_callback is not None:
            self.epoch_callback(self.folder, row)

    def check_stop(self) -> None:
        """Raise Stopped if a signal has come, or the time is over."""
        self.stop.check()

    def save_is_due(self) -> bool:
        """Tell whether it is time for a checkpoint."""
        return time.monotonic() - self.last_save >= self.config.checkpoint.every_seconds

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
        self.last_save = time.monotonic()

    def _begin_logging(self) -> None:
        progress, record = self.progress, self.folder.record()
        measured = progress.best.step if record.get("test_measured") and progress.best is not None else progress.step
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

    def _seconds_spent(self, record: dict[str, Any]) -> float:
        """Return what earlier sessions took; of one that was killed, what it took until its last checkpoint."""
        return max(float(record.get("seconds", 0.0)), float(self.restored.get("seconds", 0.0)))

    def _restore(self) -> Progress:
        """Put network and optimizer where the newest checkpoint left them, this run's or else its parent's."""

        def warn(text: str) -> None:
            console.say(f"  warning: {text}; going on from the checkpoint before it.")

        content = checkpoint.load_newest(self.folder.checkpoints, warn, self.identity)
        if content is not None:
            with checkpoint.fitting(self.folder.checkpoints):
                progress = restore(self.training, content)
            self.restored = checkpoint.manifest(self.folder.checkpoints, progress.step)
            return progress
        if self.config.parent is None:
            return Progress()
        parent = self._parent()
        identity, _, step = self.config.parent.partition("@")
        content = checkpoint.load(parent.checkpoints, int(step), identity)
        self.restored = checkpoint.manifest(parent.checkpoints, int(step))
        with checkpoint.fitting(parent.checkpoints):
            progress = restore(self.training, content)
        progress.stopped_early, progress.waited = False, 0
        rows = [row for row in read_rows(parent.metrics_file) if row["step"] <= progress.step]
        write_atomically(self.folder.metrics_file, "".join(map(row_line, rows)).encode())
        return progress

    def _note_lost_rows(self, loss: str) -> None:
        """Say and record what is lost of the rows; weights, scores and the best epoch are in the checkpoint."""
        if loss:
            what = f"{loss}, up to step {self.progress.step}"
            console.warn(f"  warning: {what}; the training goes on without them.")
            damage = dict.fromkeys([*self.folder.record().get("damage", []), what])
            self.folder.update(damage=list(damage), rows_are_lost=True)

    def _parent(self) -> RunFolder:
        return RunFolder.open(Path(self.folder.record()["parent"]["folder"]))

    def _notes(self) -> list[str]:
        return [*self.plan.notes, *self.training.notes, *self.init_notes, *self.folder.record().get("damage", ())]

    def _schedule_notes(self) -> list[str]:
        """Say what a new horizon does to the learning rate of a run that continues another one."""
        is_first = not checkpoint.steps_in(self.folder.checkpoints)
        if self.config.parent is None or self.config.scheduler.name == "none" or not is_first:
            return []
        step, scores = self.progress.step, self.progress.scores
        parent = self._parent().run_config()
        shorter = make_horizon(parent, self.training.horizon.steps_per_epoch)
        before = make_schedule(parent, shorter)(max(0, step - 1), scores)
        after = self.training.schedule(step, scores)
        rate = self.config.optimizer.settings["lr"]
        return [
            f"scheduler {self.config.scheduler.name} is stretched from {parent.epochs} to {self.config.epochs} epochs: "
            f"the learning rate was {rate * before:.3g} at the parent's last step, and is {rate * after:.3g} at the "
            "next."
        ]

    def _test(self) -> dict[str, Any]:
        """Measure the selected checkpoint on every split, test once, and write the result."""
        progress = self.progress
        network, chosen = select_checkpoint(self.training, progress)
        record = self.folder.update(test_measured=self.folder.record().get("test_measured", 0) + 1)
        context = self._context(network, chosen["epoch"], chosen["step"], ("train", "val", "test"))
        metrics, report = measure(self.training, progress, context, chosen["step"])
        test = {f"{name}/test": value for name, value in metrics["test"].items() if name != "samples"}
        self.journal.result(test, chosen["step"])
        rows = read_rows(self.folder.metrics_file)
        result = result_record(self.training, progress, chosen, metrics, rows, record, self._seconds(), self._notes())
        write_sealed(self.folder.result_file, {**result, "rows": self.journal.rows.recorded()})
        if self.config.report:
            with console.tolerating("evaluation files"):
                report.write(self.folder.evaluation("test", chosen["kind"]), context.log_image)
        self.journal.flush()
        self._end("completed")
        return result

    def _end(self, status: str) -> None:
        self.folder.update(status=status, ended=now(), seconds=self._seconds(), step=self.progress.step)
        if status != "completed":  # else loggers are given the page as well
            self.journal.close(status)
