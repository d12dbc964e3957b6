"""A page that needs nothing but itself: no network, no other file."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment

from cnnbench.errors import grouped


@dataclass(frozen=True)
class Table:
    """A table of a page, which can be sorted by any of its columns."""

    title: str
    content: pd.DataFrame


@dataclass(frozen=True)
class Lines:
    """A list of a page."""

    title: str
    items_: Sequence[str]


def page(title: str, said: str, figures: Sequence[str], tables: Sequence[Table], lists: Sequence[Lines]) -> str:
    """Return a page as HTML. figures: `<svg>` elements; all other text is shown as it is, whatever it holds."""
    template = Environment(autoescape=True).from_string((files(__package__) / "page.html").read_text(encoding="utf-8"))
    return template.render(
        title=title, said=said, figures=figures, tables=[_shown_table(table) for table in tables], lists=lists
    )


def _shown_table(table: Table) -> dict[str, Any]:
    content = table.content
    is_text = {name: not pd.api.types.is_numeric_dtype(content[name]) for name in content}
    return {
        "title": table.title,
        "columns": [{"name": name, "text": is_text[name]} for name in content],
        "rows": [
            [
                {"text": is_text[name], "shown": shown(value), "value": "" if shown(value) == "" else value}
                for name, value in zip(content, row, strict=True)
            ]
            for row in content.itertuples(index=False)
        ],
    }


def shown(value: Any) -> str:
    """Return a value of a table as it is read: whole numbers grouped, others with four decimals, NaN as nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return grouped(int(value))
    return "" if math.isnan(value) else f"{value:.4f}"
