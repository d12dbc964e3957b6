"""Data sets that need no download, and how any data set is resized, measured and fingerprinted."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.config.schema import DataConfig
from cnnbench.data.images import DataSpec, ImageData, Images
from cnnbench.data.prepare import crop_size, prepare, resize_and_convert
from cnnbench.data.statistics import channel_statistics
from cnnbench.errors import SettingError, UserError
from cnnbench.registry import DATASETS, Component, Selection
from tests.support.options import settings_of, walked
from tests.support.zoo import FACTS

# Data sets without a download -----------------------------------------------------------------------------------------


def test_digits_are_complete_in_two_disjoint_parts():
    from sklearn.datasets import load_digits

    data = DATASETS["digits"].factory(Path(), test_fraction=0.2)
    assert (len(data.train), len(data.test)) == (1438, 359)
    loaded = load_digits()
    rows = {(image.tobytes(), int(label)) for image, label in zip(loaded.images.round(), loaded.target, strict=True)}
    parts = []
    for part in (data.train, data.test):
        images = (part.pixels[:, 0].double() * 16 / 255).round().numpy()
        parts.append({(image.tobytes(), int(label)) for image, label in zip(images, part.labels, strict=True)})
    assert parts[0] | parts[1] == rows
    assert not parts[0] & parts[1]


def test_digits_and_synthetic_do_not_depend_on_the_global_seed():
    fingerprints = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        digits = DATASETS["digits"].factory(Path(), test_fraction=0.2)
        patterns = DATASETS["synthetic"].factory(Path(), num_train=30, num_test=10, num_classes=3, noise=0.25)
        fingerprints.append((digits.fingerprint(), patterns.fingerprint()))
    assert fingerprints[0] == fingerprints[1]


def test_synthetic_patterns_are_separable_and_equally_frequent():
    data = DATASETS["synthetic"].factory(Path(), num_train=300, num_test=90, num_classes=3, noise=0.25)
    assert torch.bincount(data.train.labels).tolist() == [100, 100, 100]
    train, test = (part.pixels.flatten(1).float() for part in (data.train, data.test))
    nearest = data.train.labels[torch.cdist(test, train).argmin(1)]
    assert (nearest == data.test.labels).float().mean() > 0.9


NEED_FILES = [name for name in DATASETS if DATASETS[name].facts["source"] or DATASETS[name].facts["photographs"]]


@pytest.mark.parametrize("name", walked("data", without=NEED_FILES))
def test_a_data_set_that_needs_no_files_is_the_same_each_time(name, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: (_ for _ in ()).throw(OSError("tests need no network")))
    settings = settings_of("data", name)
    component = DATASETS[settings.pop("name")]
    try:
        first, second = (component.build(settings, root=tmp_path) for _ in range(2))
    except (UserError, OSError) as error:
        pytest.skip(f"it needs files: {error}")
    assert first.fingerprint() == second.fingerprint()
    assert set(first.train.labels.tolist()) == set(range(len(first.classes)))
    assert len(first.test) > 0


def test_a_data_set_may_have_a_list_among_its_settings(monkeypatch):
    def listed(_root: Path, *, sides: list[int]) -> ImageData:
        """Images as large as the last of the sides."""
        part = Images(torch.zeros(4, 1, sides[-1], sides[-1], dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        return ImageData(part, part, ("a", "b"))

    monkeypatch.setitem(DATASETS.components, "listed", Component("data", "listed", listed, FACTS))
    data = prepare(DataConfig(part=Selection("listed", {"sides": [4, 6]}), val_fraction=0.0, split_seed=0))
    assert data.spec.height == 6


# Resizing and measuring -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "size"), [(28, 32), (28, 20), (8, 32), (32, 17), (5, 5)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_pillows_within_one_grey_level(side, size, channels):
    pixels = torch.randint(0, 256, (4, channels, side, side), generator=torch.Generator().manual_seed(side)).byte()
    ours = resize_and_convert(pixels, size, None)
    for image, resized in zip(pixels, ours, strict=True):
        for plane, plane_resized in zip(image, resized, strict=True):
            theirs = Image.fromarray(plane.numpy()).resize((size, size), Image.Resampling.BILINEAR)
            assert np.abs(np.asarray(theirs).astype(int) - plane_resized.numpy().astype(int)).max() <= 1


def test_resizing_many_images_keeps_them_in_order():
    pixels = torch.arange(1030).remainder(256).byte().view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    assert torch.equal(resize_and_convert(pixels, 6, None)[:, 0, 0, 0], pixels[:, 0, 0, 0])


def test_gray_becomes_colour_by_repeating():
    gray = torch.randint(0, 256, (5, 1, 6, 6), generator=torch.Generator().manual_seed(0)).byte()
    colour = resize_and_convert(gray, None, 3)
    assert colour.shape == (5, 3, 6, 6)
    assert all(torch.equal(colour[:, channel], gray[:, 0]) for channel in range(3))


def test_colour_becomes_gray_as_in_pillow_within_one_level():
    colour = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    for image, gray in zip(colour, resize_and_convert(colour, None, 1), strict=True):
        theirs = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(theirs.astype(int) - gray[0].numpy().astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "crop", "size"),
    [
        (32, 32, None, (32, 32)), (32, 32, 28, (28, 28)), (32, 32, 0.875, (28, 28)), (30, 20, 0.5, (15, 10)),
        (28, 28, 0.875, (24, 24)), (28, 28, 1.0, (28, 28)), (10, 10, 0.7, (7, 7)), (32, 24, 24, (24, 24)),
        (4, 4, 0.01, (1, 1)),
    ],
)  # fmt: skip
def test_the_crop_is_a_side_in_pixels_or_a_fraction_of_the_image(height, width, crop, size):
    assert crop_size(height, width, crop) == size


def test_a_crop_larger_than_the_image_is_refused_and_a_fraction_suggested():
    message = r"data\.crop=25  is larger than the images, which have 32x24 pixels$"
    with pytest.raises(SettingError, match=message) as refused:
        crop_size(32, 24, 25)
    (mistake,) = refused.value.mistakes
    assert mistake.instead == {"data.crop": 0.875}


def test_statistics_are_numpys_and_a_constant_channel_gets_a_deviation_of_one():
    pixels = torch.randint(0, 256, (9, 3, 7, 5), generator=torch.Generator().manual_seed(0)).byte()
    pixels[:, 1] = 77
    means, stds = channel_statistics(Images(pixels, torch.zeros(len(pixels), dtype=torch.int64)))
    scaled = pixels.numpy() / 255
    assert means == pytest.approx(scaled.mean((0, 2, 3)), abs=1e-12)
    assert (stds[0], stds[2]) == pytest.approx(scaled.std((0, 2, 3))[[0, 2]], abs=1e-12)
    assert stds[1] == 1.0


def test_statistics_are_those_of_the_resized_training_images():
    settings = {"num_train": 40, "num_test": 10, "num_classes": 4, "noise": 0.25}
    config = DataConfig(
        part=Selection("synthetic", settings), val_fraction=0.5, split_seed=0, image_size=12, channels=1, crop=8
    )
    data = prepare(config)
    assert (data.spec.channels, data.spec.height, data.spec.width) == (1, 8, 8)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 20, 10)
    scaled = data.train.pixels.numpy() / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3)), abs=1e-12)
    assert data.std == pytest.approx(scaled.std((0, 2, 3)), abs=1e-12)


def changed(data: ImageData, what: str) -> ImageData:
    train, test = (Images(part.pixels.clone(), part.labels.clone()) for part in (data.train, data.test))
    classes = data.classes
    if what == "a train pixel":
        train.pixels[3, 1, 4, 5] ^= 1
    elif what == "the last test pixel":
        test.pixels[-1, -1, -1, -1] ^= 1
    elif what == "a train label":
        train.labels[7] ^= 1
    elif what == "a test label":
        test.labels[-1] ^= 1
    elif what == "the order":
        train = train[torch.arange(len(train)).flip(0)]
    elif what == "a class name":
        classes = ("another", *classes[1:])
    return ImageData(train, test, classes)


CHANGES = ["a train pixel", "the last test pixel", "a train label", "a test label", "the order", "a class name"]


@pytest.mark.parametrize("what", CHANGES)
def test_the_fingerprint_changes_with(what):
    data = DATASETS["synthetic"].factory(Path(), num_train=30, num_test=10, num_classes=3, noise=0.25)
    assert changed(data, "nothing").fingerprint() == data.fingerprint()
    assert changed(data, what).fingerprint() != data.fingerprint()


def test_the_fingerprint_is_of_all_bytes_in_their_order():
    labels = torch.arange(1500) % 2
    pixels = (
        torch.arange(1500 * 12).remainder(251).byte().view(1500, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    )
    train, test = Images(pixels, labels), Images(pixels[:2], labels[:2])
    expected = hashlib.sha256(b"a\0b")
    for part in (train, test):
        expected.update(f"{tuple(part.pixels.shape)}".encode())
        expected.update(part.pixels.contiguous().numpy().tobytes() + part.labels.numpy().tobytes())
    assert ImageData(train, test, ("a", "b")).fingerprint() == expected.hexdigest()


# The spec for models --------------------------------------------------------------------------------------------------


def test_a_network_returns_one_number_per_class_by_default():
    spec = DataSpec(1, 8, 8, ("cat", "dog", "fox", "owl"))
    assert (spec.num_outputs, spec.counts) == (4, ())
    assert replace(spec, outputs=1).num_outputs == 1


# What a data set has to be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), r"pixels must be uint8 \[N, C, H, W\], and are torch.float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), r"and are torch.uint8 \[2, 4, 4\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), r"labels must be int64 \[2\], one per image"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), "labels go from 0 to 2, and there are 2"),
    ],
    ids=["float pixels", "no channels", "a label for two images", "a label without a class"],
)
def test_images_of_another_form_are_refused_in_a_sentence(pixels, labels, message):
    good = Images(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(UserError, match=f"the data set's part 'test': .*{message}"):
        ImageData(good, Images(pixels, labels), ("a", "b"))


def test_classes_that_are_no_texts_are_refused_in_a_sentence():
    part = Images(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(UserError, match="the data set's classes must be texts, and 3 is a int"):
        ImageData(part, part, ("a", 3))  # type: ignore[arg-type]
