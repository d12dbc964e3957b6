"""Images that are made when they are asked for train, measure and draw exactly as those in memory do."""

import pytest
import torch

from cnnbench.config.compose import open_composer
from cnnbench.config.schema import DataConfig
from cnnbench.data import prepare as preparing
from cnnbench.data.images import DataSpec, Images, Stream
from cnnbench.data.loader import Batches
from cnnbench.data.prepare import adapt, adapted, channel_statistics, prepare
from cnnbench.registry import Selection
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import make_augmentations
from tests.config.test_presets import options_of
from tests.conftest import TINY
from tests.support.interruption import differences, finished, kill, outcome_of
from tests.support.training import plan_of

CPU = torch.device("cpu")


def some_pixels(number: int = 21, channels: int = 3, height: int = 14, width: int = 13) -> torch.Tensor:
    draws = torch.Generator().manual_seed(channels)
    return torch.randint(0, 256, (number, channels, height, width), generator=draws).byte()


def streamed(pixels: torch.Tensor) -> Stream:
    return Stream(lambda rows: pixels[rows], torch.arange(len(pixels)), tuple(pixels.shape[1:]))


@pytest.mark.parametrize("window", [(14, 13), (9, 8)], ids=["whole", "cut"])
@pytest.mark.parametrize("word", options_of("augmentation"))
def test_every_augmentation_draws_the_same_of_a_stream(word, window):
    with open_composer() as composer:
        augmentations = make_augmentations(plan_run(composer, [word, "data=synthetic", "data.crop=28"]).config)
    spec, labels = DataSpec(3, *window, tuple("abc")), torch.arange(21) % 3
    order = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    settings = (spec, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), CPU, augmentations, 5)
    held = list(Batches(Images(some_pixels(), labels), *settings).epoch(order, 4, 2))
    for num_workers in (0, 3):
        batches = Batches(Images(streamed(some_pixels()), labels), *settings)
        for one, other in zip(batches.epoch(order, 4, 2, 0, num_workers), held, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
            assert (one.mixed is None) == (other.mixed is None)
            if one.mixed is not None:
                assert all(torch.equal(*pair) for pair in zip(one.mixed, other.mixed, strict=True))


def test_only_what_is_asked_for_is_made():
    asked = []

    def make(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return some_pixels()[rows]

    images = Images(Stream(make, torch.arange(21), (3, 14, 13)), torch.arange(21))[torch.arange(5, 15)]
    batches = Batches(images, DataSpec(3, 8, 8, ("a",)), (0.5,) * 3, (0.5,) * 3, CPU)
    assert asked == []
    list(batches.epoch(torch.tensor([9, 0, 4]), 2))
    assert asked == [[14, 5], [9]]


def test_statistics_of_a_stream_are_those_of_its_images():
    pixels = some_pixels(2100, 1, 5, 5)
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    assert channel_statistics(Images(streamed(pixels), labels)) == channel_statistics(Images(pixels, labels))


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("given", [1, 3])
@pytest.mark.parametrize("side", [None, 14, 9, 40])
def test_resizing_a_few_at_a_time_is_resizing_all(monkeypatch, side, given, channels):
    pixels = some_pixels(7, given, 14, 14)
    expected = adapt(pixels, side, channels)
    monkeypatch.setattr(preparing, "HELD", 0)
    found = adapted(pixels, side, channels)
    assert isinstance(found, Stream) == (expected.shape != pixels.shape)
    assert tuple(found.shape) == tuple(expected.shape)
    for rows in ([3], [6, 0], [2, 2, 5, 4, 1, 0, 6]):
        wanted = torch.tensor(rows)
        assert torch.equal(Images(found, torch.arange(7)).take(wanted), expected[wanted])


def test_images_are_held_up_to_a_size_and_streamed_beyond_it(monkeypatch):
    settings = {"num_train": 40, "num_test": 10, "num_classes": 4, "noise": 0.25}
    config = DataConfig(part=Selection("synthetic", settings), image_size=16, val_fraction=0.25)
    monkeypatch.setattr(preparing, "HELD", 30 * 3 * 16 * 16)
    assert all(isinstance(part.pixels, torch.Tensor) for part in (prepare(config).train, prepare(config).test))
    monkeypatch.setattr(preparing, "HELD", 30 * 3 * 16 * 16 - 1)
    data = prepare(config)
    assert isinstance(data.train.pixels, Stream)
    assert isinstance(data.val.pixels, torch.Tensor)
    assert data.train.size == (3, 16, 16)


# 72 images train, four batches of 16 and one of 8, three epochs.
WORDS = (
    *TINY, "data.num_train=80", "data.image_size=20", "data.crop=16", "augmentation=crop_flip_jitter",
    "regularization.average.kind=swa", "model.batchnorm=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> dict:
    return outcome_of(finished(WORDS, tmp_path_factory.mktemp("held")))


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_training_from_a_stream_ends_in_the_same_bits(tmp_path, monkeypatch, held, num_workers):
    monkeypatch.setattr(preparing, "HELD", 0)
    assert isinstance(prepare(plan_of(*WORDS).config.data).train.pixels, Stream)
    run = finished((*WORDS, f"num_workers={num_workers}"), tmp_path / "streamed")
    assert differences(outcome_of(run), held) == []


@pytest.mark.parametrize("after_step", [3, 5, 12])
def test_a_training_from_a_stream_that_was_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch, held, after_step):
    monkeypatch.setattr(preparing, "HELD", 0)
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(tmp_path / "streamed"))
    kill(plan_of(*WORDS, "num_workers=2"), after_step, saves_every=2)
    assert differences(outcome_of(finished(WORDS, tmp_path / "streamed")), held) == []
