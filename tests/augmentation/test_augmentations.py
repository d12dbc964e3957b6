"""Augmentations match torchvision on single images, with independent draws for every sample."""

from functools import partial

import pytest
import torch
from torchvision.transforms import functional

from cnnbench.augmentation.base import CropMargin, uniform_integers
from cnnbench.augmentation.color import (
    Blur,
    Grayscale,
    Jitter,
    Noise,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
)
from cnnbench.augmentation.crop import Crop, Flip, ResizedCrop, VerticalFlip
from cnnbench.augmentation.geometry import Affine, Rotation
from cnnbench.augmentation.occlusion import Cutout, Erasing
from cnnbench.augmentation.trivial import Trivial
from cnnbench.data.images import DataSpec, Images
from cnnbench.data.loader import Batches
from cnnbench.errors import ConfigError
from cnnbench.randomness import uniform_table
from cnnbench.registry import AUGMENTATIONS
from cnnbench.training.setup import setup
from tests.conftest import TINY
from tests.support.augmented import EPOCH, NUM, SEED, SIDE, augmented, make_pixels
from tests.support.training import plan_of

# Reference results ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_flip_is_torchvisions_hflip(channels):
    pixels = make_pixels(channels)
    expected = torch.stack([functional.hflip(image.float() / 255) for image in pixels])
    assert torch.allclose(augmented(pixels, {"flip": Flip(p=1.0)}), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_vertical_flip_is_torchvisions_vflip(channels):
    pixels = make_pixels(channels)
    expected = torch.stack([functional.vflip(image.float() / 255) for image in pixels])
    assert torch.allclose(augmented(pixels, {"vertical_flip": VerticalFlip(p=1.0)}), expected, atol=1e-6)


def test_both_flips_are_drawn_independently():
    pixels = make_pixels(num=1).expand(400, -1, -1, -1)
    kinds = augmented(pixels, {"flip": Flip(p=0.5), "vertical_flip": VerticalFlip(p=0.5)}).flatten(1).unique(dim=0)
    assert len(kinds) == 4


@pytest.mark.parametrize(("padding", "size"), [(0, 7), (4, 10), (2, 8)], ids=["crop", "padded crop", "both"])
def test_crop_is_torchvisions_pad_and_crop(padding, size):
    pixels = make_pixels()
    draws = uniform_table(NUM, 2, SEED, "augmentation/crop", EPOCH)
    corners = (draws * (SIDE + 2 * padding - size + 1)).long().tolist()
    expected = [
        functional.crop(functional.pad(image.float() / 255, [padding]), top, left, size, size)
        for image, (top, left) in zip(pixels, corners, strict=True)
    ]
    assert torch.allclose(
        augmented(pixels, {"crop": Crop(padding=padding)}, crop=size), torch.stack(expected), atol=1e-6
    )


COLOURS = {
    "brightness": (adjust_brightness, functional.adjust_brightness),
    "contrast": (adjust_contrast, functional.adjust_contrast),
    "saturation": (adjust_saturation, functional.adjust_saturation),
}


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize(("ours", "theirs"), COLOURS.values(), ids=COLOURS)
def test_a_change_of_colours_is_torchvisions(ours, theirs, channels):
    images = make_pixels(channels).float() / 255
    factors = torch.linspace(0, 2, NUM)
    expected = [theirs(image, float(factor)) for image, factor in zip(images, factors, strict=True)]
    assert torch.allclose(ours(images.clone(), factors), torch.stack(expected), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
def test_jitter_changes_brightness_then_contrast_then_saturation_each_by_its_own_draw(channels):
    pixels, strengths = make_pixels(channels), (0.4, 0.7, 0.9)
    draws = uniform_table(NUM, 3, SEED, "augmentation/jitter", EPOCH)
    expected = []
    for row, image in enumerate(pixels):
        shown = image.float() / 255
        for column, (_, change) in enumerate(COLOURS.values()):
            shown = change(shown, 1 + strengths[column] * (2 * float(draws[row, column]) - 1))
        expected.append(shown)
    jitter = Jitter(brightness=0.4, contrast=0.7, saturation=0.9)
    assert torch.allclose(augmented(pixels, {"jitter": jitter}), torch.stack(expected), atol=1e-5)


def test_colours_stay_in_range_at_full_strength():
    images = augmented(make_pixels(num=400), {"jitter": Jitter(brightness=1.0, contrast=1.0, saturation=1.0)})
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_strength_of_0_leaves_its_part_out():
    pixels = make_pixels()
    some = augmented(pixels, {"jitter": Jitter(contrast=0.5)})
    draws = uniform_table(NUM, 3, SEED, "augmentation/jitter", EPOCH)[:, 1]
    expected = adjust_contrast(pixels.float() / 255, 1 + 0.5 * (2 * draws - 1))
    assert torch.allclose(some, expected, atol=1e-6)


# Draws ----------------------------------------------------------------------------------------------------------------

PARTS = {
    "crop": {"crop": Crop(padding=4)},
    "flip": {"flip": Flip(p=0.5)},
    "jitter": {"jitter": Jitter(brightness=0.5)},
    "resized_crop": {"resized_crop": ResizedCrop(scale=[0.2, 1.0], ratio=[0.5, 2.0])},
    "vertical_flip": {"vertical_flip": VerticalFlip(p=0.5)},
    "rotation": {"rotation": Rotation(degrees=30.0)},
    "affine": {"affine": Affine(degrees=5.0, translate=0.2, scale=[0.8, 1.3], shear=10.0)},
    "trivial": {"trivial": Trivial()},
    "hue": {"jitter": Jitter(hue=0.5)},
    "grayscale": {"grayscale": Grayscale(p=0.5)},
    "blur": {"blur": Blur(sigma=[0.5, 2.0], kernel_size=5, p=1.0)},
    "noise": {"noise": Noise(std=0.1, p=1.0)},
    "erasing": {"erasing": Erasing(p=1.0, scale=[0.1, 0.5], ratio=[0.3, 3.3], value=0.5)},
    "random erasing": {"erasing": Erasing(p=1.0, scale=[0.1, 0.5], ratio=[0.3, 3.3], value="random")},
    "cutout": {"cutout": Cutout(size=5, p=1.0)},
}
TWO_RESULTS = {"flip", "vertical_flip", "grayscale"}  # an image comes out in one of two ways


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_copies_of_an_image_in_a_batch_get_different_results(parts):
    pixels = make_pixels()[:1].expand(16, -1, -1, -1)
    kinds = {image.numpy().tobytes() for image in augmented(pixels, parts)}
    assert len(kinds) > (1 if TWO_RESULTS & set(parts) else 10)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_the_result_differs_by_epoch_and_by_seed(parts):
    look = partial(augmented, make_pixels(), parts)
    for other in (look(epoch=EPOCH + 1), look(seed=SEED + 1)):
        differ = (look() != other).flatten(1).any(1).float().mean()
        assert differ > (0.25 if TWO_RESULTS & set(parts) else 0.85)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_the_result_does_not_depend_on_the_position_in_the_order(parts):
    pixels, order = make_pixels(), torch.randperm(NUM, generator=torch.Generator().manual_seed(5))
    assert torch.equal(augmented(pixels, parts), augmented(pixels, parts, order=order))
    torch.manual_seed(99)  # nor on the program's own randomness
    assert torch.equal(augmented(pixels, parts), augmented(pixels, parts))


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_the_result_does_not_depend_on_the_number_of_workers(parts):
    assert torch.equal(augmented(make_pixels(), parts), augmented(make_pixels(), parts, num_workers=2))


@pytest.mark.parametrize("channels", [1, 3], ids=["gray", "colour"])
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_pixels_stay_in_range_and_shapes_stay_the_same(parts, channels):
    pixels = make_pixels(channels)
    shown = augmented(pixels, parts)
    assert shown.shape == pixels.shape
    assert shown.min() >= -1e-6  # a weighted mean in float32
    assert shown.max() <= 1 + 1e-6
    assert channels == 1 or (shown != pixels / 255).any()


def test_adding_jitter_changes_neither_crops_nor_flips():
    pixels = make_pixels() // 128 * 255  # black and white: brightness leaves black black
    place = PARTS["crop"] | PARTS["flip"]
    assert torch.equal(augmented(pixels, place) > 0, augmented(pixels, place | PARTS["jitter"]) > 0)


@pytest.mark.parametrize("added", ["flip", "crop"])
def test_adding_a_crop_or_flip_changes_no_colours(added):
    plain = make_pixels()[:, :, :1, :1].expand(-1, -1, SIDE + 2, SIDE + 2)  # one colour an image, wherever
    parts = PARTS["jitter"] | {"flip": PARTS["flip"], "crop": {"crop": Crop()}}[added]
    assert torch.equal(augmented(plain, PARTS["jitter"]), augmented(plain, parts))


def test_adding_a_flip_changes_no_crop():
    both, crop = (augmented(make_pixels(), parts) for parts in (PARTS["crop"] | PARTS["flip"], PARTS["crop"]))
    flipped = (both != crop).flatten(1).any(1)
    assert flipped.any()
    assert torch.equal(both[flipped], crop[flipped].flip(3))


def test_flip_with_probability_0_is_off():
    pixels = make_pixels()
    assert torch.equal(augmented(pixels, {"flip": Flip(p=0.0)}), augmented(pixels, {}))


@pytest.mark.parametrize("p", [0.2, 0.5, 0.9])
def test_flip_happens_with_its_probability(p):
    number = 4000
    pixels = torch.zeros(number, 1, 1, 2, dtype=torch.uint8)
    pixels[:, :, :, 0] = 255
    batches = Batches(
        Images(pixels, torch.arange(number)), DataSpec(1, 1, 2, ("a",)), (0.0,), (1.0,), torch.device("cpu"),
        {"flip": Flip(p=p)}, SEED,
    )  # fmt: skip
    mirrored = next(batches.epoch(torch.arange(number), number, EPOCH)).images[:, 0, 0, 1].mean()
    assert abs(float(mirrored) - p) < 4 * (p * (1 - p) / number) ** 0.5


def test_crop_positions_are_uniform():
    number, side, size = 4500, 5, 3
    pixels = torch.arange(side * side, dtype=torch.uint8).view(1, 1, side, side).expand(number, -1, -1, -1)
    shown = augmented(pixels, {"crop": Crop()}, crop=size)[:, 0, 0, 0].mul(255).round().long()
    places = torch.bincount(shown, minlength=side * side).view(side, side)
    assert places[:size, :size].min() > 400
    assert places[:size, :size].max() < 600
    assert places.sum() == places[:size, :size].sum()


@pytest.mark.parametrize("number", [1, 2, 3, 9, 1000])
def test_the_largest_draw_stays_in_range(number):
    draws = torch.tensor([0.0, 1 - 2**-24])
    assert uniform_integers(draws, number).tolist() == [0, number - 1]


# Settings without effect ----------------------------------------------------------------------------------------------

NO_MARGIN = CropMargin(0, 0, 3, 8, 6)
PROBLEMS = {
    "crop without margin": (Crop(), CropMargin(0, 0, 3, 8, 6), "the crop is the whole image, it cannot move"),
    "jitter without strengths": (Jitter(), CropMargin(4, 4, 3, 8, 6), "all strengths are 0: it changes nothing"),
    "saturation of gray images": (Jitter(saturation=0.5), CropMargin(4, 4, 1, 8, 6), "changes nothing in gray images"),
    "crop with margin": (Crop(), CropMargin(0, 1, 3, 8, 6), None),
    "brightness of gray images": (Jitter(brightness=0.5, saturation=0.5), CropMargin(0, 0, 1, 8, 6), None),
    "saturation of colour images": (Jitter(saturation=0.5), CropMargin(0, 0, 3, 8, 6), None),
    "flip": (Flip(p=0.5), CropMargin(0, 0, 1, 8, 6), None),
    "resized crop of all": (
        ResizedCrop(scale=[1.0, 1.0], ratio=[1.0, 1.0]), NO_MARGIN, "always takes the whole image",
    ),
    "resized crop": (ResizedCrop(scale=[0.9, 1.0], ratio=[1.0, 1.0]), NO_MARGIN, None),
    "rotation by nothing": (Rotation(degrees=0.0), NO_MARGIN, "rotates nothing; give degrees above 0"),
    "affine without settings": (Affine(), NO_MARGIN, "no setting changes anything"),
    "affine by less than a pixel": (Affine(translate=0.06), NO_MARGIN, "translate=0.06 is less than half a pixel"),
    "affine by a pixel": (Affine(translate=0.07), NO_MARGIN, None),
    "affine in size": (Affine(scale=[1.0, 1.1]), NO_MARGIN, None),
    "hue of gray images": (Jitter(hue=0.5), CropMargin(0, 0, 1, 8, 6), "changes nothing in gray images, nor does hue"),
    "hue": (Jitter(hue=0.5), NO_MARGIN, None),
    "grayscale of gray images": (Grayscale(p=0.5), CropMargin(0, 0, 1, 8, 6), "the images are gray already"),
    "blur with a kernel too large": (Blur(sigma=[1.0, 2.0], kernel_size=13, p=1.0), NO_MARGIN, "reaches beyond"),
    "blur with the largest kernel": (Blur(sigma=[1.0, 2.0], kernel_size=11, p=1.0), NO_MARGIN, None),
    "blur nobody can see": (Blur(sigma=[0.1, 0.2], kernel_size=3, p=1.0), NO_MARGIN, "too little to be seen"),
    "no noise": (Noise(std=0.0, p=0.5), NO_MARGIN, "std=0 adds nothing"),
    "erasing less than a pixel": (
        Erasing(p=1.0, scale=[0.001, 0.01], ratio=[1.0, 1.0], value=0.0), NO_MARGIN, "is less than a pixel of 8x6",
    ),
    "erasing more than there is": (
        Erasing(p=1.0, scale=[0.9, 1.0], ratio=[1.0, 1.0], value=0.0), NO_MARGIN, "no box of this scale and ratio",
    ),
    "erasing": (Erasing(p=1.0, scale=[0.02, 1.0], ratio=[0.3, 3.3], value=0.0), NO_MARGIN, None),
    "cutout larger than the crop": (Cutout(size=7, p=1.0), NO_MARGIN, "size=7 is larger than the crop of 8x6 pixels"),
    "cutout as large as the crop": (Cutout(size=6, p=1.0), NO_MARGIN, None),
}  # fmt: skip


@pytest.mark.parametrize(("part", "margin", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_an_augmentation_reports_settings_without_effect(part, margin, problem):
    reported = part.problem(margin)
    assert (problem is None and reported is None) or problem in reported


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["augmentation=crop"], r"augmentation\.crop +the crop is the whole image, it cannot move; set data\.crop"),
        (["augmentation.jitter.saturation=0.5"], r"augmentation\.jitter +saturation changes nothing in gray images"),
        (["augmentation.jitter.contrast=0.0"], r"augmentation\.jitter +all strengths are 0"),
    ],
    ids=["crop", "saturation", "no strength"],
)
def test_a_run_with_an_augmentation_without_effect_is_refused(words, problem):
    plan = plan_of(*TINY, *words)
    with pytest.raises(ConfigError, match=problem):
        setup(plan.config)


def test_the_order_of_augmentations():
    expected = [
        "crop", "resized_crop", "flip", "vertical_flip", "rotation", "affine", "trivial", "jitter", "grayscale", "blur",
        "noise", "erasing", "cutout", "mixup", "cutmix",
    ]  # fmt: skip
    assert sorted(sorted(expected), key=lambda name: AUGMENTATIONS[name].facts["order"]) == expected


@pytest.mark.parametrize("preset", ["strong", "resized_crop_flip"])
def test_a_preset_trains(cnnbench, preset):
    outcome = cnnbench(*TINY, f"augmentation={preset}", "data.channels=3", "epochs=1")
    assert outcome.code == 0, outcome.err
