"""The verbs of `cnnbench`: the table of them, and how each is declared: a text, arguments, and what it does."""

import json
import re
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NoReturn

from cnnbench.cli.catalog import all_keys, all_options, run_folders, words_alone
from cnnbench.config.hints import as_settings, meant_by_word, no_such_choice, retyped, without_dashes
from cnnbench.config.values import split_key_values
from cnnbench.errors import UserError, did_you_mean, printable, shortened

if TYPE_CHECKING:
    from cnnbench.analysis.run import Run

VERBS = {
    "train": "train a network; the word itself can be left out",
    "resume": "continue a run, or train it for longer",
    "list": "list runs: what differs between them, and how they ended",
    "report": "write a page about a run, or one that compares runs",
    "evaluate": "evaluate a run by class, with confusions and calibration",
    "predict": "predict the classes of image files",
    "explain": "draw feature maps, kernels, Grad-CAM, saliency, t-SNE",
    "export": "write the network as ONNX, torch.export, safetensors",
    "options": "list what can be chosen in each group",
    "data": "list and inspect data sets, import their files",
    "new": "write a template for a model, data set, task, …",
    "help": "show a page of documentation",
    "completion": "set up Tab completion in bash, zsh or fish",
}
"""Every verb, with a line of help. Its `VERB` is in the module of its name, imported when it is typed."""

WIDTH = 80
INDENT = 25  # of the second column of a help text
Rows = tuple[tuple[str, str], ...]  # names, each with a text


class Argument:
    """One argument of a verb: what `ArgumentParser.add_argument` takes, and what completes it.

    complete: returns what it may be; without it, and without choices, shells complete names of files.
    """

    def __init__(self, *names: str, complete: Callable[[], Sequence[str]] | None = None, **settings: Any) -> None:
        self.names, self.complete, self.settings = names, complete, settings

    @property
    def is_flag(self) -> bool:
        """Return whether it begins with a dash."""
        return self.names[0].startswith("-")

    @property
    def is_needed(self) -> bool:
        """Return whether a command without it is refused."""
        return self.settings.get("required", False) if self.is_flag else self.settings.get("nargs") not in ("*", "?")

    @property
    def takes_value(self) -> bool:
        """Return whether a word has to follow the flag."""
        return self.settings.get("action") is None

    @property
    def name(self) -> str:
        """Return what argparse calls it in its messages."""
        return "/".join(self.names) if self.is_flag else str(self.settings["metavar"])

    def shown(self) -> str:
        """Return the argument as a help text shows it: RUN, --split SPLIT, --json."""
        if not self.is_flag:
            return self.name
        return ", ".join(self.names) + (f" {self.settings['metavar']}" if self.takes_value else "")

    def optional(self) -> str:
        """Return an argument that can be left out as a usage line shows it: [IMAGE ...]."""
        return f"[{self.shown()}{' ...' if self.settings['nargs'] == '*' else ''}]"


def checkpoint(text: str) -> str | int:
    """Return a checkpoint by name, or by the step after which it was saved."""
    return int(text) if text.isdigit() else text


def number(text: str) -> int:
    """Return a whole number, at least 0. Raises ArgumentTypeError for anything else."""
    if not re.fullmatch(r"\d{1,9}", text):
        raise ArgumentTypeError("must be a whole number, at least 0")
    return int(text)


def indices(text: str) -> list[int]:
    """Return the numbers of `13,43,53`. Raises ArgumentTypeError for anything else."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ArgumentTypeError("must be whole numbers separated by commas, such as 13,43,53")
    return [int(number) for number in text.split(",")]


def path(text: str) -> Path:
    """Return a path, with `~` expanded."""
    return Path(text).expanduser()


def run_name(text: str) -> str:
    """Return what names a run. Raises ArgumentTypeError for what comes after one: a setting, an image."""
    is_file = Path(text).expanduser().is_file()
    if is_file or ("=" in text and not Path(text).expanduser().exists()):
        raise ArgumentTypeError(f"comes before '{shortened(text)}'{', which is a file' if is_file else ''}: {NAMED}")
    return text


NAMED = "folder of a run, its name, a part of its path, or last, the one trained last"
RUN = Argument("run", metavar="RUN", type=run_name, complete=run_folders, help=NAMED)
IMAGES = Argument("words", nargs="*", metavar="IMAGE", help="image files, and folders of them")
CHECKPOINT = Argument(
    "--checkpoint", type=checkpoint, default="tested", metavar="WHICH",
    help="best, best2, average, last, or a step; default: the one that was tested",
)  # fmt: skip
INDEX = Argument("--index", type=indices, metavar="N,N,…", help="images of the split, counted from 0")
JSON = Argument("--json", action="store_true", help="print JSON, for programs")
SPLITS = ("test", "val", "train")


class _Parser(ArgumentParser):
    """Raises UserError for a mistake, instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise UserError(re.sub("^argument ", "", message))


@dataclass(frozen=True)
class Verb:
    """A verb: its name, its help text, its arguments, and what it does with them.

    about: what it does in a sentence, and after an empty line examples and remarks.
    run: imports what is heavy itself, so that `--help` answers at once; raises UserError for mistakes. `flags.plugins`
    has the files and modules of `plugins=`, wherever that was typed. None: it trains, which `cnnbench.train` does.
    why_not: what to say of an argument of other verbs that has no sense here, by its name.
    sections: of the help text, in addition to the arguments, from the words that were typed.
    """

    name: str
    about: str
    arguments: Sequence[Argument]
    run: Callable[[Namespace], None] | None
    takes_plugins: bool = field(default=True, kw_only=True)
    why_not: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    sections: Callable[[Sequence[str]], dict[str, Rows]] | None = field(default=None, kw_only=True)

    def parse(self, words: Sequence[str]) -> Namespace:
        """Return the arguments by name. Raises UserError for arguments that are missing or invalid."""
        given: dict[str, str] = {}
        if self.takes_plugins:
            words, given = split_key_values(words, "plugins")
        if "--last" in words and any(one.name.startswith("RUN") for one in self.arguments):
            raise UserError(f"--last: no such argument; type cnnbench {self.name} last. {self._see}")
        parser = _Parser(add_help=False)
        for argument in self.arguments:
            parser.add_argument(*argument.names, **argument.settings)
        try:
            flags, unknown = parser.parse_known_intermixed_args(list(words))
        except UserError as error:
            raise UserError(f"{self._in_words(str(error))} {self._see}") from error
        if unknown:
            raise UserError(f"{self._unknown(unknown, words)} {self._see}")
        flags.plugins = ()
        if given:
            from cnnbench.plugins import plugin_names  # with pydantic

            flags.plugins = plugin_names(given["plugins"])
            if not flags.plugins:
                raise UserError("plugins= must name Python files or modules, with commas between.")
        return flags

    @property
    def _see(self) -> str:
        return f"See cnnbench {self.name} --help."

    def _in_words(self, message: str) -> str:
        """Return what argparse says about a mistake in plain words."""
        if choice := re.match(r"(.+?): invalid choice: '(.*)' \(", message):
            known = next(one.settings["choices"] for one in self.arguments if one.name == choice[1])
            return f"{choice[1]}: {no_such_choice(choice[2], known)}"
        kind, _, names = message.partition(": ")
        if kind != "the following arguments are required":
            return f"{message}."
        # Those of which there may be none are listed as well.
        missing = [one for one in self.arguments if one.is_needed and one.name in names.split(", ")]
        return " ".join(f"{one.shown()} is missing: {one.settings['help']}." for one in missing)

    def _unknown(self, unknown: Sequence[str], words: Sequence[str]) -> str:
        """Return a message about words that argparse does not know."""
        flags = {flag.lstrip("-"): flag for one in self.arguments if one.is_flag for flag in one.names}
        name = unknown[0].lstrip("-").partition("=")[0]
        hint = did_you_mean(name, flags) or self.why_not.get(name.replace("-", "_"), "")
        settings = as_settings(unknown, words, all_keys())
        if settings and not hint and any("KEY=VALUE" in one.shown() for one in self.arguments):
            hint = f"; settings are typed without dashes: {' '.join(settings)}."
        return f"{' '.join(unknown)}: no such argument{hint or '.'}"

    def help_text(self, words: Sequence[str] = ()) -> str:
        """Return what `--help` prints: what the verb does, how it is typed, examples, arguments."""
        first, _, rest = self.about.rstrip().partition("\n\n")
        usage = ["usage: cnnbench", self.name]
        usage += [one.shown() + " ..." * (one.settings.get("nargs") == "+") for one in self.arguments if one.is_needed]
        usage += [one.optional() for one in self.arguments if not one.is_needed and not one.is_flag]
        usage += ["[OPTION ...]"] * any(one.is_flag and not one.is_needed for one in self.arguments)
        rows = [(one.shown(), one.settings["help"]) for one in self.arguments]
        rows += [("plugins=FILE,…", "Python files of your own, with models, data sets, …")] * self.takes_plugins
        parts = {"Arguments": tuple(rows)} | (self.sections(words) if self.sections else {})
        tables = ["".join(f"{line}\n" for line in [f"{title}:", *columns(part)]) for title, part in parts.items()]
        return "\n".join([f"{first}\n\n{' '.join(usage)}\n\n{rest}\n", *tables])


def verb_named(name: str) -> Verb:
    """Return a verb of the table."""
    verb: Verb = import_module(f"cnnbench.cli.{name}").VERB
    return verb


def verb_and_words(arguments: Sequence[str]) -> tuple[Verb, Sequence[str]]:
    """Return the verb of a command, and the words that follow: the first word that sets nothing, else `train`.

    Raises UserError, with what was probably meant, where there is no such verb, or words that no shell takes as meant.
    """
    verb = [name for name in arguments[:1] if name in VERBS]
    is_training, words = verb in ([], ["train"]), arguments[len(verb) :]
    are_settings = all("=" in word[1:-1] and word[-1] != "," and word.isascii() for word in words)
    alone = words_alone if is_training or verb[0] in ("resume", "evaluate") else None
    if not are_settings and (meant := retyped(words, alone, is_training)) != [*words]:
        wrong = "spaces around '=' or in lists, bare texts, or dashes and quotes of a word processor are not understood"
        if is_training:
            flags = {flag for one in verb_named("train").arguments for flag in one.names}
            meant = without_dashes(meant, flags, all_keys())
        raise UserError(f"{wrong}. Type: cnnbench {shlex.join([*verb, *meant])}")
    name, *words = arguments or [""]
    if not name or "=" in name or name.startswith(("-", "+", "~")):
        return verb_named("train"), arguments
    if name not in VERBS:
        raise UserError(_no_verb(name, words))
    return verb_named(name), words


def _no_verb(name: str, words: Sequence[str]) -> str:
    """Return a message about a first word that is no verb."""
    if Path(name, "run.json").is_file():
        return f"{name} is a run; say what to do with it: cnnbench resume {name}, or evaluate, report, explain."
    following = next((word for word in words[:1] if "=" not in word), "")
    hint = meant_by_word(name, following, all_options(), all_keys(), VERBS)
    return f"no such command '{shortened(name)}'{hint}{'' if hint.endswith('?') else '.'} See cnnbench --help."


def asks_for_help(words: Sequence[str]) -> bool:
    """Return whether the help text is asked for."""
    return "-h" in words or "--help" in words


def columns(rows: Rows, indent: int = INDENT, width: int = WIDTH) -> list[str]:
    """Return a name and a text in each row as lines: the texts below each other, wrapped, no word or path broken."""
    lines = []
    for name, text in rows:
        first, *others = wrap(text, width - indent, break_long_words=False, break_on_hyphens=False) or [""]
        begin = f"  {name}"
        if len(begin) > indent - 2:
            lines.append(begin)
            begin = ""
        lines += [f"{begin:<{indent}}{first}".rstrip(), *(f"{'':<{indent}}{line}" for line in others)]
    return lines


def refresh_page(run: "Run") -> None:
    """Write the page of a run again, where it has one, with what was added to its folder."""
    from cnnbench.training.console import tolerating

    if run.folder.page.is_file():
        with tolerating("its page"):
            run.report()


def say(*lines: str) -> None:
    """Print lines, flushed even into a pipe; of what stands in them, only our own styles reach the terminal."""
    sys.stdout.write("".join(f"{printable(line)}\n" for line in lines))
    sys.stdout.flush()


def say_json(values: Any) -> None:
    """Print plain values for programs, in ASCII."""
    say(json.dumps(values, indent=2).replace("\x7f", r"\u007f"))
