"""How the commands that follow a training are declared: a name, a text, options and what to run; and how they end."""

import errno
import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cnnbench.errors import UserError, shortened


class Argument:
    """One argument of a command: what `ArgumentParser.add_argument` takes."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.names, self.settings = names, settings


def checkpoint(text: str) -> str | int:
    """Return a checkpoint by name, or by the step after which it was saved."""
    return int(text) if text.isdigit() else text


def indices(text: str) -> list[int]:
    """Return the numbers of `13,43,53`. Raises ArgumentTypeError for anything else."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ArgumentTypeError("must be whole numbers separated by commas, such as 13,43,53")
    return [int(number) for number in text.split(",")]


def path(text: str) -> Path:
    """Return a path, with `~` expanded."""
    return Path(text).expanduser()


RUN = Argument("run", metavar="RUN", help="folder of a run")
IMAGES = Argument("words", nargs="*", metavar="IMAGE", help="image files, and folders of them; plugins=FILE")
PLUGINS = Argument("words", nargs="*", metavar="plugins=FILE", help="Python files that the run was made with")
CHECKPOINT = Argument(
    "--checkpoint", type=checkpoint, default="tested", metavar="best|last|N",
    help="best on validation, last, or the one saved after step N; default: the one that was tested",
)  # fmt: skip
INDEX = Argument("--index", type=indices, metavar="N,N,…", help="images of the split, counted from 0")
JSON = Argument("--json", action="store_true", help="print JSON, for programs")
SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class Verb:
    """A command: its name after `cnnbench`, its help text, its arguments, and what it does with them.

    run: imports what is heavy itself, so that `--help` answers at once; raises UserError for mistakes. `flags.words`
    holds the positional words without `plugins=`, whose files are in `flags.plugins`.
    """

    name: str
    about: str
    arguments: Sequence[Argument]
    run: Callable[[Namespace], None]
    takes_plugins: bool = field(default=True, kw_only=True)

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run the command line, and exit: 0 done, 2 a mistake of the user's, 130 interrupted."""
        program, code = f"cnnbench {self.name}", 0
        parser = ArgumentParser(program, description=self.about, formatter_class=RawDescriptionHelpFormatter)
        for argument in self.arguments:
            parser.add_argument(*argument.names, **argument.settings)
        flags = parser.parse_intermixed_args(arguments)
        if self.takes_plugins:
            from cnnbench.plugins import plugin_names  # with pydantic

            flags.words, given = split_key_values(flags.words, "plugins")
            flags.plugins = plugin_names(given.get("plugins", ""))
            if PLUGINS in self.arguments and flags.words:
                parser.error(f"unknown: {' '.join(flags.words)}")
        try:
            self.run(flags)
        except UserError as error:
            sys.stderr.write(f"{program}: {error}\n")
            code = 2
        except BrokenPipeError:  # the reader has closed the pipe, as `head` does; Python would complain when it exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            sys.stderr.write(f"{program}: {shortened(str(error.filename))}: no file can have a name of that length\n")
            code = 2
        except KeyboardInterrupt:
            code = 130
        sys.exit(code)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of writing to a folder into a UserError that names the option."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}; --out FOLDER names another place.") from error


def say(*lines: str) -> None:
    """Print lines, at once also where they are piped."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def split_key_values(words: Sequence[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Return the words that do not set one of the keys, and the values of those that do, by key."""
    pairs = [(word, *word.partition("=")) for word in words]
    others = [word for word, key, equals, _ in pairs if not equals or key not in keys]
    return others, {key: value for _, key, equals, value in pairs if equals and key in keys}
