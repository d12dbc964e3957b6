"""To place an image nearer to one of its class than to one of another."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from cnnbench.config.run_config import RunConfig
from cnnbench.config.schema import NO_EFFECT_ON_RESULT
from cnnbench.data.images import DataSpec
from cnnbench.data.loader import Batch
from cnnbench.errors import ConfigError, Mistake
from cnnbench.registry import TASKS
from cnnbench.tasks.embedding import Embedding, distances
from cnnbench.tasks.pairs import has_partner, num_present, of_other_class, of_same_class, several_of_each


@TASKS.register("triplet")
class Triplet(Embedding):
    """Triplet margin loss: the distance to an image of the same class, less that to one of another, plus a margin.

    mining: none: every epoch each training image is the anchor of one triplet, drawn anew; its positive is never
    itself. hard and semihard: triplets are found in the batch, which has `per_class` images of a class each: for
    every image the farthest of its class and the nearest other (Hermans et al. 2017, arXiv:1703.07737), or for every
    pair of a class the nearest other that is farther than it (Schroff et al. 2015, arXiv:1503.03832).
    dimensions: of a code; null: as the model has it, if it is an encoder, else 128. margin: of distances.
    watch: what decides, on validation, which epoch is best. show_every: epochs between two looks at the codes.
    active: the share of triplets that still have a loss.
    """

    train_metrics = ("loss", "active")

    def __init__(
        self,
        spec: DataSpec,
        *,
        dimensions: PositiveInt | None = None,
        margin: PositiveFloat = 1.0,
        mining: Literal["none", "hard", "semihard"] = "none",
        per_class: Annotated[int, Field(ge=2)] = 4,
        watch: Literal["recall@1", "loss"] = "recall@1",
        show_every: Annotated[PositiveInt | None, NO_EFFECT_ON_RESULT] = None,
    ) -> None:
        super().__init__(spec, dimensions, watch, show_every)
        self._margin, self._mining, self._per_class = margin, mining, per_class

    def validate(self, config: RunConfig) -> None:
        """Raise ConfigError where batches cannot be made of several images of each class."""
        super().validate(config)
        if self._mining == "none":
            if self._per_class != 4:
                problem = "has no effect with task.mining=none; take hard or semihard there"
                raise ConfigError([Mistake(f"task.per_class={self._per_class}", problem)])
            return
        if config.batch_size % self._per_class or config.batch_size < 2 * self._per_class:
            problem = f"is no multiple of task.per_class={self._per_class}, by two at least; give one"
            raise ConfigError([Mistake(f"batch_size={config.batch_size}", problem)])
        if config.data.sampling != "natural":
            problem = f"has no effect with task.mining={self._mining}, which has an order of its own; give natural"
            raise ConfigError([Mistake(f"data.sampling={config.data.sampling}", problem)])

    def order(self, labels: Tensor, weights: Tensor | None, generator: torch.Generator) -> Tensor:
        """Return the triplets of an epoch, int64 [N, 3]: anchor, positive, negative; where they are mined, rows."""
        if self._mining != "none":
            return several_of_each(labels, self._per_class, generator)
        return triplets_of(super().order(labels, weights, generator), labels, generator)

    def caption(self, labels: Sequence[str]) -> str:
        """Return which image of a triplet is what."""
        if len(labels) != 3:
            return super().caption(labels)
        return "{} | positive {} | negative {}".format(*labels)

    def train_step(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: D102
        codes = network(batch.images).float()
        if self._mining == "none":
            anchor, positive, negative = codes.view(len(batch), 3, -1).unbind(1)
            losses = triplet_margin(distances(anchor, positive), distances(anchor, negative), self._margin)
        else:
            losses = mined(codes, batch.labels, self._margin, self._mining)
        if not len(losses):  # a last batch whose images are all of one class, or of all different ones
            losses = codes.sum(1) * 0
        share = (losses.detach() > 0).to(losses.dtype).mean()
        return losses.mean(), torch.stack([losses.detach().mean(), share]) * len(batch)

    def losses(self, codes: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of a triplet for each image of a split that another one of its class is beside."""
        anchors = has_partner(labels).nonzero()[:, 0]
        if not len(anchors) or num_present(labels) < 2:
            return codes.new_empty(0)
        anchor, positive, negative = codes[triplets_of(anchors, labels, generator)].unbind(1)
        return triplet_margin(distances(anchor, positive), distances(anchor, negative), self._margin)


def triplet_margin(to_positive: Tensor, to_negative: Tensor, margin: float) -> Tensor:
    """Return max(0, d(anchor, positive) - d(anchor, negative) + margin). Distances: float [B]. Returns float [B]."""
    return (to_positive - to_negative + margin).clamp_min(0)


def triplets_of(anchors: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return anchors with a positive and a negative each, int64 [N, 3]; labels: int64, of all rows."""
    positives = of_same_class(anchors, labels, generator)
    return torch.stack([anchors, positives, of_other_class(anchors, labels, generator)], dim=1)


def mined(codes: Tensor, labels: Tensor, margin: float, how: str) -> Tensor:
    """Return the losses of the triplets that are found among codes; none where there are no two classes or pairs.

    codes: float [B, D]. labels: int64 [B]. how: `hard`: one an image, from its farthest positive and its nearest
    negative; `semihard`: one a pair, from the nearest negative that is farther than the positive, or, where none is,
    from the farthest. Returns float [M].
    """
    apart = torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist")
    is_same = labels.unsqueeze(0) == labels.unsqueeze(1)
    is_positive = is_same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    is_anchor = is_positive.any(1) & (~is_same).any(1)
    if how == "hard":
        positive = apart.masked_fill(~is_positive, -torch.inf).max(1).values[is_anchor]
        negative = apart.masked_fill(is_same, torch.inf).min(1).values[is_anchor]
        return triplet_margin(positive, negative, margin)
    anchor, other = (is_positive & is_anchor.unsqueeze(1)).nonzero().unbind(1)
    positive, candidates = apart[anchor, other], apart[anchor]
    is_negative = ~is_same[anchor]
    is_farther = is_negative & (candidates > positive.unsqueeze(1))
    nearest = candidates.masked_fill(~is_farther, torch.inf).min(1).values
    farthest = candidates.masked_fill(~is_negative, -torch.inf).max(1).values
    return triplet_margin(positive, torch.where(is_farther.any(1), nearest, farthest), margin)
