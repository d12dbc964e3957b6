"""Learning of embeddings from triplets of images, random or mined in the batch."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.errors import SettingError
from cnnbench.registry import TASKS
from cnnbench.tasks.embedding import Dimensions, EmbeddingTask, ShowEvery, distances
from cnnbench.tasks.pairs import has_partner, num_present, of_other_class, of_same_class, several_of_each


@TASKS.register("triplet")
class Triplet(EmbeddingTask):
    """Triplet margin loss: the distance to an image of the same class, less that to one of another, plus a margin.

    mining: none: in every epoch each training image is the anchor of one random triplet; its positive is never itself.
    hard and semihard: triplets are mined in the batch, which has `per_class` images of each of its classes: for every
    image the farthest of its class and the nearest other (Hermans et al. 2017, arXiv:1703.07737), or for every pair of
    a class the nearest other that is farther apart (Schroff et al. 2015, arXiv:1503.03832).
    dimensions: of an embedding; null: the model's own, if it is an encoder, else 128. margin: of distances. watch: the
    validation metric that decides which epoch is best. show_every: epochs between two exports of embeddings.
    The metric `active` is the share of triplets with a loss above 0.
    """

    train_metrics = ("loss", "active")
    higher_is_better: Mapping[str, bool] = {**EmbeddingTask.higher_is_better, "active": False}

    def __init__(
        self,
        spec: DataSpec,
        *,
        dimensions: Dimensions = None,
        margin: PositiveFloat = 1.0,
        mining: Literal["none", "hard", "semihard"] = "none",
        per_class: Annotated[int, Field(ge=2)] = 4,
        watch: Literal["recall@1", "loss"] = "recall@1",
        show_every: ShowEvery = None,
    ) -> None:
        super().__init__(spec, dimensions, watch, show_every)
        self._margin, self._mining, self._per_class = margin, mining, per_class

    def validate(self, config: RunConfig) -> None:
        """Raise SettingError where batches cannot have several images of each class, and as any embedding task."""
        super().validate(config)
        size, per_class = config.batch_size, self._per_class
        if self._mining == "none":
            if per_class != 4:
                problem = "has no effect with task.mining=none; set that to hard or semihard"
                raise SettingError(f"task.per_class={per_class}", problem)
            return
        if size % per_class or size < 2 * per_class:
            problem = f"must be a multiple of task.per_class={per_class}, at least {2 * per_class}"
            fitting = max(2 * per_class, size - size % per_class)
            raise SettingError(f"batch_size={size}", problem, {"batch_size": fitting})
        if config.data.sampling != "natural":
            problem = f"has no effect with task.mining={self._mining}, which orders images itself; give natural"
            raise SettingError(f"data.sampling={config.data.sampling}", problem)

    def order(self, labels: Tensor, weights: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return the triplets of an epoch, int64 [N, 3]: anchor, positive, negative; [N] where they are mined."""
        if self._mining != "none":
            return several_of_each(labels, self._per_class, generator)
        return triplets_of(super().order(labels, weights, generator), labels, generator)

    def caption(self, labels: Sequence[str]) -> str:
        """Return the role of each image of a triplet."""
        if len(labels) != 3:
            return super().caption(labels)
        return "{} | positive {} | negative {}".format(*labels)

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: D102
        embeddings = network(batch.images).float()
        if self._mining == "none":
            anchor, positive, negative = embeddings.view(len(batch), 3, -1).unbind(1)
            losses = triplet_margin(distances(anchor, positive), distances(anchor, negative), self._margin)
        else:
            losses = mined(embeddings, batch.labels, self._margin, self._mining)
        if not len(losses):  # a last batch whose images are all of one class, or all of different ones
            losses = embeddings.sum(1) * 0
        share = (losses.detach() > 0).to(losses.dtype).mean()
        return losses.mean(), torch.stack([losses.detach().mean(), share]) * len(batch)

    def losses(self, embeddings: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of a triplet for each image of a split that is not alone in its class."""
        anchors = has_partner(labels).nonzero()[:, 0]
        if not len(anchors) or num_present(labels) < 2:
            return embeddings.new_empty(0)
        anchor, positive, negative = embeddings[triplets_of(anchors, labels, generator)].unbind(1)
        return triplet_margin(distances(anchor, positive), distances(anchor, negative), self._margin)


def triplet_margin(to_positive: Tensor, to_negative: Tensor, margin: float) -> Tensor:
    """Return max(0, d(anchor, positive) - d(anchor, negative) + margin). Distances: float [B]. Returns float [B]."""
    return (to_positive - to_negative + margin).clamp_min(0)


def triplets_of(anchors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return anchors with a positive and a negative each, int64 [N, 3]; labels: int64, of all rows."""
    positives = of_same_class(anchors, labels, generator)
    return torch.stack([anchors, positives, of_other_class(anchors, labels, generator)], dim=1)


def mined(embeddings: Tensor, labels: Tensor, margin: float, mining: str) -> Tensor:
    """Return the losses of triplets mined among embeddings, float [M]; none without two classes or without a pair.

    embeddings: float [B, D]. labels: int64 [B]. mining: `hard`: one per image, from its farthest positive and its
    nearest negative; `semihard`: one per pair, from the nearest negative that is farther than the positive, or, where
    none is, from the farthest.
    """
    distance = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    is_same = labels.unsqueeze(0) == labels.unsqueeze(1)
    is_positive = is_same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    is_anchor = is_positive.any(1) & (~is_same).any(1)
    if mining == "hard":
        positive = distance.masked_fill(~is_positive, -torch.inf).max(1).values[is_anchor]
        negative = distance.masked_fill(is_same, torch.inf).min(1).values[is_anchor]
        return triplet_margin(positive, negative, margin)
    anchor, other = (is_positive & is_anchor.unsqueeze(1)).nonzero().unbind(1)
    positive, candidates = distance[anchor, other], distance[anchor]
    is_negative = ~is_same[anchor]
    is_farther = is_negative & (candidates > positive.unsqueeze(1))
    nearest = candidates.masked_fill(~is_farther, torch.inf).min(1).values
    farthest = candidates.masked_fill(~is_negative, -torch.inf).max(1).values
    return triplet_margin(positive, torch.where(is_farther.any(1), nearest, farthest), margin)
