"""What was found out about a network, and how it is kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.store.files import write_atomically, write_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    Show = Callable[[str, "np.ndarray[Any, Any]"], None]


@dataclass(frozen=True)
class EvalReport:
    """Metrics of a split, and what is behind them: tables and pictures by name, made when they are asked for."""

    metrics: Mapping[str, float]
    tables: "Mapping[str, Callable[[], pd.DataFrame]]" = field(default_factory=dict)
    figures: "Mapping[str, Callable[[], Figure]]" = field(default_factory=dict)

    def write(self, folder: Path, show: "Show" = lambda _name, _pixels: None) -> None:
        """Write metrics as JSON, tables as CSV and pictures as PNG into a folder.

        show: is given each picture as well, uint8 [H, W, 3].
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables.items():
            write_atomically(folder / f"{name}.csv", table().to_csv(index=False).encode())
        if self.figures:
            from cnnbench.tasks.figures import save
        for name, figure in self.figures.items():
            show(name, save(folder / f"{name}.png", figure()))
        write_json(folder / "metrics.json", dict(self.metrics))
