"""The optimizers of all options, and a small network for them to train."""

from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from cnnbench.config.schema import OptimizerConfig
from cnnbench.config.values import conf_dir
from cnnbench.optim.optimizers import Groups
from cnnbench.plugins import register_everything
from cnnbench.registry import OPTIMIZERS, Selection

register_everything()

SETTINGS: dict[str, dict[str, Any]] = {}  # of every option, without those that all share
for path in sorted((conf_dir() / "optimizer").glob("*.yaml")):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = {key: value for key, value in content.items() if key not in OptimizerConfig.model_fields}
    SETTINGS[path.stem] = OPTIMIZERS[own["name"]].defaults() | own


def build(option: str, groups: Groups, **changed: Any) -> torch.optim.Optimizer:
    """Return the optimizer of an option, with settings changed."""
    settings = SETTINGS[option] | changed
    name = settings.pop("name")
    made: torch.optim.Optimizer = OPTIMIZERS.build(Selection(name, settings), groups=groups)
    return made


def small_network(channels_last: bool = False, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Flatten(),
        nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3),
    ]  # fmt: skip
    return nn.Sequential(*layers).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def loss_of(network: nn.Module) -> Tensor:
    """Return the loss on the same twelve images of three classes every time."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(12, 2, 6, 6, generator=generator)
    return functional.cross_entropy(network(images), torch.arange(12) % 3)


def train(network: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int) -> None:
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_of(network).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
