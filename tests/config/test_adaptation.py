"""A default that does not fit is adapted, and that is said; what is typed is done or refused, never dropped."""

import pytest

from cnnbench.config.run_config import RunConfig
from tests.support.mistakes import accepted, mistakes_in
from tests.support.photographs import write_classes

SYNTHETIC = ("data=synthetic", "data.num_train=50", "data.num_test=20", "data.num_classes=3")

LENET_FASHION = ("experiment=keras_notes/lenet_fashion", "data=synthetic", "epochs=1")


def value(config: RunConfig, key: str) -> object:
    found: object = config.to_dict()
    for part in key.split("."):
        assert isinstance(found, dict)
        found = found[part]
    return found


@pytest.mark.parametrize(
    ("words", "key", "adapted"),
    [
        (SYNTHETIC, "batch_size", 45),
        (
            ("experiment=keras_notes/lenet_fashion", "data=synthetic", "epochs=1"),
            "regularization.early_stopping.patience",
            None,
        ),
        (("scheduler=plateau", "epochs=4", *SYNTHETIC[:1]), "scheduler.patience", 2),
    ],
    ids=["batch size", "patience of an experiment", "patience of a schedule"],
)
def test_a_default_that_does_not_fit_is_adapted_and_is_then_as_if_it_had_been_typed(composer, words, key, adapted):
    plan = accepted(composer, *words)
    assert value(plan.config, key) == adapted
    assert any(key.rpartition(".")[2] in note for note in plan.notes), plan.notes
    typed = accepted(composer, *words, f"{key}={'null' if adapted is None else adapted}")
    assert typed.config.identity() == plan.config.identity()


def test_photographs_fewer_than_a_batch_are_trained_on(composer, tmp_path):
    write_classes(tmp_path / "pictures", {"cat": 29, "dog": 29})
    words = ("data=image_folder", f"data.folder={tmp_path / 'pictures'}", "data.image_size=32", "data.cache=false")
    plan = accepted(composer, *words, "data.test_fraction=0.1")
    assert plan.config.batch_size < 58
    assert any("batch_size" in note for note in plan.notes)


def test_a_crop_that_a_preset_brings_gives_way_to_a_size_that_is_typed(composer, tmp_path):
    write_classes(tmp_path / "pictures", {"cat": 12, "dog": 12})
    words = ("data=image_folder", f"data.folder={tmp_path / 'pictures'}", "data.image_size=64", "data.cache=false")
    plan = accepted(composer, *words)
    assert plan.config.data.image_size == 64
    assert plan.config.data.crop is None or plan.config.data.crop <= 64


def test_what_is_typed_is_held_to(composer):
    mistakes = mistakes_in(composer, *SYNTHETIC, "batch_size=64")
    assert mistakes == {"batch_size=64": "exceeds the 45 training images; use at most 45"}


def test_what_only_the_data_show_is_reported_with_all_else(composer):
    mistakes = mistakes_in(composer, "data.crop=40", "batch_size=5000", "scheduler=step", "scheduler.every=99")
    assert set(mistakes) == {"data.crop=40", "batch_size=5000", "scheduler.every=99"}


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (("data.split_seed=3", "data.val_fraction=0"), "data.split_seed=3"),
        (("eval_every=2", "data.val_fraction=0"), "eval_every=2"),
        (("task.watch=loss", "data.val_fraction=0"), "task.watch=loss"),
        (("eval_every=100", "epochs=40"), "eval_every=100"),
        (("augmentation=none", "augmentation.blur.p=0"), "augmentation.blur.p=0"),
        (("task.label_smoothing=0.1", "regularization.label_smoothing=0.2"), "task.label_smoothing=0.1"),
        (("epochs=3", "epochs=4"), "epochs=4"),
        (("dataset=digits", "data=mnist"), "data=mnist"),
        (("augmentation=flip", "data=digits"), "augmentation=flip"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_would_have_no_effect_is_refused(composer, words, given):
    assert given in mistakes_in(composer, *words, sees_data=False)
