"""`cnnbench new`: a file to start your own component from, which trains as it is."""

import keyword
import re
import sys
from argparse import ArgumentTypeError, Namespace
from importlib.util import find_spec
from pathlib import Path

from cnnbench.cli.catalog import HOMES, PACKAGE, all_options
from cnnbench.cli.parse import Argument, Verb, say
from cnnbench.errors import UserError, closest

ABOUT = """\
Writes NAME.py to this folder: a file to start from, which trains as it is.

  cnnbench new model my_net            a network
  cnnbench new data my_images          a data set
  cnnbench new augmentation my_blur    or optimizer, scheduler, task

No file is overwritten. The next commands to type are printed.
"""
TEMPLATES = Path(__file__).with_name("templates")


def _run(flags: Namespace) -> None:
    kind, name = flags.kind, flags.name.removesuffix(".py")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UserError(f"{name}: a name has lower-case letters, digits and _, and begins with a letter.")
    path = Path(f"{name}.py")
    if path.exists():
        raise UserError(f"{path} exists already; nothing was written.")
    if name in sys.stdlib_module_names or find_spec(name) is not None:
        raise UserError(f"{name} is the name of a Python module, which {path} would hide; choose another one.")
    if name in all_options()[kind]:
        raise UserError(f"{kind}={name} exists already; choose another name.")
    from cnnbench.store.files import write_atomically

    try:
        write_atomically(path, content(kind, name).encode())
    except OSError as error:
        raise UserError(str(error)) from error
    say(*_what_next(kind, name))


def content(kind: str, name: str) -> str:
    """Return a template with a name filled in."""
    text = (TEMPLATES / f"{kind}.py").read_text(encoding="utf-8")
    in_camel_case = "".join(part.capitalize() for part in name.split("_"))
    return text.replace(f"my_{kind}", name).replace(f"My{kind.capitalize()}", in_camel_case)


def _what_next(kind: str, name: str) -> list[str]:
    home = PACKAGE / HOMES[kind][0]
    in_checkout = (PACKAGE.parent / "tests").is_dir() and Path.cwd().is_relative_to(PACKAGE.parent)
    if Path.cwd() == home:
        rows = {"to use it": f"cnnbench {kind}={name}", "to test it": f"pytest tests -k {name}"}
    else:
        rows = {"to use it": f"cnnbench plugins={name}.py {kind}={name}"}
        if in_checkout:
            package = home.relative_to(PACKAGE.parent)
            rows["to test it"] = f"move it to {package}/, where it needs no plugins=: pytest tests -k {name}"
    return [f"  wrote {name}.py", *(f"  {key:<12} {value}" for key, value in rows.items())]


def _kind(text: str) -> str:
    """Return a kind. Raises ArgumentTypeError for what may be the name of a network."""
    if closest(text, HOMES) or not text.isidentifier():
        return text
    raise ArgumentTypeError(f"comes before the name: cnnbench new model {text}, or {', '.join(HOMES)}")


VERB = Verb(
    "new",
    ABOUT,
    (
        Argument("kind", type=_kind, choices=tuple(HOMES), metavar="KIND", help=", ".join(HOMES)),
        Argument("name", metavar="NAME", help="of the option, and of the file"),
    ),
    _run,
    takes_plugins=False,
)
