"""What a task is given to look at: a network, the images that it may see, and where pictures belong."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from cnnbench.data.loader import Batch, Batches, as_pixels
from cnnbench.data.prepare import PreparedData

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure


class Splits(Mapping[str, Batches]):
    """Batches by split, laid out when they are first asked for: most tasks look at some only, and each is a copy."""

    def __init__(self, make: Callable[[str], Batches], names: Iterable[str]) -> None:
        self._make, self._names = make, tuple(names)
        self._made: dict[str, Batches] = {}

    def __getitem__(self, name: str) -> Batches:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class EvalContext:
    """A network in the course of its training, or at the end of it.

    splits: what it may be shown on; `test` only at the end. map_batches: what a step gives for all images of a split,
    in evaluation mode, float32 [N, …]. folder: of the run. log_image: shows a picture, uint8 [H, W, 3], in TensorBoard.
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
        """Return the split to look at: the test images at the end, before that validation, if there is one."""
        return next(name for name in ("test", "val", "train") if name in self.splits)

    def pixels(self, images: Tensor) -> Tensor:
        """Return images as they were before they were normalised, float32 [B, C, H, W] in [0, 1]."""
        return as_pixels(images, self.data.mean, self.data.std)

    def save(self, name: str, figure: "Figure") -> None:
        """Keep a picture among the run's, as `pictures/<name>-epoch-<epoch>.png`, and show it in TensorBoard."""
        from cnnbench.tasks import figures

        path = self.folder / "pictures" / f"{name}-epoch-{self.epoch:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.log_image(name, figures.save(path, figure))
