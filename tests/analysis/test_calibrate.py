"""Temperature scaling against scikit-learn and a slow grid, and `cnnbench evaluate --calibrate`."""

import json
import math
from pathlib import Path

import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from torch import Tensor
from torch.nn import functional

import cnnbench
from cnnbench.analysis.calibrate import fit_temperature
from cnnbench.errors import UserError
from tests.conftest import ended
from tests.support.interruption import finished, read
from tests.support.training import SMALL

pytestmark = pytest.mark.usefixtures("one_second_a_session")


def scores_and_labels(classes: int, images: int, sharpness: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return scores that are too large by a factor, and labels drawn by the probabilities that they should be."""
    draws = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(images, classes, generator=draws)
    labels = torch.multinomial(scores.softmax(1), 1, generator=draws)[:, 0]
    return scores * sharpness, labels


class Scores(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its scores."""

    def fit(self, scores, labels):
        self.classes_ = torch.arange(scores.shape[1]).numpy()
        return self

    def decision_function(self, scores):
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, scores):
        return scores.argmax(1)


CASES = {"ten": (10, 400, 3.0), "too soft": (4, 200, 0.2), "two": (2, 300, 5.0)}


@pytest.mark.parametrize("case", CASES)
def test_the_temperature_has_the_lowest_cross_entropy_of_all(case):
    scores, labels = scores_and_labels(*CASES[case])
    temperature = fit_temperature(scores, labels)

    def loss(candidate: float) -> float:
        return float(functional.cross_entropy(scores.double() / candidate, labels))

    tried = [math.exp(power / 200) for power in range(-800, 800)]
    assert temperature == pytest.approx(min(tried, key=loss), rel=0.006)
    assert all(loss(temperature) <= loss(candidate) for candidate in tried)
    assert temperature == pytest.approx(CASES[case][2], rel=0.25), "that is how they were drawn"


@pytest.mark.parametrize("case", CASES)
def test_calibrated_probabilities_are_those_of_scikit_learn(case):
    scores, labels = scores_and_labels(*CASES[case])
    numbers = scores.double().numpy()
    fitted = CalibratedClassifierCV(FrozenEstimator(Scores().fit(numbers, None)), method="temperature")
    expected = fitted.fit(numbers, labels.numpy()).predict_proba(numbers)
    ours = (scores.double() / fit_temperature(scores, labels)).softmax(1)
    assert ours.numpy() == pytest.approx(expected, abs=1e-3)


UNFIT = {
    "all right": (torch.eye(3) * 2, [0, 1, 2], "no validation image is predicted wrongly"),
    "worse than guessing": (torch.eye(3) * 2, [1, 2, 0], "no better than by guessing"),
    "all alike": (torch.zeros(3, 3), [0, 1, 2], "no validation image is predicted wrongly|no better than by guessing"),
    "not finite": (torch.full((3, 3), math.inf), [0, 1, 2], "are not finite"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_where_no_temperature_is_best_that_is_said(case):
    scores, labels, reason = UNFIT[case]
    with pytest.raises(ValueError, match=reason):
        fit_temperature(scores, torch.tensor(labels))


# The command ----------------------------------------------------------------------------------------------------------

HARD = (*SMALL, "data.noise=0.95", "epochs=4", "test=false")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return finished(HARD, tmp_path_factory.mktemp("hard"))


def test_what_is_calibrated_stands_next_to_what_was_measured(trained, capsys):
    validated = cnnbench.load_run(trained).evaluate("val", calibrate=True)
    assert validated.calibrated.metrics["loss"] < validated.metrics["loss"]
    assert validated.calibrated.metrics["accuracy"] == validated.metrics["accuracy"]
    done = ended("evaluate", [str(trained), "--calibrate"], capsys)
    assert done.code == 0, done.err
    assert "calibrated with a temperature, fitted on 8 validation images" in done.out
    folder = trained / "evaluation" / "test-best"
    plain, calibrated = (read(place / "metrics.json") for place in (folder, folder / "calibrated"))
    assert calibrated["temperature"] == validated.calibrated.metrics["temperature"]
    opened = cnnbench.load_run(trained)
    images, network = opened.data("test"), opened.model()
    scores = opened.map(network, opened.batches("test"), lambda network, batch: network(batch.images))
    loss = functional.cross_entropy(scores.double() / calibrated["temperature"], images.labels)
    assert calibrated["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert "Calibration with a temperature" in (folder / "report.html").read_text(encoding="utf-8")
    # The result has what the network says, and test was looked at once.
    result = json.loads((trained / "result.json").read_text())
    assert result["test"] == plain | {"samples": 20}
    assert (result["test_measured"], opened.record["test_measured"]) == (1, 1)


def test_what_cannot_be_calibrated_is_refused_before_test_is_looked_at(outputs, capsys):
    unvalidated = finished((*SMALL, "data.val_fraction=0", "epochs=1"), outputs)
    before = read(unvalidated / "run.json")["test_measured"]
    done = ended("evaluate", [str(unvalidated), "--calibrate"], capsys)
    assert (done.code, "has no validation images to fit a temperature on" in done.err) == (2, True)
    assert "train with some, or evaluate it without calibration." in done.err
    assert read(unvalidated / "run.json")["test_measured"] == before


def test_a_task_without_classes_is_not_calibrated(tmp_path):
    run = finished((*SMALL, "task=autoencoder", "model=conv_encoder", "epochs=1"), tmp_path)
    with pytest.raises(UserError, match="task autoencoder does not predict classes, which could be calibrated"):
        cnnbench.load_run(run).evaluate(calibrate=True)
