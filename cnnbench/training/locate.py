"""Which folder a plan means: one that is there and still holds, or a new one beside the others."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from cnnbench.data.files import data_root
from cnnbench.data.images import counts_per_class
from cnnbench.errors import UserError
from cnnbench.store import provenance
from cnnbench.store.files import write_json
from cnnbench.store.folder import RunFolder, find_runs, now, outputs_dir
from cnnbench.training import console
from cnnbench.training.init import Start
from cnnbench.training.plan import Plan
from cnnbench.training.resolve import Ready


def locate(plan: Plan, ready: Ready, outside: tuple[ModuleType, ...]) -> RunFolder:
    """Return the run that the plan goes on with or shows; its folder may not exist yet.

    Raises UserError where the run that is there was made with other code or data.
    """
    found = _find(plan)
    if found is None or plan.rerun:
        return _new_folder(plan)
    changes = _changes_since(found, provenance.sources(outside), ready)
    if changes and not plan.accept_stale:
        raise UserError(_stale_message(found, changes))
    if changes and not found.is_completed:
        found.update(accepted=[*found.record().get("accepted", []), *changes])
    return found


def prepare_folder(
    folder: RunFolder, plan: Plan, ready: Ready, outside: tuple[ModuleType, ...], start: Start | None = None
) -> None:
    """Write what is known before training into a new run, or make sure that an old one still has the same split."""
    if not folder.record_file.exists():
        write_json(folder.split_file, _split_record(plan, ready))
        record = _first_record(plan, ready, provenance.sources(outside))
        if start is not None:
            record["init"] = start.record
        values = plan.config.to_dict()
        if values["data"]["root"] is not None:  # what was typed may be relative to a folder that nobody will remember
            values["data"]["root"] = str(data_root(values["data"]["root"]))
        folder.create(values, plan.command, record)
    elif folder.record()["split"] != ready.data.split.hash():
        raise UserError(
            f"{folder.path}: the split into training and validation is another one now; nothing was touched."
        )


def _find(plan: Plan) -> RunFolder | None:
    """Return the run that the plan means, if there is one: the newest, where it was trained anew."""
    if plan.folder is not None:
        return RunFolder.open(plan.folder)
    runs = find_runs(outputs_dir(), plan.config.identity())
    return runs[-1] if runs else None


def _new_folder(plan: Plan) -> RunFolder:
    identity = plan.config.identity()
    runs = find_runs(outputs_dir(), identity)
    if runs:
        return runs[-1].anew()
    return RunFolder(outputs_dir() / plan.run_path())


def _changes_since(found: RunFolder, sources: dict[str, str], ready: Ready) -> list[str]:
    record = found.record()
    changed = provenance.changed_names(record.get("sources", {}), sources)
    messages = []
    if changed:
        shown = ", ".join(changed[:6]) + (f" and {len(changed) - 6} more" if len(changed) > 6 else "")
        messages.append(f"sources: {shown}")
    if record.get("data", {}).get("fingerprint") != ready.data.fingerprint:
        messages.append(f"data: the content of '{record['choices'].get('data', 'the data set')}' is another one")
    return messages


def _stale_message(found: RunFolder, changes: list[str]) -> str:
    state = "finished" if found.is_completed else "began"
    lines = [f"{console.shorter(found.path)} {state} with other code or data than there is now:"]
    lines += [f"  {change}" for change in changes]
    lines += [
        "two ways on:",
        "  rerun=true         trains anew beside it; nothing is overwritten",
        "  accept_stale=true  takes the run as it is",
    ]
    return "\n".join(lines)


def _first_record(plan: Plan, ready: Ready, sources: dict[str, str]) -> dict[str, Any]:
    data = ready.data
    parent = {} if plan.parent is None else RunFolder.open(plan.parent).record()
    return {
        "identity": plan.config.identity(),
        "status": "running",
        "command": plan.command,
        "choices": dict(plan.choices),
        "origins": dict(plan.origins),
        "departures": [*parent.get("departures", []), *plan.departures()],
        "seconds": parent.get("seconds", 0.0),
        "parent": None if plan.parent is None else {"folder": str(plan.parent), "run": plan.config.parent},
        "started": now(),
        "versions": provenance.versions(),
        "machine": provenance.machine(ready.device),
        "git": provenance.git_state(),
        "plugins": list(plan.plugins),
        "sources": sources,
        "data": {
            "fingerprint": data.fingerprint,
            "classes": list(data.spec.classes),
            "size": data.train.size,
            "window": [data.spec.channels, data.spec.height, data.spec.width],
            "mean": data.mean,
            "std": data.std,
            "images": {split: len(getattr(data, split)) for split in ("train", "val", "test")},
        },
        "split": data.split.hash(),
        "parameters": ready.parameters,
        "notes": list(plan.notes),
    } | {key: parent[key] for key in ("init",) if key in parent}


def _split_record(plan: Plan, ready: Ready) -> Mapping[str, Any]:
    data = ready.data
    return {
        "seed": plan.config.data.split_seed,
        "fraction": plan.config.data.val_fraction,
        "sha256": data.split.hash(),
        "images_per_class": {
            split: counts_per_class(getattr(data, split).labels, data.spec.num_classes)
            for split in ("train", "val", "test")
        },
        "val": data.split.val.tolist(),
    }
