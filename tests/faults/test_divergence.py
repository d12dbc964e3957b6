"""What is not finite ends a training before it changes a weight, is explained, and is never saved."""

import json
import math
import re

import pytest
import torch

from cnnbench.errors import TrainingError
from cnnbench.store import checkpoint
from cnnbench.training import loop
from cnnbench.training.loop import Progress, fit
from cnnbench.training.state import snapshot
from cnnbench.training.step import gradient_norm, has_finite_gradient
from tests.conftest import only_run
from tests.support.interruption import read
from tests.support.photographs import WRITERS
from tests.support.training import SMALL, Recorder, prepared, same, weights_of

pytestmark = pytest.mark.usefixtures("undrawn")

LENET = (*SMALL, "model=lenet_v2")


class Poison(torch.autograd.Function):
    """Leaves a loss as it is, and makes its gradient what is not finite."""

    @staticmethod
    def forward(context, loss, value):
        context.value = value
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * context.value, None


def poison(patch: pytest.MonkeyPatch, training, value: float, at_call: int) -> None:
    """Let the gradient of a batch, or of a part of one, be not finite, and its loss be as ever."""
    train_step, calls = training.task.train_step, iter(range(1, 1000))

    def patched(network, batch):
        loss, sums = train_step(network, batch)
        return (Poison.apply(loss, value) if next(calls) == at_call else loss), sums

    patch.setattr(training.task, "train_step", patched)


def failed(training) -> tuple[str, Recorder]:
    """Return how a training fails, which must change no weight in its last step."""
    recorder, progress, weights = Recorder(), Progress(), [weights_of(training)]
    on_step = recorder.on_step

    def remember(row, progress) -> None:
        on_step(row, progress)
        weights.append(weights_of(training))

    recorder.on_step = remember
    with pytest.raises(TrainingError) as error:
        fit(training, progress, recorder)
    assert same(weights_of(training), weights[-1])
    assert progress.step == len(recorder.steps)
    assert recorder.saves == 0
    return str(error.value), recorder


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize(
    ("words", "at_call"),
    [((), 3), (("regularization.clip.norm=1",), 3), (("accumulate=2",), 5)],
    ids=["plain", "clipped", "in two parts"],
)
def test_a_gradient_that_is_not_finite_changes_no_weight_and_is_explained(monkeypatch, value, words, at_call):
    training = prepared(*LENET, *words)
    poison(monkeypatch, training, value, at_call)
    message, recorder = failed(training)
    assert len(recorder.steps) == 2
    found = re.search(
        r"gradient of step 3 \(epoch 1\) is not finite, its norm (nan|inf), while the loss is (\S+), at a learning "
        r"rate of 0\.\d+: the training diverged\. This step changed no weights\.\n"
        r"Its batch: rows ([\d, ]+) and 8 more, of the training part",
        message,
    )
    assert found is not None, message
    assert math.isfinite(float(found[2]))
    rows = training.data.split.train[training.order(1)[32:48]]
    assert [int(row) for row in found[3].split(", ")] == rows[:8].tolist()


def test_what_is_not_finite_at_the_first_step_is_blamed_on_where_it_came_from(monkeypatch):
    training = prepared(*LENET)
    layers = list(training.network.named_children())
    (name, layer), (_, after) = layers[0], layers[1]
    zero_by_zero = layer.register_forward_hook(lambda _module, _inputs, output: (output - output) / (output - output))
    message, _ = failed(training)
    blamed = "No learning rate has acted before the first step: the first output that is no finite number is that of"
    assert f"{blamed} '{name}" in message
    assert "Try a smaller" not in message
    zero_by_zero.remove()
    given = after.register_forward_pre_hook(lambda _module, inputs: (inputs[0] / 0 * 0,))
    assert "whose input is none either; look before it in `forward`." in failed(training)[0]
    given.remove()
    with monkeypatch.context() as patch:
        poison(patch, training, math.nan, 1)
        assert "the loss is finite, and the gradient of" in failed(training)[0]
    train_step = training.task.train_step
    monkeypatch.setattr(training.task, "train_step", lambda *given: tuple(one * math.nan for one in train_step(*given)))
    assert "the outputs of the network are finite, so it is the loss of task=classification." in failed(training)[0]


def test_what_is_not_finite_later_is_blamed_on_where_it_came_from_before_the_learning_rate():
    training = prepared(*LENET, "regularization.dropout=0.5")
    name, layer = next(iter(training.network.named_children()))
    calls = iter(range(1000))
    taken = layer.register_forward_hook(lambda _module, _inputs, output: output / (next(calls) < 2))
    message, recorder = failed(training)
    taken.remove()
    assert len(recorder.steps) == 2
    assert f"The first output that is no finite number is that of '{name}" in message
    assert message.endswith("If nothing is wrong there, try a smaller optimizer.lr.")


def test_photographs_are_named_by_their_files(monkeypatch, tmp_path):
    words = WRITERS["image_folder"](tmp_path / "data")
    training = prepared(*words, "model=mlp", "batch_size=4", "epochs=2", "device=cpu", "threads=1")
    poison(monkeypatch, training, math.nan, at_call=2)
    message, _ = failed(training)
    files = training.data.train.files()
    shown = ", ".join(files[row] for row in training.order(1)[4:8].tolist())
    assert f"Its batch: {shown}, of the training part." in message
    assert ".png" in shown


def test_a_gradient_whose_sum_is_too_large_is_finite_all_the_same():
    training = prepared(*LENET)
    for weight in training.network.parameters():
        weight.grad = torch.full_like(weight, 1e38)
    number = sum(weight.numel() for weight in training.network.parameters())
    assert has_finite_gradient(training)
    assert gradient_norm(training) == pytest.approx(1e38 * number**0.5)
    weight.grad[-1] = -math.inf
    assert not has_finite_gradient(training)


def test_a_run_that_diverges_fails_and_names_the_checkpoint_that_is_kept(cnnbench, outputs, monkeypatch):
    healthy = iter([True, True, True, False])
    monkeypatch.setattr(loop, "has_finite_gradient", lambda _: next(healthy))
    outcome = cnnbench(*LENET, "checkpoint.every_seconds=0")
    assert outcome.code == 1
    assert "the gradient of step 4 (epoch 1) is not finite" in outcome.err
    assert "Try a smaller optimizer.lr.\nThe last checkpoint, of step 3, is kept." in outcome.err
    assert "Traceback" not in outcome.err
    assert read(only_run(outputs) / "run.json")["status"] == "failed"


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_learning_rate_that_is_far_too_large_leaves_valid_files(cnnbench, outputs, rate):
    outcome = cnnbench(*LENET, f"optimizer.lr={rate}", "checkpoint.every_seconds=0", "epochs=2")
    assert outcome.code in (0, 1), outcome.err
    assert "Traceback" not in outcome.err
    run = only_run(outputs)
    texts = [path.read_text() for path in run.rglob("*.json")] + (run / "metrics.jsonl").read_text().splitlines()
    for text in texts:
        json.loads(text, parse_constant=pytest.fail)  # is called for NaN and Infinity
    assert (run / "result.json").exists() is (outcome.code == 0)
    assert outcome.code == 0 or "the training diverged" in outcome.err


PARTS = {
    "network": lambda content: next(iter(content["network"].values())),
    "best": lambda content: next(iter(content["best"]["weights"].values())),
    "optimizer": lambda content: content["optimizer"]["state"][0]["momentum_buffer"],
    "average": lambda content: content["average"]["average"]["module.dense.linear1.weight"],
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("value", [math.nan, -math.inf], ids=str)
def test_nothing_that_is_not_finite_is_saved(tmp_path, part, value):
    training = prepared(*SMALL, "model=mlp", "epochs=1", "optimizer.momentum=0.9", "regularization.average.kind=ema")
    progress = Progress()
    fit(training, progress, Recorder())
    content = snapshot(training, progress)
    content["progress"]["scores"] = [math.nan]  # a figure may be
    checkpoint.save(tmp_path / "checkpoints", 5, content, {"epoch": 1}, keep=2)
    PARTS[part](content).view(-1)[0] = value
    with pytest.raises(TrainingError, match=rf"(weights|'{part}') (are|is) not finite after step 6"):
        checkpoint.save(tmp_path / "checkpoints", 6, content, {"epoch": 1}, keep=2)
    assert checkpoint.steps_in(tmp_path / "checkpoints") == [5]
