"""Errors for users: messages that say what is wrong, where, and what to do."""

import errno
import os
import re
import shlex
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import IntEnum
from pathlib import Path
from textwrap import wrap
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnnbench.analysis.run import Run
    from cnnbench.registry import Component

LONGEST = 200  # characters that a message quotes
CLOSE = 0.75  # of difflib: `epoch` and `epochs` have 0.91, `notes` and `units` 0.6
NEAR = 0.6  # of a word of the same letters, or with the same beginning: `sdg` and `sgd` have 0.67
# Control characters, among them those that begin commands of a terminal, and others that hide what follows: separators
# of lines, changes of the direction of writing, halves of characters.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Styled(str):
    """Text with codes of ours for a terminal, which are left in it; what it is added to, or is added to it, is not."""

    __slots__ = ()

    def __add__(self, other: str) -> "Styled":
        return Styled(f"{self!s}{printable(other)}")

    def __radd__(self, other: str) -> "Styled":
        return Styled(f"{printable(other)}{self!s}")


def printable(text: str) -> str:
    """Return text that only prints: what a name from a file could do to a terminal is shown, as in `\\x1b[2J`."""
    if isinstance(text, Styled):
        return text
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] in "\n\t" else _escaped(found[0]), text)


def one_line(text: str) -> str:
    """Return the same on one line, with a space for everything that is space."""
    return printable(re.sub(r"\s", " ", text))


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode()


class ExitCode(IntEnum):
    """How a command ends; the table for its users is in `docs/reliability.md`."""

    FINISHED = 0
    FAILED = 1
    MISTAKE = 2  # in what was typed or asked for
    STOPPED = 75  # and can be continued: `EX_TEMPFAIL` of sysexits.h
    INTERRUPTED = 130  # by Ctrl-C, as shells say it


class Explained(Exception):  # noqa: N818 - subclasses say whether it is an error
    """An exception whose message is complete: commands and notebooks show no traceback."""

    def __str__(self) -> str:
        return printable(super().__str__())

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class UserError(Explained):
    """An error that the user can fix: the message says what, where and what to do. No traceback."""


class PluginsNeededError(UserError):
    """A run whose parts are in files that the command does not name, or that no longer have them."""

    def __init__(self, run: str, parts: str, plugins: Iterable[str]) -> None:
        self.word = f"plugins={','.join(plugins)}"
        gone = [name for name in plugins if name.endswith(".py") and not Path(name).expanduser().is_file()]
        where = f"; {', '.join(gone)} is not here any more, so give the path of a copy" if gone else ""
        super().__init__(f"{run} was trained with {parts} of {self.word}, which has to be given as it was then{where}.")

    def retyped(self, words: Iterable[str]) -> str:
        """Return the command of these words with its plugins."""
        return shlex.join(["cnnbench", *(word for word in words if not word.startswith("plugins=")), self.word])


@dataclass(frozen=True)
class Mistake:
    """One thing wrong with a configuration: what was given, the problem, and values that would fit instead."""

    given: str
    problem: str
    instead: Mapping[str, Any] | None = field(default=None, compare=False)


class ConfigError(UserError):
    """Everything that is wrong with a configuration, in one message."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(dict.fromkeys(mistakes))
        width = min(40, max(len(mistake.given) for mistake in self.mistakes))
        lines = [f"{counted(len(self.mistakes), 'mistake')} in the configuration, nothing was started:"]
        lines += [f"  {mistake.given:<{width}}  {mistake.problem}" for mistake in self.mistakes]
        super().__init__("\n".join(lines))


class SettingError(ConfigError):
    """One invalid setting: what was given, the problem, and for a default, values that would fit instead."""

    def __init__(self, given: str, problem: str, instead: Mapping[str, Any] | None = None) -> None:
        super().__init__([Mistake(given, problem, instead)])


def raised_at(error: BaseException, file: str) -> str:
    """Return the last line of a file through which an exception came, for a message: `my_net.py:13: `; empty: none."""
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if Path(frame.filename).name == file]
    return f"{file}:{lines[-1]}: " if lines else ""


def quoted(error: BaseException) -> str:
    """Return what an exception says, in one line: `ValueError: no such file`; of ours, the message alone."""
    kind = "" if isinstance(error, Explained) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


def try_out(component: "Component", problems: Iterable[str], contract: str = "") -> None:
    """Raise UserError for what a component does wrong on the first images, or fails with; contract: a sentence."""
    try:
        found = "; ".join(problems)
    except ConfigError:
        raise
    except Exception as error:
        said = f"{raised_at(error, component.file)}{quoted(error).rstrip('.')}{f'. {contract}' * bool(contract)}"
        raise UserError(f"{component} fails on the first images: {said}") from error
    if found:
        raise UserError(f"{component}: {found}.")


@contextmanager
def blaming(
    component: "Component", what: str, contract: str = "", spared: type[Exception] = Explained
) -> Iterator[None]:
    """Say in a sentence what other people's code raises, with its line: UserError; what is spared stays as it is."""
    try:
        yield
    except (Explained, spared):
        raise
    except Exception as error:
        if not component.is_from_plugin:
            raise
        said = f"{raised_at(error, component.file)}{quoted(error).rstrip('.')}"
        raise UserError(f"{component}: {what}: {said}{contract}.") from error


def described(value: object) -> str:
    """Return in words what other people's code returned: `a list`, `torch.float32 of shape (2, 3)`."""
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" if shape is None else f"{getattr(value, 'dtype', '')} of shape {tuple(shape)}"


def shortened(text: str) -> str:
    """Return a text to quote in a message, cut short if it is very long."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def wrapped(message: str, width: int) -> str:
    """Return a message wrapped for a terminal, with continuation lines below the text of their line."""
    lines = []
    for line in message.splitlines():
        begin = re.match(r"( +\S.*?  +|)", line)  # of a row: what was given, before the problem
        indent = begin.end() if begin is not None and 0 < begin.end() <= width // 2 else 4
        pieces = wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
        lines += pieces if len(line) > width else [line]
    return "\n".join(lines) + "\n"


def did_you_mean(name: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """Return "; did you mean 'x'?" for the closest name, or for what is known under it; empty: none is close."""
    found = closest(name, known)
    return f"; did you mean '{known[found] if isinstance(known, Mapping) else found}'?" if found else ""


def closest(word: str, known: Iterable[str]) -> str:
    """Return the known word of the most similar spelling, capitals aside; empty: none is close."""
    typed, in_lower_case = word.lower(), {one.lower(): one for one in known}
    near = get_close_matches(typed, in_lower_case, n=3, cutoff=NEAR)
    close = get_close_matches(typed, near, n=1, cutoff=CLOSE)
    close += [one for one in near if sorted(one) == sorted(typed) or (len(one) == len(typed) and one[:2] == typed[:2])]
    return in_lower_case[close[0]] if close and not re.fullmatch(r"[\d.]+", word) else ""  # no number is misspelt


def listed(names: Iterable[str]) -> str:
    """Return the names as a list in a sentence: 'a', 'b', 'c'."""
    return ", ".join(f"'{quotable(name)}'" for name in names) or "none"


def quotable(name: str) -> str:
    """Return a name as a message quotes it: whatever cannot be printed is shown, line breaks as well."""
    return UNPRINTABLE.sub(lambda found: _escaped(found[0]), name)


def as_utf8(name: str) -> str:
    """Return the name of a file as text: a byte that is not UTF-8 as `\\xe4`."""
    return re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)


def grouped(number: float) -> str:
    """Return a whole number in groups of three digits: 50 000."""
    return f"{number:,.0f}".replace(",", " ")


def counted(number: int, what: str) -> str:
    """Return a number of things: 1 epoch, 40 epochs, 3 classes."""
    return f"{grouped(number)} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def sized(number: float) -> str:
    """Return a number of bytes with a unit: 1.2 MB."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} B"


def duration(seconds: float) -> str:
    """Return a duration as people say it: 42 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class TrainingError(Explained):
    """A training that cannot go on: it diverged, or its folder cannot be written. No traceback."""


class DivergedError(TrainingError):
    """A training whose numbers are no longer finite: with the same code it would end the same way."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system answers that has no room for a file: only when something is written, never when it is read."""


class NotWrittenError(TrainingError, OSError):
    """A file that cannot be written: the disk is full, its folder is read-only or gone. No traceback."""

    def __init__(self, path: Path, why: OSError) -> None:
        super().__init__(why.errno, why.strerror or str(why), str(path))

    def __str__(self) -> str:
        way = "Make room there" if self.errno in FULL else "Make sure that it can be written"
        return f"{self.filename} cannot be written: {self.strerror}. {way}, and type the same command again."


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Let what the system says against writing a file name that file. Raises NotWrittenError."""
    try:
        yield
    except NotWrittenError:
        raise
    except OSError as error:
        raise NotWrittenError(path, error) from error


def said_of_paths(error: OSError) -> str:
    """Return what to say of an error that any path may cause, wherever it is looked for; "": it is another one."""
    if error.errno == errno.ENAMETOOLONG:
        return f"{shortened(str(error.filename))}: no file name can be that long"
    try:
        os.getcwd()
    except FileNotFoundError:
        return "the folder in which this command was started has been removed; go to another one: cd FOLDER"
    return ""


class Stopped(Explained):
    """A training that was asked to end before its last epoch; nothing went wrong.

    Raised between two steps, where a checkpoint can be written: by signals, a limit of time, or a user's `on_epoch`.
    `cnnbench.train` raises it with the run, which the same call continues.
    """

    def __init__(self, message: str = "", run: "Run | None" = None) -> None:
        super().__init__(message)
        self.run = run


class StoppedAtOnce(BaseException):
    """The same from within a signal handler, wherever the program was: no `except Exception` takes it for an error."""


@contextmanager
def exits_explained() -> Iterator[None]:
    """Make a failure of `sys.exit` in other people's code: only cnnbench says how a command ends.

    Raises TrainingError that says where it was called.
    """
    try:
        yield
    except SystemExit as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise TrainingError(
            f"sys.exit({'' if error.code is None else repr(error.code)}) was called in the middle of it, by "
            f"{place.name} in {place.filename}:{place.lineno}; raise an error there that says what is wrong."
        ) from error
