"""What cnnbench is compared with: the loop of notebooks, and Lightning; both with torch's DataLoader and PIL images."""

import logging
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from cnnbench.data.images import Images, Stream

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of outputs, images, labels


class PilImages(Dataset[tuple[Tensor, Any]]):
    """What torchvision's data sets do: bytes in memory, or files; a PIL image an item, or a group of them."""

    def __init__(self, images: Images, order: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        self.labels, self.order, self.transform = images.labels, order, transform
        pixels = images.pixels
        self.files = images.files() if isinstance(pixels, Stream) else None
        self.arrays = pixels.permute(0, 2, 3, 1).squeeze(-1).numpy() if isinstance(pixels, Tensor) else None

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        rows = self.order[index]
        if rows.ndim == 0:
            return self.transform(self.open(int(rows))), int(self.labels[rows])
        return torch.stack([self.transform(self.open(row)) for row in rows.tolist()]), self.labels[rows]

    def open(self, row: int) -> Image.Image:
        if self.files is not None:
            return Image.open(self.files[row]).convert("RGB")
        assert self.arrays is not None
        return Image.fromarray(self.arrays[row])


def ungrouped(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return (images, labels) if images.ndim == 4 else (images.flatten(0, 1), labels.flatten())


class Notebook:
    """Forward, backward, update; accuracy by scikit-learn, two scalars a step."""

    def __init__(self, network: nn.Module, loss: Loss, has_classes: bool, batches: Any, folder: Path) -> None:
        self.network, self.loss, self.has_classes, self.batches = network, loss, has_classes, batches
        self.optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        self.writer = SummaryWriter(folder / "notebook")

    def train(self) -> None:
        self.network.train()
        for step, (grouped, grouped_labels) in enumerate(self.batches):
            images, labels = ungrouped(grouped, grouped_labels)
            outputs = self.network(images)
            loss = self.loss(outputs, images, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.writer.add_scalar("loss/train", loss.item(), step)
            if self.has_classes:
                self.writer.add_scalar("accuracy/train", accuracy_score(labels, outputs.max(1)[1]), step)


def lightning_epoch(
    network: nn.Module, loss: Loss, num_classes: int | None, batches: Iterable[Any], folder: Path
) -> Callable[[], float]:
    """Return what trains an epoch with Lightning and TorchMetrics, and returns its seconds without the setting up."""
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.loggers import TensorBoardLogger
    from torchmetrics.classification import MulticlassAccuracy

    class Module(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.accuracy = None if num_classes is None else MulticlassAccuracy(num_classes, average="micro")

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            images, labels = ungrouped(*batch)
            outputs = self.network(images)
            measured = loss(outputs, images, labels)
            self.log("loss/train", measured)
            if self.accuracy is not None:
                self.accuracy(outputs, labels)
                self.log("accuracy/train", self.accuracy)
            return measured

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

        def on_train_epoch_start(self) -> None:
            self.began = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            self.spent = time.perf_counter() - self.began

    module, logger = Module(), TensorBoardLogger(folder, "lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def train() -> float:
        quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Trainer(accelerator="cpu", max_epochs=1, logger=logger, **quiet).fit(module, batches)
        return float(module.spent)

    return train
