"""A network exported as a file: written, read again, and compared with the network of the run before it is kept."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnbench.analysis.checkpoints import Checkpoint
from cnnbench.analysis.export.deployed import deployed, described
from cnnbench.analysis.export.formats import Format
from cnnbench.analysis.run import Run
from cnnbench.errors import UserError, counted
from cnnbench.store.files import write_atomically, write_json

MAX_DIFFERENCE = 1e-4  # between the outputs of a file and those of the network
BATCH_SIZE = 64  # the first image comes alone, so that a file for one batch size only is refused
MAX_IMAGES, MIN_IMAGES = 256, 16  # to compare on
MAX_VALUES = 2**23  # of these images together: large ones are slow


@dataclass(frozen=True)
class Exported:
    """A file that was written. about: its description. difference: the largest from the network of the run."""

    path: Path
    about: dict[str, Any]
    difference: float
    notes: tuple[str, ...]


def export_run(run: Run, which: Checkpoint, form: Format, out: Path | None = None) -> Exported:
    """Write the network of a run as a file, and next to it its description as JSON.

    out: None: in the run folder. Raises UserError for a file that exists, for a network that the format cannot hold,
    and if the outputs of the file differ from those of the network; no file is left then.
    """
    path = out or run.path / "export" / f"{which}.{form.suffix}"
    if path.suffix != f".{form.suffix}":
        raise UserError(f"--out {path}: a file of --format {form.name} ends in .{form.suffix}.")
    description = path.with_name(f"{path.name}.json")
    if out:
        _refuse_existing(path, description)
    network = run.model(which).to(memory_format=torch.contiguous_format)
    pixels, source, notes = _sample(run)
    expected = _outputs_of(run, network, pixels)
    verified = {"on": source, "images": len(pixels), "greatest_difference_allowed": MAX_DIFFERENCE}
    about = {"format": form.name, "holds": form.holds} | described(run, which, expected, verified)
    try:
        content = form.write(deployed(network, run.task, about), about)
    except Exception as error:
        raise UserError(f"--format {form.name}: cannot hold this network: {_reason(error)}") from error
    if run.config.precision not in ("fp32", "tf32"):
        notes += (f"computes in fp32; the run did in {run.config.precision}",)
    if path.exists():
        notes += ("replaces the file of an earlier export",)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_atomically(scratch, content)
            difference = _largest_difference(form, scratch, about, pixels, expected)
            if out:  # a large network takes a while
                _refuse_existing(path, description)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        try:
            write_json(description, about)
        except OSError:  # neither without the other
            path.unlink()
            description.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; --out FILE names another place."
        ) from error
    return Exported(path, about, difference, notes)


def _sample(run: Run) -> tuple[Tensor, str, tuple[str, ...]]:
    """Return pixels to compare on, uint8 [N, C, H, W], what they are, and notes on that."""
    size = run.size
    number = min(MAX_IMAGES, max(MIN_IMAGES, MAX_VALUES // math.prod(size)))
    try:
        images = run.data("test")
        if not len(images):
            raise UserError("the run has no test images")
    except UserError as error:
        pixels = torch.randint(256, (number, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return pixels, "random pixels", (f"compared on random pixels, not on images: {str(error).splitlines()[0]}",)
    number = min(number, len(images))
    return images.take(torch.arange(number) * len(images) // number).contiguous(), "the test split", ()


def _outputs_of(run: Run, network: nn.Module, pixels: Tensor) -> Tensor:
    """Return what a network of a run computes for images in fp32, float32 [N, …]: probabilities, or its outputs."""
    exact = Run(run.folder, run.config.model_copy(update={"precision": "fp32"}), run.plugins)
    if run.task.scores is not None:
        return exact.predict(pixels, network)
    return exact.map(network, run.batches_of(pixels), lambda network, batch: network(batch.images))


def _largest_difference(form: Format, path: Path, about: Mapping[str, Any], pixels: Tensor, expected: Tensor) -> float:
    """Return the largest difference between the outputs of a file and those expected.

    Absolute for probabilities, else relative to the largest value. Raises UserError if it is too large, and for a
    file that cannot be used.
    """
    try:
        compute, description = form.read(path)
        with torch.inference_mode():
            batches = pixels[:1], *torch.split(pixels[1:], BATCH_SIZE)
            outputs = torch.cat([compute(batch) for batch in batches if len(batch)])
    except Exception as error:
        raise UserError(f"--format {form.name}: the file written cannot be used: {_reason(error)}") from error
    name, images = about["output"]["name"], f"{counted(len(pixels), 'image')} of {about['verified']['on']}"
    if json.loads(description) != about:
        raise UserError(f"--format {form.name}: the file does not hold its description; it was removed.")
    if outputs.shape != expected.shape:
        shapes = f"{list(outputs.shape)} for {images}, and those of the network {list(expected.shape)}"
        raise UserError(f"--format {form.name}: {name} have the shape {shapes}; the file was removed.")
    scale = 1.0 if name == "probabilities" else float(expected.abs().max().clamp_min(1e-12))
    difference = float((outputs - expected).abs().max()) / scale
    if not difference <= MAX_DIFFERENCE:  # not `>`: NaN is refused too
        raise UserError(
            f"--format {form.name}: {name} differ from those of the network by up to {difference:.2g} on {images}, "
            f"where {MAX_DIFFERENCE:.0e} is allowed; the file was removed."
        )
    return difference


def _reason(error: Exception) -> str:
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise UserError(f"--out: {path} exists, and is not overwritten; name another file, or remove it.")
