"""The jobs of a sweep: each is the run that its single command would be, and all are checked before any starts."""

import re
import shlex
import shutil

import pytest
import torch

from cnnbench import api
from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError
from cnnbench.plugins import register_everything
from cnnbench.sweeps.display import summarize
from cnnbench.sweeps.expand import plan_all, resolve_all
from cnnbench.sweeps.folder import SweepFolder
from cnnbench.sweeps.launch import Grid
from cnnbench.sweeps.outcome import NOT_STARTED
from cnnbench.training.plan import command_line, plan_run
from tests.conftest import TINY
from tests.support.interruption import PLAIN, differences, go, outcome_of
from tests.support.launchers import NETWORK
from tests.support.run_folders import runs_below


def plans_of(*words: str, folders: tuple[str, ...] = ()) -> list:
    return plan_all(Composer(folders), words)


# What a job is --------------------------------------------------------------------------------------------------------


def test_a_job_is_the_same_run_in_the_same_folder_with_the_same_bits_as_the_single_command(cnnbench, outputs):
    words = (*PLAIN, "regularization.dropout=0.5")
    outcome = cnnbench("-m", *words, "regularization.batchnorm=false,true")
    assert outcome.code == 0, outcome.err
    assert "2 of 2 runs completed" in outcome.out
    jobs = {name: outcome_of(run) for name, run in runs_below(outputs).items()}
    assert len(jobs) == 2
    shutil.rmtree(outputs)
    assert go(*words, "regularization.batchnorm=true") == 0
    ((name, run),) = runs_below(outputs).items()
    assert differences(jobs.pop(name), outcome_of(run)) == []


GRID = ("regularization.batchnorm=true,false", "data.crop=null,0.875", "optimizer=sgd,adam")


def test_the_plans_of_a_grid_are_those_of_the_single_commands():
    plans = plans_of("model=lenet", "data=synthetic", *GRID)
    assert len({plan.config.identity() for plan in plans}) == len(plans) == 8
    composer = Composer()
    for plan in plans[::3]:
        single = plan_run(composer, plan.command.split()[1:])
        assert single.config == plan.config
        assert dict(single.named_by) == dict(plan.named_by)
        assert single.command == plan.command


def test_the_jobs_of_a_sweep_are_prepared_without_their_device(monkeypatch):
    monkeypatch.setattr("cnnbench.training.setup.find_device", lambda config: torch.device("meta"))
    seen = []
    monkeypatch.setattr("cnnbench.sweeps.expand.initial_weights", seen.append)
    resolve_all(plan_all(Composer(), [*PLAIN, "regularization.dropout=0.1,0.2", "seed=0,1"]))
    assert [str(training.device) for training in seen] == ["cpu", "cpu"]
    assert {str(weight.device) for training in seen for weight in training.network.parameters()} == {"cpu"}


def test_jobs_that_are_the_same_run_are_run_once(capsys):
    plans = resolve_all(plans_of(*TINY, "seed=1,1", "regularization.dropout=null,0.5,0.50"))
    assert [plan.config.regularization.dropout for plan in plans] == [None, 0.5]
    assert capsys.readouterr().out.count(" is the same run as cnnbench ") == 4
    assert len(resolve_all(plans_of(*TINY, "num_workers=0,2"))) == 1


def test_a_sweep_of_one_run_says_why_there_is_no_comparison_and_what_was_not_tested(cnnbench, outputs):
    words = ("-m", *PLAIN, "epochs=1", "logger=[]", "regularization.dropout=null,0.0")
    done = cnnbench(*words, "report=true", "test=false")
    assert done.code == 0, done.err
    assert "no comparison: only one run is completed\n" in done.out
    assert "cnnbench evaluate" not in done.out
    again = cnnbench(*words, "report=false").out
    assert "no comparison" not in again
    (run,) = outputs.glob("*/*/*/run.json")
    assert f"test not measured of 1 run; to measure it: cnnbench evaluate {run.parent}\n" in again
    assert cnnbench("evaluate", str(run.parent)).code == 0
    assert "cnnbench evaluate" not in cnnbench(*words, "report=false").out


@pytest.fixture
def own_experiments(tmp_path) -> str:
    folder = tmp_path / "own"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "ablation.yaml").write_text(
        "# @package _global_\n"
        "epochs: 2\n"
        "hydra:\n  sweeper:\n    params:\n      seed: 3,4\n      regularization.dropout: 0.1,0.2\n"
    )
    return str(folder)


def test_an_experiment_may_bring_a_grid_and_what_is_typed_wins(own_experiments):
    plans = plans_of(*TINY, "experiment=ablation", folders=(own_experiments,))
    values = [(plan.config.seed, plan.config.regularization.dropout) for plan in plans]
    assert values == [(3, 0.1), (3, 0.2), (4, 0.1), (4, 0.2)]
    plans = plans_of(*TINY, "experiment=ablation", "seed=7", folders=(own_experiments,))
    assert [(plan.config.seed, plan.config.regularization.dropout) for plan in plans] == [(7, 0.1), (7, 0.2)]


def test_the_command_of_a_job_is_what_would_be_typed(outputs):
    words = ["data=synthetic", "name=wider", "notes=dropout x norm, it's for longer", "tags=[lab3,wide]"]
    (plan, _) = plans_of(*words, "seed=0,1")
    assert plan.command == command_line([*words, "seed=0"])
    assert plan_run(Composer(), shlex.split(plan.command)[1:]).config == plan.config
    assert plan.config.notes == "dropout x norm, it's for longer"


def test_a_text_of_several_values_is_one_in_each_job():
    commands = [plan.command for plan in plans_of("data=synthetic", "name='one','other'")]
    assert commands == [f"cnnbench data=synthetic {shlex.quote(word)}" for word in ("name='one'", "name='other'")]


def test_the_command_of_a_job_names_the_files_that_it_needs(tmp_path, own_experiments):
    plugin = tmp_path / "edited.py"
    plugin.write_text(NETWORK)
    words = ("model=edited", "data=synthetic")
    plans = Grid((*words, "seed=0,1"), (str(plugin),), own_experiments).plans(register_everything([str(plugin)]))
    needed = ("--config-dir", own_experiments, f"plugins={plugin}")
    assert plans[1].command == command_line([*needed, *words, "seed=1"])
    assert api.plan(words, plugins=str(plugin)).command == command_line([needed[-1], *words])


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_the_mistakes_of_all_jobs_are_reported_before_any_starts(cnnbench, outputs):
    outcome = cnnbench("-m", *TINY, "model=lenet,lenett", "optimizer.lr=0.1,fast", "epoch=3")
    assert outcome.code == 2
    assert "3 mistakes in the configuration, nothing was started" in outcome.err
    for word, problem in (("model=lenett", "did you mean 'lenet'"), ("optimizer.lr=fast", "must be a number"),
                          ("epoch=3", "did you mean 'epochs'")):  # fmt: skip
        assert re.search(rf"{re.escape(word)} .*{problem}", outcome.err)
    assert not outputs.exists()


def test_what_does_not_fit_the_data_is_reported_for_all_jobs_before_any_starts(cnnbench, outputs, own_experiments):
    words = ("experiment=ablation", "seed=0", "batch_size=5000", "data.image_size=16,8")
    outcome = cnnbench("-m", "--config-dir", own_experiments, *TINY, *words)
    assert outcome.code == 2
    assert "nothing was started." in outcome.err
    messages = outcome.err.split("\n  in: ")
    assert re.search(r"batch_size=5000 +exceeds the 65 training images; use at most 65$", messages[0])
    assert "needs images of at least 16x16, and sees 8x8" in messages[1]
    for commands, side in ((messages[1], 16), (messages[2], 8)):
        for dropout in (0.1, 0.2):  # the grid of the experiment
            assert re.search(rf"cnnbench .*dropout={dropout} .*data\.image_size={side}\n", f"{commands}\n")
    assert not outputs.exists()


def test_a_grid_that_cannot_be_expanded_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"optimizer\.lr="):
        plans_of(*TINY, "optimizer.lr=choice(0.1,fast)")


def test_an_error_in_the_code_of_a_plugin_says_in_which_job_it_was(monkeypatch):
    def broken(training):
        raise AttributeError("no such thing")

    monkeypatch.setattr("cnnbench.sweeps.expand.initial_weights", broken)
    with pytest.raises(AttributeError) as raised:
        resolve_all(plans_of("data=synthetic", "seed=3,4"))
    assert raised.value.__notes__ == ["nothing was started.\n  in: cnnbench data=synthetic seed=3"]


def test_a_job_that_has_not_begun_is_listed_with_the_folder_that_it_would_have(capsys):
    plans = plans_of("data=synthetic", "regularization.dropout=0.25", "seed=3,4")
    sweep = SweepFolder.write(plans, "cnnbench -m …", threads=1, max_minutes=None)
    summarize(sweep, {job.identity: NOT_STARTED for job in sweep.jobs})
    lines = capsys.readouterr().out.splitlines()
    for plan in plans:
        assert any(line.startswith("  not started") and line.endswith(str(plan.run_path())) for line in lines)
