"""From a grid to the plans of its jobs: expanded, validated and checked against the data before the first starts."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError, Mistake, UserError
from cnnbench.training import console
from cnnbench.training.init import initial_weights
from cnnbench.training.plan import Plan, plan_run, untrained
from cnnbench.training.resolve import resolve


def plan_all(composer: Composer, words: Sequence[str], known: tuple[Mistake, ...] = ()) -> list[Plan]:
    """Return the plans of all jobs of a grid. Raises ConfigError with the mistakes of all jobs."""
    plans: list[Plan] = []
    mistakes = list(known)
    for job_words in composer.expand(words):
        try:
            awaited = {plan.choices.get("experiment", "") for plan in plans}
            plans.append(replace(plan_run(composer, job_words, is_job=True, awaited=awaited), brief=True))
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(mistakes)
    return plans


def resolve_all(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans adapted to their data, each run once; says which jobs are the same run.

    All of it on the CPU: a GPU that takes one process at a time has to be free for the jobs. A job may begin with the
    run of an experiment that an earlier one trains: those weights are tried when it starts. Raises UserError with
    what is wrong with any of them, and in which commands.
    """
    resolved: dict[str, Plan] = {}
    problems: dict[str, list[str]] = {}
    for plan in plans:
        awaited = plan.config.init.experiment
        try:
            if awaited not in (None, *(earlier.choices.get("experiment") for earlier in resolved.values())):
                raise ConfigError([untrained(str(awaited))])
            adapted, training = resolve(plan, torch.device("cpu"))
            initial_weights(training)
        except UserError as error:
            problems.setdefault(str(error), []).append(plan.command)
            continue
        except Exception as error:
            error.add_note(f"nothing was started.\n  in: {plan.command}")
            raise
        first = resolved.setdefault(adapted.config.identity(), adapted)
        if first is not adapted:
            console.say(f"note: {plan.command} is the same run as {first.command}: it is trained once")
    if problems:
        parts = [f"{problem}\n  in: " + "\n      ".join(commands) for problem, commands in problems.items()]
        raise UserError("nothing was started.\n" + "\n".join(parts))
    return list(resolved.values())
