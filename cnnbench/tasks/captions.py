"""Names of images and classes in pictures: text of others, which may hold anything."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

SHORT = 18  # letters


def plain(name: str, longest: int = SHORT) -> str:
    """Return a name in one line, without what cannot be drawn, not longer than so many letters."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


@contextmanager
def any_script() -> Iterator[None]:
    """Let names be drawn in scripts that the font has no letters of: as boxes, without a warning for each letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
