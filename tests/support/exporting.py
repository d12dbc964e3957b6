"""Runs to export, the formats that can be written here, and how their files are read without this package."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import cnnbench
from cnnbench.analysis.export import formats
from cnnbench.cli.export import FORMATS as NAMES
from tests.support.training import SMALL
from tests.tasks.test_tasks import words_of

WINDOW = ("data.image_size=20", "data.crop=17")  # three pixels are left over: one before it, two after
CASES = {
    "classification": (
        *SMALL, *WINDOW, "model=lenet_v2", "data.channels=3", "regularization.batchnorm=true",
        "regularization.dropout=0.5", "data.num_test=70", "regularization.average.kind=ema",
    ),
    "one output": (*words_of("classification by one output"), *WINDOW, "model.batchnorm=true"),
    "autoencoder": (*words_of("autoencoder"), *WINDOW),
    "siamese": (*words_of("siamese"), *WINDOW, "epochs=1"),
}  # fmt: skip
OUTPUTS = {"classification": ("probabilities", [3]), "one output": ("probabilities", [2]),
           "autoencoder": ("images", [1, 17, 17]), "siamese": ("codes", [5])}  # fmt: skip
FORMATS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            any(find_spec(package) is None for package in formats.FORMATS[name].packages),
            reason=f"needs {', '.join(formats.FORMATS[name].packages)}",
        ),
    )
    for name in NAMES
]
(LIGHT,) = (form for form in FORMATS if form.values == ("safetensors",))


def file_of(run: Path, form: str, which: str = "best") -> Path:
    return run / "export" / f"{which}.{formats.FORMATS[form].suffix}"


def used(form: str, path: Path) -> tuple[Callable[[Tensor], Tensor], Any]:
    """Return what a file computes and says of itself, read as those do who do not have this package."""
    if form == "onnx":
        import onnx
        import onnxruntime

        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path)
        said = session.get_modelmeta().custom_metadata_map["cnnbench"]
        return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0]), json.loads(said)
    if form == "torch_export":
        files = {"cnnbench.json": ""}
        program = torch.export.load(path, extra_files=files)
        return program.module(), json.loads(files["cnnbench.json"])
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        said = file.metadata()["cnnbench"]
    return formats.network_in(path), json.loads(said)


def by_hand(run: Path, pixels: Tensor, which: str | int = "best") -> Tensor:
    """Return what the network of a run gives for whole images."""
    opened = cnnbench.load_run(run)
    if opened.task.scores is not None:
        return opened.predict(pixels, which)
    mean, std = (torch.tensor(opened.record["data"][name]).view(-1, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        return opened.model(which)((pixels[:, :, 1:18, 1:18] / 255 - mean) / std)
