"""Contrastive learning of embeddings from pairs of images."""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.registry import TASKS
from cnnbench.tasks.embedding import Dimensions, EmbeddingTask, ShowEvery, distances
from cnnbench.tasks.pairs import has_partner, num_present, of_other_class, of_same_class


@TASKS.register("siamese")
class Siamese(EmbeddingTask):
    """Contrastive loss of pairs: images of a class should lie near each other, others at least a margin apart.

    In every epoch a new partner is drawn for each training image: for half of them one of the same class, never the
    image itself, for the others one of another class.
    dimensions: of an embedding; null: the model's own, if it is an encoder, else 128. margin: of distances. watch: the
    validation metric that decides which epoch is best. show_every: epochs between two exports of embeddings.
    Source: Hadsell, Chopra, LeCun 2006, Dimensionality reduction by learning an invariant mapping.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        dimensions: Dimensions = None,
        margin: PositiveFloat = 2.0,
        watch: Literal["recall@1", "loss"] = "recall@1",
        show_every: ShowEvery = None,
    ) -> None:
        super().__init__(spec, dimensions, watch, show_every)
        self._margin = margin

    def order(self, labels: Tensor, weights: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return the pairs of an epoch, int64 [N, 2]: images in the order of any task, with their partners."""
        anchors = super().order(labels, weights, generator)
        return pairs_of(anchors, labels, generator)

    def caption(self, labels: Sequence[str]) -> str:
        """Return the classes of a pair, and whether it is similar."""
        return f"{' | '.join(labels)}: {'similar' if len(set(labels)) == 1 else 'dissimilar'}"

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: D102
        one, other = network(batch.images).float().view(len(batch), 2, -1).unbind(1)
        labels = batch.labels.view(len(batch), 2)
        losses = contrastive(one, other, labels[:, 0] != labels[:, 1], self._margin)
        return losses.mean(), losses.detach().sum().unsqueeze(0)

    def losses(self, embeddings: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of a pair for each image of a split, float [N]; none where all are of one class."""
        if num_present(labels) < 2:
            return embeddings.new_empty(0)
        one, other = pairs_of(torch.arange(len(labels)), labels, generator).unbind(1)
        return contrastive(embeddings[one], embeddings[other], labels[one] != labels[other], self._margin)


def contrastive(one: Tensor, other: Tensor, is_dissimilar: Tensor, margin: float) -> Tensor:
    """Return d²/2 of similar pairs, and max(0, margin - d)²/2 of dissimilar ones, where d is their distance.

    one, other: float [B, D]. is_dissimilar: bool [B]. Returns float [B].
    """
    distance = distances(one, other)
    return torch.where(is_dissimilar, (margin - distance).clamp_min(0), distance).square() / 2


def pairs_of(anchors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return anchors with partners, int64 [N, 2]: half of the pairs similar, except of images alone in their class.

    anchors: int64 [N], rows. labels: int64, of all rows, of at least two classes.
    """
    is_similar = torch.randperm(len(anchors), generator=generator) < len(anchors) // 2
    is_similar &= has_partner(labels)[anchors]
    partners = of_other_class(anchors, labels, generator)
    partners[is_similar] = of_same_class(anchors[is_similar], labels, generator)
    return torch.stack([anchors, partners], dim=1)
