"""Images loaded on demand are trained on, measured and augmented exactly like those in memory."""

from itertools import product

import pytest
import torch

from cnnbench.config.compose import Composer
from cnnbench.config.schema import DataConfig
from cnnbench.data import prepare as preparing
from cnnbench.data.images import DataSpec, Images, Stream
from cnnbench.data.loader import Batches
from cnnbench.data.prepare import adapt, prepare, resize_and_convert
from cnnbench.data.statistics import channel_statistics
from cnnbench.registry import Selection
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import make_augmentations
from tests.config.test_presets import options_of
from tests.conftest import TINY
from tests.support.interruption import differences, finished, kill, outcome_of
from tests.support.selection import diagonal, everyday
from tests.support.training import plan_of

CPU = torch.device("cpu")
WORDS = options_of("augmentation")
CROPS = (14, 13), (9, 8)  # the whole image, and a part of it


def some_pixels(number: int = 21, channels: int = 3, height: int = 14, width: int = 13) -> torch.Tensor:
    draws = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (number, channels, height, width), generator=draws).byte()


def streamed(pixels: torch.Tensor) -> Stream:
    return Stream(lambda rows: pixels[rows], torch.arange(len(pixels)), tuple(pixels.shape[1:]))


@pytest.mark.parametrize(("word", "crop"), everyday(product(WORDS, CROPS), diagonal(WORDS, CROPS)))
def test_every_augmentation_does_the_same_to_a_stream(word, crop):
    augmentations = make_augmentations(plan_run(Composer(), [word, "data=synthetic", "data.crop=28"]).config)
    spec, labels = DataSpec(3, *crop, tuple("abc")), torch.arange(21) % 3
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    settings = (spec, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), CPU, augmentations, 5)
    in_memory = list(Batches(Images(some_pixels(), labels), *settings).epoch(order, 4, 2))
    for num_workers in (0, 3):
        batches = Batches(Images(streamed(some_pixels()), labels), *settings)
        for one, other in zip(batches.epoch(order, 4, 2, 0, num_workers), in_memory, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
            assert (one.mixed is None) == (other.mixed is None)
            if one.mixed is not None:
                assert all(torch.equal(*pair) for pair in zip(one.mixed, other.mixed, strict=True))


def test_only_requested_images_are_loaded():
    requests = []

    def load(rows: torch.Tensor) -> torch.Tensor:
        requests.append(rows.tolist())
        return some_pixels()[rows]

    images = Images(Stream(load, torch.arange(21), (3, 14, 13)), torch.arange(21))[torch.arange(5, 15)]
    batches = Batches(images, DataSpec(3, 8, 8, ("a",)), (0.5,) * 3, (0.5,) * 3, CPU)
    assert requests == []
    list(batches.epoch(torch.tensor([9, 0, 4]), 2))
    assert requests == [[14, 5], [9]]


def test_statistics_of_a_stream_are_those_of_its_images():
    pixels = some_pixels(2100, 1, 5, 5)
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    assert channel_statistics(Images(streamed(pixels), labels)) == channel_statistics(Images(pixels, labels))


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.parametrize("side", [None, 14, 9, 40])
def test_resizing_on_demand_is_resizing_all(monkeypatch, side, given, channels):
    pixels = some_pixels(7, given, 14, 14)
    expected = resize_and_convert(pixels, side, channels)
    monkeypatch.setattr(preparing, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(preparing, "MAX_COPIED", 0)
    selected = torch.tensor([5, 0, 6, 2])
    lazy = adapt(pixels, selected, side, channels)
    assert isinstance(lazy, Stream)
    assert lazy.is_in_memory == (expected.shape == pixels.shape)
    assert tuple(lazy.shape) == (4, *expected.shape[1:])
    for rows in ([3], [1, 0], [2, 2, 3, 1, 0]):
        taken = Images(lazy, selected).take(torch.tensor(rows))
        assert torch.equal(taken, expected[selected][rows])
        assert taken.is_contiguous(memory_format=torch.channels_last)


def test_large_images_are_neither_resized_nor_copied_at_once(monkeypatch):
    pixels, rows = some_pixels(), torch.arange(10)
    monkeypatch.setattr(preparing, "MAX_COPIED", 10 * 3 * 14 * 13)
    copied = adapt(pixels, rows, None, None)
    assert isinstance(copied, torch.Tensor)
    assert copied.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(preparing, "MAX_COPIED", 10 * 3 * 14 * 13 - 1)
    assert isinstance(adapt(pixels, rows, None, None), Stream)
    assert isinstance(adapt(pixels, rows, 12, None), torch.Tensor)


def test_a_device_of_its_own_gets_large_images_once():
    requests = []

    def load(rows: torch.Tensor) -> torch.Tensor:
        requests.append(len(rows))
        return some_pixels()[rows]

    images = Images(Stream(load, torch.arange(21), (3, 14, 13), is_in_memory=True), torch.arange(21))
    batches = Batches(images, DataSpec(3, 14, 13, ("a",)), (0.5,) * 3, (0.5,) * 3, torch.device("meta"))
    assert [len(batch) for batch in batches.epoch(torch.arange(21), 8)] == [8, 8, 5]
    assert requests == [21]


def test_images_are_kept_in_memory_up_to_a_size_and_streamed_beyond_it(monkeypatch):
    settings = {"num_train": 40, "num_test": 10, "num_classes": 4, "noise": 0.25}
    config = DataConfig(part=Selection("synthetic", settings), image_size=16, val_fraction=0.25)
    monkeypatch.setattr(preparing, "MAX_IN_MEMORY", 30 * 3 * 16 * 16)
    assert all(isinstance(part.pixels, torch.Tensor) for part in (prepare(config).train, prepare(config).test))
    monkeypatch.setattr(preparing, "MAX_IN_MEMORY", 30 * 3 * 16 * 16 - 1)
    data = prepare(config)
    assert isinstance(data.train.pixels, Stream)
    assert isinstance(data.val.pixels, torch.Tensor)
    assert data.train.size == (3, 16, 16)


# 72 training images, four batches of 16 and one of 8, three epochs.
WORDS = (
    *TINY, "data.num_train=80", "data.image_size=20", "data.crop=16", "augmentation=crop_flip_jitter",
    "regularization.average.kind=swa", "model.batchnorm=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory) -> dict:
    return outcome_of(finished(WORDS, tmp_path_factory.mktemp("in_memory")))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_training_from_a_stream_ends_in_the_same_bits(tmp_path, monkeypatch, in_memory, num_workers):
    monkeypatch.setattr(preparing, "MAX_IN_MEMORY", 0)
    assert isinstance(prepare(plan_of(*WORDS).config.data).train.pixels, Stream)
    run = finished((*WORDS, f"num_workers={num_workers}"), tmp_path / "streamed")
    assert differences(outcome_of(run), in_memory) == []


@pytest.mark.parametrize("after_step", [3, 5, 12])
def test_a_killed_training_from_a_stream_ends_in_the_same_bits(tmp_path, monkeypatch, in_memory, after_step):
    monkeypatch.setattr(preparing, "MAX_IN_MEMORY", 0)
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(tmp_path / "streamed"))
    kill(plan_of(*WORDS, "num_workers=2"), after_step, saves_every=2)
    assert differences(outcome_of(finished(WORDS, tmp_path / "streamed")), in_memory) == []
