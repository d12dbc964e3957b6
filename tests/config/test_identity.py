"""Which run a command means: the hash of everything that can change its result, and of nothing else."""

import copy
import random
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from torch import nn

from cnnbench.config.compose import Composer
from cnnbench.config.run_config import RunConfig, has_no_effect_on_result
from cnnbench.config.schema import CHOICES, GROUPS, OVERLAYS
from cnnbench.config.schema import NO_EFFECT_ON_RESULT as MARK
from cnnbench.config.validate import validate
from cnnbench.config.values import flat
from cnnbench.registry import MODELS, Selection
from cnnbench.training.plan import folder_name, plan_run

# A new key, a renamed function or another way to compose must leave these as they are, or every run on every disk is
# forgotten. Where a value in conf/ is changed on purpose, so is the experiment, and its hash here with it.
GOLDEN = {
    "": "ffecd6cd21fdf0cd",
    "seed=1": "3266fe6960e5c26a",
    "model=minialexnet_v4 data=cifar100 epochs=150": "7b4630971e319c26",
    "model=lenet_color data=cifar10 optimizer=adam scheduler=step": "6c51ec588690f4bd",
    "regularization.dropout=0.5 regularization.batchnorm=true regularization.l1=1e-05": "fa87ddfb066adf9e",
    "regularization.early_stopping.patience=5 regularization.early_stopping.min_delta=0.01": "3c29bff1de464bd0",
    "data=synthetic data.num_train=500 data.channels=1 data.crop=24 augmentation=crop_flip_jitter": "d5bdac530052bf71",
    "precision=bf16 batch_size=32 data.split_seed=3": "7d85582ff7a1daa4",
    "model=lenet_v2 data=fashion_mnist optimizer=adamw data.val_fraction=0 data.image_size=32": "70568e65ed558ce8",
    "experiment=cnn_lab/lenet_mnist": "261502e5404dea17",
    "task=autoencoder model=conv_encoder": "b1a304b5011c332f",
    "task=siamese model=embedding_net data=mnist": "3a3c967b42dc5781",
    "task=triplet model=embedding_net task.mining=hard task.margin=0.5": "ac376bffd7c93ff5",
}

EVERYTHING_ON = [
    "model=minialexnet_v4", "data=synthetic", "augmentation=crop_flip_jitter", "scheduler=step", "optimizer=adam",
    "regularization.l1=0.001", "regularization.early_stopping.patience=5", "data.crop=28", "data.label_noise=0.1",
    "scheduler.warmup=1", "regularization.average.kind=ema",
]  # fmt: skip

NO_EFFECT_ON_RESULT = {
    "name", "notes", "tags", "logger", "open", "test",
    "reach", "device", "deterministic", "num_workers", "threads", "log_every", "max_minutes", "report", "references",
    "data.root", "data.monitor", "data.subset.max_classes", "checkpoint.every_seconds", "checkpoint.keep",
    "checkpoint.top",
}  # fmt: skip

# What to set a key to that has nothing to derive another value from.
OTHER_VALUE = {
    "threads": 3, "max_minutes": 7.5, "device": "cuda:1", "precision": "bf16", "data.root": "elsewhere",
    "data.monitor": "test",
    "data.image_size": 24, "data.channels": 1, "data.crop": 20, "regularization.dropout": 0.25,
    "regularization.batchnorm": False, "model.maps": [8, 8, 8, 8, 8], "model.units": [32], "scheduler.unit": "step",
    "scheduler.warmup_unit": "step",
    "data.subset.classes": [0, 1], "data.subset.first": 50, "data.subset.per_class": 5, "data.subset.fraction": 0.5,
    "data.interpolation": "bicubic", "head.init": "torch", "data.statistics": "half",
    "data.sampling": "balanced", "data.folds": 5, "data.fold": 0,
    "data.subset.test_per_class": 3, "data.subset.max_classes": 5,
    "task.loss": "focal", "task.focal_gamma": 3.0, "task.class_weights": "balanced", "eval_unit": "step",
    "regularization.label_smoothing": 0.1, "regularization.clip.norm": 1.0, "regularization.clip.value": 1.0,
    "regularization.average.kind": "swa", "optimizer.lr_scale": {"head": 2.0}, "model.pool_to": 2,
    "optimizer.layer_decay": 0.5, "reach": 0.5, "init.experiment": "cnn_lab/lenet_mnist",
    "init.run": "outputs/run", "init.file": "weights.pt", "init.checkpoint": "last",
    "checkpoint.average": 3,
    "task.watch": "loss", "tested": "last", "name": "mine", "notes": "wide, for longer", "tags": ["lab3"],
    "logger": ["mlflow"], "task.metrics": ["mine"],
    "references": [{"metric": "accuracy", "value": 0.5, "split": "test", "source": "a book"}],
    "freeze.what": ["features"], "freeze.epochs": 1, "freeze.then_lr": 0.5, "head.units": [8], "head.dropout": 0.5,
}  # fmt: skip
TOGETHER = {  # what a key cannot be set without
    "data.folds": {"fold": 0}, "data.fold": {"folds": 2}, "optimizer.decay_norm_and_bias": {"weight_decay": 0.01},
    "task.focal_gamma": {"loss": "focal"}, "regularization.average.start": {"kind": "swa"},
    "init.checkpoint": {"run": "outputs/run"}, "init.partial": {"run": "outputs/run"},
    "data.interpolation": {"image_size": 24}, "freeze.epochs": {"what": ["features"]},
    "freeze.then_lr": {"what": ["features"], "epochs": 1}, "head.dropout": {"units": [8]},
}  # fmt: skip


@pytest.fixture(scope="module")
def everything_on() -> dict[str, Any]:
    """Return the plain values of a run in which nothing is off."""
    values = Composer().compose(EVERYTHING_ON).values
    return checked({key: value for key, value in values.items() if key not in OVERLAYS}).to_dict()


def checked(values: dict[str, Any]) -> RunConfig:
    return validate(copy.deepcopy(values))[0]


def with_other_value(values: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the values with one key changed."""
    changed = copy.deepcopy(values)
    *path, leaf = key.split(".")
    section = changed
    for name in path:
        section = section[name]
    old = section[leaf]
    if key in OTHER_VALUE:
        section[leaf] = OTHER_VALUE[key]
    elif isinstance(old, bool):
        section[leaf] = not old
    else:
        assert isinstance(old, int | float), f"{key} is new here: name another value for it in OTHER_VALUE"
        section[leaf] = old + 1 if isinstance(old, int) else old / 2 or 0.125
    assert section[leaf] != old
    section |= TOGETHER.get(key, {})
    return changed


@pytest.mark.parametrize("command", GOLDEN)
def test_no_run_is_renamed(composer, command):
    assert plan_run(composer, command.split()).config.identity()[:16] == GOLDEN[command]


def test_every_setting_changes_the_identity_but_those_that_cannot_change_a_result(everything_on):
    identity = checked(everything_on).identity()
    # In this network, in these data, without a run to begin with.
    without_a_place = ("regularization.stochastic_depth", "init.weights", "data.bits", "init.accept_leaks")
    leaves = {key: value for key, value in flat(everything_on).items() if value != {} or key == "optimizer.lr_scale"}
    keys = [key for key in leaves if not key.endswith(".name") and key not in without_a_place]
    assert len(keys) > 40
    neutral = {key for key in keys if checked(with_other_value(everything_on, key)).identity() == identity}
    assert neutral == NO_EFFECT_ON_RESULT
    assert {key for key in keys if has_no_effect_on_result(key)} == NO_EFFECT_ON_RESULT


@pytest.mark.parametrize("group", ["model", "data", "optimizer", "scheduler", "augmentation"])
def test_every_setting_of_every_registered_part_changes_the_identity(everything_on, group):
    config = checked(everything_on)
    registry = GROUPS[group]
    for name in registry:
        first, second, neutral = {}, {}, {}
        for key, field in registry[name].schema.model_fields.items():
            first[key], other = two_values(field.annotation)
            (neutral if MARK in field.metadata else second)[key] = other
        identities = [
            with_part(config, group, Selection(name, settings)).identity()
            for settings in (first, first | neutral, *(first | {key: value} for key, value in second.items()))
        ]
        assert len(set(identities)) == 1 + len(second), name
        assert identities[0] == identities[1], name


def test_whether_photographs_are_kept_decoded_is_no_part_of_an_identity_or_a_name(composer):
    words = ["data=image_folder", "data.folder=photos"]
    kept, again = (plan_run(composer, [*words, f"data.cache={cache}"]) for cache in ("true", "false"))
    assert kept.config.data.settings["cache"] != again.config.data.settings["cache"]
    assert kept.config.identity() == again.config.identity()
    assert kept.run_path() == again.run_path()
    assert has_no_effect_on_result("data.cache")
    assert not any(has_no_effect_on_result(f"data.{key}") for key in ("folder", "fit", "on_problem", "follow_links"))
    others = ("cache", "model.cache", "data.subset.root", "data.subset.classes", "regularization.cache")
    assert not any(has_no_effect_on_result(key) for key in others)


def with_part(config: RunConfig, group: str, part: Selection) -> RunConfig:
    if group in CHOICES:
        return config.model_copy(update={group: getattr(config, group).model_copy(update={"part": part})})
    return config.model_copy(update={group: (part,) if group == "augmentation" else part})


def two_values(annotation: Any) -> tuple[Any, Any]:
    """Return two values that a setting of this type may have."""
    if get_origin(annotation) is Annotated:
        return two_values(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return get_args(annotation)[:2]
    return {bool: (False, True), int: (3, 4), float: (0.25, 0.5)}.get(annotation, ([1], [2]))


def test_another_part_is_another_run(everything_on):
    config = checked(everything_on)
    others = [
        config.model_copy(update={"model": Selection("other", config.model.settings)}),
        config.model_copy(update={"augmentation": config.augmentation[:-1]}),
        config.model_copy(update={"augmentation": ()}),
        config.model_copy(update={"parent": "0123@7"}),
    ]
    MODELS.components["other"] = MODELS["minialexnet"]
    try:
        assert len({each.identity() for each in [config, *others]}) == 5
    finally:
        del MODELS.components["other"]


def test_the_order_in_which_words_are_typed_does_not_matter(composer):
    words = ["model=minialexnet_v4", "data=synthetic", "optimizer=adam", "optimizer.lr=0.01", "seed=3", "epochs=9"]
    plans = [plan_run(composer, order) for order in (words, words[::-1], random.Random(0).sample(words, len(words)))]
    assert len({plan.config.identity() for plan in plans}) == 1
    assert len({folder_name(plan.named_by, plan.config.identity()) for plan in plans}) == 1


@pytest.mark.parametrize(
    ("spelt", "otherwise"),
    [
        ("optimizer.lr=1", "optimizer.lr=1.0"),
        ("optimizer.lr=0.001", "optimizer.lr=1e-3"),
        ("data=digits", "seed=0"),
        ("regularization.l1=0", "regularization.dropout=null"),
        ("regularization.dropout=0", "regularization.batchnorm=false"),
        ("model=minialexnet_v2", "model=minialexnet regularization.dropout=0.5"),
    ],
)
def test_the_same_values_spelt_otherwise_are_the_same_run(composer, spelt, otherwise):
    assert (
        plan_run(composer, spelt.split()).config.identity() == plan_run(composer, otherwise.split()).config.identity()
    )


def test_a_setting_at_the_default_of_its_signature_is_left_out():
    """A keyword that is added later, with the value that changes nothing as its default, renames no run."""

    def before(spec, *, width: int):
        return nn.Identity()

    def after(spec, *, width: int, shortcut: bool = False):
        return nn.Identity()

    identities = []
    for factory, settings in ((before, {}), (after, {"shortcut": False}), (after, {"shortcut": True})):
        MODELS.register("grows")(factory)
        try:
            part = Selection("grows", {"width": 8} | settings)
            identities.append(with_part(minimal(), "model", part).identity())
        finally:
            del MODELS.components["grows"]
    assert identities[0] == identities[1] != identities[2]


def minimal() -> RunConfig:
    return validate(
        {
            "task": {"name": "classification"},
            "data": {"name": "digits", "test_fraction": 0.2, "val_fraction": 0.1, "split_seed": 0},
            "model": {"name": "minialexnet", "maps": [1, 1, 1, 1, 1], "units": [1]},
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0},
            "scheduler": {"name": "none"},
            "checkpoint": {"every_seconds": 30.0, "keep": 2},
            "epochs": 1,
            "batch_size": 1,
            "seed": 0,
        }
    )[0]


def test_keys_that_are_not_given_are_at_their_defaults():
    """What a run folder of an older version lacks is read as the value that changes nothing."""
    config = minimal()
    assert checked(config.to_dict()) == config
    assert checked(config.to_dict()).identity() == config.identity()


def test_a_recorded_configuration_is_the_same_run(everything_on):
    config = checked(everything_on)
    assert checked(config.to_dict()).identity() == config.identity()


def test_a_configuration_is_frozen(everything_on):
    config = checked(everything_on)
    for section, key in (
        (config, "seed"),
        (config.data, "crop"),
        (config.regularization, "l1"),
        (config.model, "name"),
    ):
        with pytest.raises(Exception, match=r"frozen|cannot assign"):
            setattr(section, key, 1)


def test_which_part_of_photographs_random_crops_see_matters_where_there_are_some(composer):
    def identities(*words: str) -> list[str]:
        given = ["data=image_folder", "data.folder=photos", "data.on_problem=skip", *words]
        return [plan_run(composer, [*given, f"data.fit={fit}"]).config.identity() for fit in ("whole", "crop")]

    plain, random = identities(), identities("augmentation=crop")
    assert plain[0] == plain[1]
    assert random[0] != random[1]
