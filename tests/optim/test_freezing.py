"""Parts that stay as they are, for a while or always, and training that are trained at rates of their own."""

from itertools import product

import pytest
import torch
from torch import nn

from cnnbench.config.compose import Composer
from cnnbench.data.images import DataSpec
from cnnbench.errors import ConfigError
from cnnbench.models.build import build_network, count_parameters
from cnnbench.models.head import trace_head
from cnnbench.optim.freezing import plan_freezing
from cnnbench.store.checkpoint import load_newest
from cnnbench.training.plan import plan_resume, plan_run
from cnnbench.training.step import compute_gradients, set_learning_rates
from cnnbench.training.trainer import carry_out
from tests.conftest import TINY, latest, only_run
from tests.support.interruption import child_of, differences, finished, go, kill, outcome_of, read, stop
from tests.support.options import walked, words_for
from tests.support.selection import diagonal, everyday
from tests.support.training import plan_of, prepared

pytestmark = pytest.mark.usefixtures("one_second_a_session")

# 72 images train: three epochs of five steps. Convolutions with batch norm between them, dropout before dense layers.
WORDS = (
    *TINY, "data.num_train=80", "model=minialexnet", "model.maps=[4,4,4,4,4]", "model.units=[8,8]",
    "regularization.dropout=0.3", "regularization.batchnorm=true",
)  # fmt: skip
FEATURES = (*WORDS, "freeze.what=features")
FOR_ONE = (*FEATURES, "freeze.epochs=1", "freeze.then_lr=0.1")
FOR_TWO = (*FEATURES, "freeze.epochs=2", "optimizer.lr_scale.head=10")


def plan(*words: str):
    return plan_run(Composer(), latest(words))


def trainable(*words: str, side: int = 224, num_classes: int = 10) -> int:
    """Return how many parameters are trained in the first epoch, of a network that is never given memory."""
    config = plan(*words).config
    spec = DataSpec(3, side, side, tuple(map(str, range(num_classes))))
    with torch.device("meta"):
        network = build_network(config.network(), spec, config.head)
    plan_freezing(config, network, trace_head(network, spec)).set_train_mode(network, 1)
    return count_parameters(network)["trainable"]


def weights_of(run, kind: str = "network") -> dict[str, torch.Tensor]:
    return load_newest(run / "checkpoints", pytest.fail)[kind]


def unlike(one, other) -> set[str]:
    return {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), 57_044_810),
        (("freeze.what=features",), 54_575_114),
        (("freeze.what=all_but_head",), 40_970),
        (("freeze.what=[features,classifier.1]",), 54_575_114 - 37_752_832),
        (("freeze.what='features.[036]*'",), 57_044_810 - 23_296 - 307_392 - 663_936),
    ],
)
def test_what_is_trained_of_alexnet(words, expected):
    assert trainable("model=torchvision", "model.architecture=alexnet", *words) == expected


def test_what_is_trained_of_vgg16_with_a_head_of_its_own():
    words = ("freeze.what=all_but_head", "head.units=[256]", "head.dropout=0.4")
    assert trainable("model=torchvision", "model.architecture=vgg16", *words, num_classes=102) == 1_075_046


def test_what_is_frozen_is_the_same_to_the_last_bit_at_the_end_and_the_rest_is_not(outputs):
    training = prepared(*FEATURES)
    initial = {name: tensor.clone() for name, tensor in training.network.state_dict().items()}
    assert go(*FEATURES) == 0
    run = only_run(outputs)
    assert unlike(initial, weights_of(run)) == {"dense", "head"}
    assert [name for name in initial if name.startswith("features.norm") and name.endswith("running_var")]
    frozen = sum(tensor.numel() for name, tensor in training.network.named_parameters() if name.startswith("features"))
    assert read(run / "result.json")["parameters"]["trainable"] == training.parameters["total"] - frozen
    assert training.parameters == read(run / "result.json")["parameters"]


def test_what_is_frozen_has_no_gradient_and_no_place_in_the_optimizer():
    training = prepared(*FEATURES)
    held = {id(weight) for group in training.optimizer.param_groups for weight in group["params"]}
    for name, weight in training.network.named_parameters():
        assert weight.requires_grad == (id(weight) in held) == (not name.startswith("features"))


def modes(network: nn.Module, kind: type[nn.Module]) -> dict[str, bool]:
    return {name: layer.training for name, layer in network.named_modules() if isinstance(layer, kind)}


def test_frozen_layers_are_not_in_training_mode_until_they_are_trained():
    training = prepared(*FOR_ONE)
    for epoch, is_trained in ((1, False), (2, True)):
        training.set_train_mode(epoch)
        assert set(modes(training.network.features, nn.BatchNorm2d).values()) == {is_trained}
        assert set(modes(training.network.dense, nn.Dropout).values()) == {True}


def test_dropout_between_frozen_layers_is_off_and_that_before_the_head_is_on():
    config = plan("model=torchvision", "model.architecture=vgg11", "freeze.what=all_but_head").config
    spec = DataSpec(3, 32, 32, ("a", "b"))
    with torch.device("meta"):
        network = build_network(config.network(), spec)
    plan_freezing(config, network, trace_head(network, spec)).set_train_mode(network, 1)
    assert modes(network, nn.Dropout) == {"classifier.2": False, "classifier.5": True}


@pytest.mark.parametrize("optimizer", everyday(walked("optimizer"), ("sgd", "adamw", "muon")))
def test_features_that_are_frozen_for_an_epoch_are_trained_from_the_next_on(optimizer, outputs):
    words = (*FOR_ONE, *words_for("optimizer", optimizer), "optimizer.lr=0.01")
    initial = {name: tensor.clone() for name, tensor in prepared(*words).network.state_dict().items()}
    stop(plan_of(*words), at_check=6)  # the first epoch is done
    run = only_run(outputs)
    assert unlike(initial, weights_of(run)) == {"dense", "head"}
    assert go(*words) == 0
    assert unlike(initial, weights_of(run)) == {"features", "dense", "head"}


CASES = {
    "frozen for an epoch": FOR_ONE,
    "frozen for two": FOR_TWO,
    "always frozen": FEATURES,
    "no decay of norms": (*FOR_ONE, "optimizer.weight_decay=0.01", "optimizer.decay_norm_and_bias=false"),
    "penalties": (*FOR_ONE, "regularization.l1=0.001", "regularization.l2=0.001"),
    "an average of steps": (*FOR_ONE, "regularization.average.kind=ema"),
    "an average of epochs": (*FOR_TWO, "regularization.average.kind=swa", "regularization.average.start=0.0"),
    "adam": (*FOR_ONE, "optimizer=adam", "optimizer.lr_scale.features=0.1"),
    "muon": (*FOR_ONE, "optimizer=muon", "optimizer.lr_scale.dense=0.1"),
    "layers at rates of their own": (*FOR_ONE, "optimizer.layer_decay=0.7"),
    "validation by steps": (*FOR_ONE, "eval_every=2", "eval_unit=step"),
}


KILLS = 3, 7, 12  # in the first phase, at its end, in the second
USUAL = "frozen for an epoch", "an average of epochs", "muon"


@pytest.mark.parametrize(("case", "after_step"), everyday(product(CASES, KILLS), diagonal(USUAL, KILLS)))
def test_a_killed_run_goes_on_to_the_same_bits_in_either_phase(case, after_step, outputs, tmp_path_factory):
    unbroken = finished(CASES[case], tmp_path_factory.mktemp("unbroken"))
    kill(plan_of(*CASES[case]), after_step, saves_every=2)
    assert go(*CASES[case]) == 0
    assert differences(outcome_of(only_run(outputs)), outcome_of(unbroken)) == []


def test_a_run_that_is_stopped_at_the_boundary_goes_on_to_the_same_bits(outputs, tmp_path):
    unbroken = finished(FOR_ONE, tmp_path / "unbroken")
    for at_check in (5, 2, 2, 2):  # the last step of the first phase, validation, the first steps of the second
        stop(plan_of(*FOR_ONE), at_check)
    assert go(*FOR_ONE) == 0
    assert differences(outcome_of(only_run(outputs)), outcome_of(unbroken)) == []


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_averages_leave_what_is_frozen_as_it_is(kind, outputs):
    words = (*FEATURES, f"regularization.average.kind={kind}")
    words += ("regularization.average.start=0.0",) if kind == "swa" else ()
    initial = {name: tensor.clone() for name, tensor in prepared(*words).network.state_dict().items()}
    assert go(*words) == 0
    assert unlike(initial, weights_of(only_run(outputs), "best")["weights"]) == {"dense", "head"}


def test_penalties_act_on_what_is_trained_only():
    training = prepared(*FOR_ONE, "regularization.l2=0.1")
    batch = next(iter(training.train.epoch(training.order(1), 16, 1)))
    compute_gradients(training, batch)
    assert {name.split(".")[0] for name, weight in training.network.named_parameters() if weight.grad is not None} == {
        "dense",
        "head",
    }
    training.set_train_mode(2)
    compute_gradients(training, batch)
    assert all(weight.grad is not None for weight in training.network.parameters())


def test_the_learning_rate_changes_with_the_phase():
    training = prepared(*FOR_ONE, "scheduler=none", "optimizer.lr=0.5")
    assert [training.schedule(step, ()) for step in (0, 4, 5, 14)] == [1.0, 1.0, 0.1, 0.1]


# Rates ----------------------------------------------------------------------------------------------------------------


def rates(training) -> dict[str, float]:
    own = {id(weight): group["lr"] for group in training.optimizer.param_groups for weight in group["params"]}
    return {name: own[id(weight)] for name, weight in training.network.named_parameters()}


def test_parts_have_rates_of_their_own_and_factors_that_meet_are_multiplied():
    scales = ("optimizer.lr_scale.head=10", "optimizer.lr_scale={features: 0.5, features.conv1: 0.5}")
    training = prepared(*WORDS, *scales, "optimizer.lr=1.0")
    set_learning_rates(training, 0.25)
    found = rates(training)
    assert {found[name] for name in found if name.startswith("features.conv1.")} == {0.0625}
    assert {found[name] for name in found if name.startswith("features.norm2.")} == {0.125}
    assert {found[name] for name in found if name.startswith("dense.")} == {0.25}
    assert found["head.linear.weight"] == 2.5


def test_layers_learn_the_slower_the_more_come_after_them():
    training = prepared(*WORDS, "optimizer.layer_decay=0.5", "optimizer.lr_scale.head=3", "optimizer.lr=1.0")
    set_learning_rates(training, 1.0)
    found = rates(training)
    layers = [name for name, weight in training.network.named_parameters() if weight.ndim > 1]
    assert [found[name] for name in reversed(layers)] == [3.0, *(0.5**above for above in range(1, len(layers)))]
    assert found["features.norm2.weight"] == found["features.conv1.weight"]


def test_rates_of_a_name_with_dots_can_be_typed():
    assert plan(*WORDS, "optimizer.lr_scale.features.conv1=2").config.optimizer.lr_scale == {"features.conv1": 2.0}


def test_a_run_that_is_continued_for_longer_keeps_its_rates(outputs):
    words = (*FOR_TWO, "scheduler=none")
    assert go(*words) == 0
    parent = only_run(outputs)
    assert carry_out(plan_resume(str(parent), ["epochs=4"])) == 0
    groups = load_newest(child_of(parent) / "checkpoints", pytest.fail)["optimizer"]["param_groups"]
    assert sorted({group["lr"] for group in groups}) == [0.01, 0.1]


# Mistakes -------------------------------------------------------------------------------------------------------------

REFUSED = {
    "freeze.what=nothing_such": "matches nothing in 'minialexnet'; there are 'head', 'features', 'dense'",
    "optimizer.lr_scale.nothing=2": "'nothing' matches nothing in 'minialexnet'",
    "freeze.what='*'": "leaves nothing to train",
    "freeze.what=[features,dense,head,head.norm]": "leaves nothing to train",
    "freeze.epochs=1": "has no effect without freeze.what",
    "freeze.what=features freeze.epochs=3": "is not fewer than epochs=3; give less, or null to freeze to the end",
    "freeze.what=features freeze.then_lr=0.5": "has no effect without freeze.epochs",
    "freeze.what=features optimizer.lr_scale.features=2": "has no effect on what is frozen",
    "freeze.what=3": "must be features, all_but_head, or names or patterns of modules",
    "optimizer.lr_scale.head=0": "must be numbers above 0 by head, features, or names or patterns of modules",
    "head.dropout=0.5": "has no effect without head.units",
    "freeze.what=all_but_head optimizer=muon": "needs a hidden layer with weights, and there is none",
}  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_makes_no_sense_is_refused(words):
    with pytest.raises(ConfigError) as refused:
        prepared(*WORDS, *words.split())
    assert REFUSED[words] in str(refused.value)


@pytest.mark.parametrize("word", ["freeze.what=dense", "optimizer.lr_scale.head=2", "head.units=[8]", "init.file=x.pt"])
def test_what_is_trained_cannot_change_in_a_run_that_goes_on(word, cnnbench, outputs):
    assert go(*WORDS, "epochs=1") == 0
    ended = cnnbench(f"resume={only_run(outputs)}", "epochs=4", word)
    assert ended.code == 2
    assert "cannot change in a resumed run" in ended.err


def test_freezing_what_chance_made_is_remarked_on(cnnbench):
    ended = cnnbench(*FEATURES, "epochs=1")
    assert ended.code == 0, ended.err
    assert "note: frozen layers are randomly initialised: nothing is loaded" in ended.out
    assert "1 283 parameters, 299 trained\n" in ended.out
    ended = cnnbench(*FOR_ONE, "epochs=2")
    assert "1 283 parameters, 299 trained, all after epoch 1\n" in ended.out
