"""One run, from its plan to its result: trained or continued, tested once, recorded."""

import json
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cnnbench.config.validate import check
from cnnbench.config.values import flat
from cnnbench.errors import Stopped, UserError, grouped
from cnnbench.registry import register_everything
from cnnbench.store import checkpoint
from cnnbench.store.files import write_atomically, write_json
from cnnbench.store.folder import RunFolder, now
from cnnbench.store.metrics import read_rows
from cnnbench.tasks.context import EvalContext, Splits
from cnnbench.training import console
from cnnbench.training.conclusion import choose, measure, reached
from cnnbench.training.init import Start, find_start
from cnnbench.training.inspection import remarks
from cnnbench.training.journal import Journal
from cnnbench.training.locate import locate, prepare_folder
from cnnbench.training.loop import Progress, evaluating, fit, map_images
from cnnbench.training.plan import Plan
from cnnbench.training.resolve import Ready, horizon_of, make_schedule, preflight
from cnnbench.training.restore import restore, stateful
from cnnbench.training.setup import DEFAULT_THREADS, make_parts, plain_batches, set_up_torch
from cnnbench.training.signals import StopRequests


def carry_out(plan: Plan) -> int:
    """Do what the plan says, and return the exit code: 0, or 128 + the number of the signal that stopped it.

    A run that is there already is continued; a finished one is shown. Raises UserError where it cannot be carried
    out, or code or data changed since it began, and TrainingError where training fails.
    """
    outside = register_everything(plan.plugins)
    ready = preflight(plan.config)
    folder = locate(plan, ready, outside)
    if folder.is_completed:
        note = f"finished {folder.record()['ended']}; rerun=true trains it anew."
        console.summary(folder.result(), folder.path, note, folder.page if folder.page.is_file() else None)
        return 0
    # Checked before anything is written; a run with a checkpoint has all that it needs.
    start = None if checkpoint.steps_in(folder.checkpoints) else find_start(plan.config, ready)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder.path} cannot be made: {error}; CNNBENCH_OUTPUTS=FOLDER names another place."
        ) from error
    with folder.lock():
        prepare_folder(folder, plan, ready, outside, start)
        try:
            with StopRequests(plan.config.max_minutes) as stop:
                return _Session(plan, ready, folder, stop, start).run()
        except BaseException as error:
            status = "paused" if isinstance(error, KeyboardInterrupt) else "failed"
            folder.update(status=status, error=f"{type(error).__name__}: {error}", ended=now())
            raise


def report(folder: RunFolder) -> Path | None:
    """Write the page of a finished run, and return where it lies; None where that cannot be done."""
    with console.tolerating("its page"):
        from cnnbench.analysis.reports.single import page_of  # with pandas, matplotlib, jinja2

        return page_of(folder).write(folder.path)
    return None


class _Session:
    """A run while it is being worked on; the observer of its loop."""

    def __init__(
        self, plan: Plan, ready: Ready, folder: RunFolder, stop: StopRequests, start: Start | None = None
    ) -> None:
        self.plan, self.ready, self.folder, self.stop = plan, ready, folder, stop
        self.config = plan.config
        self.began = time.monotonic()
        self.last_save = time.monotonic()
        record = folder.record()
        self.threads = plan.config.threads or record.get("threads") or DEFAULT_THREADS
        if record.get("threads") not in (None, self.threads):
            console.say(f"  note: {record['threads']} threads before, {self.threads} now: the last bits may differ.")
        self.seconds_before = self._seconds_spent(record)
        set_up_torch(ready.device, plan.config, self.threads)
        self.init = record.get("init", {})  # where its weights came from
        self.parts = make_parts(plan.config, ready, start)
        self.progress = self._restore()
        started = {"time": now(), "command": plan.command, "step": self.progress.step, "process": os.getpid()}
        folder.update(
            status="running", error=None, threads=self.threads, sessions=[*record.get("sessions", []), started]
        )

    def run(self) -> int:
        self._announce()
        self.journal = Journal(self.folder.path, self.folder.metrics_file, self.progress)
        task = self.parts.task
        told = {*task.train_metrics, *(name for name, _ in task.watched)}
        self.display = console.ProgressDisplay(self.config, self.ready.horizon.num_steps, self.progress.step, told)
        try:
            if self.config.parent is not None and not checkpoint.steps_in(self.folder.checkpoints):
                self.save()  # from now on this run needs its parent no more
            fit(self.parts, self.progress, self)
            self.save()
            self.display.close()
            result = self._test()
        except Stopped:
            self._ended(self.stop.status)
            self.display.close()
            where = console.shorter(self.folder.path)
            console.say(f"  {self.stop.status} at step {self.progress.step} of {self.ready.horizon.num_steps}")
            console.say(f"  to go on, type the same command again, or: cnnbench resume={where}")
            return self.stop.exit_code
        except BaseException:
            self._ended("failed")
            raise
        finally:
            self.display.close()
            self.journal.close()
        console.summary(result, self.folder.path, page=report(self.folder) if self.config.report else None)
        return 0

    # What the loop tells ----------------------------------------------------------------------------------------

    def on_step(self, row: dict[str, Any], progress: Progress) -> None:
        self.journal.write(row)
        self.display.step(row, progress)

    def on_validation(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        self.journal.write(row)
        self.display.validation(row, progress, is_best)

    def on_epoch(self, row: dict[str, Any], progress: Progress, is_best: bool) -> None:
        self.journal.write(row)
        self.display.epoch(row, progress, is_best)
        every, epoch = self.parts.task.show_every, progress.epochs_done
        if every is not None and epoch % every == 0:
            network = self.parts.evaluated(progress.step)
            with evaluating(network):
                self.parts.task.log_progress(self._context(network, epoch, progress.step, ("train", "val")))

    def check_stop(self) -> None:
        self.stop.check()

    def save_is_due(self) -> bool:
        return time.monotonic() - self.last_save >= self.config.checkpoint.every_seconds

    def save(self) -> None:
        progress, best = self.progress, self.progress.best
        self.journal.flush()
        content = {
            "identity": self.config.identity(),
            "network": self.parts.network.state_dict(),
            **{name: part.state_dict() for name, part in stateful(self.parts).items()},
            "progress": {key: value for key, value in vars(progress).items() if key != "best"},
            "best": None if best is None else dict(vars(best)),
        }
        facts = {
            "epoch": progress.epochs_done,
            "seconds": self.seconds_before + time.monotonic() - self.began,
            "best": None if best is None else {"epoch": best.epoch, "step": best.step, "metrics": best.metrics},
        }
        checkpoint.save(self.folder.checkpoints, progress.step, content, facts, self.config.checkpoint.keep)
        self.last_save = time.monotonic()

    def _context(self, network: nn.Module, epoch: int, step: int, splits: tuple[str, ...]) -> EvalContext:
        """Return what a task may look at: these splits, without augmentation."""
        data = self.ready.data
        return EvalContext(
            network, data,
            Splits(partial(plain_batches, self.ready), (name for name in splits if len(getattr(data, name)))),
            lambda batches, each: map_images(network, batches, each, self.config), self.folder.path, epoch,
            lambda name, picture: self.journal.picture(name, picture, step),
        )  # fmt: skip

    # Beginning and end ------------------------------------------------------------------------------------------

    def _seconds_spent(self, record: dict[str, Any]) -> float:
        """Return what earlier sessions took; of one that was killed, what it took until its last checkpoint."""
        steps = checkpoint.steps_in(self.folder.checkpoints)
        saved = checkpoint.manifest(self.folder.checkpoints, steps[-1]).get("seconds", 0.0) if steps else 0.0
        return max(float(record.get("seconds", 0.0)), saved)

    def _restore(self) -> Progress:
        """Put network and optimizer where the newest checkpoint left them, this run's or else its parent's."""
        content = checkpoint.load_newest(self.folder.checkpoints, self._warn)
        if content is not None:
            return restore(self.parts, content)
        if self.config.parent is None:
            return Progress()
        parent = RunFolder.open(self._parent_path())
        content = checkpoint.load(parent.checkpoints, int(self.config.parent.partition("@")[2]))
        progress = restore(self.parts, content)
        progress.stopped_early, progress.waited = False, 0
        rows = [row for row in read_rows(parent.metrics_file) if row["step"] <= progress.step]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.folder.metrics_file, lines.encode())
        return progress

    def _parent_path(self) -> Path:
        return Path(self.folder.record()["parent"]["folder"])

    def _warn(self, text: str) -> None:
        console.say(f"  warning: {text}; going on from the checkpoint before it.")

    def _announce(self) -> None:
        plan, data, spec = self.plan, self.ready.data, self.ready.data.spec
        total, trained = self.ready.parameters["total"], self.ready.parameters["trainable"]
        later = f", all after epoch {self.config.freeze.epochs}" if self.config.freeze.epochs else ""
        counts = f"{len(data.train)} train, {len(data.val)} validation, {len(data.test)} test images"
        facts = {
            "network": f"{grouped(total)} parameters"
            + (f", {grouped(trained)} trained{later}" if trained < total else ""),
            "data": f"{counts}; {spec.num_classes} classes; {spec.channels}x{spec.height}x{spec.width}",
            "device": f"{self.ready.device}, {self.threads} threads, {self.config.precision}",
            "folder": console.shorter(self.folder.path),
        }
        if self.progress.step:
            facts["going on"] = f"from step {self.progress.step} of {self.ready.horizon.num_steps}"
        if self.config.parent is not None:
            facts["parent"] = console.shorter(self._parent_path())
        if plan.brief:
            console.say(f"  {console.shorter(self.folder.path)}")
        else:
            console.header(self.config, plan.choices, plan.origins, facts)
        for note in (*self._notes(), *self._schedule_notes(), *remarks(self.parts)):
            console.say(f"  note: {note}")

    def _notes(self) -> list[str]:
        return [*self.plan.notes, *self.ready.notes, *self.init.get("notes", ())]

    def _schedule_notes(self) -> list[str]:
        """Say what a new horizon does to the learning rate of a run that goes on from another."""
        is_first = not checkpoint.steps_in(self.folder.checkpoints)
        if self.config.parent is None or self.config.scheduler.name == "none" or not is_first:
            return []
        step = self.progress.step
        parent, _ = check(RunFolder.open(self._parent_path()).config(), is_recorded=True)
        scores, epochs = self.progress.scores, parent.epochs
        shorter = horizon_of(parent, self.ready.horizon.steps_per_epoch)
        before = make_schedule(parent, shorter)(max(0, step - 1), scores)
        after = self.parts.schedule(step, scores)
        rate = self.config.optimizer.settings["lr"]
        return [
            f"scheduler {self.config.scheduler.name} is stretched from {epochs} to {self.config.epochs} epochs: the "
            f"learning rate was {rate * before:.3g} at the parent's last step, and is {rate * after:.3g} at the next."
        ]

    def _test(self) -> dict[str, Any]:
        """Measure the chosen checkpoint on every split, test once, and write the result."""
        progress = self.progress
        network, chosen = choose(self.parts, progress)
        measured = self.folder.update(test_measured=self.folder.record().get("test_measured", 0) + 1)["test_measured"]
        context = self._context(network, chosen["epoch"], chosen["step"], ("train", "val", "test"))
        metrics, findings = measure(self.parts, progress, context, chosen["step"])
        test = {f"{name}/test": value for name, value in metrics["test"].items() if name != "samples"}
        self.journal.scalars(test, chosen["step"])
        self.journal.hparams(flat(self.config.to_dict()), test)
        unvalidated = ["data.val_fraction=0: there was no validation, the last checkpoint was tested"]
        result = {
            "identity": self.config.identity(),
            "checkpoint": chosen,
            **metrics,
            "test_measured": measured,
            "epochs": progress.epochs_done,
            "stopped_early": progress.stopped_early,
            "parameters": self.ready.parameters,
            "references": [
                {**reference.model_dump(), "ours": metrics[reference.split].get(reference.metric)}
                for reference in self.config.references
                if reference.split in metrics
            ],
            "watched": [list(metric) for metric in self.parts.task.watched],
            "reached": reached(self.config.reach, self.parts.task.watched[0], read_rows(self.folder.metrics_file)),
            "departures": self.folder.record().get("departures", []),
            "seconds": {"train": progress.train_seconds, "total": self.seconds_before + time.monotonic() - self.began},
            "images_per_second": progress.samples_trained / max(progress.train_seconds, 1e-9),
            "notes": self._notes() + (unvalidated if self.parts.val is None else []),
        } | ({"init": self.init} if self.init else {})
        write_json(self.folder.result_file, result)
        if self.config.report:
            where = self.folder.evaluation("test", "best" if chosen["chosen"].startswith("best") else "last")
            with console.tolerating("what is behind the result"):
                findings.write(where, context.log_image)
        self._ended("completed")
        return result

    def _ended(self, status: str, **more: Any) -> None:
        seconds = self.seconds_before + time.monotonic() - self.began
        self.folder.update(status=status, ended=now(), seconds=seconds, step=self.progress.step, **more)
