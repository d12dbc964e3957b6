"""What every task has to hold to, whatever is learnt; walks the registry."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnbench import train
from cnnbench.errors import UserError
from cnnbench.plugins import register_everything
from cnnbench.registry import TASKS, Component
from cnnbench.store.checkpoint import load_newest
from cnnbench.tasks.embedding import EmbeddingTask
from cnnbench.training import loop, setup, step, trainer
from cnnbench.training.setup import TrainingSetup
from cnnbench.training.step import evaluate, evaluating
from tests.conftest import only_run
from tests.support.interruption import differences, finished, go, kill, outcome_of, read, rows_of
from tests.support.selection import everyday
from tests.support.training import SMALL, first_batch, plan_of, prepared, same, weights_of

register_everything()

CODES = ("model=embedding_net", "model.maps=[4,6]", "model.units=[12]", "model.dimensions=5", "data.image_size=20")
# What each task is learnt with here.
CASES: dict[str, tuple[str, ...]] = {
    "classification": (*CODES, "task=classification"),
    "classification by one output": (*CODES, "task=classification", "task.loss=binary", "data.num_classes=2"),
    "autoencoder": ("data.image_size=13", "model=conv_encoder", "model.maps=[8,8,4]", "task=autoencoder"),
    "autoencoder of dense layers": ("model=mlp_encoder", "model.units=[12,4]", "task=autoencoder"),
    "autoencoder of any network": ("model=lenet", "task=autoencoder", "task.dimensions=6"),
    "siamese": (*CODES, "task=siamese"),
    "siamese of any network": ("model=lenet_v2", "task=siamese", "task.dimensions=6"),
    "triplet": (*CODES, "task=triplet"),
    "triplet mined": (*CODES, "task=triplet", "task.mining=semihard"),
}  # fmt: skip
# Those that train like one of the others.
ALIKE = (
    "classification by one output", "autoencoder of dense layers", "autoencoder of any network",
    "siamese of any network", "triplet",
)  # fmt: skip
# Samples whose loss depends on no other, so that a batch may be computed in parts.
INDEPENDENT = [case for case in CASES if "mined" not in case]
CASES |= {
    name: ("model=lenet", f"task={name}")
    for name in TASKS
    if not any(f"task={name}" in words for words in CASES.values())
}


def words_of(case: str) -> tuple[str, ...]:
    return (*SMALL, *CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_a_training_step_gives_every_trained_weight_a_gradient(case):
    training = prepared(*words_of(case))
    loss, sums = training.task.train_step(training.network, first_batch(training))
    loss.backward()
    metrics = dict(zip(training.task.train_metrics, sums.tolist(), strict=True))
    assert metrics.get("loss", 16 * loss.item()) / 16 == pytest.approx(loss.item(), rel=1e-5)
    for name, weight in training.network.named_parameters():
        assert weight.grad is not None, name
        # What is added to every embedding alike, as the last bias, changes no distance.
        assert weight.grad.any() or (weight.ndim == 1 and isinstance(training.task, EmbeddingTask)), name


@pytest.mark.parametrize("case", CASES)
def test_measuring_leaves_the_network_as_it_is(case):
    training = prepared(*words_of(case))
    training.network.train()
    before, modes = weights_of(training), [module.training for module in training.network.modules()]
    metrics = evaluate(training, training.network, training.batches("val"))
    assert tuple(metrics) == training.task.eval_metrics
    assert same(before, weights_of(training))
    assert [module.training for module in training.network.modules()] == modes
    assert {name for name, _ in training.task.watched} <= set(metrics)


@pytest.mark.parametrize("case", CASES)
def test_what_is_measured_does_not_depend_on_how_images_fall_into_batches(case):
    measured = []
    for size in (16, 5):
        training = prepared(*words_of(case))
        measured.append(evaluate(_with_batches_of(training, size), training.network, training.batches("val")))
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)


def _with_batches_of(training: TrainingSetup, size: int) -> TrainingSetup:
    object.__setattr__(training, "config", training.config.model_copy(update={"batch_size": size}))
    return training


@pytest.mark.parametrize("case", CASES)
def test_each_epoch_has_an_order_of_its_own_which_the_seed_decides(case):
    training, again, other = (prepared(*words_of(case), f"seed={seed}") for seed in (3, 3, 4))
    assert torch.equal(training.order(1), again.order(1))
    assert not torch.equal(training.order(1), training.order(2))
    assert not torch.equal(training.order(1), other.order(1))
    assert sorted(training.order(1).view(72, -1)[:, 0].tolist()) == list(range(72))


@pytest.mark.parametrize("case", INDEPENDENT)
def test_a_batch_in_parts_has_the_gradient_of_the_whole(case):
    words = (*words_of(case), "model.batchnorm=false") if "embedding_net" in str(CASES[case]) else words_of(case)
    gradients = []
    for number in (1, 3):
        training = prepared(*words, f"accumulate={number}")
        sums = step.compute_gradients(training, first_batch(training))
        gradients.append([weight.grad for weight in training.network.parameters()] + [sums])
    for whole, pieced in zip(*gradients, strict=True):
        assert torch.allclose(whole, pieced, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_workers_change_nothing(case):
    batches = []
    for workers in (0, 2):
        training = prepared(*words_of(case), "augmentation=pad_crop_flip")
        batches.append(list(training.train.epoch(training.order(1), 16, 1, 1, workers)))
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.group == other.group


@pytest.mark.usefixtures("one_second_a_session")
@pytest.mark.parametrize("case", everyday(CASES, [case for case in CASES if case not in ALIKE]))
def test_a_killed_run_ends_in_the_same_bits(case, outputs, tmp_path):
    words = (*words_of(case), "augmentation=pad_crop_flip", *_shown(case))
    unbroken = finished(words, tmp_path / "unbroken")
    kill(plan_of(*words), after_step=12, saves_every=3)  # from step 9 on again: what was shown after 10 too
    assert go(*words) == 0
    run = only_run(outputs)
    assert differences(outcome_of(run), outcome_of(unbroken)) == []
    assert _files(run) == _files(unbroken)
    content = load_newest(run / "checkpoints", pytest.fail)
    begins = prepared(*words).network.state_dict()
    assert all(not torch.equal(content["network"][name], begins[name]) for name in begins if name.endswith("weight"))


def _shown(case: str) -> tuple[str, ...]:
    (task,) = (word.partition("=")[2] for word in CASES[case] if word.startswith("task="))
    return ("task.show_every=2",) if TASKS[task].accepts("show_every") else ()


def _files(run: Path) -> dict[str, bytes]:
    """Return the contents of pictures and embeddings; of TensorBoard's events, which have times in them, the number."""
    files = [path for name in ("pictures", "embeddings") for path in (run / name).rglob("*") if path.is_file()]
    events = [path for path in files if path.name.startswith("events")]
    found = {str(path.relative_to(run)): path.read_bytes() for path in files if path not in events}
    return found | {"events": str(len(events)).encode()}


@pytest.mark.usefixtures("one_second_a_session")
@pytest.mark.parametrize("case", ["siamese", "triplet", "autoencoder"])
def test_what_is_frozen_stays_the_same_to_the_bit_also_across_a_kill(case, outputs, tmp_path):
    first = "encoder.features"
    words = (*words_of(case), f"freeze.what={first}", "freeze.epochs=2", "freeze.then_lr=0.5")
    begins = prepared(*words).network.state_dict()
    kill(plan_of(*words), after_step=8, saves_every=3)
    content = load_newest(_killed(outputs) / "checkpoints", pytest.fail)
    for name, weight in begins.items():
        if weight.ndim > 1 or name.startswith(first):  # of the others, some never change
            assert torch.equal(content["network"][name], weight) == name.startswith(first), name
    assert go(*words) == 0
    content = load_newest(only_run(outputs) / "checkpoints", pytest.fail)
    assert not torch.equal(content["network"][f"{first}.conv1.weight"], begins[f"{first}.conv1.weight"])
    assert differences(outcome_of(only_run(outputs)), outcome_of(finished(words, tmp_path / "unbroken"))) == []


def _killed(outputs: Path) -> Path:
    return only_run(outputs)


@pytest.mark.parametrize("case", CASES)
def test_the_rows_have_the_metrics_of_the_task(case, outputs):
    assert go(*words_of(case), "epochs=1") == 0
    task = prepared(*words_of(case)).task
    (epoch,) = [row for row in rows_of(only_run(outputs)) if row["row"] == "epoch"]
    expected = {f"{name}/train" for name in task.train_metrics} | {f"{name}/val" for name in task.eval_metrics}
    assert set(epoch) == {"row", "epoch", "step"} | expected


@pytest.mark.parametrize("case", CASES)
def test_it_is_declared_which_way_each_metric_is_better_and_how_each_figure_is_titled(case, outputs):
    assert go(*words_of(case), "epochs=1") == 0
    task, run = prepared(*words_of(case)).task, only_run(outputs)
    assert set(read(run / "result.json")["test"]) - {"samples"} <= set(task.higher_is_better)
    assert set(task.train_metrics) <= set(task.higher_is_better)
    assert all(task.higher_is_better[name] == higher for name, higher in task.watched)
    drawn = {path.stem.partition("-epoch-")[0] for path in run.glob("pictures/*.png")}
    assert drawn <= set(task.figure_titles)


def test_neither_the_loop_nor_what_runs_it_names_a_task():
    for module in (loop, step, trainer, setup, train):
        text = inspect.getsource(module)
        named = [name for name in ("classification", "autoencoder", "siamese", "triplet") if name in text]
        assert named == [], module.__name__


def test_a_network_is_shown_in_evaluation_mode_and_test_images_only_at_the_end(monkeypatch):
    seen = []

    def log_progress(self, context):
        seen.append(
            (context.held_out, set(context.splits), any(module.training for module in context.network.modules()))
        )

    def final_evaluation(self, context):
        log_progress(self, context)
        return {"extra": 0.5}

    task = TASKS["classification"].factory
    for name, value in (("log_progress", log_progress), ("final_evaluation", final_evaluation), ("show_every", 2)):
        monkeypatch.setattr(task, name, value)
    assert go(*SMALL, "model=lenet_v2", "regularization.batchnorm=true") == 0
    assert seen == [("val", {"train", "val"}, False), ("test", {"train", "val", "test"}, False)]


WRONG = {
    "train_step": (
        lambda *_: (torch.zeros(3), torch.zeros(2)),
        "train_step returns torch.float32 of shape (3,) as loss, not a scalar tensor",
    ),
    "train_metrics": (("loss",), "train_step returns torch.float32 of shape (2,) as sums of loss, not"),
    "eval_step": (
        lambda *_: torch.zeros(1, 2),
        "eval_step returns torch.float32 of shape (1, 2), not a row",
    ),
    "compute_metrics": (lambda *_: {"loss": 0.0}, "compute_metrics returns loss, not loss, accuracy"),
    "watched": ((("top9", True),), "watched names top9, not all of which are in eval_metrics"),
    "order": (lambda *_: 1 / 0, ": ZeroDivisionError: division by zero"),
    "_losses": (lambda *_: 1 / 0, ": ZeroDivisionError: division by zero"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_task_that_does_not_work_is_reported_before_anything_is_written(name, monkeypatch, outputs):
    class Broken(TASKS["classification"].factory):
        def __init__(self, spec, **settings):
            super().__init__(spec, **settings)
            setattr(self, name, WRONG[name][0])

    broken = Component("task", "classification", _like(Broken), {"blends": True})
    monkeypatch.setitem(TASKS.components, "classification", broken)
    with pytest.raises(UserError, match=re.escape(WRONG[name][1])):
        go(*SMALL, "epochs=1", f"seed={list(WRONG).index(name)}")
    assert not outputs.exists()


def _like(broken: type) -> type:
    broken.__signature__ = inspect.signature(TASKS["classification"].factory, eval_str=True)
    return broken


def test_checking_a_task_changes_no_number(outputs, monkeypatch):
    monkeypatch.setattr("cnnbench.training.setup.check_task", lambda *_: None)
    untried = prepared(*words_of("classification"))
    monkeypatch.undo()
    assert same(weights_of(untried), weights_of(prepared(*words_of("classification"))))


def test_modes_are_put_back_after_evaluating_even_where_it_fails():
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))
    network[0].eval()
    with pytest.raises(ZeroDivisionError), evaluating(network):
        raise ZeroDivisionError
    assert [module.training for module in network] == [False, True]
