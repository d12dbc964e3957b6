"""Evaluates the network of a run: on its own images, or on others of the same classes."""

from collections.abc import Sequence
from dataclasses import replace
from math import isclose
from pathlib import Path
from typing import Any

import torch

from cnnbench.analysis.calibrate import calibrated_task
from cnnbench.analysis.checkpoints import Checkpoint
from cnnbench.analysis.run import Run
from cnnbench.data.images import Images
from cnnbench.data.loader import Batches
from cnnbench.data.prepare import PreparedData, prepare, prepare_to_measure, require_images
from cnnbench.errors import UserError, counted, grouped, listed
from cnnbench.registry import DATASETS
from cnnbench.store.files import write_sealed
from cnnbench.store.provenance import changed_names, code_hashes, environment
from cnnbench.tasks.context import EvalContext, Splits
from cnnbench.tasks.evaluation import EvalReport
from cnnbench.tasks.intervals import ROUNDING
from cnnbench.training.leaks import seen_by
from cnnbench.training.plan import plan_words
from cnnbench.training.result import published_next_to_ours
from cnnbench.training.step import evaluating

NAMED = 20  # classes in a message


def evaluate_run(
    run: Run, split: str = "test", which: Checkpoint = "tested", data: Sequence[str] = (),
    folder: Path | None = None, calibrate: bool = False,
) -> EvalReport:  # fmt: skip
    """Return metrics, tables and figures of the network of a run on a split.

    data: words for other images, as `cnnbench` takes them: a data set and its settings. Those of its test part are
    measured, or where it has none all, without those that the run was trained or validated on. folder: for figures
    that a task draws. calibrate: with a temperature, fitted on validation, too. What is measured on the test images of
    the run is counted in `run.json`. Raises UserError if there are no such images, or the network does not fit them.
    """
    device = run.prepare_device()
    images = _other_images(run, data, split) if data else run.training.data
    require_images(split, images, data[0] if data else run.folder.shown_path)
    network = run.model(which).to(device)

    def batches_of(name: str) -> Batches:
        return run.batches_of(getattr(images if name == split else run.training.data, name), device)

    context = EvalContext(
        network,
        images,
        Splits(batches_of, dict.fromkeys(("train", split))),
        lambda batches, step: run.map(network, batches, step),
        folder or run.path / "evaluation",
        run.epoch_of(which),
        lambda _name, _picture: None,
    )
    calibrated = calibrated_task(run, network, device) if calibrate else None  # before anything is measured
    with evaluating(network):
        report = run.task.evaluate(context, split)
        if calibrated is not None:
            task, temperature = calibrated
            scaled = task.evaluate(context, split)
            scaled = replace(scaled, metrics={"temperature": temperature, **scaled.metrics})
            report = replace(report, calibrated=scaled)
    if split == "test" and not data:
        run.folder.count_test()
    notes = images.notes if data else ()
    if not run.folder.is_completed:
        done = f"{run.epoch_of('last')} of {counted(run.config.epochs, 'epoch')}"
        notes += (f"the run is not finished, {done} done; measured with its checkpoint '{which}'",)
    return replace(report, notes=notes)


def evaluate_and_record(run: Run, split: str, which: Checkpoint, data: Sequence[str], calibrate: bool) -> EvalReport:
    """Return the same; what a run with test=false measures on its test images is added to its result."""
    report = evaluate_run(run, split, which, data, calibrate=calibrate)
    if split == "test" and not data:
        record_test(run, which, report)
    return report


def record_test(run: Run, which: Checkpoint, report: EvalReport) -> bool:
    """Add an evaluation of the tested checkpoint on the test images to a result that has none; tell if it had none."""
    folder = run.folder
    try:
        is_unmeasured = folder.is_completed and which == run.tested and not run.result.get("test")
    except UserError:  # the result was changed: see `deviations`
        return False
    if not is_unmeasured:
        return False
    with folder.lock():
        result = folder.result()
        looks = result.get("test_measured", 0) + folder.record().get("test_measured", 1)
        result["test"] = {**report.metrics, "samples": len(run.data("test"))}
        result["references"] = published_next_to_ours(run.config, result)
        write_sealed(folder.result_file, result | {"test_measured": looks})
    return True


def deviations(run: Run, split: str, which: Checkpoint, report: EvalReport) -> list[str]:
    """Return where an evaluation of the checkpoint that was tested differs from what the run recorded, in sentences."""
    if not run.folder.is_completed or which != run.tested:
        return []
    try:
        recorded = run.result.get(split) or {}
    except UserError as error:
        return [str(error)]
    different = [
        f"{name} is {measured:.6g}, and {recorded[name]:.6g} in result.json"
        for name, measured in report.metrics.items()
        if recorded.get(name) is not None and not isclose(recorded[name], measured, rel_tol=ROUNDING, abs_tol=ROUNDING)
    ]
    return [f"{'; '.join(different)}: {_changes(run)}"] if different else []


def _changes(run: Run) -> str:
    """Return what a run was trained with and is not measured with, in words."""
    record = run.record
    code = {name: one for name, one in record.get("code", {}).items() if name.startswith("cnnbench/")}
    names = [*run.changed_plugins, *(changed_names(code, code_hashes()) if code else ())]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    found = [f"{', '.join(names[:NAMED])}{more} changed since the training"] if names else []
    now = environment(str(run.prepare_device()), torch.get_num_threads())
    for kind, keys in (("versions", tuple(now["versions"])), ("machine", ("device", "name", "instructions", "blas"))):
        there, here = record.get(kind) or {}, now[kind]
        different = [key for key in keys if key in there and there[key] != here[key]]
        found += [f"{key} was {there[key]} in the training, and is {here[key]}" for key in different]
    return "; ".join(found) or "code, libraries and machine have not changed; a file was edited, or the network draws"


def _other_images(run: Run, words: Sequence[str], split: str) -> PreparedData:
    """Return other images, resized, cropped and normalised like those of the run, with the numbers of its classes."""
    own = run.config.data
    settings = own.model_dump(include={"image_size", "channels", "crop", "interpolation"})
    if all(name in DATASETS and DATASETS[name].facts.get("photographs") for name in (own.name, words[0])):
        settings["fit"] = own.settings["fit"]
    typed = {word.partition("=")[0] for word in words}
    same = [
        f"data.{key}={'null' if value is None else value}"
        for key, value in settings.items()
        if f"data.{key}" not in typed
    ]
    config = plan_words([f"data={words[0]}", *same, *words[1:]]).config.data
    data = prepare_to_measure(config) if split == "test" else prepare(config)
    unknown = [name for name in data.spec.classes if name not in run.classes]
    if unknown:
        raise UserError(
            f"{words[0]}: has the classes {listed(data.spec.classes[:NAMED])}; the network was trained for "
            f"{listed(run.classes[:NAMED])}."
        )
    given, expected = ((spec.channels, spec.height, spec.width) for spec in (data.spec, run.spec))
    if given != expected:
        shown = ["x".join(map(str, size)) for size in (given, expected)]
        raise UserError(
            f"{words[0]}: gives {shown[0]} images; the network takes {shown[1]}: set data.image_size, data.crop."
        )
    numbers = torch.tensor([run.classes.index(name) for name in data.spec.classes])
    train, val, test = (Images(part.pixels, numbers[part.labels]) for part in (data.train, data.val, data.test))
    record = run.record["data"]
    data = replace(data, spec=run.spec, mean=tuple(record["mean"]), std=tuple(record["std"]))
    return _unseen(run, words[0], replace(data, train=train, val=val, test=test), split)


def _unseen(run: Run, name: str, data: PreparedData, split: str) -> PreparedData:
    """Return data without the images of a split that the run has been trained or validated on, and a note on them.

    What a data set has in its training part as well stays in its test part. Raises UserError where no image is left.
    """
    seen, images = seen_by(run.folder), getattr(data, split)
    is_seen = torch.isin(data.hashes[split], torch.cat([seen.trained, seen.validated]))
    is_seen = is_seen & ~data.copied if split == "test" else is_seen
    number, notes = int(is_seen.sum()), []
    if number == len(images) > 0:
        raise UserError(
            f"{name}: the run, or one that it was initialised with, was trained or validated on all {grouped(number)} "
            f"images; give others. Its own are measured by: cnnbench evaluate {run.folder.shown_path} --split train"
        )
    if number:
        notes.append(
            f"left out: {grouped(number)} of these {grouped(len(images))} images, which the run, or one that it was "
            "initialised with, was trained or validated on"
        )
    if seen.unknown:
        which = f"which images {listed(seen.unknown)} was trained on is not recorded"
        notes.append(f"{which}; whether these are among them cannot be checked")
    unseen: dict[str, Any] = {split: images[(~is_seen).nonzero()[:, 0]]}
    return replace(data, **unseen, notes=(*data.notes, *notes))
