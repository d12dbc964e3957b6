"""Copies that were encoded or resized again are noted, with the parts and labels that they have."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.data import look_alikes as module
from cnnbench.data.cache import cache_dir
from cnnbench.data.look_alikes import groups_of
from tests.support.photographs import prepared


def scene(path: Path, seed: int, side: int = 96) -> Path:
    """Write a smooth picture, different for each seed, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def scenes(tmp_path) -> Path:
    for index in range(40):
        scene(tmp_path / "own" / "ab"[index % 2] / f"{index:02}.png", index)
    return tmp_path / "own"


def prepare_scenes(folder: Path, **shared):
    return prepared("image_folder", folder.parent, {"image_size": 64, "crop": 48, **shared}, folder=folder.name)


def encode_again(path: Path, copy: Path, **how) -> None:
    with Image.open(path) as image:
        image.save(copy, **how)


def test_different_pictures_are_not_noted(scenes):
    assert not prepare_scenes(scenes).notes


@pytest.mark.parametrize("quality", [50, 90])
def test_a_picture_that_was_encoded_again_is_noted(scenes, quality):
    encode_again(scenes / "a" / "04.png", scenes / "a" / "again.jpg", quality=quality)
    (note,) = prepare_scenes(scenes).notes
    assert note.startswith("look-alikes: 1 picture in several files that differ, such as encoded again: ")
    assert note.endswith(": a/04.png ~ a/again.jpg")


def test_a_picture_that_was_resized_is_noted_and_so_are_its_labels(scenes):
    scene(scenes / "b" / "large.png", 4, 180)
    (note,) = prepare_scenes(scenes).notes
    assert ", 1 with several labels: a/04.png ~ b/large.png" in note


def test_parts_are_counted(scenes):
    for index in range(0, 40, 2):
        encode_again(scenes / "a" / f"{index:02}.png", scenes / "a" / f"{index:02}.jpg", quality=80)
    data = prepare_scenes(scenes)
    part_of = {Path(file).stem: set() for file in data.train.files()}
    for name in ("train", "val", "test"):
        for file in getattr(data, name).files():
            part_of.setdefault(Path(file).stem, set()).add(name)
    divided = sum(len(parts) > 1 for parts in part_of.values())
    assert divided
    assert data.notes[-1].startswith("look-alikes: 20 pictures in several files that differ")
    assert f": {divided} in several parts, 0 with several labels: " in data.notes[-1]


def test_identical_files_are_copies_and_no_look_alikes(scenes):
    shutil.copy(scenes / "a" / "04.png", scenes / "a" / "copy.png")
    (note,) = prepare_scenes(scenes).notes
    assert note.startswith("copies: 1 file ")


def test_what_was_found_is_kept_and_not_looked_for_again(scenes, monkeypatch):
    encode_again(scenes / "a" / "04.png", scenes / "a" / "again.jpg", quality=90)
    first = prepare_scenes(scenes).notes
    with monkeypatch.context() as patch:
        patch.setattr(module, "groups_of", lambda _thumbnails: pytest.fail("looked for again"))
        assert prepare_scenes(scenes, split_seed=1).notes
        assert prepare_scenes(scenes).notes == first
    for file in (cache_dir() / "look-alikes").iterdir():
        file.write_text("{}")
    assert prepare_scenes(scenes).notes == first


def test_plain_images_are_not_alike():
    flat = torch.arange(100.0).view(100, 1).expand(100, 256)
    assert groups_of(flat) == []


def test_many_images_are_compared_in_blocks(monkeypatch):
    pictures = torch.rand(300, 256, generator=torch.Generator().manual_seed(0)) * 255
    again = pictures[torch.arange(0, 300, 7)] + 1
    expected = [[row, 300 + number] for number, row in enumerate(range(0, 300, 7))]
    for block in (7, 64, 1000):
        monkeypatch.setattr(module, "BLOCK", block)
        assert groups_of(torch.cat([pictures, again])) == expected
