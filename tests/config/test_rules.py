"""Settings that cannot have an effect together, or on these data, are refused; what a preset brings may give way."""

import inspect
from collections.abc import Iterator

import pytest
from torch import nn

from cnnbench.config.validate import validate
from cnnbench.errors import ConfigError, UserError, listed
from cnnbench.registry import MODELS
from cnnbench.training.plan import plan_run
from tests.conftest import TINY
from tests.support.mistakes import accepted, mistakes_in


@pytest.fixture
def network_without_places() -> Iterator[str]:
    """Register a network that has no place for dropout or batch norm, for one test."""

    @MODELS.register("bare")
    def bare(spec):
        return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, spec.num_classes))

    yield "bare"
    del MODELS.components["bare"]


def test_a_null_that_leaves_dropout_as_the_model_has_it_is_noted(composer):
    words = ["model=alexnet_bn", "data.image_size=67"]
    (note,) = plan_run(composer, [*words, "regularization.dropout=null"]).notes
    assert note == "regularization.dropout=null leaves model.dropout at 0.5; regularization.dropout=0 turns it off"
    assert plan_run(composer, words).notes == plan_run(composer, [*words, "regularization.dropout=0"]).notes == ()
    assert plan_run(composer, ["model=mlp", "regularization.dropout=null"]).notes == ()


def test_a_batch_larger_than_the_training_set_is_answered_with_the_largest(composer):
    mistakes = mistakes_in(composer, "batch_size=1295")
    assert mistakes == {"batch_size=1295": "exceeds the 1294 training images; use at most 1294"}


@pytest.mark.parametrize("words", [["batch_size=11"], ["batch_size=1"]], ids=["the last of many", "every one"])
def test_batch_norm_on_a_batch_of_one_image_is_refused(composer, words):
    words = [*words, "data=synthetic", "data.num_train=56", "data.val_fraction=0"]
    problem = mistakes_in(composer, *words, "regularization.batchnorm=true")[words[0]]
    assert "too few for batch norm" in problem
    accepted(composer, *words)


def test_early_stopping_that_can_never_fire_is_refused(composer):
    word = "regularization.early_stopping.patience=8"
    assert mistakes_in(composer, word, "epochs=8") == {
        word: "exceeds the 7 evaluations after the first in 8 epochs; give less, or train for longer"
    }
    accepted(composer, word, "epochs=10")


def test_early_stopping_without_validation_is_refused(composer):
    word = "regularization.early_stopping.patience=8"
    assert "nothing to watch with data.val_fraction=0" in mistakes_in(composer, word, "data.val_fraction=0")[word]


def test_one_penalty_given_twice_is_refused(composer):
    mistakes = mistakes_in(composer, "regularization.l2=0.1", "optimizer.weight_decay=0.01")
    assert mistakes == {"regularization.l2=0.1": "penalises weights twice, with optimizer.weight_decay=0.01; give one"}
    accepted(composer, "regularization.l1=0.1", "optimizer.weight_decay=0.01")


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["scheduler.every=40"], "40 epochs"),
        (["scheduler.every=840", "scheduler.unit=step"], "840 steps"),
    ],
    ids=["epochs", "steps"],
)
def test_a_schedule_whose_first_change_lies_beyond_the_end_is_refused(composer, words, end):
    with pytest.raises(UserError, match=f"training ends after {end}, before the first change"):
        accepted(composer, "scheduler=step", *words)
    accepted(composer, "scheduler=step", *words, "epochs=41")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["augmentation=crop"], "it cannot move; set data.crop or augmentation.crop.padding"),
        (["model=minialexnet_v4", "data.crop=null"], "it cannot move"),
        (["augmentation.jitter.brightness=0"], "all strengths are 0"),
        (["augmentation.jitter.saturation=0.3"], "saturation changes nothing in gray images"),
    ],
    ids=["crop of the whole image", "preset without its crop", "strength 0", "saturation of gray"],
)
def test_an_augmentation_that_changes_nothing_is_refused(composer, words, text):
    (problem,) = mistakes_in(composer, *words).values()
    assert text in problem


def test_an_augmentation_can_be_switched_off(composer):
    plan = accepted(
        composer, "model=minialexnet_v4", "data=synthetic", "augmentation.flip.p=0", "augmentation.crop=null"
    )
    assert [(part.name, part.settings) for part in plan.config.augmentation] == [("flip", {"p": 0.0})]


def test_flips_that_a_preset_brings_are_left_out_on_digits_and_that_is_said(composer):
    plan = accepted(composer, "model=minialexnet_v4", "data.crop=28")
    assert [part.name for part in plan.config.augmentation] == ["crop"]
    assert plan.notes[0] == "augmentation.flip is left out: it can change what an image of 'digits' shows"


def test_flips_that_were_chosen_are_refused_on_digits_unless_they_are_left_out(composer):
    words = ["augmentation=crop_flip", "data.crop=28"]
    mistakes = mistakes_in(composer, *words)
    assert list(mistakes) == ["augmentation=crop_flip"]
    assert (
        "includes augmentation.flip, which can change what an image of 'digits' shows"
        in mistakes["augmentation=crop_flip"]
    )
    assert mistakes["augmentation=crop_flip"].endswith("augmentation.flip.p=0.5 keeps it")
    plan = accepted(composer, *words, "augmentation.flip=null")
    assert [part.name for part in plan.config.augmentation] == ["crop"]


def test_flips_that_are_typed_stay_on_digits_and_that_is_said(composer):
    plan = accepted(composer, "augmentation.flip.p=0.25")
    assert [part.name for part in plan.config.augmentation] == ["flip"]
    assert plan.notes == ("augmentation.flip can change what an image of 'digits' shows; kept, as typed",)


def test_flips_of_data_that_keep_their_labels_are_not_worth_a_note(composer):
    plan = accepted(composer, "augmentation=crop_flip", "data=synthetic", "data.crop=28")
    assert [part.name for part in plan.config.augmentation] == ["crop", "flip"]
    assert plan.notes == ()


@pytest.mark.parametrize("word", ["regularization.dropout=0.5", "regularization.batchnorm=true"])
def test_a_network_without_a_place_names_those_that_have_one(composer, network_without_places, word):
    key = word.partition("=")[0]
    setting = key.rpartition(".")[2]
    values = composer.compose([word]).values | {"model": {"name": network_without_places}}
    with pytest.raises(ConfigError) as refused:
        validate(values, {key: word})
    (mistake,) = refused.value.mistakes
    having = [name for name in MODELS if setting in inspect.signature(MODELS[name].factory).parameters]
    assert "lenet" in having
    assert mistake.given == word
    assert mistake.problem == f"is not supported by 'bare'; supported by {listed(having)}"


def test_dropout_for_a_network_without_dense_layers_before_the_last_is_refused(composer):
    assert "regularization.dropout=0.5" in mistakes_in(composer, "model.units=[]", "regularization.dropout=0.5")


def test_regularization_overrides_what_a_preset_has_and_null_keeps_it(composer):
    def network(*words: str) -> tuple[float, bool]:
        settings = plan_run(composer, ["model=minialexnet_v4", *words]).config.network().settings
        return settings["dropout"], settings["batchnorm"]

    assert network() == (0.5, True)
    assert network("regularization.dropout=0.25", "regularization.batchnorm=false") == (0.25, False)
    assert network("regularization.dropout=0") == (0.0, True)


REFUSED = {
    "task.loss=binary": "is for two classes, and the data have 3",
    "task.loss=focal task.label_smoothing=0.1": "has no meaning with task.loss=focal",
    "task.class_weights=[1.0,2.0]": "has 2 weights; the data have 3 classes",
    "regularization.early_stopping.min_delta=0.01": "has no effect without regularization.early_stopping.patience",
    "task.focal_gamma=3.0": "has no effect with task.loss=cross_entropy",
    "regularization.average.decay=0.9": "has no effect with regularization.average.kind=none",
    "regularization.average.kind=ema regularization.average.start=0.5": "has no effect with",
    "regularization.stochastic_depth=0.5": "is not supported by 'lenet'",
    "precision=fp16": "needs an NVIDIA GPU",
    "precision=tf32": "needs an NVIDIA GPU",
    "eval_every=3 regularization.early_stopping.patience=1": "exceeds the 0 evaluations after the first in 3 epochs",
    "eval_every=15 eval_unit=step regularization.early_stopping.patience=1":
        "exceeds the 0 evaluations after the first in 15 steps",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_settings_that_make_no_sense_are_refused(cnnbench, outputs, words):
    ended = cnnbench(*TINY, *words.split())
    assert ended.code == 2, ended.out
    assert REFUSED[words] in ended.err
    assert not outputs.exists()
