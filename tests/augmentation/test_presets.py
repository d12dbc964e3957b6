"""Choosing augmentations: presets, single settings, mutual exclusion, and what a data set leaves out."""

import pytest

from cnnbench.config.compose import Composer
from cnnbench.errors import ConfigError
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import setup


def parts(composer: Composer, *words: str) -> dict[str, dict]:
    config = plan_run(composer, ["data=synthetic", *words]).config
    setup(config)
    return {part.name: dict(part.settings) for part in config.augmentation}


def test_augmentations_are_added_to_a_preset_and_removed_from_it(composer):
    on_top = parts(composer, "augmentation=pad_crop_flip", "augmentation.mixup.p=0.5", "augmentation.mixup.alpha=0.2")
    assert on_top == {"crop": {"padding": 4}, "flip": {"p": 0.5}, "mixup": {"p": 0.5, "alpha": 0.2}}
    fewer = parts(composer, "augmentation=pad_crop_flip_trivial", "augmentation.trivial=null", "augmentation.flip.p=0")
    assert fewer == {"crop": {"padding": 4}, "flip": {"p": 0.0}}
    assert parts(composer, "augmentation.trivial={}", "augmentation.affine.degrees=5") == {
        "affine": {"degrees": 5.0, "translate": 0.0, "scale": [1.0, 1.0], "shear": 0.0},
        "trivial": {},
    }


def test_augmentations_run_in_their_order_however_they_are_typed(composer):
    words = ["augmentation.cutmix={p: 0.5, alpha: 1}", "augmentation.noise={std: 0.1, p: 1}", "augmentation.flip.p=0.5"]
    assert list(parts(composer, *words)) == list(parts(composer, *words[::-1])) == ["flip", "noise", "cutmix"]


MISTAKES = {
    "two crops": (
        "augmentation=resized_crop augmentation.crop.padding=3",
        "augmentation.resized_crop  and augmentation.crop exclude each other; set one of them to null",
    ),
    "probabilities above 1": (
        "augmentation=strong augmentation.mixup.p=0.9",
        "augmentation.mixup.p=0.9  is above 1 together with augmentation.cutmix.p=0.5; an image is mixed once",
    ),
    "batches of one image": (
        "augmentation=mixup batch_size=1",
        "augmentation.mixup.p=1.0  mixes images of one batch, and batch_size=1 has no other; give more",
    ),
    "one of two settings": ("augmentation.mixup.p=0.5", "augmentation.mixup.alpha=  must be given: a number above 0"),
    "reversed range": (
        "augmentation=erasing augmentation.erasing.scale=[0.5,0.2]",
        "augmentation.erasing.scale=[0.5,0.2]  must be [lowest, highest] share of an image's area, above 0 and at most",
    ),
    "one number for a range": (
        "augmentation=blur augmentation.blur.sigma=3",
        "augmentation.blur.sigma=3  must be [lowest, highest], two numbers above 0",
    ),
    "three numbers for a range": ("augmentation=affine augmentation.affine.scale=[1,1,2]", "must be [lowest, highest]"),
    "even kernel": (
        "augmentation=blur augmentation.blur.kernel_size=4",
        "augmentation.blur.kernel_size=4  must be an odd whole number of at least 3",
    ),
    "word for a value": (
        "augmentation=erasing augmentation.erasing.value=rando",
        "augmentation.erasing.value=rando  must be a number at least 0 and at most 1 or random",
    ),
    "hue beyond the circle": (
        "augmentation=jitter augmentation.jitter.hue=0.6",
        "augmentation.jitter.hue=0.6  must be a number at least 0 and at most 0.5",
    ),
    "cutout of nothing": (
        "augmentation=cutout augmentation.cutout.size=0",
        "augmentation.cutout.size=0  must be a whole number above 0",
    ),
    "cutout of all": (
        "augmentation=cutout augmentation.cutout.size=40",
        "augmentation.cutout  size=40 is larger than the crop of 32x32 pixels; give less",
    ),
    "gray images": ("augmentation=grayscale data.channels=1", "augmentation.grayscale  the images are gray"),
    "no rotation": ("augmentation.rotation.degrees=0", "augmentation.rotation  rotates nothing; give degrees above 0"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported(composer, words, message):
    with pytest.raises(ConfigError) as refused:
        parts(composer, *words.split())
    assert message in str(refused.value)


def test_probabilities_may_add_up_to_one_despite_rounding(composer):
    probabilities = ["augmentation.mixup={p: 0.7, alpha: 0.2}", "augmentation.cutmix={p: 0.3, alpha: 1}"]
    assert set(parts(composer, *probabilities)) == {"mixup", "cutmix"}
    assert set(parts(composer, "augmentation=resized_crop", "augmentation.crop=null")) == {"resized_crop"}


LEFT_OUT = [
    ("digits", "vertical_flip"), ("digits", "trivial"), ("mnist", "flip"), ("mnist", "vertical_flip"),
    ("mnist", "trivial"), ("fashion_mnist", "vertical_flip"), ("cifar10", "vertical_flip"),
    ("cifar100", "vertical_flip"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "name"), LEFT_OUT)
def test_augmentations_that_would_change_the_class_are_refused_unless_their_settings_are_typed(composer, data, name):
    with pytest.raises(ConfigError, match=f"augmentation={name} +includes augmentation.{name}, which can change what"):
        plan_run(composer, [f"data={data}", f"augmentation={name}"])
    typed = f"augmentation.{name}={{}}" if name == "trivial" else f"augmentation.{name}.p=0.5"
    plan = plan_run(composer, [f"data={data}", typed])
    assert [part.name for part in plan.config.augmentation] == [name]
    assert f"augmentation.{name} can change what an image of '{data}' shows; kept, as typed" in plan.notes


@pytest.mark.parametrize("data", ["fashion_mnist", "cifar10", "cifar100", "synthetic"])
def test_flips_of_photographs_are_not_left_out(composer, data):
    plan = plan_run(composer, [f"data={data}", "augmentation=pad_crop_flip_trivial"])
    assert [part.name for part in plan.config.augmentation] == ["crop", "flip", "trivial"]
    assert not plan.notes
