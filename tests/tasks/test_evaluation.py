"""Figures by class, against slow obvious loops and scikit-learn, also where classes are missing or scores are tied."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, precision_recall_fscore_support
from torch import Tensor

from cnnbench.tasks.calibration import BINS
from cnnbench.tasks.evaluation import SHOWN, Predictions, evaluate_classifier
from cnnbench.tasks.intervals import is_chance, student, wilson

NAMES = tuple("abcdefgh")


def synthetic(labels: list[int] | Tensor, number: int = 8, seed: int = 0) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Return probabilities that often favour the label, labels, and names of classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.as_tensor(labels)
    scores = torch.randn(len(labels), number, generator=generator)
    scores[range(len(labels)), labels] += 1
    return scores.softmax(1), labels, NAMES[:number]


CASES = {
    "random": synthetic(torch.randint(8, (300,), generator=torch.Generator().manual_seed(1))),
    "classes without images": synthetic([0, 3, 3, 7, 7, 7, 0, 3, 7, 7]),
    "one class only": synthetic([2] * 20),
    "one image": synthetic([1]),
    "two classes": synthetic([0, 1, 1, 0, 1], number=2),
    "all tied": (torch.full((6, 3), 1 / 3), torch.tensor([0, 1, 2, 2, 1, 0]), NAMES[:3]),
}


@pytest.mark.parametrize("case", CASES)
def test_figures_by_class_are_those_of_scikit_learn(case):
    probabilities, labels, classes = CASES[case]
    table = Predictions(*CASES[case]).per_class
    answers = probabilities.argmax(1)
    expected = precision_recall_fscore_support(labels, answers, labels=range(len(classes)), zero_division=np.nan)
    for name, values in zip(("precision", "recall", "f1", "images"), expected, strict=True):
        assert np.array_equal(table[name], values, equal_nan=True), name
    for number, row in table.iterrows():
        own = labels == number
        if own.any():
            assert row["top1"] == accuracy_score(labels[own], answers[own])
            losses = [-math.log(probabilities[image, number]) for image in own.nonzero()[:, 0]]
            assert row["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
            top5 = [int(labels[i]) in probabilities[i].topk(min(5, len(classes))).indices for i in own.nonzero()[:, 0]]
            assert row["top5"] == sum(top5) / len(top5)
        else:
            assert math.isnan(row["top1"])
            assert math.isnan(row["top1_low"])
    assert list(table["class"]) == list(classes)


@pytest.mark.parametrize("case", CASES)
def test_confusions_are_counted_one_by_one(case):
    probabilities, labels, classes = CASES[case]
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for row, label in zip(probabilities, labels, strict=True):
        counts[label, row.argmax()] += 1
    assert np.array_equal(Predictions(*CASES[case]).confusion.to_numpy(), counts)


def test_wilson_intervals_are_those_of_the_literature():
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)  # Newcombe 1998, table I, method 3
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=1e-4)
    assert all(math.isnan(bound) for bound in wilson(0, 0))


def test_shares_differ_by_chance_or_more():
    assert is_chance(0.9, 100, 0.93, 100)  # 0.03 against 1.96 x 0.039
    assert not is_chance(0.9, 10_000, 0.93, 10_000)
    assert is_chance(1.0, 10, 1.0, 10)
    assert is_chance(1.0, 200, 0.992, 10_000)  # five of six networks that are equally good have this or less to say


@pytest.mark.parametrize(
    ("table", "p"), [(((12, 0), (90, 10)), 0.6), (((3, 17), (40, 60)), 0.04), (((50, 50), (30, 70)), 0.006)]
)
def test_shares_are_compared_as_by_fisher(table, p):
    (a, b), (c, d) = table
    expected = stats.fisher_exact(table).pvalue
    assert expected == pytest.approx(p, rel=0.3)
    assert is_chance(a / (a + b), a + b, c / (c + d), c + d) == (expected > 0.05)


@pytest.mark.parametrize("case", CASES)
def test_calibration_is_that_of_a_slow_loop(case):
    probabilities, labels, _ = CASES[case]
    calibration = Predictions(*CASES[case]).calibration
    table, error = calibration.table(), calibration.error
    expected, rows = 0.0, []
    for place in range(BINS):
        inside = [
            number
            for number, row in enumerate(probabilities.double())
            if place / BINS < float(row.max()) <= (place + 1) / BINS
        ]
        if not inside:
            continue
        belief = sum(float(probabilities[number].double().max()) for number in inside) / len(inside)
        right = sum(int(probabilities[number].argmax()) == int(labels[number]) for number in inside) / len(inside)
        rows.append((len(inside), right))
        expected += len(inside) / len(labels) * abs(belief - right)
    assert error == pytest.approx(expected)
    assert table[["images", "accuracy"]].to_numpy() == pytest.approx(np.array(rows))


def test_a_network_that_is_sure_and_right_is_calibrated():
    labels = torch.tensor([0, 1, 2])
    calibration = Predictions(torch.eye(3), labels, NAMES[:3]).calibration
    table, error = calibration.table(), calibration.error
    assert error == 0
    assert table[["from", "to", "images", "accuracy"]].iloc[-1].tolist() == [pytest.approx(14 / 15), 1, 3, 1]


# Scores of probabilities, and their intervals -------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_brier_scores_and_losses_are_those_of_a_slow_loop(case):
    probabilities, labels, classes = CASES[case]
    briers, losses = [], []
    for row, label in zip(probabilities.double().tolist(), labels.tolist(), strict=True):
        briers.append(sum((value - (number == label)) ** 2 for number, value in enumerate(row)))
        losses.append(-math.log(row[label]))
    predictions = Predictions(*CASES[case])
    assert predictions.brier.tolist() == pytest.approx(briers)
    assert predictions.losses.tolist() == pytest.approx(losses)
    numbers = range(len(classes))
    expected = brier_score_loss(labels.numpy(), probabilities.numpy(), labels=numbers, scale_by_half=False)
    assert float(predictions.brier.mean()) == pytest.approx(expected, rel=1e-6)
    assert float(predictions.losses.mean()) == pytest.approx(
        log_loss(labels.numpy(), probabilities.numpy(), labels=numbers), rel=1e-6
    )
    intervals = predictions.intervals()
    for name, values in (("brier", briers), ("loss", losses)):
        if len(values) == 1:
            assert all(math.isnan(bound) for bound in intervals[name])
        elif np.std(values):
            low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
            assert intervals[name] == pytest.approx((max(0, low), high), rel=1e-6)


def test_the_loss_of_an_image_is_the_exact_one_where_its_probability_is_rounded_to_nothing():
    scores = torch.tensor([[0.0, 200.0], [0.0, 0.0]])
    exact = torch.nn.functional.cross_entropy(scores, torch.tensor([0, 1]), reduction="none")
    predictions = Predictions(scores.softmax(1), torch.tensor([0, 1]), NAMES[:2], cross_entropies=exact)
    assert predictions.losses.tolist() == pytest.approx([200.0, math.log(2)])
    assert predictions.per_class["loss"].tolist() == pytest.approx([200.0, math.log(2)])


def test_intervals_of_means_hold_in_nineteen_of_twenty_samples():
    draws = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(2000):
        low, high = student(torch.rand(8, generator=draws, dtype=torch.float64) + 1)
        held += low <= 1.5 <= high
    assert 0.94 <= held / 2000 <= 0.96


# Two classes ----------------------------------------------------------------------------------------------------------

TWO = {
    "some": synthetic(torch.randint(2, (60,), generator=torch.Generator().manual_seed(2)), number=2),
    "tied": (torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.2, 0.8], [0.2, 0.8]]), torch.tensor([0, 1, 0, 1]), NAMES[:2]),
}


@pytest.mark.parametrize("case", TWO)
def test_areas_are_those_of_a_slow_loop_and_curves_those_of_every_threshold(case):
    probabilities, labels, _ = TWO[case]
    curves = Predictions(*TWO[case]).two_classes
    second = probabilities[:, 1].tolist()
    positive = [value for value, label in zip(second, labels.tolist(), strict=True) if label]
    negative = [value for value, label in zip(second, labels.tolist(), strict=True) if not label]
    won = sum((one > other) + (one == other) / 2 for one in positive for other in negative)
    assert curves.metrics()["roc_auc"] == pytest.approx(won / len(positive) / len(negative))
    area, before = 0.0, 0.0
    for threshold in sorted(set(second), reverse=True):
        found = sum(value >= threshold for value in positive)
        taken = found + sum(value >= threshold for value in negative)
        area, before = area + (found / len(positive) - before) * found / taken, found / len(positive)
    assert curves.metrics()["average_precision"] == pytest.approx(area)
    for row in curves.roc().iloc[1:].to_dict("records"):
        threshold = row["threshold"] - 1e-6
        assert row["true_positive_rate"] == sum(value >= threshold for value in positive) / len(positive)
        assert row["false_positive_rate"] == sum(value >= threshold for value in negative) / len(negative)
    for row in curves.precision_recall().to_dict("records"):
        found = sum(value >= row["threshold"] - 1e-6 for value in positive)
        taken = found + sum(value >= row["threshold"] - 1e-6 for value in negative)
        assert (row["recall"], row["precision"]) == (found / len(positive), found / taken)


def test_probabilities_that_are_rounded_to_one_are_still_ranked():
    scores = torch.tensor([[0.0, 30.0], [0.0, 31.0], [0.0, 32.0], [0.0, 33.0]])
    curves = Predictions(scores.softmax(1), torch.tensor([0, 0, 1, 1]), NAMES[:2]).two_classes
    assert curves.metrics() == {"roc_auc": 1.0, "average_precision": 1.0}


def test_curves_are_of_two_classes_that_both_occur():
    assert Predictions(torch.full((3, 2), 0.5), torch.tensor([1, 1, 1]), NAMES[:2]).two_classes is None
    assert Predictions(*CASES["random"]).two_classes is None
    report = evaluate_classifier({"loss": 1.0}, Predictions(*TWO["some"]), lambda rows: torch.zeros(len(rows), 1, 4, 4))
    assert {"roc_auc", "average_precision"} <= report.metrics.keys()
    assert {"roc", "precision_recall"} <= report.tables.keys()


def test_a_metric_of_a_users_own_takes_the_place_of_ours():
    report = evaluate_classifier({"brier": 7.0}, Predictions(*CASES["random"]), lambda rows: rows)
    assert report.metrics["brier"] == 7.0


def test_the_table_has_the_most_likely_classes_with_their_probabilities():
    probabilities, labels, classes = CASES["random"]
    table = Predictions(probabilities, labels, classes, tuple(f"{number}.png" for number in range(300))).table()
    assert table["file"].iloc[7] == "7.png"
    for number in (0, 150, 299):
        row, best = table.iloc[number], probabilities[number].argsort(descending=True)[:5]
        assert row["class"] == classes[labels[number]]
        assert row["right"] == (best[0] == labels[number])
        assert [row[f"answer{place}"] for place in range(1, 6)] == [classes[label] for label in best]
        assert [row[f"probability{place}"] for place in range(1, 6)] == probabilities[number, best].tolist()
    assert len(Predictions(*CASES["two classes"]).table().filter(like="answer").columns) == 2


@pytest.mark.parametrize("case", CASES)
def test_the_most_confident_mistakes_and_the_least_confident_correct_predictions_are_those_of_a_slow_loop(case):
    predictions = Predictions(*CASES[case])
    beliefs = [(float(row.max()), number) for number, row in enumerate(predictions.probabilities)]
    is_right = [int(row.argmax()) == int(label) for row, label in zip(*CASES[case][:2], strict=True)]
    mistakes = sorted(((-belief, number) for belief, number in beliefs if not is_right[number]))
    correct = sorted((belief, number) for belief, number in beliefs if is_right[number])
    assert predictions.most_confident_mistakes().tolist() == [number for _, number in mistakes[:SHOWN]]
    assert predictions.least_confident_correct().tolist() == [number for _, number in correct[:SHOWN]]


def test_tables_and_figures_are_computed_on_demand(tmp_path):
    probabilities, labels, _ = CASES["random"]
    asked: list[list[int]] = []

    def pixels(rows: Tensor) -> Tensor:
        asked.append(rows.tolist())
        return torch.zeros(len(rows), 3, 4, 4)

    predictions = Predictions(probabilities, labels, ("<b>", "a\nb\x1b", "$\\frac{", "x" * 300, "", "犬", "'", '"'))
    report = evaluate_classifier({"loss": 1.0}, predictions, pixels)
    assert not asked
    measured = {"ece": predictions.calibration.error, "brier": float(predictions.brier.mean())}
    assert report.metrics == {"loss": 1.0} | measured
    shown: dict[str, tuple[int, ...]] = {}
    report.write(tmp_path / "out", lambda name, picture: shown.update({name: picture.shape}))
    mistakes, doubts = predictions.most_confident_mistakes().tolist(), predictions.least_confident_correct().tolist()
    assert asked[0][-len(mistakes + doubts) :] == mistakes + doubts
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"{name}.png" for name in shown} | {f"{name}.csv" for name in report.tables} | {
        "metrics.json",
        "gallery.csv",
        "gallery.png",
    } == written
    assert list(shown) == ["confusion"]
    assert shown["confusion"][2] == 3
