"""`cnnbench-export`: a trained network as one file that others can use, compared with the network of the run."""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.cli.parse import CHECKPOINT_HELP, checkpoint_named, finish, plugin_files, split_key_values
from cnnbench.errors import UserError, sized

if TYPE_CHECKING:
    from cnnbench.analysis.export.formats import Format
    from cnnbench.analysis.run import Run

ABOUT = """\
Writes the network of a run as one file, with all that others have to know to use it; as JSON also beside it.

  cnnbench-export outputs/RUN --format onnx               pixels in, probabilities out, wherever ONNX runs
  cnnbench-export outputs/RUN --format torch_export       ... wherever torch runs; cnnbench is not needed
  cnnbench-export outputs/RUN --format safetensors        the plain weights by their names, and how to build the network
  cnnbench-export outputs/RUN --format onnx --checkpoint last --out digits.onnx

Cutting the window, normalising, and for a classifier the softmax are part of the network. The file is read again and
compared with the network of the run, on test images, before it gets its name: RUN/export/CHECKPOINT.onnx, .pt2 or
.safetensors, or what --out says. A file that --out names is never overwritten.
"""
NAMES = ("safetensors", "onnx", "torch_export")


@dataclass(frozen=True)
class Exported:
    """A file that was written. difference: the greatest from the network of the run. notes: what to know besides."""

    path: Path
    about: dict[str, Any]
    difference: float
    notes: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit."""
    parser = ArgumentParser("cnnbench-export", description=ABOUT, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("--format", choices=NAMES, required=True)
    parser.add_argument("--checkpoint", default="tested", metavar="best|last|N", help=CHECKPOINT_HELP)
    parser.add_argument("--out", metavar="FILE", help="a file that is not there yet")
    parser.add_argument("words", nargs="*", metavar="plugins=FILE", help="what the run was made with")
    flags = parser.parse_intermixed_args(arguments)
    others, given = split_key_values(flags.words, "plugins")
    if others:
        parser.error(f"unknown: {' '.join(others)}")

    def command() -> None:
        from cnnbench.analysis.export.formats import FORMATS
        from cnnbench.analysis.run import load_run

        form, plugins = FORMATS[flags.format], plugin_files(given.get("plugins", ""))
        check_packages(form)
        run = load_run(flags.run, plugins)
        which = run.named(checkpoint_named(flags.checkpoint))
        done = exported(run, which, form, Path(flags.out).expanduser() if flags.out else None)
        sys.stdout.write("\n".join(told(done, form, plugins)) + "\n")

    finish("cnnbench-export", command)


def check_packages(form: "Format") -> None:
    """Raise UserError where a package is lacking that a format needs."""
    from importlib.util import find_spec

    lacking = [name for name in form.packages if find_spec(name) is None]
    if lacking:
        needed = f"{', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not installed"
        raise UserError(f"--format {form.name} needs {needed}: pip install {form.install}")


def exported(run: "Run", which: str | int, form: "Format", out: Path | None = None) -> Exported:
    """Write the network of a run as a file, and return what came of it.

    out: where; None: among the run's. Raises UserError for a file that is there already, for a network that the format
    cannot hold, and for a file that does not do what the network does; then there is none.
    """
    import torch

    from cnnbench.analysis.export.deployed import answers, deployed, described, sample
    from cnnbench.analysis.export.formats import MOST_DIFFERENCE, compared, reason
    from cnnbench.store.files import write_atomically, write_json

    path = out or run.path / "export" / f"{which}.{form.suffix}"
    if path.suffix != f".{form.suffix}":
        raise UserError(f"--out {path}: a file of --format {form.name} ends in .{form.suffix}.")
    beside = path.with_name(f"{path.name}.json")
    if out:
        _refuse_taken(path, beside)
    network = run.model(which).to(memory_format=torch.contiguous_format)
    pixels, source, notes = sample(run)
    expected = answers(run, network, pixels)
    verified = {"on": source, "images": len(pixels), "greatest_difference_allowed": MOST_DIFFERENCE}
    about = {"format": form.name, "holds": form.holds} | described(run, which, expected, verified)
    try:
        content = form.write(deployed(network, run.task, about), about)
    except Exception as error:
        raise UserError(f"--format {form.name}: cannot hold this network: {reason(error)}") from error
    if run.config.precision not in ("fp32", "tf32"):
        notes += (f"computes in fp32; the run did in {run.config.precision}",)
    if path.exists():
        notes += ("takes the place of the one that was there",)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(scratch, content)
        try:
            difference = compared(form, scratch, about, pixels, expected)
            if out:  # a large network takes a while
                _refuse_taken(path, beside)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        write_json(beside, about)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}; --out FILE names another place.") from error
    return Exported(path, about, difference, notes)


def told(done: Exported, form: "Format", plugins: Sequence[str] = ()) -> list[str]:
    """Return what was written, line by line, with an example of its use."""
    about, name = done.about, done.about["output"]["name"]
    given, found = ([about["pixels"][side] for side in ("channels", "height", "width")], about["output"]["shape"])
    of = "" if name == "probabilities" else " of the greatest value"
    rows = {
        form.name: f"{done.path}, {sized(done.path.stat().st_size)}",
        "holds": form.holds,
        "said about it": f"{done.path}.json, and in the file itself",
        "in": f"pixels, uint8 {_shape(given)}",
        "out": f"{name}, float32 {_shape(found)}: {about['output']['means']}",
        "difference": f"{done.difference:.1e}{of} at most, on {about['verified']['images']} images of "
        f"{about['verified']['on']}",
    }
    filled = {
        "file": repr(str(done.path)),
        "shape": (2, *given),
        "output": name,
        "plugins": f", {list(plugins)}" if plugins else "",
    }
    return [
        *(f"  {key:<14} {value}" for key, value in rows.items()),
        *(f"  {note}" for note in done.notes),
        "",
        *(line.format(**filled) for line in form.example),
    ]


def _shape(sizes: Sequence[int]) -> str:
    return f"[{', '.join(map(str, ('N', *sizes)))}]"


def _refuse_taken(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise UserError(f"--out: {path} is there already, and is not overwritten; name another file, or remove it.")


if __name__ == "__main__":
    main()
