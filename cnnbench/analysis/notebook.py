"""How a notebook shows a run."""

from html import escape

import pandas as pd

from cnnbench.store.folder import RunFolder
from cnnbench.store.query import RunSummary


def run_as_html(folder: RunFolder) -> str:
    """Return model, data, status, result and folder of a run as HTML; all text is escaped."""
    run = RunSummary(folder.path)
    names = {group: run.config[group]["name"] for group in ("model", "data")} | run.record.get("choices", {})
    facts = (
        f"<b>{escape(names['model'])}</b> on <b>{escape(names['data'])}</b>, seed {run.config['seed']}: {run.status}"
    )
    rows = [{"": split} | run.result[split] for split in ("train", "val", "test") if run.result.get(split)]
    table = pd.DataFrame(rows).to_html(index=False, na_rep="", border=0) if rows else ""
    return f"<div>{facts}{table}<code>{escape(folder.shown_path)}</code></div>"
