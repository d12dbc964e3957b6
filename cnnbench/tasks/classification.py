"""To tell classes apart."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.data.batches import Batch
from cnnbench.data.images import DataSpec
from cnnbench.registry import TASKS
from cnnbench.tasks.base import Task


@TASKS.register("classification")
class Classification(Task):
    """Cross entropy of class scores. The best epoch has the highest validation accuracy; the lower loss on a tie."""

    train_metrics = ("loss", "accuracy")
    watched = (("accuracy", True), ("loss", False))

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.eval_metrics = ("loss", "accuracy", "top5") if spec.num_classes > 5 else ("loss", "accuracy")

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: D102
        scores = network(batch.images)
        loss = functional.cross_entropy(scores.float(), batch.labels)
        correct = (scores.detach().argmax(1) == batch.labels).sum()
        return loss, torch.stack([loss.detach() * len(batch.labels), correct.to(loss.dtype)])

    def eval_step(self, network: nn.Module, batch: Batch) -> Tensor:  # noqa: D102
        scores = network(batch.images).float()
        loss = functional.cross_entropy(scores, batch.labels, reduction="sum")
        sums = [loss, (scores.argmax(1) == batch.labels).sum().to(loss.dtype)]
        if "top5" in self.eval_metrics:
            sums.append((scores.topk(5, dim=1).indices == batch.labels.unsqueeze(1)).sum().to(loss.dtype))
        return torch.stack(sums)
