"""What a sweep shows on a terminal while its jobs are trained."""

from cnnbench import api
from cnnbench.sweeps.display import Display, shortened_to
from cnnbench.sweeps.launch import Grid, launched
from cnnbench.sweeps.outcome import NOT_STARTED
from cnnbench.sweeps.slots import Slot
from cnnbench.sweeps.work import Options
from cnnbench.training import console
from tests.conftest import TINY, latest

SMALL = tuple(latest([*TINY, "model=mlp", "epochs=1"]))


def test_the_bars_of_jobs_have_different_names_on_a_narrow_terminal_too(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    grid = ("regularization.dropout=0.25", "optimizer.lr=0.0001", "regularization.batchnorm=true,false")
    sweep = launched(Grid((*SMALL, "batch_size=20", *grid, "seed=0,1")), Options())
    assert sweep.labels[sweep.jobs[0].identity] == "batchnorm=true seed=0"
    display = Display(sweep)
    with console.showing("bar"):
        display.begin(4, lambda: 1, [], {})
    for number, job in enumerate(sweep.jobs):
        display.started(job, sweep.plan(job), Slot(number))
    names = [bar.desc for bar in display.bars.values()]
    assert names == ["batchnorm…rue seed=0", "batchnorm…rue seed=1", "batchnorm…lse seed=0", "batchnorm…lse seed=1"]
    display.ended(sweep.jobs[1], NOT_STARTED, None)
    assert [bar.desc for bar in display.bars.values()] == [names[0], *names[2:]]
    display.close()
    assert shortened_to(6, ["a-long-end", "a-wide-end"]) == ["run 1 ", "run 2 "]


def test_a_bar_is_shown_for_all_runs_and_one_for_each_that_is_trained(capfd):
    table = api.sweep(SMALL, epochs=30, seed=[0, 1], jobs=2, progress="bar")
    assert table[["status", "seed"]].values.tolist() == [["completed", 0], ["completed", 1]]
    printed = capfd.readouterr()
    assert "0/2 runs |" in printed.err
    assert "  seed=1 |" in printed.err
    assert printed.out.count("completed ") == 4  # as each ends, and in the summary
