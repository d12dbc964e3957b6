"""Windows of photographs: random ones are of the whole picture with `fit=whole`, and of its square otherwise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cnnbench.augmentation.base import Augmentation
from cnnbench.augmentation.color import Jitter
from cnnbench.augmentation.crop import Crop, Flip, ResizedCrop, VerticalFlip
from cnnbench.augmentation.mixing import Mixup
from cnnbench.data.cache import decode_photographs
from cnnbench.data.decode import decode_whole
from cnnbench.data.image_files import content_digest
from cnnbench.data.images import DataSpec, Images, Photographs, Stream
from cnnbench.data.loader import Batches
from cnnbench.randomness import uniform_table
from tests.support.photographs import photograph

NUM, SIDE, CROP = 9, 20, 16
SIZES = [(30, 24), (24, 30), (20, 20), (26, 60), (41, 20), (40, 40), (33, 100), (20, 21), (23, 20)]
CPU = torch.device("cpu")
SEED, EPOCH = 7, 3
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


@pytest.fixture(params=[True, False], ids=["kept", "decoded again"])
def photographs(request, tmp_path) -> Photographs:
    paths = [photograph(tmp_path / f"{row}.png", row, *size) for row, size in enumerate(SIZES)]
    return Photographs(tuple(paths), tuple(map(content_digest, paths)), "whole", request.param, False)


def streamed(photographs: Photographs, fit: str, channels: int = 3) -> Images:
    """Return the photographs backwards, as a selection of rows is."""
    stream, problems, _ = decode_photographs(replace(photographs, fit=fit), SIDE, channels)
    assert not problems
    return Images(stream, torch.arange(NUM))[torch.arange(NUM).flip(0)]


def batches(images: Images, side: int = CROP, device: torch.device = CPU, /, **augmentations) -> Batches:
    channels = images.size[0]
    spec = DataSpec(channels, side, side, tuple("abcdefghi"))
    return Batches(images, spec, MEAN[:channels], STD[:channels], device, augmentations, SEED)


def shown(*args, **augmentations) -> Tensor:
    order = torch.tensor([3, 1, 8, 8, 0, 2, 4, 5, 6, 7, 3])
    return torch.cat([batch.images for batch in batches(*args, **augmentations).epoch(order, 4, EPOCH)])


def pixels_of(images: Tensor) -> Tensor:
    """Return uint8 [B, H, W, C] of what a network sees."""
    means, deviations = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    return ((images * deviations + means) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


IN_SQUARES = {
    "evaluation": {},
    "crop": {"crop": Crop()},
    "padded crop, flips": {"crop": Crop(padding=3), "flip": Flip(p=0.5), "vertical_flip": VerticalFlip(p=0.5)},
    "crop of padding": {"crop": Crop(padding=30)},
    "changed pixels": {"crop": Crop(), "jitter": Jitter(brightness=0.3), "mixup": Mixup(p=0.5, alpha=1.0)},
    "resized boxes": {"resized_crop": ResizedCrop(scale=[0.3, 1.0], ratio=[0.5, 2.0]), "flip": Flip(p=0.5)},
    "resized boxes with a margin": {"resized_crop": ResizedCrop(scale=[0.3, 1.0], ratio=[0.5, 2.0], side=22)},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentations", IN_SQUARES.values(), ids=IN_SQUARES)
@pytest.mark.parametrize("crop", [16, 17, 20])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_windows_of_squares_have_the_bits_that_squares_in_memory_give(photographs, fit, crop, augmentations, channels):
    images = streamed(photographs, fit, channels)
    resident = Images(images.take(torch.arange(NUM)), images.labels)
    assert torch.equal(shown(images, crop, **augmentations), shown(resident, crop, **augmentations))


@pytest.mark.parametrize("crop", [16, 17, 20])
def test_what_is_evaluated_is_the_central_square_whatever_is_trained_on(photographs, crop):
    whole, square = (streamed(photographs, fit) for fit in ("whole", "crop"))
    assert torch.equal(whole.take(torch.arange(NUM)), square.take(torch.arange(NUM)))
    assert torch.equal(shown(whole, crop), shown(square, crop))
    assert torch.equal(shown(whole, crop, flip=Flip(p=0.5)), shown(square, crop, flip=Flip(p=0.5)))


@pytest.mark.parametrize("padding", [0, 3])
def test_random_crops_lie_anywhere_in_the_whole_picture(photographs, padding):
    images, order = streamed(photographs, "whole"), torch.arange(NUM)
    corners = uniform_table(NUM, 2, SEED, "augmentation/crop", EPOCH)
    mirrored = uniform_table(NUM, 1, SEED, "augmentation/flip", EPOCH)[:, 0] < 0.5
    expected = []
    for row, path in enumerate(reversed(photographs.paths)):
        padded = np.pad(decode_whole(path, SIDE, 3, "whole").numpy(), ((padding, padding), (padding, padding), (0, 0)))
        top, left = (int(corners[row, axis] * (padded.shape[axis] - CROP + 1)) for axis in (0, 1))
        crop = padded[top : top + CROP, left : left + CROP]
        expected.append(torch.from_numpy((crop[:, ::-1] if mirrored[row] else crop).copy()))
    given = batches(images, crop=Crop(padding=padding), flip=Flip(p=0.5))
    seen = torch.cat([batch.images for batch in given.epoch(order, 4, EPOCH)])
    assert torch.equal(pixels_of(seen), torch.stack(expected))
    assert 0 < int(mirrored.sum()) < NUM


@pytest.mark.parametrize("side", [None, 19])
def test_boxes_are_of_the_whole_picture_resized_as_pillow_does(photographs, side):
    part = ResizedCrop(scale=[0.3, 1.0], ratio=[0.5, 2.0], side=side)
    draws = uniform_table(NUM, part.num_draws, SEED, "augmentation/resized_crop", EPOCH)
    images = streamed(photographs, "whole")
    given = batches(images, resized_crop=part)
    seen = pixels_of(torch.cat([batch.images for batch in given.epoch(torch.arange(NUM), 4, EPOCH)]))
    beyond = 0
    for row, path in enumerate(reversed(photographs.paths)):
        whole = decode_whole(path, SIDE, 3, "whole")
        height, width, _ = whole.shape
        top, left, tall, wide = (int(value) for value in part.sample_box(draws[row : row + 1], height, width))
        beyond += tall > SIDE or wide > SIDE
        box = Image.fromarray(whole.numpy()[top : top + tall, left : left + wide].copy())
        new, start = side or CROP, ((side or CROP) - CROP) // 2
        resized = np.asarray(box.resize((new, new), Image.Resampling.BILINEAR)).astype(int)
        difference = resized[start : start + CROP, start : start + CROP] - seen[row].numpy().astype(int)
        assert abs(difference).max() <= 1
    assert beyond, "no box is larger than the square: this proves less than it claims"


def test_a_crop_of_the_whole_square_can_move_in_the_picture(photographs):
    assert batches(streamed(photographs, "whole"), SIDE, crop=Crop()).problems() == {}
    assert list(batches(streamed(photographs, "crop"), SIDE, crop=Crop()).problems()) == ["crop"]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", ["crop", "resized_crop"])
def test_windows_depend_on_seed_epoch_and_row_alone(photographs, name, num_workers):
    part = Crop() if name == "crop" else ResizedCrop(scale=[0.3, 1.0], ratio=[0.5, 2.0])
    given, order = batches(streamed(photographs, "whole"), **{name: part}), torch.tensor([5, 2, 8, 0, 3])
    together = torch.cat([batch.images for batch in given.epoch(order, 2, EPOCH, 0, num_workers)])
    alone = [next(given.epoch(order[place : place + 1], 1, EPOCH)).images for place in range(5)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("augmentations", [{}, {"crop": Crop(), "flip": Flip(p=0.5)}], ids=["plain", "augmented"])
def test_windows_wait_for_no_device(photographs, augmentations):
    given = batches(streamed(photographs, "whole"), CROP, torch.device("meta"), **augmentations)
    batch = next(given.epoch(torch.arange(NUM), 4))  # nothing can be read from a meta tensor
    assert (batch.images.device.type, tuple(batch.images.shape)) == ("meta", (4, 3, CROP, CROP))


def test_an_augmentation_that_needs_a_whole_image_gets_the_square(photographs):
    class Halved(ResizedCrop):
        takes_box = False

        def resize(self, images: Tensor, draws: Tensor, size: tuple[int, int]) -> Tensor:
            assert images.shape[2:] == (SIDE, SIDE)
            return images[:, :, : size[0], : size[1]]

    images = streamed(photographs, "whole")
    assert isinstance(images.pixels, Stream)
    given = batches(images, halved=Halved(scale=[0.5, 1.0], ratio=[1.0, 1.0]))
    assert len(next(given.epoch(torch.arange(NUM), NUM)).images) == NUM


def test_an_augmentation_without_a_box_of_its_own_takes_the_whole_picture(photographs):
    class Squeezed(Augmentation):
        resizes = takes_box = True

    images = streamed(photographs, "whole")
    batch = next(batches(images, squeezed=Squeezed()).epoch(torch.arange(NUM), NUM))
    assert tuple(batch.images.shape) == (NUM, 3, CROP, CROP)
    top, left, tall, wide = Squeezed().sample_box(torch.rand(2, 0), 30, 40)
    assert [values.tolist() for values in (top, left, tall, wide)] == [[0, 0], [0, 0], [30, 30], [40, 40]]
