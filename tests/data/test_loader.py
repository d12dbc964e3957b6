"""Batches: fast cropping, flipping and normalising match a slow loop over images, in memory or streamed."""

import threading

import pytest
import torch
from torch import Tensor

from cnnbench.augmentation.color import Jitter
from cnnbench.augmentation.crop import Crop, Flip
from cnnbench.data import loader
from cnnbench.data.images import DataSpec, Images, Stream
from cnnbench.data.loader import Batch, Batches, shifts_of_repeats
from cnnbench.randomness import uniform_table

NUM, HEIGHT, WIDTH = 23, 12, 11
CPU = torch.device("cpu")
SEED, EPOCH = 7, 3


@pytest.fixture(params=["in memory", "streamed"], autouse=True)
def source(request, monkeypatch):
    """Run every test here on images in memory, and on images that are loaded on demand."""
    if request.param == "streamed":
        monkeypatch.setattr(f"{__name__}.given", streamed)


def given(images: Images) -> Images:
    return images


def streamed(images: Images) -> Images:
    """Return the images as a stream over pixels in reverse order."""
    pixels = images.pixels
    assert isinstance(pixels, Tensor)
    backwards = pixels.flip(0)
    reverse = torch.arange(len(pixels)).flip(0)
    return Images(Stream(lambda rows: backwards[rows], reverse, tuple(pixels.shape[1:])), images.labels)


def make_images(channels: int) -> Images:
    draws = torch.Generator().manual_seed(channels)
    pixels = torch.randint(0, 256, (NUM, channels, HEIGHT, WIDTH), generator=draws).byte()
    return Images(pixels, torch.arange(NUM) % 5)


def make_batches(channels: int = 3, size: tuple[int, int] = (8, 7), **augmentations) -> Batches:
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels]
    spec = DataSpec(channels, *size, tuple("abcde"))
    return Batches(given(make_images(channels)), spec, mean, std, CPU, augmentations, SEED)


def shuffled() -> Tensor:
    return torch.randperm(NUM, generator=torch.Generator().manual_seed(0))


def normalised(image: Tensor) -> Tensor:
    """Return float [C, H, W] of uint8 [C, H, W], the obvious way."""
    channels = len(image)
    mean, std = (torch.tensor(values[:channels]).view(-1, 1, 1) for values in ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))
    return (image.float() / 255 - mean) / std


SIZES = {"whole image": (12, 11), "even rest": (8, 7), "odd rest": (9, 6), "one axis": (12, 4)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_evaluation_sees_the_centre_scaled_and_normalised(channels, size):
    images, order = make_images(channels), shuffled()
    height, width = size
    top, left = (HEIGHT - height) // 2, (WIDTH - width) // 2
    got = list(make_batches(channels, size).epoch(order, 10))
    assert [len(batch) for batch in got] == [10, 10, 3]
    slow = [normalised(images.pixels[row, :, top : top + height, left : left + width]) for row in order]
    assert torch.allclose(torch.cat([batch.images for batch in got]), torch.stack(slow), atol=1e-6)
    assert torch.equal(torch.cat([batch.labels for batch in got]), images.labels[order])


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_training_sees_the_crops_of_a_slow_loop_with_the_same_draws(channels, padding):
    images, order = make_images(channels), shuffled()
    height, width = 8, 7
    corners = uniform_table(NUM, 2, SEED, "augmentation/crop", EPOCH)
    mirrored = uniform_table(NUM, 1, SEED, "augmentation/flip", EPOCH)[:, 0] < 0.4
    padded = torch.nn.functional.pad(images.pixels, [padding] * 4)
    slow = []
    for row in order:
        top = int(corners[row, 0] * (HEIGHT + 2 * padding - height + 1))
        left = int(corners[row, 1] * (WIDTH + 2 * padding - width + 1))
        crop = padded[row, :, top : top + height, left : left + width]
        slow.append(normalised(crop.flip(2) if mirrored[row] else crop))
    batches = make_batches(channels, (height, width), crop=Crop(padding=padding), flip=Flip(p=0.4))
    got = torch.cat([batch.images for batch in batches.epoch(order, 10, EPOCH)])
    assert torch.allclose(got, torch.stack(slow), atol=1e-6)
    assert 0 < int(mirrored.sum()) < NUM


EVERYTHING = {"crop": Crop(padding=2), "flip": Flip(p=0.5), "jitter": Jitter(brightness=0.3, contrast=0.3)}


@pytest.mark.parametrize("augmentations", [{}, EVERYTHING], ids=["plain", "augmented"])
@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
@pytest.mark.parametrize("first", [0, 1, 4, 6])
def test_batches_depend_neither_on_the_number_of_workers_nor_on_the_first_batch(augmentations, num_workers, first):
    order = shuffled()
    expected = list(make_batches(**augmentations).epoch(order, 4, EPOCH))[first:]
    got = list(make_batches(**augmentations).epoch(order, 4, EPOCH, first, num_workers))
    assert len(got) == len(expected) == 6 - first
    for one, other in zip(got, expected, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("size", [(8, 8), (9, 5)], ids=["aligned", "not aligned"])
def test_small_batches_that_are_prepared_together_are_those_prepared_one_by_one(size, monkeypatch):
    def prepared() -> list[Batch]:
        return list(make_batches(3, size, crop=Crop(), flip=Flip(p=0.5)).epoch(shuffled(), 4, EPOCH, 1))

    together = prepared()
    monkeypatch.setattr(loader, "TOGETHER", 0)
    for one, other in zip(together, prepared(), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert one.images.data_ptr() % loader.ALIGNED == 0  # where other kernels would be chosen


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_every_image_comes_exactly_once_per_epoch(batch_size, num_workers):
    pixels = torch.arange(NUM).byte().view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    images = given(Images(pixels, torch.arange(NUM)))
    batches = Batches(images, DataSpec(1, 4, 4, ("a",)), (0.0,), (1.0,), CPU, {"flip": Flip(p=0.5)})
    got = list(batches.epoch(shuffled(), batch_size, 1, 0, num_workers))
    shown = torch.cat([batch.images[:, 0, 0, 0] for batch in got]).mul(255).round().long()
    assert torch.equal(shown, shuffled())
    assert torch.equal(torch.cat([batch.labels for batch in got]), shuffled())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentations", [{}, {"flip": Flip(p=0.5)}, EVERYTHING], ids=["plain", "flip", "everything"])
def test_batches_are_channels_last(channels, augmentations):
    for batch in make_batches(channels, **augmentations).epoch(shuffled(), 10, EPOCH):
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.stride(1) == 1
        assert batch.images.dtype == torch.float32


def test_an_epoch_does_not_change_the_images():
    batches, plain = make_batches(**EVERYTHING), make_batches()
    once, evaluated = ([batch.images for batch in each.epoch(shuffled(), 10, EPOCH)] for each in (batches, plain))
    for epoch in range(3):
        list(batches.epoch(shuffled(), 10, epoch))
    for each, before in ((batches, once), (plain, evaluated)):
        after = [batch.images for batch in each.epoch(shuffled(), 10, EPOCH)]
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_an_abandoned_epoch_leaves_no_threads_behind():
    before = threading.active_count()
    epoch = make_batches().epoch(shuffled(), 2, EPOCH, 0, 2)
    next(epoch)
    epoch.close()
    assert threading.active_count() == before


def test_an_error_in_a_worker_reaches_the_loop():
    class Broken(Flip):
        def sample_crop(self, *_):
            raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order"):
        list(make_batches(flip=Broken(p=1.0)).epoch(shuffled(), 4, EPOCH, 0, 2))


def test_only_draws_of_repeated_rows_are_shifted():
    order = torch.tensor([4, 2, 4, 4, 0, 2])
    seen: dict[int, int] = {}
    slow = []
    for row in order.tolist():
        slow.append(seen.get(row, 0) * 0.6180339887498949 % 1)
        seen[row] = seen.get(row, 0) + 1
    assert torch.allclose(shifts_of_repeats(order), torch.tensor(slow))
    assert not shifts_of_repeats(torch.randperm(50, generator=torch.Generator().manual_seed(0))).any()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_repeated_row_is_augmented_differently_every_time(num_workers):
    batches = make_batches(crop=Crop(padding=4))
    order = torch.tensor([3, 3, 8, 3, 3, 8, 3])
    images = torch.cat([batch.images for batch in batches.epoch(order, 2, EPOCH, num_workers=num_workers)])
    threes = images[order == 3].flatten(1)
    assert len(threes.unique(dim=0)) > 3
    once = next(iter(batches.epoch(torch.tensor([3]), 2, EPOCH))).images
    assert torch.equal(images[:1], once), "the first occurrence is as if there were no other"


def test_rows_are_not_brought_back_from_the_device_to_load_images():
    batches = Batches(streamed(make_images(3)), DataSpec(3, 8, 7, ("a",)), (0.4,) * 3, (0.2,) * 3, torch.device("meta"))
    batch = next(batches.epoch(torch.arange(NUM), 4))  # nothing can be read from a meta tensor
    assert (batch.images.device.type, tuple(batch.images.shape)) == ("meta", (4, 3, 8, 7))
