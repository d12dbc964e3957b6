"""What a task gets to evaluate: a network, the splits that it may see, and where its figures go."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cnnbench.data.loader import Batch, Batches, as_pixels
from cnnbench.data.prepare import PreparedData
from cnnbench.store.files import make_folder
from cnnbench.tasks import figures
from cnnbench.tasks.evaluation import OnDemand

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


class Splits(OnDemand[Batches]):
    """Batches by split, built on first access: most tasks need only some splits, and each is a copy of the images."""

    def __init__(self, make: Callable[[str], Batches], names: Iterable[str]) -> None:
        super().__init__({name: cache(partial(make, name)) for name in names})


@dataclass(frozen=True)
class EvalContext:
    """A network during its training, or after it.

    splits: those that it may be evaluated on; `test` only at the end. map_batches: from batches and a step to the
    results of the step for all their images, in evaluation mode, float32 [N, …]. folder: of the run. log_image: shows
    an image, uint8 [H, W, 3], in TensorBoard.
    """

    network: nn.Module
    data: PreparedData
    splits: Mapping[str, Batches]
    map_batches: Callable[[Batches, Callable[[nn.Module, Batch], Tensor]], Tensor]
    folder: Path
    epoch: int
    log_image: Callable[[str, "np.ndarray[Any, Any]"], None]

    @property
    def held_out(self) -> str:
        """The split to look at: test at the end; before that validation, or training where there is none."""
        return next(name for name in ("test", "val", "train") if name in self.splits)

    def pixels(self, images: Tensor) -> Tensor:
        """Return images before normalisation, float32 [B, C, H, W] in [0, 1]."""
        return as_pixels(images, self.data.mean, self.data.std)

    def pixels_of(self, split: str, rows: Tensor) -> Tensor:
        """Return images of a split as the network sees them, before normalisation, float32 [N, C, H, W] in [0, 1]."""
        (batch,) = self.splits[split].epoch(rows, len(rows))
        return self.pixels(batch.images)

    def save(self, name: str, figure: "Figure") -> None:
        """Save a figure as `pictures/<name>-epoch-<epoch>.png` in the run's folder, and show it in TensorBoard."""
        path = self.folder / "pictures" / f"{name}-epoch-{self.epoch:04}.png"
        make_folder(path.parent)
        self.log_image(name, figures.save(path, figure))
