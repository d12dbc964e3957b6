"""Batches and losses on a GPU that is not there: torch's fake tensors have a device, and no content.

Two devices in one operation raise, and so does whatever a GPU would have to be waited for: values and numbers of
values that come back, and copies to and from it. Gradients and updates, which are torch's own, need a real one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cnnbench.augmentation.color import _bank
from cnnbench.data.images import Images
from cnnbench.data.loader import Batch, Batches
from cnnbench.training.setup import TrainingSetup, _make_average, _make_refresh, make_augmentations
from tests.support.training import prepared

GPU = torch.device("cuda", 0)


class NothingIsCopied(TorchDispatchMode):
    """Raises where a tensor goes from one device to another."""

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        named = named or {}
        result = operation(*arguments, **named)
        if operation.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source = arguments[0] if operation.overloadpacket is torch.ops.aten._to_copy else arguments[1]
            if source.device != result.device:
                raise AssertionError(f"{tuple(source.shape)} is copied from {source.device} to {result.device}")
        return result


def on_gpu(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=GPU)


@contextmanager
def pretended(*words: str) -> Iterator[tuple[TrainingSetup, Iterator[Batch]]]:
    """Yield the training of a command as it would be on a GPU, and batches of its first epoch; the first one is made.

    What is done once is done then: tables of draws are copied, and whatever else later batches and steps share.
    """
    training = prepared(*words)
    data, config, order = training.data, training.config, training.order(1)
    _bank.cache_clear()  # it keeps tensors, which must not be pretended ones for others
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, pytest.MonkeyPatch.context() as patch:
            network = training.network
            patch.setattr(Tensor, "backward", lambda _: None)
            for module in network.modules():
                for name, weight in module._parameters.items():
                    module._parameters[name] = weight if weight is None else nn.Parameter(on_gpu(weight))
                for name, buffer in module._buffers.items():
                    module._buffers[name] = buffer if buffer is None else on_gpu(buffer)
            images = Images(mode.from_tensor(data.train.pixels), mode.from_tensor(data.train.labels))
            train = Batches(images, data.spec, data.mean, data.std, GPU, make_augmentations(config), config.seed)
            moved = replace(
                training, device=GPU, train=train,
                penalized=[weight for weight in network.parameters() if training.penalized and weight.ndim > 1],
                average=_make_average(config, network, _make_refresh(config, training.freeze, training.horizon, train)),
            )  # fmt: skip
            batches = train.epoch(mode.from_tensor(order), config.batch_size, 1)
            yield moved, batches
    finally:
        _bank.cache_clear()
