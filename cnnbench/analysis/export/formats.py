"""The formats of files that networks are written to, and read from again."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench.analysis.export.deployed import Deployed, rebuilt
from cnnbench.errors import UserError
from cnnbench.plugins import register_everything

WEIGHTS = "weights and buffers of the network, by name; cutting, normalising and softmax are not among them"
NETWORK = "the network with all that comes before and after it"
KEY = "cnnbench"  # under it, a file says as JSON what it holds
MOST_DIFFERENCE = 1e-4  # between what a file gives and what the network did
TOGETHER = 64  # images in a batch; the first one comes alone, so that any number is seen to do

Read = tuple[Callable[[Tensor], Tensor], str]
"""From pixels, uint8 [N, C, H, W], to what a deployed network gives; and what the file says."""


@dataclass(frozen=True)
class Format:
    """A way to write a deployed network, with what is said about it, as one file.

    holds: what is in such a file. packages: those that it needs and may be lacking; install: what brings them.
    example: lines that use a file, to be filled in: {file}, {shape} of two images, {output}, {plugins}.
    """

    name: str
    suffix: str
    holds: str
    packages: tuple[str, ...]
    install: str
    write: Callable[[Deployed, Mapping[str, Any]], bytes]
    read: Callable[[Path], Read]
    example: tuple[str, ...]


# Plain weights --------------------------------------------------------------------------------------------------------


def write_safetensors(network: Deployed, about: Mapping[str, Any]) -> bytes:
    """Return the weights and buffers of the network alone, by name; those that are shared, once for each name."""
    from safetensors.torch import save

    weights = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.network.state_dict().items()
    }
    return save(weights, {"format": "pt", KEY: json.dumps(about)})


def read_safetensors(path: Path) -> tuple[Deployed, str]:
    """Return the network built anew."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        said = file.metadata()[KEY]
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    return rebuilt(json.loads(said), weights), said


def network_in(path: str | Path, plugins: Sequence[str] = ()) -> Deployed:
    """Return the network of a file of weights, ready for pixels; the plain one is its `network`.

    plugins: Python files that register what it was made with.
    """
    register_everything(plugins)
    return read_safetensors(Path(path))[0]


# Graphs ---------------------------------------------------------------------------------------------------------------


def traced(network: Deployed) -> torch.export.ExportedProgram:
    """Return what a network computes, for any number of images, without a word of where its source lies."""
    pixels = torch.zeros(2, *network.size, dtype=torch.uint8)
    program = torch.export.export(network, (pixels,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def write_onnx(network: Deployed, about: Mapping[str, Any]) -> bytes:
    """Return an ONNX model from `pixels` to what `about` calls the output, weights within."""
    program = torch.onnx.export(
        traced(network),
        dynamo=True,
        dynamic_shapes=({0: "batch"},),  # only names it: what was traced is dynamic already
        input_names=["pixels"],
        output_names=[about["output"]["name"]],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[KEY] = json.dumps(about)
    content: bytes = program.model_proto.SerializeToString()
    return content


def read_onnx(path: Path) -> Read:
    """Return the model in onnxruntime, on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def answer(pixels: Tensor) -> Tensor:
        (outputs,) = session.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(outputs)

    return answer, session.get_modelmeta().custom_metadata_map[KEY]


def write_torch_export(network: Deployed, about: Mapping[str, Any]) -> bytes:
    """Return a program of torch, weights within."""
    file = BytesIO()
    torch.export.save(traced(network), file, extra_files={f"{KEY}.json": json.dumps(about)})
    return file.getvalue()


def read_torch_export(path: Path) -> Read:
    """Return the program as a module."""
    said = {f"{KEY}.json": ""}
    program = torch.export.load(BytesIO(path.read_bytes()), extra_files=said)
    return program.module(), said[f"{KEY}.json"]


FORMATS = {
    form.name: form
    for form in (
        Format(
            "safetensors", "safetensors", WEIGHTS, ("safetensors",), "safetensors", write_safetensors, read_safetensors,
            (
                "import torch; from cnnbench.export.formats import network_in",
                "network = network_in({file}{plugins})",
                "{output} = network(torch.zeros({shape}, dtype=torch.uint8))",
            ),
        ),
        Format(
            "onnx", "onnx", NETWORK, ("onnx", "onnxscript", "onnxruntime"), "'cnnbench[onnx]'", write_onnx, read_onnx,
            (
                "import numpy, onnxruntime",
                "session = onnxruntime.InferenceSession({file})",
                "({output},) = session.run(None, {{'pixels': numpy.zeros({shape}, 'uint8')}})",
            ),
        ),
        Format(
            "torch_export", "pt2", NETWORK, (), "", write_torch_export, read_torch_export,
            (
                "import torch",
                "network = torch.export.load({file}).module()",
                "{output} = network(torch.zeros({shape}, dtype=torch.uint8))",
            ),
        ),
    )
}  # fmt: skip


def compared(form: Format, path: Path, about: Mapping[str, Any], pixels: Tensor, expected: Tensor) -> float:
    """Return the greatest difference between what a file gives for images and what is expected.

    Of probabilities as it is, of anything else as a share of the greatest value. Raises UserError where it is too
    large, and for a file that cannot be used.
    """
    try:
        answer, said = form.read(path)
        with torch.inference_mode():
            parts = pixels[:1], *torch.split(pixels[1:], TOGETHER)
            found = torch.cat([answer(part) for part in parts if len(part)])
    except Exception as error:
        raise UserError(f"--format {form.name}: what was written cannot be used: {reason(error)}") from error
    name, where = about["output"]["name"], f"{len(pixels)} images of {about['verified']['on']}"
    if json.loads(said) != about:
        raise UserError(f"--format {form.name}: the file does not say of itself what it was told to; it was removed.")
    if found.shape != expected.shape:
        shapes = f"{list(found.shape)} for {where}, and those of the network {list(expected.shape)}"
        raise UserError(f"--format {form.name}: {name} have the shape {shapes}; the file was removed.")
    scale = 1.0 if name == "probabilities" else float(expected.abs().max().clamp_min(1e-12))
    greatest = float((found - expected).abs().max()) / scale
    if not greatest <= MOST_DIFFERENCE:  # nor where it is no number
        raise UserError(
            f"--format {form.name}: {name} differ from those of the network by up to {greatest:.2g} on {where}, where "
            f"{MOST_DIFFERENCE:.0e} is allowed; the file was removed."
        )
    return greatest


def reason(error: Exception) -> str:
    """Return the kind of an error, and the first line of what it says."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
