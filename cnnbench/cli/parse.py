"""What the commands beside `cnnbench` have in common: how they end, and which of their words mean something."""

import os
import sys
from collections.abc import Callable, Sequence

from cnnbench.errors import UserError

CHECKPOINT_HELP = "best on validation, last, or one by its step; else the one that was tested"


def finish(program: str, command: Callable[[], None]) -> None:
    """Do what a command does, and exit: 0 done, 2 a mistake of the user's, 130 stopped."""
    code = 0
    try:
        command()
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"{program}: {error}\n")
        code = 2
    except BrokenPipeError:  # whoever reads has read enough, as `head` has; Python would complain at its own end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def split_key_values(words: Sequence[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Return the words that are no settings of these keys, and those settings by key."""
    pairs = [(word, *word.partition("=")[::2]) for word in words]
    others = [word for word, key, _ in pairs if "=" not in word or key not in keys]
    return others, {key: value for word, key, value in pairs if "=" in word and key in keys}


def checkpoint_named(given: str) -> str | int:
    """Return a checkpoint as `--checkpoint` names it; one that is all digits is a step."""
    return int(given) if given.isdigit() else given


def plugin_names(given: str) -> tuple[str, ...]:
    """Return the paths of `plugins=one.py,two.py`."""
    return tuple(part.strip(" '\"") for part in given.strip("[]").split(",") if part.strip())
