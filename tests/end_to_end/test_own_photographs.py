"""Photographs of one's own, from a folder that is not this repository: three commands, typed as one types them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cnnbench.config.compose import read_word
from tests.conftest import only_run

SMALL = ("data.image_size=20", "data.crop=16", "threads=1", "device=cpu", "report=false")


def draw(folder: Path, number: int = 10) -> Path:
    """Draw circles and squares, as photographs of cats and dogs."""
    draws = np.random.default_rng(0)
    for name, shape in (("cat", "ellipse"), ("dog", "rectangle")):
        (folder / name).mkdir(parents=True)
        for index in range(1, number + 1):
            red, green, blue, x, y = (int(value) for value in draws.integers(0, 50, 5))
            image = Image.new("RGB", (120, 90), (red, green, blue))
            getattr(ImageDraw.Draw(image), shape)([x, y // 2, x + 50, y // 2 + 50], fill=(250, 200, blue))
            image.save(folder / name / f"{index}.jpg")
    return folder


def test_three_commands_at_the_first_try(cnnbench, command_of, outputs):
    draw(Path("my_photos"))
    info = command_of("data", "info", "image_folder", "data.folder=my_photos")
    assert info.code == 0, info.err
    assert info.out.splitlines()[-2:] == [
        "  cat         7           1         2",
        "  dog         7           1         2",
    ]
    words = ("data=image_folder", "data.folder=my_photos", "model=resnet18_cifar", "model.width=4", "epochs=2")
    training = cnnbench(*words, *SMALL)
    assert training.code == 0, training.err
    predicted = command_of("predict", "last", "my_photos/cat/1.jpg")
    assert predicted.code == 0, predicted.err
    assert predicted.out.split()[:2] == [str(only_run(outputs)), "my_photos/cat/1.jpg"]
    assert {"cat", "dog"} <= set(predicted.out.split())


@pytest.mark.parametrize("name", ["Größe (1)", "cats & dogs", "Anna's", "~/photos", "x=y"])
def test_a_folder_may_have_any_name(cnnbench, command_of, outputs, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    draw(Path(name).expanduser(), number=6)
    words = ("data=image_folder", f"data.folder={name}", "model=mlp", "epochs=1", *SMALL)
    training = cnnbench(*words)
    assert training.code == 0, training.err
    run = only_run(outputs)
    monkeypatch.chdir("/")
    assert cnnbench(f"resume={run}", "epochs=2").code == 0


def test_several_folders_can_be_swept_whatever_their_names(cnnbench, outputs):
    for name in ("Größe (1)", "plain"):
        draw(Path(name), number=6)
    sweep = cnnbench("-m", "data=image_folder", "data.folder=Größe (1),plain", "model=mlp", "epochs=1", *SMALL)
    assert sweep.code == 0, sweep.err
    assert len(list(outputs.glob("*/*/*/result.json"))) == 2


def test_a_path_in_quotes_is_the_path_and_other_settings_are_no_paths():
    assert read_word("data.folder='a, b (1)'").value() == "a, b (1)"
    assert read_word("data.folder=a b").value() == "a b"
    assert read_word("data.folder=null").value() is None
    assert "is not of the form key=value" in read_word("epochs=(1)").problem


def test_runs_in_the_folder_itself_are_no_photographs(cnnbench, command_of, monkeypatch):
    monkeypatch.delenv("CNNBENCH_OUTPUTS")
    monkeypatch.chdir(draw(Path("my_photos")))
    words = ("data=image_folder", "data.folder=.", "model=mlp", "epochs=1", *SMALL[:-1])
    assert cnnbench(*words).code == 0
    assert list(Path("outputs").rglob("*.png"))
    again = cnnbench(*words)
    assert again.code == 0, again.err
    info = command_of("data", "info", "image_folder", "data.folder=.")
    assert "  classes      2\n" in info.out


def test_a_folder_called_outputs_without_runs_is_a_class(command_of, monkeypatch):
    monkeypatch.delenv("CNNBENCH_OUTPUTS")
    draw(Path()).joinpath("cat").rename("outputs")
    assert "  outputs     " in command_of("data", "info", "image_folder", "data.folder=.").out
