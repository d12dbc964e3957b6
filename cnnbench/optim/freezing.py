"""Which parts of a network are frozen in which epoch, and the learning-rate factors of the others."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import nn

from cnnbench.config.run_config import RunConfig
from cnnbench.errors import ConfigError, Mistake, UserError, listed
from cnnbench.models.head import NamedParts


@dataclass(frozen=True)
class FreezePlan:
    """Which parameters of a network are frozen, until when, and the learning-rate factors of the others.

    eval_modules: modules that stay in evaluation mode while frozen, so that their batch norms keep their statistics and
    their dropout is off. epochs: for which it is frozen; None: to the end. lr_factors: by parameter, where not 1.
    """

    frozen: frozenset[str] = frozenset()
    eval_modules: tuple[str, ...] = ()
    epochs: int | None = None
    lr_factors: Mapping[str, float] = field(default_factory=dict)

    @property
    def unfrozen_later(self) -> Collection[str]:
        """The parameters whose training starts after the others'."""
        return () if self.epochs is None else self.frozen

    def set_train_mode(self, network: nn.Module, epoch: int) -> None:
        """Put a network, or a copy of it, into the training mode of an epoch, counted from 1."""
        network.train()
        is_frozen = self.epochs is None or epoch <= self.epochs
        for name in self.frozen:
            network.get_parameter(name).requires_grad_(not is_frozen)
        for name in self.eval_modules if is_frozen else ():
            network.get_submodule(name).eval()


def plan_freezing(config: RunConfig, network: nn.Module, parts: NamedParts) -> FreezePlan:
    """Return the plan that the configuration makes for a network.

    Raises ConfigError for words that match nothing, factors on frozen parameters, and where nothing is left to train.
    """
    names = list(network.state_dict())
    trainable = {name for name, weight in network.named_parameters() if weight.requires_grad}
    mistakes: list[Mistake] = []

    def select(key: str, word: str) -> set[str]:
        try:
            chosen = parts.select(word, names)
        except UserError as error:
            mistakes.append(Mistake(key, str(error)))
            return set()
        if not chosen:
            available = listed(dict.fromkeys(["head", "features", *dict(network.named_children())]))
            mistakes.append(Mistake(key, f"'{word}' matches nothing in '{config.model.name}'; there are {available}"))
        return chosen

    frozen = {name for word in config.freeze.what or () for name in select(f"freeze.what={word}", word)}
    lr_factors: dict[str, float] = {}
    for word, factor in config.optimizer.lr_scale.items():
        key = f"optimizer.lr_scale.{word}={factor:g}"
        chosen = select(key, word) & trainable
        if chosen and chosen <= frozen and config.freeze.epochs is None:
            mistakes.append(Mistake(key, "has no effect on what is frozen"))
        lr_factors |= {name: lr_factors.get(name, 1.0) * factor for name in chosen}
    decay = config.optimizer.layer_decay
    for name, above in layers_above(network).items() if decay < 1 else ():
        lr_factors[name] = lr_factors.get(name, 1.0) * decay**above
    if trainable and trainable <= frozen:
        mistakes.append(Mistake(f"freeze.what={','.join(config.freeze.what or ())}", "leaves nothing to train"))
    if mistakes:
        raise ConfigError(mistakes)
    eval_modules = tuple(dict.fromkeys(_frozen_modules(network, frozen)))
    return FreezePlan(frozenset(frozen & trainable), eval_modules, config.freeze.epochs, lr_factors)


def layers_above(network: nn.Module) -> dict[str, int]:
    """Return, by parameter, the number of layers after its own; a norm counts as part of the layer before it.

    Source: Howard and Ruder 2018, arXiv:1801.06146: lower layers hold more general features, and need less tuning.
    """
    layer, layers = 0, {}
    for name, parameter in network.named_parameters():
        layer += parameter.ndim > 1
        layers[name] = max(1, layer)
    return {name: layer - number for name, number in layers.items()}


def _frozen_modules(network: nn.Module, frozen: Collection[str], above: str = "") -> Iterator[str]:
    """Yield the modules whose weights are all frozen, and those without any whose output goes into these."""
    next_is_frozen = False  # the next module with weights: in a Sequential, one without any belongs to it
    for child, module in reversed(list(network.named_children())):
        name = f"{above}{child}"
        state = [f"{name}.{key}" for key in module.state_dict()]
        if state:
            next_is_frozen = set(state) <= set(frozen)
        if next_is_frozen and (state or isinstance(network, nn.Sequential)):
            yield name
        else:
            yield from _frozen_modules(module, frozen, f"{name}.")
