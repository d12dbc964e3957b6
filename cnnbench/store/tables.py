"""Tables as CSV: no text in them is one that a spreadsheet would execute, and ours are read back as they were."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

# How text begins that a spreadsheet takes for a formula, also in the wide letters of Chinese and Japanese; and how
# text begins that looks like what is written for it, so that there is one way back.
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def csv_of_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV, the head first. Numbers stay numbers."""
    text, cells = io.StringIO(), [[_harmless(cell) for cell in row] for row in rows]
    csv.writer(text, lineterminator="\n", quoting=_quoting(chain(*cells))).writerows(cells)
    return text.getvalue()


def csv_of_frame(table: "pd.DataFrame") -> bytes:
    """Return a table as CSV, without its index."""
    import pandas as pd

    written = table.copy(deep=False)
    texts = [[_harmless(name) for name in table]]  # classes are columns of a confusion matrix
    written.columns = pd.Index(texts[0])
    for place, (_, column) in enumerate(table.items()):
        if not pd.api.types.is_numeric_dtype(column):
            texts.append([_harmless(cell) for cell in column])
            written.isetitem(place, texts[-1])
    return written.to_csv(index=False, quoting=_quoting(chain(*texts))).encode()


def read_own_csv(path: Path, *text: str) -> "pd.DataFrame":
    """Return a table that was written by one of the above; text: columns that hold text, whatever it looks like."""
    import pandas as pd

    table = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
    for name in text:
        table[name] = table[name].map(_original)
    return table


def _quoting(cells: Iterable[Any]) -> Literal[0, 2]:
    # A carriage return would end a row, and is quoted by Python from 3.13 on; until then all texts are, or none.
    has_returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)
    return csv.QUOTE_NONNUMERIC if has_returns else csv.QUOTE_MINIMAL


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def _original(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and FORMULA.match(cell) else cell
