"""From a grid to the plans of its jobs: expanded, validated and checked against the data before the first starts."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from cnnbench.config.compose import Composer
from cnnbench.config.hints import with_point
from cnnbench.config.run_config import RunConfig, accepts
from cnnbench.config.schema import DataConfig
from cnnbench.data.prepare import PreparedData, prepare
from cnnbench.errors import ConfigError, Mistake, UserError, counted
from cnnbench.store.folder import LABELS
from cnnbench.sweeps.standing import labels_of
from cnnbench.training import console
from cnnbench.training.init import initial_weights
from cnnbench.training.plan import Plan, plan_run, untrained
from cnnbench.training.resolve import resolve

PER_JOB = "seed", *LABELS
"""Settings without which jobs are checked against data and networks: what fits one of them fits all."""
SAYS_EVERY = 5.0  # seconds


def with_seeds(words: Sequence[str]) -> list[str]:
    """Return words with `seeds=3` written out as `seed=0,1,2`. Raises ConfigError where that is no number."""
    given = [word for word in words if word.startswith("seeds=")]
    if not given:
        return list(words)
    mistakes = [
        Mistake(word, "must be a whole number, at least 1; seed=3,7 lists seeds") for word in given if not _counts(word)
    ]
    if len(given) > 1 or any(word.startswith("seed=") for word in words):
        mistakes.append(Mistake(given[0], "sets the seeds, and so does another word; give one of them"))
    if mistakes:
        raise ConfigError(mistakes)
    seeds = ",".join(map(str, range(int(given[0].partition("=")[2]))))
    return [f"seed={seeds}" if word in given else word for word in words]


def _counts(word: str) -> bool:
    return re.fullmatch(r"seeds=0*[1-9]\d{0,5}", word) is not None


def plan_all(composer: Composer, words: Sequence[str], known: tuple[Mistake, ...] = ()) -> list[Plan]:
    """Return the plans of all jobs of a grid. Raises ConfigError with the mistakes of all jobs."""
    plans: list[Plan] = []
    awaited: set[str] = set()
    mistakes = list(known)
    for job_words in composer.expand(with_seeds(words)):
        try:
            plans.append(replace(plan_run(composer, job_words, is_job=True, awaited=awaited), brief=True))
            awaited.add(plans[-1].choices.get("experiment", ""))
        except ConfigError as error:
            mistakes += [_of_comma(mistake, words) for mistake in error.mistakes]
    if mistakes:
        raise ConfigError(mistakes)
    return plans


def _of_comma(mistake: Mistake, words: Sequence[str]) -> Mistake:
    """Return a mistake in one of two values, with what to type where they were meant as one number: `0,1`."""
    key, _, value = mistake.given.partition("=")
    for word in words:
        typed, _, values = word.partition("=")
        number = with_point(word) if typed == key and value in values.split(",") else ""
        if number and accepts(key, float(number.partition("=")[2])):
            two = values.replace(",", " and ")
            problem = f"{mistake.problem}; {word} is two values, {two}; one number has a point: {number}"
            return Mistake(mistake.given, problem)
    return mistake


def resolve_all(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans adapted to their data, each run once; says which jobs are the same run.

    Jobs that differ in their seeds alone are checked once. All of it on the CPU: a GPU that takes one process at a time
    has to be free for the jobs. A job may begin with the run of an experiment that an earlier one trains: those weights
    are tried when it starts. Raises UserError with what is wrong with any of them, and in which commands.
    """
    alike = _alike(plans)
    check = _Check(len(alike))
    problems: dict[str, list[str]] = {}
    adapted: dict[str, Callable[[Plan], Plan]] = {}
    trained: set[str] = set()
    for plan in plans:
        awaited = plan.config.init.experiment
        if awaited is not None and awaited not in trained:
            problems.setdefault(str(ConfigError([untrained(awaited)])), []).append(plan.command)
        trained.add(plan.choices.get("experiment", ""))
    for key, group in alike.items():
        first = group[0]
        try:
            adapted[key] = check(first)
        except UserError as error:
            problems.setdefault(str(error), []).extend(plan.command for plan in group)
        except Exception as error:
            error.add_note(f"nothing was started.\n  in: {first.command}")
            raise
    if problems:
        parts = [f"{problem}\n  in: " + "\n      ".join(commands) for problem, commands in problems.items()]
        raise UserError("nothing was started.\n" + "\n".join(parts))
    return _each_once([adapted[_checked_as(plan)](plan) for plan in plans])


def _each_once(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans of different runs; says which others are the same run."""
    first: dict[str, Plan] = {}
    for plan in plans:
        if first.setdefault(plan.config.identity(), plan) is not plan:
            same = first[plan.config.identity()]
            console.say(f"note: {plan.command} is the same run as {same.command}: it is trained once")
    return list(first.values())


def design_of(plans: Sequence[Plan]) -> list[tuple[str, list[Plan]]]:
    """Return what tells each configuration from the others, and its plans, one for each seed and run."""
    groups = list(_alike(_each_once(plans)).values())
    names = labels_of([re.sub(r" seed=\S+", "", group[0].command) for group in groups])
    return list(zip(names, groups, strict=True))


def _alike(plans: Sequence[Plan]) -> dict[str, list[Plan]]:
    alike: dict[str, list[Plan]] = {}
    for plan in plans:
        alike.setdefault(_checked_as(plan), []).append(plan)
    return alike


def _checked_as(plan: Plan) -> str:
    """Return what jobs have in common that are checked once: settings, and which of them may not be adapted."""
    values = {key: value for key, value in plan.config.to_dict().items() if key not in PER_JOB}
    return json.dumps([values, sorted(key for key in plan.typed if key not in PER_JOB)], sort_keys=True)


class _Check:
    """Checks configurations one after another; data that several share are prepared once, and it says how far it is."""

    def __init__(self, number: int) -> None:
        self._number, self._done, self._said = number, 0, time.monotonic()
        self._prepared: tuple[DataConfig, PreparedData] | None = None
        if number > 1:
            console.say(f"checking {counted(number, 'configuration')} against data and networks")

    def __call__(self, plan: Plan) -> Callable[[Plan], Plan]:
        """Return how a plan and those that differ from it in their seed are adapted. Raises UserError."""
        adapted, training = resolve(plan, torch.device("cpu"), self._prepare)
        initial_weights(training)
        self._done += 1
        if self._number > 1 and time.monotonic() - self._said > SAYS_EVERY:
            self._said = time.monotonic()
            console.say(f"  {self._done} of {self._number}")
        return partial(_adapted_as, adapted.config, adapted.notes[len(plan.notes) :])

    def _prepare(self, config: DataConfig) -> PreparedData:
        if self._prepared is None or self._prepared[0] != config:
            self._prepared = None  # never two in memory
            self._prepared = config, prepare(config)
        return self._prepared[1]


def _adapted_as(config: RunConfig, notes: tuple[str, ...], plan: Plan) -> Plan:
    own = {key: getattr(plan.config, key) for key in PER_JOB}
    return replace(plan, config=config.model_copy(update=own), notes=(*plan.notes, *notes))
