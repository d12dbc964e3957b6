"""Lists, links and images of others: nothing outside of the folder is read, nothing hangs, and every file is named."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from cnnbench.data import decode as decoding
from cnnbench.data.decode import FORMATS, MAX_PIXELS, Undecodable, decode
from cnnbench.data.image_files import MAX_VISITS, find_images
from cnnbench.errors import UserError
from tests.support.photographs import labels_by_file, photograph, prepared, read, write_classes


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder with six images of each of two classes; next to it is one that is nobody's business."""
    photograph(tmp_path / "secret" / "0.png", 99)
    folder = write_classes(tmp_path / "listed", {"x": 6, "y": 6})
    (folder / "link.png").symlink_to(tmp_path / "secret" / "0.png")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to("loop")
    (folder / "inner.png").symlink_to("x/0000.png")
    return folder


def with_line(folder: Path, path: str, **settings):
    lines = [f"{name}/{index:04}.png,{name}" for name in "xy" for index in range(1, 6)]
    text = "\n".join(["path,label", *lines[:3], f'"{path}",x', *lines[3:]])
    (folder / "list.csv").write_bytes(text.encode())
    return read("csv", folder.parent, folder=folder.name, train="list.csv", **settings)


OUTSIDE = {
    "above": "../../etc/passwd",
    "above, and back": "../secret/0.png",
    "above, by a way": "x/../../secret/0.png",
    "absolute": "/etc/passwd",
    "a link": "link.png",
    "a linked folder": "out/0.png",
    "a linked folder, and back": "out/../secret/0.png",
}
NO_PATHS = {
    "NUL": ("x/0000.png\0.txt", r"x/0000.png\x00.txt is no path"),
    "an address": ("https://example.org/0.png", "https://example.org/0.png is an address; nothing is downloaded"),
    "a file address": ("file:///etc/passwd", "file:///etc/passwd is an address"),
    "Windows": (r"x\0000.png", r"x\0000.png is a path of Windows: write it with /"),
    "Windows, above": (r"..\secret\0.png", r"..\secret\0.png is a path of Windows"),
    "a drive": ("C:/photos/0.png", "C:/photos/0.png is a path of Windows"),
    "a share": (r"\\server\share\0.png", "is a path of Windows"),
    "codes": ("../\x1b[2J", r"../\x1b[2J leads out of the folder"),
}


@pytest.mark.parametrize("path", OUTSIDE.values(), ids=OUTSIDE)
def test_a_list_that_leads_out_of_its_folder_is_refused_with_the_line(folder, path):
    with pytest.raises(UserError) as refused:
        with_line(folder, path)
    assert str(refused.value) == (
        f"{folder}/list.csv: 1 of its paths are not used:\n"
        f"  line 5: {path} leads out of the folder; data.follow_links=true accepts that"
    )


@pytest.mark.parametrize(("path", "problem"), NO_PATHS.values(), ids=NO_PATHS)
def test_what_is_no_path_is_refused_with_the_line(folder, path, problem):
    with pytest.raises(UserError) as refused:
        with_line(folder, path, follow_links="leads out" not in problem)
    assert f"\n  line 5: {problem}" in str(refused.value) or f"line 5: {path} {problem}" in str(refused.value)
    assert "\0" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


@pytest.mark.parametrize("path", ["../secret/0.png", "link.png", "out/0.png", "ABSOLUTE"])
def test_whoever_wants_paths_that_lead_out_says_so(folder, path):
    path = path.replace("ABSOLUTE", str(folder.parent / "secret" / "0.png"))
    data = with_line(folder, path, follow_links=True)
    assert sum(len(part) for part in (data.train, data.test)) == 11


@pytest.mark.parametrize("path", ["inner.png", "x/../y/0000.png", "./x/0000.png", "ABSOLUTE", "..x/0.png"])
def test_paths_that_stay_inside_are_used_however_they_are_written(folder, path):
    photograph(folder / "..x" / "0.png", 77)
    data = with_line(folder, path.replace("ABSOLUTE", str(folder / "x" / "0000.png")))
    assert len(labels_by_file(data)) == 11


def test_a_link_to_itself_is_said_not_to_be_there(folder):
    with pytest.raises(UserError, match=r"1 of its 11 files are not there:\n  line 5: loop is not there$"):
        with_line(folder, "loop")


def test_twenty_lines_are_shown_and_the_rest_is_counted(folder):
    (folder / "list.csv").write_text("path,label\n" + "../x.png,x\n" * 30)
    with pytest.raises(UserError) as refused:
        read("csv", folder.parent, folder=folder.name, train="list.csv")
    lines = str(refused.value).splitlines()
    assert lines[0].endswith("30 of its paths are not used:")
    assert (len(lines), lines[-1]) == (22, "  and 10 more")


# Links ----------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(20)
def test_links_that_double_the_ways_with_every_level_end(tmp_path):
    for level in range(40):
        (tmp_path / "own" / f"d{level}").mkdir(parents=True)
        for name in "ab":
            (tmp_path / "own" / f"d{level}" / name).symlink_to(f"../d{level + 1}")
    photograph(tmp_path / "own" / "d40" / "1.png", 1)
    with pytest.raises(UserError, match=rf"links lead to \S+ in more than {MAX_VISITS} ways"):
        find_images(tmp_path / "own")


@pytest.mark.timeout(20)
def test_circles_of_links_end(tmp_path):
    folder = write_classes(tmp_path / "own", {"a": 2, "b": 2})
    for name in "ab":
        for other in ("a", "b", ".", "a/up", "b/up"):
            (folder / name / f"to-{other.replace('/', '-').replace('.', 'top')}").symlink_to(f"../{other}")
        (folder / name / "up").symlink_to("..")
    found = find_images(folder).images
    assert {path.resolve() for path in found} == {
        folder / name / f"000{index}.png" for name in "ab" for index in (0, 1)
    }


# Images ---------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def as_format(kind: str) -> Callable[[], bytes]:
    def write() -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, kind)
        return buffer.getvalue()

    return write


BOMB = zlib.compress(b"\0" * 200_000_000)
IMAGES = {
    "50 000 x 50 000": (lambda: png(50_000, 50_000), "has more than 100 000 000 pixels"),
    "2**31 x 2**31": (lambda: png(2**31 - 1, 2**31 - 1), "has more than 100 000 000 pixels"),
    "BMP of 50 000 x 50 000": (
        lambda: b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "has more than 100 000 000 pixels",
    ),
    "PPM of 50 000 x 50 000": (lambda: b"P6 50000 50000 255\n", "has more than 100 000 000 pixels"),
    "a text of 200 MB": (lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + BOMB)), "is damaged: "),
    "a profile of 200 MB": (lambda: png(8, 8, chunk(b"iCCP", b"a\0\0" + BOMB)), "is damaged: "),
    "an international text of 200 MB": (
        lambda: png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)), "is damaged: ",
    ),
    "no pixels": (lambda: png(8, 8), "is damaged: "),
    "TIFF": (as_format("TIFF"), "is no image of a known format"),
    "EPS": (as_format("EPS"), "is no image of a known format"),
    "ICO": (as_format("ICO"), "is no image of a known format"),
    "PDF": (as_format("PDF"), "is no image of a known format"),
    "PCX": (as_format("PCX"), "is no image of a known format"),
    "PSD": (lambda: b"8BPS\0\1" + b"\0" * 200, "is no image of a known format"),
    "FITS": (lambda: b"SIMPLE  =                    T" + b" " * 2850, "is no image of a known format"),
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script>x</script></svg>", "no image of a known format"),
    "a pickle": (lambda: b"cposix\nsystem\n(S'touch canary'\ntR.", "is no image of a known format"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(("content", "reason"), IMAGES.values(), ids=IMAGES)
@pytest.mark.timeout(20)
def test_an_image_that_is_a_bomb_or_another_thing_is_one_unusable_file(tmp_path, content, reason):
    path = tmp_path / "0.png"
    path.write_bytes(content())
    began = time.monotonic()
    with pytest.raises(Undecodable) as refused:
        decode(path, 16, 3, "crop")
    assert time.monotonic() - began < 5
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_limits_are_those_that_are_written_down():
    assert FORMATS == ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM")
    assert MAX_PIXELS == 100_000_000
    assert PngImagePlugin.MAX_TEXT_CHUNK <= 2**20
    assert PngImagePlugin.MAX_TEXT_MEMORY <= 2**26


@pytest.mark.parametrize(
    "error", [ValueError, SyntaxError, struct.error, IndexError, RecursionError, ZeroDivisionError]
)
def test_whatever_a_decoder_raises_is_reported_for_the_file(folder, monkeypatch, error):
    (folder / "link.png").unlink()
    (folder / "out").unlink()
    (folder / "inner.png").unlink()
    damaged = folder / "x" / "0003.png"
    plain = decoding._plain

    def fail(image):
        if Path(image.fp.name) == damaged:
            raise error("broken \x1b[2J inside")
        return plain(image)

    monkeypatch.setattr(decoding.ImageOps, "exif_transpose", lambda image: image)
    monkeypatch.setattr(decoding, "_plain", fail)
    with pytest.raises(UserError) as refused:
        prepared("image_folder", folder.parent, folder=folder.name)
    assert rf"{damaged} is damaged: broken \x1b[2J inside" in str(refused.value)
