"""Metrics of one's own."""

import re

import pytest

import cnnbench
from cnnbench import api, load_run
from cnnbench.cli.help import DOCS
from cnnbench.errors import ConfigError, UserError
from tests.api.conftest import tiny, weights
from tests.conftest import TINY, latest
from tests.support.interruption import rows_of
from tests.support.training import same


def error_rate(predictions) -> float:
    """How often the prediction is wrong."""
    return (predictions.probabilities.argmax(1) != predictions.labels).double().mean()  # `float` takes a tensor


def test_a_metric_of_ones_own_is_in_rows_result_evaluation_page_and_terminal(capsys):
    cnnbench.register_metric("error_rate", higher_is_better=False)(error_rate)
    run = api.train(latest([*TINY, "report=true"]), model="lenet", task={"metrics": ["error_rate"]})
    rows = [row for row in rows_of(run.path) if row["row"] == "epoch"]
    assert [row["error_rate/val"] for row in rows] == pytest.approx([1 - row["accuracy/val"] for row in rows])
    result = run.result
    for split in ("train", "val", "test"):
        assert result[split]["error_rate"] == pytest.approx(1 - result[split]["accuracy"])
    assert result["higher_is_better"]["error_rate"] is False
    assert run.evaluate().metrics["error_rate"] == result["test"]["error_rate"]
    assert "error_rate" in (run.path / "report.md").read_text()
    assert re.search(r"epoch 3/3 .* val loss .* val error_rate \d", capsys.readouterr().out)


def test_a_metric_of_ones_own_can_decide_which_epoch_is_best():
    cnnbench.register_metric("minus_loss")(lambda predictions: -float(predictions.probabilities[:, 0].mean()))
    run = tiny("model=lenet", task={"metrics": ["minus_loss"], "watch": "minus_loss"})
    rows = [row for row in rows_of(run.path) if row["row"] == "epoch"]
    best = max(rows, key=lambda row: row["minus_loss/val"])
    assert run.result["checkpoint"]["epoch"] == best["epoch"]
    assert run.result["watched"] == [["minus_loss", True], ["loss", False]]


def test_metrics_change_no_weights(run):
    cnnbench.register_metric("error_rate")(error_rate)
    measured = tiny("model=lenet", task={"metrics": ["error_rate"]})
    assert measured.config.identity() != run.config.identity()
    assert same(weights(measured), weights(run))


def test_the_metric_of_the_documentation_is_measured():
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    begin = text.index('@cnnbench.register_metric("macro_f1")')
    exec(text[begin : text.index("```", begin)], {"cnnbench": cnnbench})
    assert 0.5 < load_run(api.runs()["path"][0]).result["test"]["macro_f1"] < 1


def test_a_metric_without_a_value_is_not_a_number():
    def needs_all_classes(predictions) -> float:
        if len(predictions.labels.unique()) < 3:
            raise ValueError("a class is missing")
        return 1.0

    cnnbench.register_metric("strict")(needs_all_classes)
    run = tiny("model=mlp", "epochs=1", "data.val_fraction=0.03", task={"metrics": ["strict"]})  # two images
    assert run.result["val"]["strict"] is None
    assert run.result["train"]["strict"] == 1.0


def broken(predictions) -> float:
    raise KeyError("cat")


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["eror_rate"], "no metric is called 'eror_rate'; did you mean 'error_rate'"),
        (["broken"], r"test_metrics\.py:\d+: metric 'broken' fails on random predictions: KeyError: 'cat'"),
        (["accuracy"], "'accuracy' is measured already"),
        (["error_rate", "error_rate"], "'error_rate' is measured already"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_in_metrics_is_found_before_anything_is_trained(metrics, message):
    for name, function in (("error_rate", error_rate), ("broken", broken), ("accuracy", error_rate)):
        cnnbench.register_metric(name)(function)
    with pytest.raises(ConfigError, match=message):
        tiny("model=mlp", task={"metrics": metrics})
    assert api.runs().empty


def test_what_is_watched_has_to_be_measured():
    with pytest.raises(ConfigError, match=r"task\.watch=acuracy *is not measured; there are 'accuracy', 'loss'"):
        tiny("model=mlp", task={"watch": "acuracy"})


def test_a_metric_is_checked_when_it_is_registered():
    with pytest.raises(UserError, match=r"a name has up to 100 letters a to z, digits, _, - and @, and is no number"):
        cnnbench.register_metric("a/b")(lambda predictions: 0.0)
    with pytest.raises(UserError, match=r"metric 'x': is a function of `predictions` alone; give 'beta' a default"):

        @cnnbench.register_metric("x")
        def weighted(predictions, beta: float) -> float:
            return beta
