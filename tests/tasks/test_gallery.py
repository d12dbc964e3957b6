"""Images of a page: what is chosen, and that it is read back as it was written."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from cnnbench.tasks.evaluation import Predictions
from cnnbench.tasks.gallery import LARGEST, Tile, gallery_of, kernels_of, read_gallery, samples_of, views_of

HOSTILE = ("=1+1", "a\nb", "'\"><script>")


def shades(rows: Tensor) -> Tensor:
    """Return an image for each row whose gray is its number."""
    return (rows.float() / 255).view(-1, 1, 1, 1).expand(-1, 1, 6, 5)


def gray(tile: Tile) -> int:
    pixels = np.asarray(Image.open(io.BytesIO(tile.content)).convert("L"))
    assert len(np.unique(pixels)) == 1
    return int(pixels[0, 0])


def test_each_tile_is_the_image_that_its_row_names(tmp_path):
    labels = torch.arange(60) % 3
    predicted = torch.where(torch.arange(60) % 7 == 0, (labels + 1) % 3, labels)
    probabilities = nn.functional.one_hot(predicted, 3) * 0.8 + torch.rand(60, 1) * 0.05 + 0.05
    gallery_of(Predictions(probabilities, labels, HOSTILE), shades).write(tmp_path)
    tiles = read_gallery(tmp_path)
    assert {tile.group for tile in tiles} >= {"samples", "pair 1", "mistakes", "doubts"}
    for tile in tiles:
        row = int(tile.image)
        assert gray(tile) == row
        assert (tile.label, tile.prediction) == (HOSTILE[labels[row]], HOSTILE[predicted[row]])
        assert tile.probability == pytest.approx(float(probabilities[row].max()), abs=1e-6)
    assert [tile.label for tile in tiles if tile.group == "samples"] == list(HOSTILE)
    mistaken = [tile for tile in tiles if tile.group == "pair 1" and tile.label != tile.prediction]
    assert len({(tile.label, tile.prediction) for tile in mistaken}) == 1


def test_large_images_are_kept_small_and_as_photographs(tmp_path):
    samples_of(torch.tensor([0, 1]), ("a", "b"), lambda rows: torch.rand(len(rows), 3, 300, 150)).write(tmp_path)
    tiles = read_gallery(tmp_path)
    with Image.open(io.BytesIO(tiles[1].content)) as image:
        assert (image.format, image.size) == ("WEBP", (LARGEST // 2, LARGEST))


def test_a_gallery_that_is_damaged_or_not_there_has_no_tiles(tmp_path):
    assert read_gallery(tmp_path) == []
    samples_of(torch.tensor([0, 1]), ("a", "b"), shades).write(tmp_path)
    (tmp_path / "gallery.png").write_bytes(b"no image")
    assert read_gallery(tmp_path) == []


def test_kernels_are_those_of_the_first_convolution_each_on_its_own_scale():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))
    images = kernels_of(network, (9, 9)).images
    assert images.shape == (4, 3, 9, 9)
    assert images.flatten(1).amin(1).tolist() == [0] * 4
    assert images.flatten(1).amax(1).tolist() == [1] * 4
    assert kernels_of(nn.Linear(4, 2), (9, 9)) is None
    assert kernels_of(nn.Conv2d(8, 2, 3), (9, 9)) is None


def test_every_image_is_followed_by_its_own_views():
    original = torch.arange(3).view(3, 1, 1, 1) / 10
    views = torch.stack([original + 0.01, original + 0.02])
    gallery = views_of(original, views, ("a", "b", "c"))
    expected = [0, 0.01, 0.02, 0.1, 0.11, 0.12, 0.2, 0.21, 0.22]
    assert gallery.images.flatten().tolist() == pytest.approx(expected)
    assert list(gallery.table["class"]) == list("aaabbbccc")
