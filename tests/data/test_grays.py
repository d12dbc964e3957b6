"""Sixteen bits per channel: one rule for gray and colour, a setting for files that use fewer, and a note on these."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnbench.data.decode import Undecodable, decode
from cnnbench.data.image_files import content_digest
from cnnbench.errors import UserError
from tests.conftest import only_run
from tests.support.photographs import TINY_TRAINING, prepared, read
from tests.support.training import plan_of

GRAY, COLOUR, TRANSLUCENT_GRAY, TRANSLUCENT = 0, 2, 4, 6  # as PNG numbers them
CHANNELS = {GRAY: 1, COLOUR: 3, TRANSLUCENT_GRAY: 2, TRANSLUCENT: 4}


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png(path: Path, values: np.ndarray, kind: int = GRAY, more: bytes = b"") -> Path:
    """Write a PNG with 16 bits per channel: [H, W, C]. more: chunks before the pixels."""
    height, width, _ = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    return path


def write_scans(folder: Path, most: int, kind: int = GRAY, number: int = 12) -> Path:
    """Write two classes of scans with values up to `most`."""
    draws = np.random.default_rng(0)
    for label in "ab":
        for index in range(number):
            values = draws.integers(0, most + 1, (20, 20, CHANNELS[kind]))
            values[0, 0] = most
            write_png(folder / label / f"{index:02}.png", values, kind)
    return folder


EVERY = np.arange(65536).reshape(256, 256, 1)


@pytest.mark.parametrize("kind", [GRAY, COLOUR])
def test_every_value_is_rounded_alike_in_gray_and_colour(tmp_path, kind):
    path = write_png(tmp_path / "a.png", np.repeat(EVERY, CHANNELS[kind], 2), kind)
    pixels = decode(path, 256, 3, "crop").numpy()
    assert np.array_equal(pixels, np.repeat((EVERY / 257).round().astype(np.uint8), 3, 2))


@pytest.mark.parametrize("kind", [GRAY, COLOUR])
@pytest.mark.parametrize("bits", [8, 12, 14])
def test_fewer_bits_keep_all_levels(tmp_path, kind, bits):
    values = np.minimum(EVERY, 2**bits - 1)
    path = write_png(tmp_path / "a.png", np.repeat(values, CHANNELS[kind], 2), kind)
    pixels = decode(path, 256, 3, "crop", bits).numpy()
    assert len(np.unique(pixels)) == 256
    assert np.array_equal(pixels[..., 0], (values[..., 0] * 255 / (2**bits - 1)).round().astype(np.uint8))


@pytest.mark.parametrize("kind", [TRANSLUCENT_GRAY, TRANSLUCENT])
def test_transparent_pixels_of_16_bits_become_white(tmp_path, kind):
    values = np.full((20, 20, CHANNELS[kind]), 30000)
    values[:10, :, -1], values[10:, :, -1] = 0, 65535
    pixels = decode(write_png(tmp_path / "a.png", values, kind), 20, 3, "crop").numpy()
    assert (pixels[:10] == 255).all()
    assert (pixels[10:] == round(30000 / 257)).all()


@pytest.mark.parametrize("kind", [GRAY, COLOUR])
def test_scans_are_rotated_by_their_exif_orientation(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    values = np.zeros((20, 20, CHANNELS[kind]))
    values[:10] = 65535
    path = write_png(tmp_path / "a.png", values, kind, chunk(b"eXIf", exif.tobytes()[6:]))
    pixels = decode(path, 20, 1, "crop")
    assert (int(pixels[0, 0]), int(pixels[-1, 0])) == (0, 255)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5), (5, 1)])
def test_images_of_one_line_are_decoded(tmp_path, width, height):
    path = write_png(tmp_path / "a.png", np.full((height, width, 1), 65535))
    assert (decode(path, 4, 1, "stretch") == 255).all()


def test_a_pgm_says_itself_what_is_white(tmp_path):
    values = np.arange(4096).reshape(64, 64)
    path = tmp_path / "a.pgm"
    path.write_bytes(b"P5\n# twelve bits\n64 64\n4095\n" + values.astype(">u2").tobytes())
    expected = (values * 255 / 4095).round()
    for bits in (16, 12):
        assert np.abs(decode(path, 64, 1, "crop", bits)[..., 0].numpy() - expected).max() <= 1
    path.write_bytes(b"P5\n64 64\n65535\n" + values.astype(">u2").tobytes())
    assert decode(path, 64, 1, "crop").max() == 16
    assert decode(path, 64, 1, "crop", 12).max() == 255


@pytest.mark.parametrize("kind", [GRAY, COLOUR])
def test_brighter_than_white_is_an_error_that_names_the_setting(tmp_path, kind):
    path = write_png(tmp_path / "a.png", np.full((20, 20, CHANNELS[kind]), 5000), kind)
    with pytest.raises(Undecodable, match=r"has values up to 5000 of 65535; data\.bits=12 makes 4095 white"):
        decode(path, 20, 3, "crop", 12)


def test_a_cut_file_in_colour_is_damaged(tmp_path):
    path = write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 65536, (20, 20, 3)), COLOUR)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(Undecodable, match="is damaged"):
        decode(path, 20, 3, "crop")


# A whole set ----------------------------------------------------------------------------------------------------------


def prepare_scans(folder: Path, **shared):
    return prepared("image_folder", folder.parent, shared, folder=folder.name)


@pytest.mark.parametrize("kind", [GRAY, COLOUR])
@pytest.mark.parametrize(("most", "share", "bits"), [(4095, 16, 12), (16383, 4, 14), (700, 64, 10), (40, 256, 8)])
def test_scans_that_use_a_part_of_their_range_are_noted_until_the_setting_says_so(tmp_path, kind, most, share, bits):
    folder = write_scans(tmp_path / "scans", most, kind)
    (note,) = prepare_scans(folder).notes
    assert note.startswith(f"grays: 24 images of 16 bits per channel use 1/{share} of their range, ")
    assert f"the brightest value is {most} of 65535 ({folder}/" in note
    assert note.endswith(f"; data.bits={bits} makes {2**bits - 1} white")
    data = prepare_scans(folder, bits=bits)
    assert not data.notes
    assert int(data.train.take(torch.arange(len(data.train))).max()) == round(most * 255 / (2**bits - 1))


def test_a_few_dark_scans_among_others_are_noted(tmp_path):
    folder = write_scans(tmp_path / "scans", 65535)
    for index in range(5):
        write_png(folder / "a" / f"dark{index}.png", np.random.default_rng(index).integers(0, 4096, (20, 20, 1)))
    (note,) = prepare_scans(folder).notes
    assert note.startswith("grays: 5 images of 16 bits per channel use 1/16 of their range")
    assert note.endswith("; data.bits=12 makes 4095 white, and refuses the 24 that use more")


@pytest.mark.parametrize("kind", [GRAY, COLOUR])
def test_scans_that_use_their_range_are_not_noted(tmp_path, kind):
    assert not prepare_scans(write_scans(tmp_path / "scans", 65535, kind)).notes


def test_dark_photographs_of_8_bits_are_not_noted(tmp_path):
    for label in "ab":
        for index in range(12):
            path = tmp_path / "own" / label / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draws = np.random.default_rng(index + 100 * ord(label))
            Image.fromarray(draws.integers(0, 9, (20, 20), np.uint8)).save(path)
    assert not prepare_scans(tmp_path / "own").notes


def test_pixels_of_16_bits_in_colour_have_changed_and_so_has_their_fingerprint(tmp_path):
    """Only of such sets: of all others it is that of the digests of their files."""
    import hashlib

    def of_digests(folder: Path) -> str:
        data = read("image_folder", folder.parent, folder=folder.name)
        digest = hashlib.sha256("\0".join(data.classes).encode())
        for part in (data.train, data.test):
            digest.update("".join(map(content_digest, part.pixels.paths)).encode())
            digest.update(part.labels.numpy().data)
        assert data.train.pixels.digests == tuple(map(content_digest, data.train.pixels.paths))
        return "as before" if digest.hexdigest() == data.fingerprint() else "changed"

    assert of_digests(write_scans(tmp_path / "gray", 4095)) == "as before"
    assert of_digests(write_scans(tmp_path / "colour", 4095, COLOUR)) == "changed"


def test_the_setting_is_part_of_a_runs_identity():
    scans = ("data=image_folder", "data.folder=scans")
    identities = [plan_of(*scans, *bits).config.identity() for bits in ((), ("data.bits=16",), ("data.bits=12",))]
    assert identities[0] == identities[1] != identities[2]


def test_the_setting_is_refused_where_nothing_has_16_bits(cnnbench):
    refused = cnnbench("data=digits", "data.bits=12")
    assert refused.code == 2
    assert "data.bits=12  has no effect: only files of photographs have 16 bits per channel" in refused.err


def test_a_run_predicts_as_it_was_trained_and_says_what_it_leaves_out(cnnbench, outputs, tmp_path):
    folder = write_scans(tmp_path / "scans", 4095)
    words = ("data=image_folder", f"data.folder={folder}", "data.channels=1", *TINY_TRAINING[:-2],
             "optimizer.lr=0.01", "augmentation=none")  # fmt: skip
    assert cnnbench(*words, "data.bits=12").code == 0
    run = only_run(outputs)
    new = tmp_path / "new"
    write_png(new / "a.png", np.random.default_rng(1).integers(0, 4096, (20, 20, 1)))
    (new / "b.tif").write_bytes(b"II*\0")
    (new / "list.txt").write_text("")
    outcome = cnnbench("predict", str(run), str(new))
    assert outcome.code == 0, outcome.err
    assert f"note: 1 image is of a format that is not read, left out; PNG would be: {new}/b.tif" in outcome.out
    assert f"note: 1 file is no image by name, left out: {new}/list.txt" in outcome.out
    assert "seen as black" not in outcome.out
    write_png(new / "c.png", np.full((20, 20, 1), 9000))
    assert (
        "c.png has values up to 9000 of 65535; data.bits=12 makes 4095 white"
        in cnnbench("predict", str(run), str(new)).err
    )


def test_a_prediction_of_a_scan_that_is_seen_as_black_is_noted(cnnbench, outputs, tmp_path):
    folder = write_scans(tmp_path / "scans", 65535)
    assert cnnbench("data=image_folder", f"data.folder={folder}", *TINY_TRAINING).code == 0
    dark = write_png(tmp_path / "new" / "a.png", np.full((20, 20, 1), 4095))
    outcome = cnnbench("predict", str(only_run(outputs)), str(dark))
    assert f"note: 1 image of 16 bits per channel, seen as black: at most 1/16 of the range: {dark}" in outcome.out


def test_images_that_are_not_read_are_named_before_a_training(tmp_path):
    folder = write_scans(tmp_path / "scans", 65535)
    (folder / "a" / "x.TIFF").write_bytes(b"II*\0")
    (folder / "a" / "Thumbs.db").write_bytes(b"")
    assert prepare_scans(folder).notes == (
        f"1 image is of a format that is not read, left out; PNG would be: {folder}/a/x.TIFF",
        f"1 file is no image by name, left out: {folder}/a/Thumbs.db",
    )
    for path in folder.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="there is no image below it"):
        prepare_scans(folder)
