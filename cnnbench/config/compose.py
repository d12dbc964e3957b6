"""Hydra composes, and does nothing else: from the words typed to plain values, and where each value came from."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnbench.config.conf_dir import conf_dir
from cnnbench.config.schema import CHOICES, GROUPS, OVERLAYS
from cnnbench.config.values import flat
from cnnbench.errors import Mistake, UserError, did_you_mean, listed
from cnnbench.registry import Component, Selection

TYPED = "command line"


@dataclass(frozen=True)
class Composed:
    """What Hydra made of the words typed."""

    values: dict[str, Any]
    choices: dict[str, str]  # group -> chosen option: {"model": "minialexnet_v4", …}
    origins: dict[str, str]  # dotted key -> where its value came from
    typed: dict[str, str]  # dotted key -> the argument as typed
    sweep: dict[str, str]  # a grid that an experiment brings, by key
    mistakes: tuple[Mistake, ...] = ()


@dataclass
class _Words:
    """The overrides that Hydra shall see, and what was wrong with the others."""

    overrides: list[str] = field(default_factory=list)
    typed: dict[str, str] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)


class Composer:
    """Composes any number of configurations from one set of folders; made by `open_composer`."""

    def __init__(self) -> None:
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        self._loader = loader
        self._parser = OverridesParser.create(config_loader=loader)
        self._groups = {group: self._options(group) for group in loader.list_groups("") if group != "hydra"}

    def groups(self) -> dict[str, list[str]]:
        """Return the options of every group."""
        return self._groups

    def compose(self, words: Sequence[str]) -> Composed:
        """Return what the words make of the configuration files; mistakes are collected, not raised."""
        checked = self._check(words)
        try:
            return self._compose(checked)
        except (HydraException, OmegaConfBaseException):
            return self._without_culprits(words)

    def _without_culprits(self, words: Sequence[str]) -> Composed:
        """Find the words that Hydra refuses by trying each alone, and compose the others, for their mistakes' sake."""
        accepted, culprits = [], []
        for word in words:
            try:
                self._compose(self._check([word]))
                accepted.append(word)
            except (HydraException, OmegaConfBaseException) as error:
                culprits.append(Mistake(word, " ".join(str(error).split("\n")[:2])))
        try:
            composed = self._compose(self._check(accepted))
        except (HydraException, OmegaConfBaseException) as error:  # refused together only
            problem = " ".join(str(error).split("\n")[:2])
            return Composed({}, {}, {}, {}, {}, (*culprits, Mistake(" ".join(accepted), problem)))
        return replace(composed, mistakes=(*composed.mistakes, *culprits))

    def expand(self, words: Sequence[str]) -> list[list[str]]:
        """Return the words of every job of a grid: `seed=0,1` makes two; a grid of an experiment counts as typed."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        brought = self.compose([word for word in words if not self._sweeps(word)]).sweep
        typed_keys = {word.partition("=")[0] for word in words}
        grid = [f"{key}={values}" for key, values in brought.items() if key not in typed_keys]
        try:
            jobs = BasicSweeper.split_arguments(self._parser.parse_overrides([*grid, *words]), None)[0]
            # Hydra writes Python's True; a single command would have `true` in its folder's name.
            return [[re.sub(r"=(True|False)$", lambda found: found[0].lower(), word) for word in job] for job in jobs]
        except HydraException as error:
            raise UserError(f"this grid cannot be expanded: {error}") from error

    def add_missing_options(self) -> None:
        """Make an option of every registered component that no YAML file names, from its signature."""
        for group, registry in GROUPS.items():
            if group == "augmentation":  # its options are lists of components
                continue
            named = {self._component_of(group, option) for option in self._groups[group]}
            for name in set(registry) - named - set(self._groups[group]):
                _add_option(group, registry[name])
                self._groups[group] = sorted([*self._groups[group], name])

    def _component_of(self, group: str, option: str) -> str | None:
        loaded = self._loader.repository.load_config(f"{group}/{option}")
        if loaded is None:
            return None
        name = OmegaConf.select(loaded.config, f"{group}.name") or OmegaConf.select(loaded.config, "name")
        return str(name)

    def _sweeps(self, word: str) -> bool:
        try:
            return bool(self._parser.parse_override(word).is_sweep_override())
        except HydraException:
            return False

    def _options(self, group: str) -> list[str]:
        options = list(self._loader.get_group_options(group, ObjectType.CONFIG))
        for inner in self._loader.get_group_options(group, ObjectType.GROUP):
            options += [f"{inner}/{option}" for option in self._options(f"{group}/{inner}")]
        return sorted(options)

    def _check(self, words: Sequence[str]) -> _Words:
        checked = _Words()
        for word in words:
            try:
                override = self._parser.parse_override(word)
            except HydraException:
                checked.mistakes.append(Mistake(word, "is not of the form key=value"))
                continue
            problem = self._problem(override)
            if problem:
                checked.mistakes.append(Mistake(word, problem))
                continue
            key = override.key_or_group
            if key in OVERLAYS and not override.is_delete() and override.value() is None:
                continue  # as if nothing had been typed; Hydra cannot take a null for a group
            checked.typed[key] = word
            # `++` lets unknown keys through to the check of types, which names all of them at once; Hydra alone stops
            # at the first, and advises to add the mistake with `+`.
            is_plain = key not in self._groups and not word.startswith(("~", "+"))
            checked.overrides.append(f"++{word}" if is_plain else word)
        return checked

    def _problem(self, override: Override) -> str | None:
        key = override.key_or_group
        if override.is_sweep_override():
            return "is several values; put -m before it to run each of them"
        if key == "hydra.searchpath":
            return "is Hydra's; --config-dir FOLDER adds a folder of your own YAML files"
        if key == "hydra" or key.startswith(("hydra/", "hydra.")):
            return "is for Hydra's own launcher, which cnnbench does not use"
        if key not in self._groups or override.is_delete():
            return None
        option = override.value()
        if option in self._groups[key] or (option is None and key in OVERLAYS):
            return None
        options = self._groups[key]
        return f"no such {key}{did_you_mean(str(option), options)}; there are {listed(options)}"

    def _compose(self, checked: _Words) -> Composed:
        config = hydra_compose("config", overrides=checked.overrides, return_hydra_config=True)
        choices = {
            key: str(value) for key, value in config.hydra.runtime.choices.items() if key in self._groups and value
        }
        sweep = {str(key): str(value) for key, value in (config.hydra.sweeper.params or {}).items()}
        OmegaConf.set_struct(config, False)
        config.pop("hydra")
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
        assert isinstance(values, dict)
        plain = {str(key): value for key, value in values.items()}
        origins = self._origins(checked)
        return Composed(plain, choices, origins, checked.typed, sweep, tuple(checked.mistakes))

    def _origins(self, checked: _Words) -> dict[str, str]:
        origins: dict[str, str] = {}
        for part in self._loader.compute_defaults_list("config", checked.overrides, RunMode.RUN).defaults:
            if part.config_path is None or part.config_path.startswith("hydra"):
                continue
            loaded = self._loader.repository.load_config(part.config_path)
            if loaded is None or not isinstance(loaded.config, DictConfig):
                continue
            source = "default" if part.primary or part.config_path == "config" else part.config_path
            values = OmegaConf.to_container(loaded.config, resolve=False)
            prefix = f"{part.package}." if part.package else ""
            origins |= {f"{prefix}{key}": source for key in flat(values)}
        origins |= dict.fromkeys(checked.typed, TYPED)
        return origins


@contextmanager
def open_composer(extra_folders: Sequence[str] = ()) -> Iterator[Composer]:
    """Open the configuration files, those of the user's folders included, for as long as the context lasts."""
    for folder in extra_folders:
        if not Path(folder).is_dir():
            raise UserError(f"--config-dir {folder}: there is no such folder")
    version.setbase("1.3")
    search_path = create_config_search_path(str(conf_dir()))
    for folder in extra_folders:
        # Before Hydra's own last entry, which has to stay the last:
        search_path.prepend("command-line", f"file://{Path(folder).resolve()}", SearchPathQuery(provider="schema"))
    Hydra.create_main_hydra2(task_name="cnnbench", config_search_path=search_path)
    try:
        yield Composer()
    finally:
        GlobalHydra.instance().clear()


def _add_option(group: str, component: Component) -> None:
    """Make an option of a group from a component's signature, for one that has no YAML file of its own."""
    required = {key: "???" for key, field in component.schema.model_fields.items() if field.is_required()}
    shared = CHOICES[group](part=Selection(component.name, {})).shared() if group in CHOICES else {}
    node = {"name": component.name, **component.defaults(), **required, **shared}
    ConfigStore.instance().store(name=component.name, group=group, node=node)
