"""What a terminal knows besides text: colours, and links to files; and the browser that a page is opened in."""

import os
import sys
import webbrowser
from pathlib import Path
from shutil import get_terminal_size

from cnnbench.errors import Styled, printable
from cnnbench.store.folder import shown

NO_LINKS = ("", "unknown", "linux")  # values of $TERM; what else knows none leaves them out by itself


def green(text: str) -> str:
    """Return text in green, where the user wants colours."""
    return text if _is_plain() else Styled(f"\x1b[32m{printable(text)}\x1b[0m")


def is_dumb() -> bool:
    """Tell whether the terminal has text alone: no colours, no links, no line that is written again."""
    return os.environ.get("TERM") == "dumb"


def width() -> int | None:
    """Return the number of columns; None where the output goes elsewhere, and nothing has to fit."""
    return get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None


def linked(path: Path, text: str | None = None) -> str:
    """Return a path as one would type it here, or another text for it; as a link to the file where links are known.

    $FORCE_HYPERLINK decides for every program whether there are links; 0: none.
    """
    text = shown(path) if text is None else text
    if not _knows_links():
        return text
    return Styled(f"\x1b]8;;{path.resolve().as_uri()}\x1b\\{printable(text)}\x1b]8;;\x1b\\")


def opened_in_browser(page: Path) -> str:
    """Open a page in the user's browser; return a note that says why not, where that cannot be. Raises nothing."""
    if not _has_display():
        return "note: the page was not opened: there is no display here"
    try:
        is_open = webbrowser.open(page.resolve().as_uri())
    except Exception as error:  # noqa: BLE001 - whatever it is, the page lies where it was said to
        return f"note: the page was not opened: {type(error).__name__}: {error}"
    return "" if is_open else "note: the page was not opened: no browser was found"


def _is_plain() -> bool:
    return "NO_COLOR" in os.environ or is_dumb()


def _knows_links() -> bool:
    forced = os.environ.get("FORCE_HYPERLINK")
    if forced:
        return forced != "0"
    if sys.stdout is None or not sys.stdout.isatty() or _is_plain():
        return False
    return "WT_SESSION" in os.environ if os.name == "nt" else os.environ.get("TERM", "") not in NO_LINKS


def _has_display() -> bool:
    """Tell whether somebody would see the browser; $BROWSER names one that works here, over ssh as well."""
    if os.environ.get("BROWSER"):
        return True
    if sys.platform == "darwin" or os.name == "nt":
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
