"""A run that is there already: which of several a plan means, what is restored in it, what changed since it began."""

from collections.abc import Mapping, Sequence

from cnnbench.store.files import DamagedError, as_json
from cnnbench.store.folder import LABELS, RunFolder
from cnnbench.store.provenance import changed_names
from cnnbench.training import console
from cnnbench.training.leaks import changed_images
from cnnbench.training.plan import Plan
from cnnbench.training.setup import TrainingSetup

SHOWN = 6  # names of files


def made_with(code: Mapping[str, str], runs: Sequence[RunFolder]) -> RunFolder:
    """Return the newest of the runs of an identity that has these plugins, or else the newest of all."""

    def has_plugins(run: RunFolder) -> bool:
        return all(name.startswith("cnnbench/") for name in changed_names(run.record().get("code", {}), code))

    return ([run for run in runs if has_plugins(run)] or runs)[-1]


def record_labels(folder: RunFolder, plan: Plan) -> None:
    """Record name, notes and tags that were typed, also of a finished run: they are no part of what was computed."""
    before = folder.record().get("labels", {})
    labels = before | {key: getattr(plan.config, key) for key in LABELS if key in plan.typed}
    if labels != before:
        folder.update(labels=labels)


def restore_config(folder: RunFolder, plan: Plan) -> None:
    """Write `config.yaml` again where it cannot be read. Raises UserError where it is another run's."""
    try:
        folder.run_config()
    except DamagedError:
        with folder.lock():
            record = folder.record()
            config = as_json(record.get("config")) or plan.config.to_dict()
            folder.write_config(config, record.get("command", plan.command))
        say_restored(folder, "config.yaml")


def say_restored(folder: RunFolder, name: str) -> None:
    """Record that a file of a run was restored, and say so."""
    what = f"{name} could not be read, and was restored"
    folder.record_damage(what)
    console.warn(f"warning: {folder.shown_path}: {what}.")


def code_changes(existing: RunFolder, plan: Plan) -> list[str]:
    """Return which code changed since a run began, in a line; empty: none."""
    changed = changed_names(existing.record().get("code", {}), plan.code)
    return [f"code: {named(changed)}"] if changed else []


def data_changes(existing: RunFolder, training: TrainingSetup) -> list[str]:
    """Return what changed in the data since a run began, in a line; empty: nothing."""
    record = existing.record()
    if record.get("data", {}).get("fingerprint") == training.data.fingerprint:
        return []
    name = record["choices"].get("data", "the data set")
    return [f"data: the content of '{name}' has changed{changed_images(existing, training.data)}"]


def named(names: list[str]) -> str:
    """Return the first few names, and how many there are more."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def stale_message(existing: RunFolder, changes: list[str], *choices: str) -> str:
    """Return that code or data changed since a run began, and what to choose from."""
    state = "was finished" if existing.is_completed else "was started"
    choices = choices or (
        "rerun=true         trains again, in a new folder; nothing is overwritten",
        "accept_stale=true  uses the run as it is",
    )
    return "\n".join(
        [
            f"{existing.shown_path} {state} with code or data that have changed since:",
            *(f"  {change}" for change in changes),
            "choose one:" if len(choices) > 1 else "to go on all the same:",
            *(f"  {choice}" for choice in choices),
        ]
    )
