"""Hydra only composes: from the words typed to plain values, and where each value came from.

Only this file and `files` import Hydra's private modules.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cnnbench.config.composed import CheckedWords, Composed
from cnnbench.config.files import NO_FILE, REFUSED, OptionFiles, check_folder, outside_reference
from cnnbench.config.growth import endless_reference
from cnnbench.config.hints import meant_by_word, no_such_option, several_options, several_values, why_unread
from cnnbench.config.run_config import accepts, known_keys
from cnnbench.config.schema import GROUPS, OVERLAYS
from cnnbench.config.values import FREE_TEXT, TYPED, conf_dir, data_for_dataset, flat, quoted
from cnnbench.errors import LONGEST, ConfigError, Mistake, UserError, as_utf8, closest, shortened

INSTEAD_OF_HYDRA = {
    "searchpath": "--config-dir FOLDER adds a folder of your own YAML files",
    "launcher": "-m … jobs=4 runs jobs at a time, engine=slurm on a cluster: cnnbench help cluster",
    "sweeper": "-m optimizer.lr=0.1,0.01 seeds=3 runs each combination",
    "dir": "CNNBENCH_OUTPUTS=FOLDER says where runs are written",
}


class Composer:
    """Composes any number of configurations from `conf/` and the user's own folders of YAML files.

    Its options are those files, and every registered component that has none of its name. Raises UserError where there
    is no such folder.
    """

    def __init__(self, extra_folders: Sequence[str] = ()) -> None:
        for folder in extra_folders:
            check_folder(folder)
        self._loader = _Loader(extra_folders)
        self._parser = OverridesParser.create(config_loader=self._loader)
        self._groups = {group: self._options(group) for group in self._loader.list_groups("") if group != "hydra"}
        self._groups.pop("dataset", None)
        self._composed: dict[tuple[str, ...], Composed] | None = (
            None  # of the jobs of a grid, by pattern of their words
        )
        self._is_plain = False  # the last composition: no value refers to another one
        self._add_components_without_file()

    def groups(self) -> dict[str, list[str]]:
        """Return the options of every group."""
        return self._groups

    def settings_of(self, group: str, option: str) -> dict[str, Any]:
        """Return what the file of an option sets; nothing where there is none."""
        file = self._loader.repository.load_config(f"{group}/{option}")
        values = {} if file is None else OmegaConf.to_container(file.config)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items()}

    def compose(self, words: Sequence[str]) -> Composed:
        """Return what the words make of the configuration files; mistakes are collected, not raised."""
        words = [quoted(self._in_our_words(word)) for word in words]
        checked = self._check(words)
        pattern = None if self._composed is None else checked.pattern(self._groups)
        if self._composed and pattern in self._composed:
            return checked.replaced_in(self._composed[pattern])
        try:
            composed = self._compose(checked)
        except (HydraException, OmegaConfBaseException):
            return self._without_refused(words)
        if self._composed is not None and pattern is not None and self._is_plain:
            self._composed[pattern] = composed
        return composed

    def _in_our_words(self, word: str) -> str:
        """Return `data…` for `dataset…`, and `experiment=` for `+experiment=`, which Hydra's users know."""
        word = data_for_dataset(word)
        return word[1:] if word[:1] == "+" and word[1:].partition("=")[0] in self._groups else word

    def _without_refused(self, words: Sequence[str]) -> Composed:
        """Find the words that Hydra refuses, and compose the others, to find their mistakes too."""
        options = [word for word in words if word.partition("=")[0] in self._groups]
        refused = self._refused(options, [])
        options = [word for word in options if word not in refused]
        # What may be set depends on the options.
        refused |= self._refused([word for word in words if word not in options and word not in refused], options)
        composed = self._compose(self._check([word for word in words if word not in refused]))
        mistakes = [Mistake(shortened(word), problem) for word, problem in refused.items()]
        return replace(composed, mistakes=(*composed.mistakes, *mistakes))

    def _refused(self, words: Sequence[str], options: Sequence[str]) -> dict[str, str]:
        """Return the words that cannot be composed together with the options, and why, found by bisection."""
        try:
            self._compose(self._check([*options, *words]))
        except (HydraException, OmegaConfBaseException) as error:
            if len(words) == 1:
                taken = [part.config_path for part in self._loader.defaults if part.config_path]
                return {words[0]: self._loader.files.said_of(error, taken)}
            half = len(words) // 2
            first = self._refused(words[:half], options)
            taken = [word for word in words[:half] if word not in first]
            return first | self._refused(words[half:], [*options, *taken])
        return {}

    def expand(self, words: Sequence[str]) -> list[list[str]]:
        """Return the words of every job of a grid: `seed=0,1` makes two; a grid of an experiment counts as typed."""
        texts = {quoted(word): word for word in words if word.partition("=")[0] in FREE_TEXT}
        words = [quoted(self._in_our_words(word)) for word in words]
        read = {word: read_word(word, self._groups, is_swept=True) for word in words}
        mistakes = [one for one in read.values() if isinstance(one, Mistake)]
        overrides = {word: one for word, one in read.items() if isinstance(one, Override)}
        endless = [word for word, one in overrides.items() if one.is_interval_sweep()]
        mistakes += [
            Mistake(word, "has no end of values; list some, as in 0.1,0.3 or range(1,9,2)") for word in endless
        ]
        if mistakes:
            raise ConfigError(mistakes)
        single = [word for word, one in overrides.items() if not one.is_sweep_override()]
        jobs = []
        self._composed = {}
        for chosen in self._experiments(overrides):  # each may bring a grid of its own
            kept = [chosen.get(overrides[word].key_or_group, word) for word in words]
            brought = self.compose([*single, *chosen.values()]).sweep
            typed_keys = {word.partition("=")[0] for word in words}
            grid = [f"{key}={values}" for key, values in brought.items() if key not in typed_keys]
            jobs += self._jobs([*grid, *kept])
        if not jobs:
            raise UserError(f"this grid has no job: a range in {' '.join(words)} is empty.")
        # Hydra writes Python's True; a single command would have `true` in its folder's name.
        jobs = [[re.sub(r"=(True|False)$", lambda found: found[0].lower(), word) for word in job] for job in jobs]
        as_typed = {word.partition("=")[0]: texts[word] for word in single if word in texts}
        return [[as_typed.get(word.partition("=")[0], word) for word in job] for job in jobs]

    def _experiments(self, overrides: Mapping[str, Override]) -> list[dict[str, str]]:
        """Return the word for each of several experiments, by its group; one without a word where there are not."""
        several = [word for word, one in overrides.items() if one.key_or_group in OVERLAYS and one.is_sweep_override()]
        jobs = self._jobs(several)
        return [{word.partition("=")[0]: word for word in job} for job in jobs]

    def _jobs(self, words: Sequence[str]) -> list[list[str]]:
        try:
            jobs: list[list[str]] = BasicSweeper.split_arguments(self._parser.parse_overrides(list(words)), None)[0]
        except HydraException as error:
            raise UserError(f"this grid cannot be expanded: {error}") from error
        return jobs

    def _add_components_without_file(self) -> None:
        for group, registry in GROUPS.items():
            for name in registry:
                if name in self._groups[group]:
                    settings = self.settings_of(group, name) if registry[name].is_from_plugin else {name: {}}
                    settings = settings.get(group, settings)
                    if name not in (*settings, settings.get("name")):
                        raise UserError(f"{registry[name]}: {group}={name} is a preset already; choose another name.")
                    continue
                node: dict[str, Any] = {name: {}} if group == "augmentation" else {"name": name}
                ConfigStore.instance().store(name=name, group=group, node=node)
                self._groups[group] = sorted([*self._groups[group], name])

    def _options(self, group: str) -> list[str]:
        options = list(self._loader.get_group_options(group, ObjectType.CONFIG))
        for inner in self._loader.get_group_options(group, ObjectType.GROUP):
            options += [f"{inner}/{option}" for option in self._options(f"{group}/{inner}")]
        return sorted(options)

    def _check(self, words: Sequence[str]) -> CheckedWords:
        checked = CheckedWords()
        for word in words:
            override = read_word(word, self._groups)
            if isinstance(override, Mistake):
                checked.mistakes.append(override)
                continue
            key = override.key_or_group
            # Hydra looks for a file of the key's name, and fails in a traceback where no file can have it.
            problem = self._problem(override) if len(key) <= LONGEST else "no such key"
            if not problem and checked.typed.get(key, word) != word:
                problem = f"and {checked.typed[key]} set the same key; give one of them"
            if problem:
                checked.mistakes.append(Mistake(shortened(word), problem))
                continue
            if key in OVERLAYS and not override.is_delete() and override.value() is None:
                continue  # as if nothing had been typed; Hydra cannot take a null for a group
            checked.typed[key], checked.values[key] = word, override.value()
            # `++` lets unknown keys through to the check of types, which names all of them at once; Hydra alone stops
            # at the first, and advises to add the mistake with `+`.
            is_plain = key not in self._groups and not word.startswith(("~", "+"))
            checked.overrides.append(f"++{word}" if is_plain else word)
        return checked

    def _problem(self, override: Override) -> str | None:
        key = override.key_or_group
        if override.is_sweep_override():
            values = list(override.sweep_iterator()) if override.is_choice_sweep() else []  # a range may have a billion
            return several_values(str(override.input_line), values, accepts)
        if outside_reference(override.value()):
            return REFUSED
        if re.match(r"hydra([/.]|$)", key):
            instead = next((f"; {way}" for part, way in INSTEAD_OF_HYDRA.items() if part in key), "")
            return f"is Hydra's own, which cnnbench does not use{instead}"
        if re.match(r"engine([.]|$)", key):
            return "says where the jobs of a sweep run, and is for the command line: cnnbench -m … engine=slurm"
        group = key.removesuffix(".name")
        if group in GROUPS and group != key:
            chosen = closest(str(override.value())[:LONGEST], self._groups[group])
            return f"cannot be set alone; type {group}={chosen or 'OPTION'}"
        return None if key not in self._groups or override.is_delete() else self._option_problem(key, override.value())

    def _option_problem(self, group: str, option: Any) -> str | None:
        options = self._groups[group]
        several = option if isinstance(option, list) else [option]
        unknown = next((str(one) for one in several if one not in options), None)
        if option is None and group in OVERLAYS:
            return None
        if unknown is not None:
            return no_such_option(group, unknown[:LONGEST], options)
        if several is not option:
            return None
        files = [self._loader.repository.load_config(f"{group}/{one}") for one in several]
        settings = [flat(OmegaConf.to_container(file.config)) for file in files if file is not None]
        return several_options(group, several, {key: value for each in settings for key, value in each.items()})

    def _compose(self, checked: CheckedWords) -> Composed:
        config = self._loader.load_configuration("config", checked.overrides, RunMode.RUN, from_shell=False)
        unresolved = OmegaConf.to_container(config, resolve=False)
        assert isinstance(unresolved, dict)
        self._is_plain = "${" not in str({key: value for key, value in unresolved.items() if key != "hydra"})
        endless = endless_reference(unresolved)
        if endless:
            raise UserError(f"{endless} refers to settings that refer to others, more often than can be written down.")
        choices = {
            key: str(value) for key, value in config.hydra.runtime.choices.items() if key in self._groups and value
        }
        sweep = {data_for_dataset(str(key)): str(value) for key, value in (config.hydra.sweeper.params or {}).items()}
        OmegaConf.set_struct(config, False)
        config.pop("hydra")
        values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
        assert isinstance(values, dict)
        plain = {str(key): value for key, value in values.items()}
        origins = self._origins(checked)
        return Composed(plain, choices, origins, checked.typed, sweep, tuple(checked.mistakes))

    def _origins(self, checked: CheckedWords) -> dict[str, str]:
        """Return where each value of the last composition came from."""
        origins: dict[str, str] = {}
        for part in self._loader.defaults:
            if part.config_path is None or part.config_path.startswith("hydra"):
                continue
            loaded = self._loader.repository.load_config(part.config_path)
            if loaded is None or not isinstance(loaded.config, DictConfig):
                continue
            group, _, option = part.config_path.partition("/")
            if loaded.path == NO_FILE:
                source = f"signature in {GROUPS[group][option].file}"
            else:
                source = part.config_path if option else "default"
            values = OmegaConf.to_container(loaded.config, resolve=False)
            prefix = f"{part.package}." if part.package else ""
            origins |= {f"{prefix}{key}": source for key in flat(values)}
        return origins | {key: TYPED for key in checked.typed if key not in self._groups}


class _Loader(ConfigLoaderImpl):
    """Hydra's loader over our files, without its global state; knows which files the last composition took."""

    def __init__(self, extra_folders: Sequence[str]) -> None:
        version.setbase("1.3")
        setup_globals()
        JobRuntime.instance().set("name", "cnnbench")
        search_path = create_config_search_path(str(conf_dir()))
        for folder in extra_folders:
            # Before Hydra's own last entry, which has to stay the last:
            search_path.prepend("command-line", f"file://{Path(folder).resolve()}", SearchPathQuery(provider="schema"))
        super().__init__(search_path)
        self.repository = self.files = OptionFiles(search_path)
        self.defaults: list[ResultDefault] = []

    @staticmethod
    def _embed_result_config(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        embedded = ConfigLoaderImpl._embed_result_config(ret, package_override)
        # Merging would change what all compositions share.
        return replace(ret, config=copy.deepcopy(ret.config)) if embedded is ret else embedded

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        self.defaults = defaults
        return super()._compose_config_from_defaults_list(defaults, repo)


def read_word(word: str, options: Mapping[str, list[str]] | None = None, is_swept: bool = False) -> Override | Mistake:
    """Return what a word says, `key=value`, or a mistake. options: of each group, for suggestions."""
    if as_utf8(word) != word:
        return Mistake(as_utf8(shortened(word)), "is not text in UTF-8; give the file or folder another name")
    try:
        override: Override | None = OverridesParser.create().parse_override(quoted(word))
    except HydraException:
        override = None
    if override is None or not override.key_or_group:  # Hydra reads `=3` as the value of nothing
        spaced = "; type no space before or after '='" if word[:1] == "=" else ""
        hint = spaced if "=" in word or options is None else meant_by_word(word, "", options, known_keys())
        return Mistake(shortened(word), why_unread(word, is_swept) or f"is not of the form key=value{hint}")
    return override
