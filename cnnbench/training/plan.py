"""A run that has been asked for: composed, checked and frozen, so that it can be started here or in another process."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from cnnbench.config.compose import TYPED, Composer
from cnnbench.config.schema import GROUPS, OVERLAYS, RunConfig, has_no_effect_on_result
from cnnbench.config.validate import check, recorded_config
from cnnbench.config.values import flat
from cnnbench.errors import ConfigError, Mistake, UserError
from cnnbench.models.head import is_below
from cnnbench.store import checkpoint
from cnnbench.store.folder import RunFolder, find_runs, folder_name, outputs_dir, readable
from cnnbench.training.init import with_source

FIXED_ON_RESUME = (
    "data", "model", "task", "seed", "batch_size", "precision", "parent", "source", "init", "freeze", "head",
    "optimizer.lr_scale", "optimizer.layer_decay", "regularization.dropout", "regularization.batchnorm",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One run to be carried out.

    named_by: values typed, by key, that the folder is named after.
    folder: of the run to go on with; None: found by the configuration's identity.
    parent: folder of the run whose last checkpoint this one starts from.
    """

    config: RunConfig
    command: str
    choices: Mapping[str, str]
    origins: Mapping[str, str] = field(default_factory=dict)
    named_by: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    folder: Path | None = None
    parent: Path | None = None
    rerun: bool = False
    accept_stale: bool = False
    brief: bool = False

    def run_path(self) -> Path:
        """Return where below a folder of runs it belongs: data, model, what was typed and the identity."""
        names = {"data": self.config.data.name, "model": self.config.model.name}
        above = [readable(self.choices.get(group, "")) or readable(name) for group, name in names.items()]
        return Path(*above, folder_name(self.named_by, self.config.identity()))

    def departures(self) -> list[str]:
        """Return what was typed besides an experiment, and makes its figures another experiment's."""
        if "experiment" not in self.choices:
            return []
        typed = [key for key, origin in self.origins.items() if origin == TYPED and key not in ("experiment", "seed")]
        values = {**self.choices, **self.named_by}  # without what cannot change a result
        return [f"{key}={values[key]}" for key in typed if key in values]


def plan_run(
    composer: Composer, words: Sequence[str], mistakes: tuple[Mistake, ...] = (), above: tuple[str, ...] = ()
) -> Plan:
    """Return the plan of one run from the words typed. Raises ConfigError with every mistake, those known included.

    above: experiments that begin with this one.
    """
    composed = composer.compose(words)
    mistakes += composed.mistakes
    if not composed.values:
        raise ConfigError(mistakes)
    values = dict(composed.values)
    for group in OVERLAYS:
        if values.pop(group, None) is not None:
            given = next((word for key, word in composed.typed.items() if key.startswith(group)), group)
            mistakes += (Mistake(given, f"sets no key: {group}= takes one of its names"),)
    for fact, made_by in (
        ("parent", "resume= makes a parent"),
        ("source", "init.run, .weights and .file make a source"),
    ):
        if values.pop(fact, None) is not None:
            mistakes += (Mistake(composed.typed.get(fact, fact), f"no such key: only {made_by}"),)
    config, notes = check(values, composed.typed, mistakes)
    config = with_source(_with_run(composer, config, above))
    return Plan(config, command_line(words), composed.choices, composed.origins, _naming(composed.typed), tuple(notes))


def _with_run(composer: Composer, config: RunConfig, above: tuple[str, ...]) -> RunConfig:
    """Return the configuration with the folder of the run in place of the experiment that it begins with."""
    name = config.init.experiment
    if name is None:
        return config
    given = f"init.experiment={name}"
    if name in above:
        raise ConfigError([Mistake(given, "begins with itself; give another one")])
    try:
        identity = plan_run(composer, [f"experiment={name}"], above=(*above, name)).config.identity()
    except ConfigError as error:
        raise ConfigError([Mistake(given, mistake.problem) for mistake in error.mistakes]) from error
    runs = [run for run in find_runs(outputs_dir(), identity) if run.is_completed]
    if not runs:
        problem = f"is not trained in {outputs_dir()}: cnnbench experiment={name}; or init.run=FOLDER takes any run"
        raise ConfigError([Mistake(given, problem)])
    init = config.init.model_copy(update={"run": str(runs[-1].path), "experiment": None})
    return config.model_copy(update={"init": init})


def plan_resume(path: str, words: Sequence[str], mistakes: tuple[Mistake, ...] = ()) -> Plan:
    """Return the plan that goes on with the run in a folder.

    Words that cannot change the result apply to that run; others (`epochs=300`) make a run of its own, which starts
    from the last checkpoint of this one and leaves it as it is.
    """
    if not path:
        raise ConfigError([*mistakes, Mistake("resume=", "must be the folder of a run")])
    folder = RunFolder.open(Path(path))
    record = folder.record()
    recorded = folder.config()
    before = recorded_config(folder)
    values, typed, refused = _overridden(recorded, words)
    after, notes = check(values, typed, (*mistakes, *refused), is_recorded=True)
    plan = Plan(
        after, command_line([f"resume={path}", *words]), record.get("choices", {}),
        dict.fromkeys(flat(recorded), f"run {folder.path.name}") | dict.fromkeys(typed, TYPED), notes=tuple(notes),
    )  # fmt: skip
    if after.identity() == before.identity():
        return replace(plan, folder=folder.path)
    steps = checkpoint.steps_in(folder.checkpoints)
    if not steps:
        raise UserError(f"{path} has no checkpoint yet to start from; run it first: cnnbench resume={path}")
    trained = checkpoint.manifest(folder.checkpoints, steps[-1])["epoch"]
    if after.epochs <= trained:
        problem = f"{trained} epochs are trained already; give more than that"
        raise ConfigError([Mistake(typed.get("epochs", f"epochs={after.epochs}"), problem)])
    after = after.model_copy(update={"parent": f"{record['identity']}@{steps[-1]}"})
    return replace(plan, config=after, named_by=_naming(typed), parent=folder.path)


def command_line(words: Sequence[str]) -> str:
    """Return the command that was typed, ready to be typed again."""
    return shlex.join(["cnnbench", *words])


def _naming(typed: Mapping[str, str]) -> dict[str, str]:
    named = {key: word.partition("=")[2] for key, word in typed.items()}
    return {
        key: value for key, value in named.items() if key not in ("model", "data") and not has_no_effect_on_result(key)
    }


def _overridden(
    recorded: Mapping[str, Any], words: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str], list[Mistake]]:
    """Return recorded values with single keys set anew, what was typed for them, and what cannot be."""
    values: dict[str, Any] = _copied(recorded)
    typed: dict[str, str] = {}
    mistakes = []
    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
        except HydraException:
            mistakes.append(Mistake(word, "is not of the form key=value"))
            continue
        key = override.key_or_group
        if key in GROUPS or key in ("regularization", *OVERLAYS):
            mistakes.append(
                Mistake(word, f"a run goes on with the parts it has; set single keys, as in {key}.KEY=VALUE")
            )
        elif override.is_sweep_override():
            mistakes.append(Mistake(word, "is several values; resuming takes one"))
        elif is_below(key, FIXED_ON_RESUME) and not has_no_effect_on_result(key):
            mistakes.append(
                Mistake(word, "cannot change in a run that goes on; start a run of its own without resume=")
            )
        else:
            typed[key] = word
            _set(values, key.split("."), override.value())
    return values, typed, mistakes


def _copied(values: Any) -> Any:
    return {key: _copied(value) for key, value in values.items()} if isinstance(values, Mapping) else values


def _set(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[path[-1]] = value
