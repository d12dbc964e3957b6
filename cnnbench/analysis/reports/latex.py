"""The table of a comparison for LaTeX: `report.tex`, to be included by `\\input`."""

import math
import re

from cnnbench.analysis.reports.columns import short_names
from cnnbench.analysis.reports.comparison import Comparison
from cnnbench.analysis.reports.groups import in_words
from cnnbench.analysis.reports.strips import is_ahead
from cnnbench.errors import one_line

ESCAPES = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    **{sign: f"\\{sign}" for sign in "{}$&#_%"},
    "[": "{[}", "*": "{*}",  # right after the end of a row they would be its options
}  # fmt: skip


def latex_table(comparison: Comparison) -> str:
    """Return a `tabular` of settings, mean and interval, difference and p; bold: ahead. Needs no package."""
    keys, names = comparison.differing, short_names(comparison.differing)
    has_gains = any(row.gained for row in comparison.rows)
    heads = [_escaped(names.get(key, key)) for key in keys] or ["configuration"]
    heads += ["$n$", _escaped(comparison.measure), "95\\,\\%"] + ["$\\Delta$", "95\\,\\%", "$p$ (Holm)"] * has_gains
    lines = [
        "% Needs no package; with booktabs, write \\toprule, \\midrule and \\bottomrule for the three \\hline.",
        f"% {comparison.measure}: mean over {comparison.unit}, interval by Student's t;",
        f"% Delta to {one_line(comparison.baseline.label)}, paired. Bold: ahead of all others by more than chance.",
        f"\\begin{{tabular}}{{{'l' * max(1, len(keys))}r{'rc' * (1 + has_gains)}{'r' * has_gains}}}",
        "\\hline",
        f"{' & '.join(heads)} \\\\",
        "\\hline",
    ]
    for row in comparison.rows:
        found = row.measured
        mean = in_words(row.lost) if math.isnan(found.mean) else f"{found.mean:.4f}"
        if row is comparison.best and is_ahead(comparison):
            mean = f"\\textbf{{{mean}}}"
        cells = [_escaped(row.group.configuration.text(key)) for key in keys] or [_escaped(row.label)]
        cells += [str(found.n), mean, _interval(found.low, found.high)]
        if has_gains:
            gain = row.gained
            cells += ["", "", ""] if gain is None else [
                f"${gain.estimate.mean:+.4f}$",
                _interval(gain.estimate.low, gain.estimate.high),
                "" if math.isnan(gain.corrected) else "$<$0.001" if gain.corrected < 0.001 else f"{gain.corrected:.3f}",
            ]  # fmt: skip
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\hline", "\\end{tabular}", ""])


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"$[{low:.4f}, {high:.4f}]$"


def _escaped(text: str) -> str:
    """Return text that LaTeX sets as it is: no command, no end of a cell or of a row."""
    return re.sub(r"[\\~^<>|\"`'{}$&#_%\[*]", lambda sign: ESCAPES[sign[0]], one_line(text))
