"""Decoding an image: one documented conversion of every kind of file, and a reason for each that cannot be used."""

import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from cnnbench.data import decode as decoding
from cnnbench.data.decode import Undecodable, decode
from tests.support.photographs import photograph, pixels_of

SIZES = [(30, 24), (24, 30), (20, 20), (10, 7), (7, 40), (41, 20), (40, 40), (33, 100), (20, 21)]


def decoded(path: Path, side: int = 20, channels: int = 3, fit: str = "crop") -> np.ndarray:
    return decode(path, side, channels, fit).numpy()


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def converted(path: Path, side: int, channels: int = 3) -> np.ndarray:
    """Return a square image of that side, which needs conversion only, no resizing."""
    return decoded(path, side, channels)


@pytest.mark.parametrize("side", [20, 17])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_crop_is_torchvisions_resize_of_the_shorter_side_and_centre_crop(tmp_path, width, height, side):
    path = photograph(tmp_path / "a.png", 1, width, height)
    theirs = v2.Compose([v2.Resize(side, v2.InterpolationMode.BILINEAR), v2.CenterCrop(side)])
    with Image.open(path) as image:
        assert np.array_equal(decoded(path, side), np.asarray(theirs(image)))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_stretching_is_pillows_resize_of_both_sides(tmp_path, width, height):
    path = photograph(tmp_path / "a.png", 1, width, height)
    with Image.open(path) as image:
        expected = np.asarray(image.resize((20, 20), Image.Resampling.BILINEAR))
    assert np.array_equal(decoded(path, fit="stretch"), expected)


def test_an_image_of_the_right_size_stays_as_it_is(tmp_path):
    path = photograph(tmp_path / "a.png", 3, 20, 20)
    assert np.array_equal(decoded(path), pixels_of(3, 20, 20))
    assert decoded(path).flags.writeable


def test_a_network_sees_the_central_224_of_256_pixels():
    """Batches crop what the cache holds; the central crop of 256 leaves 16 pixels on every side."""
    from cnnbench.data.images import DataSpec, Images
    from cnnbench.data.loader import Batches

    pixels = torch.arange(256).byte().view(1, 1, 1, 256).expand(1, 1, 256, 256)
    spec = DataSpec(1, 224, 224, ("a",))
    batches = Batches(Images(pixels, torch.tensor([0])), spec, (0.0,), (1.0,), torch.device("cpu"))
    (batch,) = batches.epoch(torch.tensor([0]), 1)
    assert torch.equal(batch.images[0, 0, 0].mul(255).round(), torch.arange(16.0, 240.0))


def test_gray_is_repeated_and_colour_becomes_luminance(tmp_path):
    colour, gray = pixels_of(1, 20, 20), pixels_of(2, 20, 20, 1)[..., 0]
    in_colour = saved(tmp_path / "c.png", Image.fromarray(colour))
    in_gray = saved(tmp_path / "g.png", Image.fromarray(gray))
    assert np.array_equal(converted(in_gray, 20), np.repeat(gray[..., None], 3, 2))
    assert np.array_equal(converted(in_gray, 20, 1)[..., 0], gray)
    luminance = (colour * np.array([0.299, 0.587, 0.114])).sum(2)
    assert np.abs(converted(in_colour, 20, 1)[..., 0] - luminance).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.pgm"])
def test_sixteen_bits_become_eight_with_white_as_white(tmp_path, name):
    deep = np.linspace(0, 65535, 400).round().astype(np.uint16).reshape(20, 20)
    path = saved(tmp_path / name, Image.fromarray(deep))
    got = converted(path, 20, 1)[..., 0]
    assert np.array_equal(got, (deep / 257).round().astype(np.uint8))
    assert (got.min(), got.max()) == (0, 255)


def test_transparent_pixels_become_white(tmp_path):
    colours = np.dstack([pixels_of(1, 20, 20), np.full((20, 20), 255, np.uint8)])
    colours[:10, :, 3] = 0
    colours[10, :, 3] = 128
    got = converted(saved(tmp_path / "a.png", Image.fromarray(colours)), 20).astype(int)
    assert (got[:10] == 255).all()
    assert np.array_equal(got[11:], colours[11:, :, :3])
    half = colours[10, :, :3] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(got[10] - half).max() <= 1


def test_a_palette_becomes_its_colours_and_a_transparent_one_of_them_white(tmp_path):
    image = Image.fromarray((np.arange(400) % 3).astype(np.uint8).reshape(20, 20), mode="L").convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    plain, clear = saved(tmp_path / "a.png", image), saved(tmp_path / "b.gif", image, transparency=1)
    assert converted(plain, 20)[0, :3].tolist() == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert converted(clear, 20)[0, :3].tolist() == [[255, 0, 0], [255, 255, 255], [0, 0, 255]]


def test_cmyk_becomes_rgb(tmp_path):
    ink = Image.new("CMYK", (20, 20), (255, 0, 0, 0))
    red, green, blue = converted(saved(tmp_path / "a.jpg", ink, quality=100), 20).reshape(-1, 3).mean(0)
    assert red < 5
    assert min(green, blue) > 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_rotated_by_its_exif_orientation(tmp_path, orientation):
    blocks = np.kron(np.array([[0, 80], [160, 240]], np.uint8), np.ones((16, 16), np.uint8))
    corner = {1: 0, 2: 80, 3: 240, 4: 160, 5: 0, 6: 160, 7: 240, 8: 80}[orientation]  # seen at the upper left
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(blocks).save(path, exif=exif, quality=100)
    assert abs(int(converted(path, 32, 1)[4, 4, 0]) - corner) < 6


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_of_an_animation_the_first_frame_is_used(tmp_path, name):
    first, second = (Image.new("RGB", (20, 20), colour) for colour in ("black", "white"))
    path = saved(tmp_path / name, first, save_all=True, append_images=[second])
    assert converted(path, 20).max() < 5


def test_a_phones_picture_with_a_second_one_inside_is_a_jpeg(tmp_path):
    image = Image.fromarray(pixels_of(1))
    path = saved(tmp_path / "a.jpg", image, format="MPO", save_all=True, append_images=[image])
    assert decoded(path).shape == (20, 20, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_is_ignored(tmp_path):
    image = Image.fromarray(pixels_of(1, 20, 20))
    plain, damaged = (
        saved(tmp_path / "a.jpg", image),
        saved(tmp_path / "b.jpg", image, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"),
    )
    assert np.array_equal(decoded(plain), decoded(damaged))


def test_a_format_is_known_by_the_content_and_not_by_the_name(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.fromarray(pixels_of(3, 20, 20)), format="PNG")
    assert np.array_equal(decoded(path), pixels_of(3, 20, 20))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG with a header of that size and no pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg() -> bytes:
    import io

    file = io.BytesIO()
    Image.fromarray(pixels_of(1, 64, 64)).save(file, "JPEG")
    return file.getvalue()


BROKEN = {
    "empty": (b"", "^is empty$"),
    "text": (b"<html>404</html>", r"^is no image of a known format \(JPEG, PNG, BMP, GIF, WEBP, PPM\)$"),
    "cut": (jpeg()[: len(jpeg()) // 2], "^is damaged: image file is truncated"),
    "50 000 by 50 000": (png_header(50_000, 50_000), "^has more than 100 000 000 pixels$"),
    "12 000 by 9 000": (png_header(12_000, 9_000), "^has more than 100 000 000 pixels$"),
    "cut png": (png_header(30, 30), "^is damaged: "),
    "fractions": (b"Pf 2 2 -1.0\n" + bytes(16), "^has fractions for pixels"),
}


@pytest.mark.filterwarnings("ignore:Image size")  # as in decode.py, whose filter pytest's own precede
@pytest.mark.parametrize(("content", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_used_says_why(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(Undecodable, match=reason):
        decoded(path)


@pytest.mark.parametrize("kind", ["TIFF", "EPS", "ICO", "PDF"])
def test_formats_with_a_history_of_security_holes_are_refused_whatever_their_name(tmp_path, kind):
    path = saved(tmp_path / "a.png", Image.fromarray(pixels_of(1)), format=kind)
    with pytest.raises(Undecodable, match="is no image of a known format"):
        decoded(path)


def test_a_file_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    with pytest.raises(Undecodable, match=r"^cannot be read: No such file or directory$"):
        decoded(tmp_path / "a.jpg")
    path = photograph(tmp_path / "b.png", 1)

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(decoding.Image, "open", refuse)
    with pytest.raises(Undecodable, match=r"^cannot be read: Permission denied$"):
        decoded(path)


def test_an_extreme_aspect_ratio_is_refused(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("L", (1, 40_000)))
    with pytest.raises(Undecodable, match=r"^is too long for its 1 pixels across$"):
        decoded(path, 64)
    assert decoded(path, 64, fit="stretch").shape == (64, 64, 3)


def test_too_little_memory_is_not_blamed_on_the_image(tmp_path, monkeypatch):
    path = photograph(tmp_path / "a.png", 1)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(decoding, "_plain", fail)
    with pytest.raises(MemoryError):
        decoded(path)


def test_decoding_in_many_threads_leaves_warning_filters_alone(tmp_path):
    paths = [photograph(tmp_path / f"{index}.png", index, 200, 200) for index in range(20)]
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decoded(path) for path in paths]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
