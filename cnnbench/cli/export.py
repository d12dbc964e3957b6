"""`cnnbench export`: a trained network as one file that others can use, compared with the network of the run."""

from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cnnbench.cli.parse import CHECKPOINT, RUN, Argument, Verb, path, say
from cnnbench.errors import UserError, counted, sized

if TYPE_CHECKING:
    from cnnbench.analysis.export.formats import Format
    from cnnbench.analysis.export.verified import Exported

ABOUT = """\
Writes the network of a run as one file, with all that is needed to use it.

  cnnbench export outputs/RUN --format onnx
  cnnbench export outputs/RUN --format torch_export --checkpoint last
  cnnbench export outputs/RUN --format onnx --out digits.onnx

onnx           pixels in, probabilities out, wherever ONNX runs
torch_export   the same wherever torch runs; cnnbench is not needed
safetensors    the bare weights by name, and how to build the network

Crop, normalisation, and the softmax of a classifier are part of the network.
Before a file is kept, it is read back and compared with the network of the run
on test images. It is written to RUN/export/, next to a description as
JSON; a file that --out names is never overwritten. onnx needs
pip install 'cnnbench[onnx]'.
"""
FORMATS = ("safetensors", "onnx", "torch_export")


def _run(flags: Namespace) -> None:
    from cnnbench.analysis.export import formats
    from cnnbench.analysis.export.verified import export_run
    from cnnbench.analysis.loading import load_run

    form = formats.FORMATS[flags.format]
    missing = [name for name in form.packages if find_spec(name) is None]
    if missing:
        needed = f"{', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise UserError(f"--format {form.name} needs {needed}: pip install {form.install}")
    opened = load_run(flags.run, flags.plugins)
    exported = export_run(opened, opened.resolve(flags.checkpoint), form, flags.out)
    say(*_lines_of(exported, form, flags.plugins))


def _lines_of(exported: "Exported", form: "Format", plugins: Sequence[str] = ()) -> list[str]:
    about, name, verified = exported.about, exported.about["output"]["name"], exported.about["verified"]
    size, shape = ([about["pixels"][side] for side in ("channels", "height", "width")], about["output"]["shape"])
    relative = "" if name == "probabilities" else " of the largest value"
    rows = {
        form.name: f"{exported.path}, {sized(exported.path.stat().st_size)}",
        "holds": form.holds,
        "description": f"{exported.path}.json, and in the file itself",
        "in": f"pixels, uint8 {_shape(size)}",
        "out": f"{name}, float32 {_shape(shape)}: {about['output']['means']}",
        "difference": f"{exported.difference:.1e}{relative} at most, on {counted(verified['images'], 'image')} of "
        f"{verified['on']}",
    }
    values = {
        "file": repr(str(exported.path)),
        "shape": (2, *size),
        "output": name,
        "plugins": f", {list(plugins)}" if plugins else "",
    }
    return [
        *(f"  {key:<14} {value}" for key, value in rows.items()),
        *(f"  {note}" for note in exported.notes),
        "",
        *(line.format(**values) for line in form.example),
    ]


def _shape(sizes: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ('N', *sizes)))}]"


VERB = Verb(
    "export",
    ABOUT,
    (
        RUN,
        Argument("--format", choices=FORMATS, required=True, metavar="FORMAT", help=", ".join(FORMATS)),
        CHECKPOINT,
        Argument("--out", type=path, metavar="FILE", help="a new file; default: RUN/export/CHECKPOINT.onnx"),
    ),
    _run,
)
