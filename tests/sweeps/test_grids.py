"""Grids: what is typed, and what an experiment brings, becomes jobs; jobs are composed once and checked once."""

import shlex

import pytest

from cnnbench.cli.parse import verb_named
from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError, UserError
from cnnbench.sweeps import expand
from cnnbench.sweeps.expand import plan_all, resolve_all
from cnnbench.train import read_request
from cnnbench.training.plan import plan_run
from tests.conftest import TINY

WORDS = (*TINY, "model=mlp")


@pytest.fixture
def own(tmp_path) -> Composer:
    """Return a composer with two experiments that have grids of their own, and one that has none."""
    grids = {"first": "seed: 3,4,5", "second": "regularization.dropout: 0.1,0.2\n      seed: 6", "plain": ""}
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    for name, grid in grids.items():
        below = f"hydra:\n  sweeper:\n    params:\n      {grid}\n" if grid else ""
        (tmp_path / "own" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\nepochs: 2\n{below}")
    return Composer([str(tmp_path / "own")])


def seeds_of(composer: Composer, *words: str) -> list[tuple[str, int]]:
    plans = plan_all(composer, [*WORDS, *words])
    return [(plan.choices.get("experiment", ""), plan.config.seed) for plan in plans]


def test_each_of_several_experiments_keeps_its_own_grid(own):
    assert seeds_of(own, "experiment=first,second,plain") == [
        ("first", 3), ("first", 4), ("first", 5), ("second", 6), ("second", 6), ("plain", 0),
    ]  # fmt: skip
    assert seeds_of(own, "experiment=first,plain", "seed=1,2") == [
        ("first", 1), ("first", 2), ("plain", 1), ("plain", 2),
    ]  # fmt: skip


def test_an_experiment_may_be_added_as_users_of_hydra_do(own):
    assert seeds_of(own, "+experiment=first") == [("first", 3), ("first", 4), ("first", 5)]
    assert plan_run(own, [*WORDS, "+experiment=plain"]).config.epochs == 3  # it was typed


def test_a_single_command_says_which_grid_it_is_one_run_of(cnnbench, tmp_path, own):
    outcome = cnnbench("--config-dir", str(tmp_path / "own"), *WORDS, "experiment=first")
    assert "note: this experiment has a grid, seed=3,4,5, of which this is one run; -m runs all of it" in outcome.out


def test_seeds_counts_seeds(own):
    assert [seed for _, seed in seeds_of(own, "seeds=3")] == [0, 1, 2]
    assert seeds_of(own, "seeds=2", "experiment=first") == [("first", 0), ("first", 1)]


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("seeds=0", "must be a whole number"),
        ("seeds=many", "must be a whole number"),
        ("optimizer.lr=interval(0.1,0.5)", "has no end of values; list some"),
        ("model.units=[120,84],[60,40", "has a '[' that is not closed"),
        ("seed=range(3))", "has a ')' that nothing opens"),
        ("regularization.dropout=0,,0.5", "has an empty value before or after a comma"),
        ("regularization.dropout=0,", "has an empty value before or after a comma"),
    ],
)
def test_what_is_no_grid_is_answered_with_what_is_one(word, problem, own):
    with pytest.raises(ConfigError) as raised:
        plan_all(own, [*WORDS, word])
    assert [(mistake.given, problem in mistake.problem) for mistake in raised.value.mistakes] == [(word, True)]


def test_seeds_are_given_once(own):
    with pytest.raises(ConfigError, match=r"seeds=2 .*give one of them"):
        plan_all(own, [*WORDS, "seeds=2", "seed=1"])


def test_tags_are_taken(own):
    assert [seed for _, seed in seeds_of(own, "seed=tag(mine,choice(4,5))")] == [4, 5]


def test_one_run_that_is_resumed_takes_no_jobs():
    (mistake,) = read_request(verb_named("resume").parse(["digits/lenet", "jobs=2"])).mistakes
    assert (mistake.given, mistake.problem) == ("jobs=2", "is for a sweep; digits/lenet is one run")


def test_what_is_for_sweeps_is_refused_without_one(cnnbench):
    outcome = cnnbench(*WORDS, "seeds=5", "jobs=2", "fail_fast=true")
    assert outcome.code == 2
    assert "seeds=5         no such key; type -m seeds=5" in outcome.err
    assert "jobs=2          is for a sweep; put -m before it" in outcome.err
    assert (
        "jobs=none  must be auto, as many as fit, or a whole number"
        in cnnbench("-m", *WORDS, "jobs=none", "epochs=x").err
    )


GRID = (
    "regularization.dropout=null,0,0.5", "optimizer.lr=0.1,3", "name='a','b, c'", "seed=range(2)", "epochs=2",
    "augmentation=pad_crop_flip,none", "data.crop=null,0.875", "optimizer=sgd,adam",
)  # fmt: skip


def test_jobs_that_are_composed_from_others_are_those_of_their_own_words():
    plans = plan_all(Composer(), [*TINY[:-4], "model=lenet", "task.loss=cross_entropy", *GRID])
    assert len(plans) == 3 * 2 * 2 * 2 * 2 * 2 * 2
    for plan in plans[::23]:
        alone = plan_run(Composer(), shlex.split(plan.command)[1:], is_job=True)
        assert (alone.config, alone.typed) == (plan.config, plan.typed)
        assert (alone.origins, alone.choices) == (plan.origins, plan.choices)


def test_a_value_that_others_refer_to_is_composed_for_each_job(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndata:\n  split_seed: ${seed}\n"
    (tmp_path / "experiment" / "linked.yaml").write_text(text)
    plans = plan_all(Composer([str(tmp_path)]), [*WORDS, "experiment=linked", "seed=1,2,3"])
    assert [plan.config.data.split_seed for plan in plans] == [1, 2, 3]


def test_a_grid_composes_as_often_as_its_options_differ(monkeypatch):
    composed = []
    compose = Composer._compose
    monkeypatch.setattr(Composer, "_compose", lambda self, words: composed.append(words) or compose(self, words))
    assert len(plan_all(Composer(), [*TINY, "model=lenet,mlp", "optimizer.lr=0.1,0.2,0.3", "seeds=20"])) == 120
    assert len(composed) <= 4


def test_jobs_that_differ_in_their_seed_are_checked_once_and_adapted_alike(monkeypatch, capsys):
    checked = []
    resolve = expand.resolve
    monkeypatch.setattr(expand, "resolve", lambda plan, *rest: checked.append(plan) or resolve(plan, *rest))
    words = [word for word in WORDS if not word.startswith(("batch_size", "data.num_train"))] + ["data.num_train=50"]
    plans = resolve_all(plan_all(Composer(), [*words, "optimizer.lr=0.1,0.2", "seeds=3", "name=a"]))
    assert len(checked) == 2
    assert [(plan.config.optimizer.settings["lr"], plan.config.seed) for plan in plans] == [
        (0.1, 0), (0.1, 1), (0.1, 2), (0.2, 0), (0.2, 1), (0.2, 2),
    ]  # fmt: skip
    assert {(plan.config.batch_size, len(plan.notes)) for plan in plans} == {(45, 1)}  # 64 are too many
    assert "checking 2 configurations against data and networks" in capsys.readouterr().out


def test_data_that_several_configurations_share_are_prepared_once(monkeypatch):
    prepared = []
    prepare = expand.prepare
    monkeypatch.setattr(expand, "prepare", lambda config: prepared.append(config) or prepare(config))
    resolve_all(plan_all(Composer(), [*WORDS, "optimizer.lr=0.1,0.2,0.3", "data.split_seed=1"]))
    assert len(prepared) == 1


def test_what_is_wrong_with_one_seed_is_said_of_all_that_share_it():
    with pytest.raises(UserError, match=r"(?s)nothing was started.*batch_size=5000.*seed=0\n.*seed=1$"):
        resolve_all(plan_all(Composer(), [*WORDS[:5], "model=mlp", "batch_size=5000", "seed=0,1"]))
