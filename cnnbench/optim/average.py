"""Averages of the weights of many steps, which often generalise better than the last weights."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from cnnbench.config.schema import Averaging


@torch.no_grad()
def measure_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the statistics of the batch norms in training mode by means over batches [B, C, H, W].

    Unlike torch.optim.swa_utils.update_bn it leaves those in evaluation mode (frozen ones) as they are.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    for images in batches if norms else ():
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each tensor over state dicts; of whole numbers, such as counts of batches, the first one."""
    first, *_ = states
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in first.items()
    }


class WeightAverage:
    """An average of a network's weights while it trains; checkpoints hold its `state_dict`.

    ema: exponential, updated after every step; batch-norm statistics are averaged like weights. Its decay is at most
    (1 + n) / (10 + n) after n steps, so that the first weights do not linger.
    swa: the mean of the epochs from `start` on. The batch-norm statistics of averaged weights are not the average of
    the statistics: `refresh` measures them on training images before the average is evaluated. Source: Izmailov et al.
    2018, arXiv:1803.05407.
    """

    def __init__(
        self, settings: Averaging, network: nn.Module, epochs: int, refresh: Callable[[nn.Module, int], None]
    ) -> None:
        self._settings, self._trained, self._refresh = settings, network, refresh
        self._first_epoch = 1 if settings.kind == "ema" else int(settings.start * epochs) + 1
        self._refreshed_at: int | None = None
        self._average = AveragedModel(network)

    @property
    def has_begun(self) -> bool:
        """Whether there is an average yet."""
        return int(self._average.n_averaged) > 0

    def after_step(self) -> None:
        """Update the average after a step."""
        if self._settings.kind == "ema":
            self._move()

    def after_epoch(self, epoch: int) -> None:
        """Update the average after an epoch, counted from 1."""
        num_averaged = epoch - self._first_epoch + 1
        # Not twice: a run that was stopped during validation comes here again.
        if self._settings.kind == "swa" and num_averaged > int(self._average.n_averaged):
            self._average.update_parameters(self._trained)

    def network_at(self, step: int) -> nn.Module:
        """Return the averaged network, ready to be evaluated after a step."""
        if self._settings.kind == "swa" and self._refreshed_at != step:
            self._refresh(self._average.module, step)
            self._refreshed_at = step
        return self._average.module

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and the settings that it was taken with."""
        return {"of": self._key(), "average": self._average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore an average; one of another kind, or from another epoch on, is dropped and starts over."""
        if state["of"] == self._key():
            self._average.load_state_dict(state["average"])
        self._refreshed_at = None

    def _key(self) -> list[str | int]:
        return [self._settings.kind, self._first_epoch]

    @torch.no_grad()
    def _move(self) -> None:
        """Move the exponential average towards the weights; torch's own update would wait for a GPU to count."""
        number = int(self._average.n_averaged)  # on the CPU
        decay = min(self._settings.decay, (1 + number) / (10 + number))
        pairs = zip(_tensors(self._average.module), _tensors(self._trained), strict=True)
        for mean, value in pairs:
            if number and mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), 1 - decay)
            else:
                mean.copy_(value)  # the first time, and num_batches_tracked
        self._average.n_averaged += 1


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return chain(network.parameters(), network.buffers())
