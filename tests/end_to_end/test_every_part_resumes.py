"""Every part that can be chosen trains, and resumes to the same bits after a kill: all of its state is kept."""

from pathlib import Path

import pytest

from cnnbench.store.checkpoint import load_newest
from cnnbench.training.plan import plan_resume
from cnnbench.training.trainer import carry_out
from tests.conftest import only_run
from tests.support.interruption import child_of, differences, finished, go, kill, outcome_of
from tests.support.options import walked, words_for
from tests.support.selection import diagonal, everyday
from tests.support.training import SMALL, plan_of

pytestmark = pytest.mark.usefixtures("one_second_a_session")

# 72 images train: three epochs of five steps. Colour, room for a crop to move in, and layers with states.
WORDS = (
    *SMALL, "model=lenet_v2", "data.channels=3", "data.image_size=20", "data.crop=16",
    "regularization.dropout=0.3", "regularization.batchnorm=true",
)  # fmt: skip

# What an option needs to have an effect in so short a training.
NEEDS = {
    "scheduler=step": ["scheduler.every=1"],
    "scheduler=multistep": ["scheduler.milestones=[1,2]"],
    "scheduler=cosine_restarts": ["scheduler.period=1"],
    "scheduler=plateau": ["scheduler.patience=1", "scheduler.min_delta=0.9", "eval_every=2", "eval_unit=step"],
    "scheduler=cyclic": ["scheduler.up=1", "scheduler.down=1"],
}

OTHERS = {
    "warm-up": ["scheduler=cosine", "scheduler.warmup=1"],
    "exponential average": ["regularization.average.kind=ema"],
    "average of epochs": ["regularization.average.kind=swa", "regularization.average.start=0.3"],
    "bounded gradients": ["regularization.clip.norm=0.1", "regularization.clip.value=0.05"],
    "penalties": ["regularization.l1=0.001", "regularization.l2=0.001"],
    "label smoothing": ["regularization.label_smoothing=0.1"],
    "focal loss": ["task.loss=focal"],
    "class weights": ["task.class_weights=balanced"],
    "balanced sampling": ["data.sampling=[1.0,2.0,7.0]", "augmentation=crop_flip_jitter"],
    "parts of batches": ["accumulate=2"],
    "bf16": ["precision=bf16"],
    "the three best, averaged": ["checkpoint.average=3", "eval_every=2", "eval_unit=step"],
    "validation by steps": ["eval_every=2", "eval_unit=step", "regularization.early_stopping.patience=3"],
    "validation every other epoch": ["eval_every=2"],
    "wrong labels": ["data.label_noise=0.2"],
    "a fold": ["data.folds=4", "data.fold=1"],
    "a binary loss": ["data.num_classes=2", "task.loss=binary"],
    "no decay of norms": ["optimizer.weight_decay=0.01", "optimizer.decay_norm_and_bias=false"],
    "mlp": ["model=mlp"],
}


GROUPS = "optimizer", "scheduler", "augmentation"  # whose parts act while a network trains
OPTIONS = {group: [name for name in walked(group) if isinstance(name, str)] for group in GROUPS}


def words_of(options: dict[str, str]) -> list[str]:
    return [
        word
        for group, option in options.items()
        for word in (*words_for(group, option), *NEEDS.get(f"{group}={option}", []))
    ]


ALONE = {f"{group}={option}": words_of({group: option}) for group, options in OPTIONS.items() for option in options}
TOGETHER = {
    " ".join(options): words_of(dict(zip(GROUPS, options, strict=True))) for options in diagonal(*OPTIONS.values())
}
CASES = TOGETHER | ALONE | OTHERS


@pytest.mark.parametrize("case", everyday(CASES, [*TOGETHER, *OTHERS]))
def test_a_killed_run_ends_in_the_same_bits(case, outputs, tmp_path):
    words = (*WORDS, *CASES[case])
    unbroken = finished(words, tmp_path / "unbroken")
    kill(plan_of(*words), after_step=8, saves_every=3)
    assert go(*words) == 0
    assert differences(outcome_of(only_run(outputs)), outcome_of(unbroken)) == []
    assert weights_moved(unbroken)


def weights_moved(run: Path) -> bool:
    """Tell whether the losses of the run are not those of a network that stays as it is."""
    losses = [row["loss/train"] for row in outcome_of(run)["rows"] if row["row"] == "step"]
    return len(set(losses)) == len(losses) > 3


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_run_that_is_continued_for_longer_averages_as_a_direct_one(kind, outputs, tmp_path):
    words = (*WORDS, "scheduler=none", f"regularization.average.kind={kind}")
    words += ("regularization.average.start=0.5",) if kind == "swa" else ()
    assert go(*words, "epochs=2") == 0
    parent = only_run(outputs)
    assert carry_out(plan_resume(str(parent), ["epochs=4"])) == 0
    continued = load_newest(child_of(parent) / "checkpoints", pytest.fail)
    direct = load_newest(finished((*words, "epochs=4"), tmp_path / "direct") / "checkpoints", pytest.fail)
    assert differences(continued["average"], direct["average"]) == []


def test_what_is_often_not_meant_is_remarked_on_before_training(cnnbench):
    ended = cnnbench(*WORDS, "epochs=1")
    assert ended.code == 0
    assert "note: dropout comes right before batch norm" in ended.out
