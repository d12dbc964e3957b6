"""What is said of a run that is finished already, was stopped, or failed."""

from collections.abc import Callable, Sequence
from pathlib import Path

from cnnbench.store import checkpoint
from cnnbench.store.folder import RunFolder
from cnnbench.training import console
from cnnbench.training.signals import StopRequests

WritePage = Callable[[RunFolder], Path]
"""Writes the page of a finished run, and returns its path."""


def show_finished(
    folder: RunFolder, changes: Sequence[str], write_page: WritePage | None, opens_page: bool = False
) -> None:
    """Show the result of a finished run, and write its page where that was stopped.

    changes: of code and data since. opens_page: in the browser.
    """
    console.say(f"finished {folder.record()['ended']}; rerun=true trains it again.")
    for change in changes:
        console.warn(f"note: made with other {change}")
    if write_page is not None and not folder.page.is_file():
        with console.tolerating("its page"), folder.lock():
            write_page(folder)
    console.summary(folder.result(), folder, folder.page if folder.page.is_file() else None, opens_page)
    for change in changes:  # again: above the table it is missed
        console.say(f"  this result was made with other {change}; rerun=true trains again, with what is there now")


def say_stopped(folder: RunFolder, stop: StopRequests, error: BaseException, num_steps: int) -> None:
    """Record that a run was stopped, and say so, and how to continue it."""
    cause = str(error) if stop.signal is None else stop.cause
    if folder.is_completed:
        console.say(f"  finished, and stopped by {cause} before its page was written: {folder.shown_path}")
        console.say("  the same command again writes it")
        return
    record = folder.record()
    if record["status"] == "running":  # it had not begun to train
        record = {"step": 0} | record
        folder.end("stopped", step=record["step"])
    console.say(f"  stopped at step {record['step']} of {num_steps}{', by ' if cause else ''}{cause}")
    console.say(f"  to continue, type the same command again, or: cnnbench resume {folder.shown_path}")


def kept_checkpoint(folder: RunFolder) -> str:
    """Say from where a run can continue."""
    steps = checkpoint.steps_in(folder.checkpoints)
    return f"the last checkpoint, of step {steps[-1]}, is kept." if steps else "there is no checkpoint yet."
