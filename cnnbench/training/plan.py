"""A run that has been asked for: composed, validated and frozen, so that it can be started here or elsewhere."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path
from typing import Any

from cnnbench.config.compose import Composer, read_word
from cnnbench.config.composed import Composed
from cnnbench.config.run_config import RunConfig, has_no_effect_on_result
from cnnbench.config.schema import GROUPS, OVERLAYS
from cnnbench.config.validate import validate
from cnnbench.config.values import TYPED, copied, flat, set_value
from cnnbench.errors import ConfigError, Mistake, UserError
from cnnbench.store import checkpoint
from cnnbench.store.files import DamagedError
from cnnbench.store.folder import BEGINNING, RunFolder, outputs_dir, readable
from cnnbench.store.lookup import finished_runs_of, run_named
from cnnbench.store.reading import edited_settings

FIXED_ON_RESUME = (
    "data", "model", "task", "seed", "batch_size", "precision", "parent", "source", "init", "freeze", "head",
    "optimizer.lr_scale", "optimizer.layer_decay", "regularization.dropout", "regularization.batchnorm",
)  # fmt: skip
ONLY_COMPUTED = {"parent": "resume= makes a parent", "source": "init.run, .weights and .file make a source"}
# Keys whose values speak for themselves, in a folder's name:
NAMES = (
    "experiment", "debug", "optimizer", "scheduler", "augmentation", "regularization", "freeze.what", "init.weights",
    "init.experiment", "task",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One run to be carried out.

    choices: the option of each group. origins: where values came from, by dotted key. typed: words by the key or the
    group that they set. code: hashes of what computes, taken when the run was planned.
    folder: of the run to continue; None: found by the configuration's identity.
    parent: folder of the run whose last checkpoint this one starts from.
    grid: of its experiment, which a sweep would run.
    """

    config: RunConfig
    command: str
    choices: Mapping[str, str]
    origins: Mapping[str, str] = field(default_factory=dict)
    typed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    parent: Path | None = None
    rerun: bool = False
    accept_stale: bool = False
    brief: bool = False
    grid: str = ""

    @property
    def opens_page(self) -> bool:
        """Tell whether the page is opened in the browser at the end; of a sweep, that of its comparison is instead."""
        return self.config.open and not self.brief

    @property
    def named_by(self) -> dict[str, str]:
        """Return the values, by key, that the folder is named after: those typed, and the experiment."""
        values = {key: self.choices[key] for key in self.choices if key == "experiment"}
        values |= {key: word.partition("=")[2] for key, word in self.typed.items() if key not in ("model", "data")}
        return {key: value for key, value in values.items() if not has_no_effect_on_result(key)}

    def loading(self, plugins: Sequence[str], config_dir: str | None = None) -> "Plan":
        """Return the plan with the plugins and the user's YAML files that its command has to load."""
        words = [f"plugins={','.join(plugins)}"] if plugins else []
        words = ["--config-dir", config_dir, *words] if config_dir else words
        return replace(self, plugins=tuple(plugins), command=command_line([*words, *shlex.split(self.command)[1:]]))

    def run_path(self) -> Path:
        """Return the folder of the run below that of all runs: data, model, what was typed and the identity."""
        names = {"data": self.config.data.name, "model": self.config.model.name}
        above = [readable(self.choices.get(group, "")) or readable(name) for group, name in names.items()]
        return Path(*above, folder_name(self.named_by, self.config.identity()))

    def deviations(self) -> list[str]:
        """Return what was typed in addition to an experiment, and changes its result."""
        if "experiment" not in self.choices:
            return []
        values = {**self.choices, **self.named_by}  # without what cannot change a result
        return [f"{key}={values[key]}" for key in self.typed if key in values and key not in ("experiment", "seed")]


def plan_run(
    composer: Composer,
    words: Sequence[str],
    mistakes: tuple[Mistake, ...] = (),
    is_job: bool = False,
    awaited: Collection[str] = (),
) -> Plan:
    """Return the plan of one run from the words typed. Raises ConfigError with every mistake, those known included.

    Its initial weights are pinned by their content, unless they are those of an experiment that is not trained yet.
    is_job: it is one of a sweep, where a value may switch something off. awaited: experiments that earlier jobs train.
    """
    composed = composer.compose(words)
    mistakes += composed.mistakes
    if not composed.values:
        raise ConfigError(mistakes)
    values = dict(composed.values)
    mistakes += tuple(_misplaced(values, composed))
    if not is_job:
        mistakes += tuple(_switched_off_already(composer, words, composed))
    try:
        config, notes = validate(values, composed.typed, mistakes)
    except ConfigError as error:
        raise ConfigError(composed.located(mistake) for mistake in error.mistakes) from error
    grid = "" if is_job else " ".join(f"{key}={values}" for key, values in composed.sweep.items())
    command = command_line(words)
    plan = Plan(config, command, composed.choices, composed.origins, composed.typed, tuple(notes), grid=grid)
    name = config.init.experiment
    if name is None:
        return with_initial_weights(plan)
    _check_chain(composer, name)
    return with_initial_weights(plan) if name not in awaited and _runs_of(name) else plan


def plan_words(words: Sequence[str], config_dir: str | None = None) -> Plan:
    """Return the plan of the run that `cnnbench …` would carry out for these words.

    config_dir: a folder of more YAML files. Raises UserError for a mistake.
    """
    return plan_run(Composer([config_dir] if config_dir else []), words)


def _misplaced(values: dict[str, Any], composed: Composed) -> list[Mistake]:
    """Return mistakes in keys that only choose among options, or that only the program sets; remove these keys."""
    mistakes = []
    for group in OVERLAYS:
        if values.pop(group, None) is not None:
            given = next((word for key, word in composed.typed.items() if key.startswith(group)), group)
            mistakes.append(Mistake(given, f"sets no key: {group}= takes one of its names"))
    for key, made_by in ONLY_COMPUTED.items():
        if values.pop(key, None) is not None:
            mistakes.append(Mistake(composed.typed.get(key, key), f"no such key: only {made_by}"))
    return mistakes


def _switched_off_already(composer: Composer, words: Sequence[str], composed: Composed) -> list[Mistake]:
    """Return a mistake for each augmentation that is switched off by `p=0`, where nothing else switches it on."""
    off = {key: word for key, word in composed.typed.items() if re.fullmatch(r"augmentation\.\w+\.p=0(\.0*)?", word)}
    if not off:
        return []
    without = composer.compose([word for word in words if word.lstrip("+") not in off.values()])
    present = without.values.get("augmentation") or {}
    problem = "has no effect: it is disabled already; leave it out"
    return [Mistake(word, problem) for key, word in off.items() if key.split(".")[1] not in present]


def with_initial_weights(plan: Plan) -> Plan:
    """Return the plan with its initial weights pinned by content, those of an experiment by its newest run.

    Images are prepared as published weights need, where nobody has chosen otherwise. Raises ConfigError where weights
    are missing; nothing changes where they are pinned already.
    """
    config, init, notes = plan.config, plan.config.init, plan.notes
    if config.source is not None or not init.model_dump(
        exclude={"checkpoint", "partial", "accept_leaks"}, exclude_none=True
    ):
        return plan
    from cnnbench.training.init import with_source  # only a run with initial weights needs all that

    if init.experiment is not None:
        runs = _runs_of(init.experiment)
        if not runs:
            raise ConfigError([untrained(init.experiment)])
        deviations = runs[-1].record().get("departures")
        if deviations:
            of_run = f"its newest run, {runs[-1].shown_path}, deviates from it in {', '.join(deviations)}"
            notes = (*notes, f"init.experiment={init.experiment}: {of_run}")
        init = init.model_copy(update={"run": str(runs[-1].path), "experiment": None})
        config = config.model_copy(update={"init": init})
    chosen = {key for key, origin in plan.origins.items() if origin != "default"}
    config, recipe = with_source(config, chosen, "init.checkpoint" in plan.typed)
    origins = {**plan.origins, **dict.fromkeys(recipe, "published weights")}
    return replace(plan, config=config, origins=origins, notes=notes)


def untrained(experiment: str) -> Mistake:
    """Return the mistake of beginning with the run of an experiment that has none."""
    ways = f"cnnbench experiment={experiment} trains it, or an earlier job of a sweep; init.run=FOLDER takes any other"
    return Mistake(f"init.experiment={experiment}", f"has no finished run in {outputs_dir()}: {ways}")


def _runs_of(experiment: str) -> list[RunFolder]:
    return finished_runs_of(outputs_dir(), experiment)


def _check_chain(composer: Composer, name: str) -> None:
    """Raise ConfigError where there is no such experiment, or where it is in the end initialised with itself."""
    chain, given = [name], f"init.experiment={name}"
    while True:
        composed = composer.compose([f"experiment={chain[-1]}"])
        if composed.mistakes:
            raise ConfigError([Mistake(given, mistake.problem) for mistake in composed.mistakes])
        above = composed.values.get("init", {}).get("experiment")
        if above is None:
            return
        if above in chain:
            raise ConfigError([Mistake(given, "is initialised with itself; give another one")])
        chain.append(str(above))


def plan_resume(path: str, words: Sequence[str], mistakes: tuple[Mistake, ...] = ()) -> Plan:
    """Return the plan that continues a run, given by its folder, `last`, or a part of its path.

    Words that cannot change the result apply to that run; others (`epochs=300`) make a new run, which starts
    from the last checkpoint of this one and leaves it as it is.
    """
    if not path:
        raise ConfigError([*mistakes, Mistake("resume=", "must be the folder of a run")])
    folder = run_named(path)
    path = path if Path(path).expanduser().exists() else folder.shown_path  # `last` means another run tomorrow
    record = folder.record()
    try:
        recorded = folder.config()
    except DamagedError:
        if "config" not in record:
            raise
        recorded = record["config"]
    before = folder.run_config(recorded)
    values, typed, refused = _overridden(recorded, words)
    after, notes = validate(values, typed, (*mistakes, *refused), is_recorded=True)
    plan = Plan(
        after, command_line([f"resume={path}", *words]), record.get("choices", {}),
        dict.fromkeys(flat(recorded), "resumed run") | dict.fromkeys(typed, TYPED), typed,
        notes=tuple(notes),
    )  # fmt: skip
    if after.identity() == before.identity():
        return replace(plan, folder=folder.path)
    newest = checkpoint.newest(folder.checkpoints, notes.append, record["identity"])
    if newest is None:
        way = f" to start from; run it first: cnnbench resume {path}"
        raise UserError(f"{path} {checkpoint.why_none(record, way)}")
    trained = newest["epoch"]
    if after.epochs <= trained:
        way = f"add epochs=N above {trained} to train it longer, or start a new run"
        given = typed.get("epochs", " ".join(typed.values()))
        raise ConfigError([Mistake(given, f"{path} is finished at epoch {trained}: {way}")])
    if after.name is not None and "name" not in typed:
        notes.append(f"two runs are named {after.name} now, this one and its parent; name=NAME tells them apart")
    after = after.model_copy(update={"parent": f"{record['identity']}@{newest['step']}"})
    return replace(plan, config=after, parent=folder.path, notes=tuple(notes))


def command_line(words: Sequence[str]) -> str:
    """Return the command that was typed, ready to be typed again."""
    return shlex.join(["cnnbench", *words])


def _overridden(
    recorded: Mapping[str, Any], words: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str], list[Mistake]]:
    """Return recorded values with single keys overridden, what was typed for them, and what cannot be."""
    values: dict[str, Any] = copied(recorded)
    typed: dict[str, str] = {}
    mistakes = []
    for word in words:
        override = read_word(word)
        if isinstance(override, Mistake):
            mistakes.append(override)
            continue
        key = override.key_or_group
        if key in GROUPS or key in ("regularization", *OVERLAYS):
            problem = f"a resumed run keeps its parts; set single keys, as in {key}.KEY=VALUE"
            mistakes.append(Mistake(word, problem))
        elif override.is_sweep_override():
            mistakes.append(Mistake(word, "has several values; resuming takes one"))
        elif any(f"{key}.".startswith(f"{fixed}.") for fixed in FIXED_ON_RESUME) and not has_no_effect_on_result(key):
            problem = "cannot change in a resumed run; start a new one without resume="
            mistakes.append(Mistake(word, problem))
        else:
            typed[key] = word
            set_value(values, key.split("."), override.value())
    return values, typed, mistakes


def folder_name(words: Mapping[str, str], identity: str) -> str:
    """Return a run's folder name: what was typed, shortest form, sorted, and the beginning of its identity.

    words: value as typed, by dotted key. The identity alone decides which run it is; the rest is for people.
    """
    parts = []
    for key, value in sorted(words.items()):
        parts.append(readable(value if key in NAMES else _named_value(key.rpartition(".")[2], value)))
    shown = readable("_".join(part for part in parts if part))[:80]
    return f"{shown or 'default'}-{identity[:BEGINNING]}"


def _named_value(name: str, value: str) -> str:
    """Return `lr0.1`, `crop-null`, `folder-my_photos`: a number joins its name, and stays the same number."""
    try:
        float(value)
    except ValueError:
        return f"{name}-{readable(value.rstrip('/').rpartition('/')[2])}"  # of a path, its end
    return name + re.sub(r"^\+|(?<=[eE])\+", "", value)  # `1e+3` would become `1e-3` with the characters allowed


def unlike_before(new: RunFolder, command: str, config: Mapping[str, Any]) -> list[str]:
    """Return why a command that has a run makes a new one: settings that follow from data or presets changed."""
    alike = [] if new.record_file.exists() else new.path.parent.glob(f"{escape(new.path.name[:-BEGINNING])}*/run.json")
    for file in sorted(alike, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(OSError, UserError):
            run = RunFolder(file.parent)
            record = run.record()
            if record.get("command") == command:
                changes = ", ".join(edited_settings(record.get("config"), config))
                return [f"the same command made {run.shown_path} before; since then {changes}"] * bool(changes)
    return []
