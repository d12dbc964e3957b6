"""From a plan to a training that is set up, and the folder of its run: an existing one, or a new one."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cnnbench.config.run_config import RunConfig
from cnnbench.config.schema import DataConfig
from cnnbench.config.validate import adapt_until_valid
from cnnbench.data.copies import packed
from cnnbench.data.images import counts_per_class
from cnnbench.data.prepare import PreparedData, prepare, root_of
from cnnbench.errors import NotWrittenError, UserError
from cnnbench.plugins import register_everything
from cnnbench.registry import DATASETS
from cnnbench.store import checkpoint, provenance
from cnnbench.store.files import DamagedError, make_folder, write_atomically, write_sealed
from cnnbench.store.folder import LABELS, RunFolder, find_runs, now, outputs_dir
from cnnbench.training import console
from cnnbench.training.compilation import check_compiler
from cnnbench.training.existing import (
    code_changes,
    data_changes,
    made_with,
    named,
    record_labels,
    restore_config,
    say_restored,
    stale_message,
)
from cnnbench.training.leaks import record_of, seen_before
from cnnbench.training.plan import Plan, unlike_before, with_initial_weights
from cnnbench.training.setup import TrainingSetup, find_device, make_horizon, make_schedule, setup


def resolve(
    plan: Plan, place: torch.device | None = None, prepared: Callable[[DataConfig], PreparedData] = prepare
) -> tuple[Plan, TrainingSetup]:
    """Return the plan with defaults adapted to the data, and everything that its training is made of.

    place: where that is built; None: on the configured device. prepared: returns the data. Raises ConfigError with
    every setting that does not fit, UserError for data and networks that do not work.
    """
    if plan.config.compile:
        check_compiler(find_device(plan.config))
    attempt = partial(setup, place=place, prepared=prepared)
    if plan.folder is not None or plan.parent is not None:  # what a run has recorded is no longer adapted
        return plan, attempt(plan.config)
    config, training, notes = adapt_until_valid(plan.config, plan.typed, attempt)
    return replace(plan, config=config, notes=(*plan.notes, *notes)), training


def resolve_run(plan: Plan) -> tuple[Plan, TrainingSetup, RunFolder, list[str]]:
    """Return the plan adapted to its data, its training, the run that it means, and what changed since that began.

    Raises UserError as `with_initial_weights`, `resolve`, `with_code` and `resolve_run_dir` do.
    """
    plan = with_initial_weights(plan)
    modules = register_everything(plan.plugins)
    plan = with_code(plan, provenance.code_hashes(modules) | provenance.typed_code(plan.config))
    plan, training = resolve(plan)
    folder, changes = resolve_run_dir(plan, training)
    if plan.folder is None and plan.parent is None:
        plan = replace(plan, notes=(*plan.notes, *unlike_before(folder, plan.command, plan.config.to_dict())))
    return plan, training, folder, changes


def with_code(plan: Plan, code: Mapping[str, str]) -> Plan:
    """Return the plan with the code that carries it out, as it is now.

    Raises UserError where that is not the code that the run was planned with: another network would be trained.
    """
    changed = provenance.changed_names(plan.code, code) if plan.code else []
    if changed and not plan.accept_stale:
        raise UserError(
            f"code changed since this run was planned: {named(changed)}. Undo the change, or type the command again."
        )
    return replace(plan, code=code)


def resolve_run_dir(plan: Plan, training: TrainingSetup) -> tuple[RunFolder, list[str]]:
    """Return the run that the plan continues or shows, and what changed since; its folder may not exist yet.

    Raises UserError for a finished run whose data changed, and for an unfinished one whose code or data changed.
    """
    existing = _existing(plan)
    if existing is None or plan.rerun:
        return _new_folder(plan), [] if plan.parent is None else _changes_since_parent(plan, training)
    _restore_files(existing, plan, training)
    record_labels(existing, plan)
    for section, key in (("data", "monitor"), ("checkpoint", "top")) if existing.is_completed else ():
        value = getattr(getattr(plan.config, section), key)
        word = f"{section}.{key}"
        if value not in (None, 1) and existing.config()[section].get(key) != value:
            console.say(f"note: {word}={value}: this run was trained without it; rerun=true trains it again with it")
    code, data = code_changes(existing, plan), data_changes(existing, training)
    unaccepted = data if existing.is_completed else [*code, *data]
    if unaccepted and not plan.accept_stale:
        raise UserError(stale_message(existing, unaccepted))
    return existing, [*code, *data]


def _changes_since_parent(plan: Plan, training: TrainingSetup) -> list[str]:
    """Return what changed since the run that is trained for longer. Raises UserError unless that is accepted.

    Its best validation is compared with later ones, which have to be of the same images and the same network.
    """
    assert plan.parent is not None
    parent = RunFolder.open(plan.parent)
    changes = [*code_changes(parent, plan), *data_changes(parent, training)]
    if changes and not plan.accept_stale:
        raise UserError(
            stale_message(parent, changes, "accept_stale=true  trains it for longer with what is there now")
        )
    return changes


def begin_run_dir(folder: RunFolder, training: TrainingSetup) -> dict[str, Any]:
    """Make the folder of a run, load initial weights where it begins with some, and return what is recorded of them."""
    init_record: dict[str, Any] = {}
    if training.config.source is not None and not checkpoint.steps_in(folder.checkpoints):
        from cnnbench.training.init import load_initial_weights

        init_record = load_initial_weights(training)  # before anything is written: they may not fit
    try:
        make_folder(folder.path)
    except NotWrittenError as error:
        raise UserError(
            f"{folder.path} cannot be created: {error.strerror}; CNNBENCH_OUTPUTS=FOLDER names another place."
        ) from error
    return init_record


def prepare_run_dir(
    folder: RunFolder, plan: Plan, training: TrainingSetup, init_record: Mapping[str, Any], changes: Sequence[str]
) -> None:
    """Write what is known before training into a new run, or make sure that an existing one still has the same split.

    init_record: what is recorded of initial weights. changes: of code and data, that were accepted.
    """
    if folder.record_file.exists():
        if folder.record()["split"] != training.data.split.hash():
            raise UserError(f"{folder.path}: the split into training and validation has changed; nothing was touched.")
        if changes:
            folder.update(accepted=[*folder.record().get("accepted", []), *changes])
        return
    write_sealed(folder.split_file, _split_record(plan, training, plan.parent), long_lines=True)
    values = plan.config.to_dict()
    root = root_of(plan.config.data)
    if values["data"]["root"] is not None or root == Path.cwd():  # another command may run elsewhere
        values["data"]["root"] = str(root)
    record = _first_record(plan, training) | ({"init": dict(init_record)} if init_record else {})
    record |= {"accepted": list(changes)} if changes else {}
    folder.create(values, plan.command, record)


def record_session(folder: RunFolder, command: str, step: int, device: str, threads: int) -> None:
    """Add a session to what a run records: from which step, by which code, and what it computes with."""
    record, computed_with, git = folder.record(), provenance.environment(device, threads), provenance.git_state()
    if git is not None and git["dirty"] and (diff := provenance.git_diff()) is not None:
        git["diff"] = f"code-{hashlib.sha256(diff).hexdigest()[:8]}.diff"  # of another session it may be another one
        write_atomically(folder.path / git["diff"], diff)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)  # of other trainings in this process
    session = {"time": now(), "command": command, "step": step, "process": os.getpid(), "git": git} | computed_with
    folder.update(
        status="running", error=None, sessions=[*record.get("sessions", []), session], git=record.get("git", git),
        packages=provenance.packages(), **computed_with,
    )  # fmt: skip


def _existing(plan: Plan) -> RunFolder | None:
    """Return the run that the plan means, if there is one; where it was trained again, see `made_with`."""
    if plan.folder is not None:
        return RunFolder.open(plan.folder)
    runs = find_runs(outputs_dir(), plan.config.identity())
    return made_with(plan.code, runs) if runs else None


def _restore_files(folder: RunFolder, plan: Plan, training: TrainingSetup) -> None:
    """Write files again that cannot be read, from what else is known. Raises UserError where they are another run's."""
    restore_config(folder, plan)
    record = folder.record()
    try:
        folder.split()
    except DamagedError:
        if record.get("split") == training.data.split.hash():
            with folder.lock():
                parent = (record.get("parent") or {}).get("folder")
                split = _split_record(plan, training, None if parent is None else Path(parent))
                write_sealed(folder.split_file, split, long_lines=True)
            say_restored(folder, "split.json")


def _new_folder(plan: Plan) -> RunFolder:
    runs = find_runs(outputs_dir(), plan.config.identity())
    folder = runs[-1].next_rerun() if runs else RunFolder(outputs_dir() / plan.run_path())
    if folder.record_file.exists():
        identity = str(folder.record().get("identity"))
        raise UserError(f"{folder.path} holds another run, of identity {identity[:8]}…; move it away.")
    return folder


def _first_record(plan: Plan, training: TrainingSetup) -> dict[str, Any]:
    data, spec, facts = training.data, training.data.spec, DATASETS[plan.config.data.name].facts
    parent = {} if plan.parent is None else RunFolder.open(plan.parent).record()
    return {
        "identity": plan.config.identity(),
        "status": "running",
        "command": plan.command,
        "choices": dict(plan.choices),
        "origins": dict(plan.origins),
        "departures": [*parent.get("departures", []), *plan.deviations()],
        "seconds": parent.get("seconds", 0.0),
        "parent": None if plan.parent is None else {"folder": str(plan.parent), "run": plan.config.parent},
        "started": now(),
        "plugins": list(plan.plugins),
        "code": dict(plan.code),
        "data": {
            "fingerprint": data.fingerprint,
            "classes": list(spec.classes),
            "size": data.train.size,
            "window": [spec.channels, spec.height, spec.width],
            "mean": data.mean,
            "std": data.std,
            "images": {split: len(getattr(data, split)) for split in ("train", "val", "test")},
            **{fact: facts[fact] for fact in ("licence", "citation") if facts[fact]},
        },
        "split": data.split.hash(),
        "parameters": training.parameters,
        "notes": list(plan.notes),
        "remarks": [remark.record() for remark in training.remarks],
        "randomness": provenance.randomness(plan.config),
        "labels": {key: getattr(plan.config, key) for key in LABELS},
    } | {key: parent[key] for key in ("init", "damage", "rows_are_lost") if key in parent}


def _split_record(plan: Plan, training: TrainingSetup, parent: Path | None) -> dict[str, Any]:
    data, files = training.data, training.data.files()
    wrong = data.source_rows["train"][data.wrong]
    has_source = plan.config.source is not None or plan.config.parent is not None
    earlier, unknown = record_of(seen_before(plan.config, parent), data) if has_source else ({}, [])
    return {
        "seed": plan.config.data.split_seed,
        "fraction": plan.config.data.val_fraction,
        "sha256": data.split.hash(),
        "images_per_class": {
            split: counts_per_class(getattr(data, split).labels, data.spec.num_classes)
            for split in ("train", "val", "test")
        },
        **{split: rows.tolist() for split, rows in data.source_rows.items()},
        "wrong_labels": dict(zip(wrong.tolist(), data.train.labels[data.wrong].tolist(), strict=True)),
        **({"files": files} if files else {}),
        "hashes": {split: packed(data.hashes[split]) for split in ("train", "val")} | earlier,
        **({"unknown_before": unknown} if unknown else {}),
    }


def schedule_notes(training: TrainingSetup, parent: RunConfig, step: int, scores: Sequence[float]) -> list[str]:
    """Say what another horizon than that of its parent does to the learning rate of a run."""
    config = training.config
    if config.scheduler.name == "none":
        return []
    shorter = make_horizon(parent, training.horizon.steps_per_epoch)
    before = make_schedule(parent, shorter)(max(0, step - 1), scores)
    after = training.schedule(step, scores)
    rate = config.optimizer.settings["lr"]
    return [
        f"scheduler {config.scheduler.name} is stretched from {parent.epochs} to {config.epochs} epochs: "
        f"the learning rate was {rate * before:.3g} at the parent's last step, and goes on at {rate * after:.3g}."
    ]
