"""Photographs of one's own, from a folder that is not this repository: three commands, typed as one types them."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cnnbench.cli.catalog import run_folders
from cnnbench.config.compose import read_word
from cnnbench.data import prepare as preparing
from tests.conftest import only_run
from tests.support.selection import everyday

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


USUAL = "Größe (1)", "Anna's", "~/photos", "{a:b}", "lr=0.1,b"
NAMES = *USUAL, "cats & dogs", "x=y", "a,b", "a{b}", "[1]", "2019", "true"


@pytest.mark.parametrize("name", everyday(NAMES, USUAL))
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


def test_a_path_with_a_comma_that_is_not_there_may_be_several(cnnbench, outputs):
    refused = cnnbench("data=image_folder", "data.folder=x,y", "model=mlp", "epochs=1", *SMALL)
    assert refused.code == 2
    assert """run each of them; one path with a comma is typed 'data.folder="…"'""" in refused.err
    assert "1 mistake in" in refused.err  # and not that it must be given
    draw(Path("above") / "x,y", number=6)  # where it is found only below data.root
    assert (
        cnnbench("data=image_folder", 'data.folder="x,y"', "data.root=above", "model=mlp", "epochs=1", *SMALL).code == 0
    )


def test_a_name_that_is_no_text_is_refused_in_one_sentence(cnnbench, outputs):
    refused = cnnbench("data=image_folder", os.fsdecode(b"data.folder=photo\xe4"), "model=mlp", "epochs=1", *SMALL)
    assert refused.code == 2
    assert "1 mistake in the configuration" in refused.err
    assert "data.folder='photo\\xe4'  is not text in UTF-8; give the file or folder another name" in refused.err


def test_runs_below_folders_with_brackets_are_found(cnnbench, command_of, monkeypatch):
    draw(Path("my_photos"), number=6)
    monkeypatch.setenv("CNNBENCH_OUTPUTS", "archive [1]/outputs")
    assert cnnbench("data=image_folder", "data.folder=my_photos", "model=mlp", "epochs=1", *SMALL).code == 0
    for words in (("report", "archive [1]/outputs"), ("report", "archive [1]/*"), ("list",)):
        done = command_of(*words)
        assert done.code == 0, done.err
    run = only_run(Path("archive [1]/outputs"))
    assert run_folders() == [str(Path("archive [1]/outputs") / run.relative_to(run.parents[2])), "last"]


def test_a_path_in_quotes_is_the_path_and_other_settings_are_no_paths():
    assert read_word("data.folder='a, b (1)'").value() == "a, b (1)"
    assert read_word("data.folder=a b").value() == "a b"
    assert read_word("data.folder=[a]").value() == "[a]"
    assert read_word("data.folder=007").value() == "007"
    assert read_word("data.folder=.").value() == "."
    assert read_word("data.folder='a, b',c (1)").is_sweep_override()
    assert read_word("data.folder=c,'a, b'").is_sweep_override()
    assert read_word("data.folder=null").value() is None
    assert "cannot be read" in read_word("epochs=(1)").problem


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


def test_a_photograph_that_is_gone_and_changes_the_batch_size_is_said_to_make_another_run(cnnbench, outputs):
    photos = draw(Path("my_photos"))
    words = ("data=image_folder", "data.folder=my_photos", "model=mlp", "epochs=1", *SMALL)
    assert "before; since then" not in cnnbench(*words).out
    run = only_run(outputs)
    (photos / "cat" / "1.jpg").unlink()
    preparing._load.cache_clear()
    said = f"note: the same command made {run} before; since then batch_size was 14, and is 13\n"
    assert said in cnnbench(*words).out
    assert "before; since then" not in cnnbench(*words, "rerun=true").out
