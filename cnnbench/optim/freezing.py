"""What of a network stays as it is while the rest is trained, and how fast the rest changes."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from cnnbench.config.run_config import RunConfig
from cnnbench.errors import ConfigError, Mistake, UserError, listed
from cnnbench.models.head import NamedParts


@dataclass(frozen=True)
class Training:
    """Which weights of a network are trained in an epoch, and at which rates.

    frozen: parameters that stay as they are for so many epochs; None: always. still: modules that are not in training
    mode then: their batch norms keep their statistics, and their dropout is off.
    rates: factors on the learning rate, by parameter, where they are not 1.
    """

    frozen: frozenset[str] = frozenset()
    still: tuple[str, ...] = ()
    epochs: int | None = None
    rates: Mapping[str, float] = field(default_factory=dict)

    @property
    def late(self) -> Collection[str]:
        """Return the parameters that are trained later than others."""
        return () if self.epochs is None else self.frozen

    def enter(self, network: nn.Module, epoch: int) -> None:
        """Put a network, or a copy of it, into training mode as it is in an epoch, counted from 1."""
        network.train()
        is_frozen = self.epochs is None or epoch <= self.epochs
        for name in self.frozen:
            network.get_parameter(name).requires_grad_(not is_frozen)
        for name in self.still if is_frozen else ():
            network.get_submodule(name).eval()


def plan_training(config: RunConfig, network: nn.Module, parts: NamedParts) -> Training:
    """Return what is trained when, and how fast. Raises ConfigError where it is nothing, or words stand for nothing."""
    names = list(network.state_dict())
    trained = {name for name, weight in network.named_parameters() if weight.requires_grad}
    mistakes: list[Mistake] = []

    def found(key: str, word: str) -> set[str]:
        try:
            chosen = parts.named(word, names)
        except UserError as error:
            mistakes.append(Mistake(key, str(error)))
            return set()
        if not chosen:
            there = listed(dict.fromkeys(["head", "features", *dict(network.named_children())]))
            mistakes.append(Mistake(key, f"'{word}' fits nothing in '{config.model.name}'; there are {there}"))
        return chosen

    held = {name for word in config.freeze.what or () for name in found(f"freeze.what={word}", word)}
    rates: dict[str, float] = {}
    for word, factor in config.optimizer.lr_scale.items():
        key = f"optimizer.lr_scale.{word}={factor:g}"
        chosen = found(key, word) & trained
        if chosen and chosen <= held and config.freeze.epochs is None:
            mistakes.append(Mistake(key, "has no effect on what is frozen"))
        rates |= {name: rates.get(name, 1.0) * factor for name in chosen}
    decay = config.optimizer.layer_decay
    for name, above in layers_above(network).items() if decay < 1 else ():
        rates[name] = rates.get(name, 1.0) * decay**above
    if trained and trained <= held:
        mistakes.append(Mistake(f"freeze.what={','.join(config.freeze.what or ())}", "leaves nothing to train"))
    if mistakes:
        raise ConfigError(mistakes)
    still = tuple(dict.fromkeys(_still(network, held)))
    return Training(frozenset(held & trained), still, config.freeze.epochs, rates)


def layers_above(network: nn.Module) -> dict[str, int]:
    """Return, by parameter, how many layers come after its own; a norm belongs to the layer before it.

    Source: Howard and Ruder 2018, arXiv:1801.06146: lower layers know what is more general, and need less tuning.
    """
    layer, layers = 0, {}
    for name, parameter in network.named_parameters():
        layer += parameter.ndim > 1
        layers[name] = max(1, layer)
    return {name: layer - number for name, number in layers.items()}


def _still(network: nn.Module, held: Collection[str], above: str = "") -> Iterator[str]:
    """Yield the modules whose weights are all held, and those without any that hand on what these take."""
    is_held = False  # of the next module with weights: in a Sequential what has none belongs to it
    for own, module in reversed(list(network.named_children())):
        name = f"{above}{own}"
        state = [f"{name}.{key}" for key in module.state_dict()]
        if state:
            is_held = set(state) <= set(held)
        if is_held and (state or isinstance(network, nn.Sequential)):
            yield name
        else:
            yield from _still(module, held, f"{name}.")
