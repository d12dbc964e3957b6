"""The file formats of exported networks: how each is written and read."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnnbench.analysis.export.deployed import Deployed, rebuilt
from cnnbench.errors import UserError, did_you_mean, listed
from cnnbench.plugins import register_everything

WEIGHTS = "weights and buffers of the network, by name; without cropping, normalisation and softmax"
NETWORK = "the network with all that comes before and after it"
KEY = "cnnbench"  # of the description in the file, as JSON

Read = tuple[Callable[[Tensor], Tensor], str]
"""From pixels, uint8 [N, C, H, W], to the outputs of a deployed network; and the description in the file."""


@dataclass(frozen=True)
class Format:
    """How a deployed network and its description become one file.

    holds: what is in such a file. packages: optional ones that it needs; install: what installs them.
    example: Python lines that use a file, to be filled in: {file}, {shape} of two images, {output}, {plugins}.
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


def _write_safetensors(network: Deployed, about: Mapping[str, Any]) -> bytes:
    """Return the weights and buffers of the network alone, by name; shared ones under each of their names."""
    from safetensors.torch import save

    weights = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.network.state_dict().items()
    }
    return save(weights, {"format": "pt", KEY: json.dumps(about)})


def _read_safetensors(path: Path) -> tuple[Deployed, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        description = file.metadata()[KEY]
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
    return rebuilt(json.loads(description), weights), description


def network_in(path: str | Path, plugins: Sequence[str] = ()) -> Deployed:
    """Return the network in a safetensors file, from pixels to probabilities; the bare one is its `network`.

    plugins: Python files that register what it was trained with.
    """
    register_everything(plugins)
    return _read_safetensors(Path(path))[0]


# Graphs ---------------------------------------------------------------------------------------------------------------


def traced(network: Deployed) -> torch.export.ExportedProgram:
    """Return the graph of a network for any batch size, without the paths of its source files."""
    pixels = torch.zeros(2, *network.size, dtype=torch.uint8)
    program = torch.export.export(network, (pixels,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def _write_onnx(network: Deployed, about: Mapping[str, Any]) -> bytes:
    program = torch.onnx.export(
        traced(network),
        dynamo=True,
        dynamic_shapes=({0: "batch"},),  # only names it: the graph is dynamic already
        input_names=["pixels"],
        output_names=[about["output"]["name"]],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[KEY] = json.dumps(about)
    content: bytes = program.model_proto.SerializeToString()
    return content


def _read_onnx(path: Path) -> Read:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def compute(pixels: Tensor) -> Tensor:
        (outputs,) = session.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(outputs)

    return compute, session.get_modelmeta().custom_metadata_map[KEY]


def _write_torch_export(network: Deployed, about: Mapping[str, Any]) -> bytes:
    file = BytesIO()
    torch.export.save(traced(network), file, extra_files={f"{KEY}.json": json.dumps(about)})
    return file.getvalue()


def _read_torch_export(path: Path) -> Read:
    extra = {f"{KEY}.json": ""}
    program = torch.export.load(BytesIO(path.read_bytes()), extra_files=extra)
    return program.module(), extra[f"{KEY}.json"]


FORMATS = {
    form.name: form
    for form in (
        Format(
            "safetensors", "safetensors", WEIGHTS, ("safetensors",), "safetensors",
            _write_safetensors, _read_safetensors,
            (
                "import torch; from cnnbench.export.formats import network_in",
                "network = network_in({file}{plugins})",
                "{output} = network(torch.zeros({shape}, dtype=torch.uint8))",
            ),
        ),
        Format(
            "onnx", "onnx", NETWORK, ("onnx", "onnxscript", "onnxruntime"), "'cnnbench[onnx]'", _write_onnx, _read_onnx,
            (
                "import numpy, onnxruntime",
                "session = onnxruntime.InferenceSession({file})",
                "({output},) = session.run(None, {{'pixels': numpy.zeros({shape}, 'uint8')}})",
            ),
        ),
        Format(
            "torch_export", "pt2", NETWORK, (), "", _write_torch_export, _read_torch_export,
            (
                "import torch",
                "network = torch.export.load({file}).module()",
                "{output} = network(torch.zeros({shape}, dtype=torch.uint8))",
            ),
        ),
    )
}  # fmt: skip


def usable(name: str) -> Format:
    """Return a format by name. Raises UserError if there is none, or packages that it needs are not installed."""
    if name not in FORMATS:
        raise UserError(f"'{name}' is no format{did_you_mean(name, list(FORMATS))}; there are {listed(FORMATS)}.")
    form = FORMATS[name]
    missing = [package for package in form.packages if find_spec(package) is None]
    if missing:
        raise UserError(f"{name} needs {listed(missing)}: pip install {form.install}")
    return form
