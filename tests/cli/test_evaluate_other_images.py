"""`cnnbench evaluate RUN --data …`: images that the run was not made with."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cnnbench
from tests.support.interruption import finished
from tests.support.training import SMALL, prepared

pytestmark = pytest.mark.usefixtures("undrawn")


def test_other_images_are_normalised_with_the_statistics_of_the_run(run, evaluate):
    words = ("data.num_train=80", "data.num_classes=3", "data.num_test=25", "data.image_size=20")
    done = evaluate(run, "--data", "synthetic", *words, "data.noise=0.9")
    assert done.code == 0, done.err
    (folder,) = (run / "evaluation").iterdir()
    assert len(pd.read_csv(folder / "predictions.csv")) == 25
    mean = cnnbench.load_run(run).record["data"]["mean"]
    assert mean != pytest.approx(prepared(*SMALL, *words, "data.noise=0.9").data.mean)


def write_colours(folder: Path, counts: dict[str, int]) -> Path:
    """Write noise, each class with a colour of its own at the left, which a central square leaves out."""
    for name, count in counts.items():
        for index in range(count):
            pixels = np.random.default_rng((count, index)).integers(0, 60, (12, 24, 3), dtype=np.uint8)
            pixels[:, :6, "abc".index(name)] += 100
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{count}_{index}.png")
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory) -> Path:
    """Return a run on photographs of three classes, resized as a whole, which is no default."""
    folder = write_colours(tmp_path_factory.mktemp("colours") / "old", dict.fromkeys("abc", 10))
    words = ("data=image_folder", f"data.folder={folder}", "data.image_size=12", "data.crop=null", "data.fit=stretch",
             "model=mlp", "model.units=[]", "epochs=4", "batch_size=8", "threads=1", "report=false",
             "device=cpu")  # fmt: skip
    return finished(words, folder.parent / "outputs")


OTHERS = {  # images by class, of parts where there are some; how many are measured; how they are said to be chosen
    "no parts": ({"": {"a": 4, "b": 6, "c": 5}}, 15, "all, as there is no test part"),
    "one of each": ({"": {"a": 1, "b": 1, "c": 1}}, 3, "all, as"),
    "some classes": ({"": {"c": 4, "b": 2}}, 6, "all, as"),
    "one class": ({"": {"b": 7}}, 7, "all, as"),
    "parts": ({"Training": {"a": 4, "b": 4}, "Testing": {"a": 2, "b": 3}}, 5, "those of its test part"),
    "no test part": ({"train": {"a": 4, "b": 4}, "val": {"a": 2, "b": 3}}, 13, "all, as"),
}


@pytest.mark.parametrize(("parts", "number", "said"), OTHERS.values(), ids=OTHERS)
def test_all_other_images_are_measured_or_those_of_their_test_part(parts, number, said, colours, evaluate, tmp_path):
    for part, counts in parts.items():
        write_colours(tmp_path / "new" / part, counts)
    done = evaluate(colours, "--out", tmp_path / "out", "--data", "image_folder", f"data.folder={tmp_path / 'new'}")
    assert done.code == 0, done.err
    table = pd.read_csv(tmp_path / "out" / "predictions.csv")
    assert (len(table), table["file"].is_unique) == (number, True)
    assert [Path(file).parent.name for file in table["file"]] == list(table["class"])
    assert table["right"].all()
    assert f"note: {number} images of {tmp_path}/new: {said}" in done.out


def test_all_images_of_another_list_are_measured(colours, evaluate, tmp_path):
    write_colours(tmp_path / "new", {"a": 3, "c": 3})
    lines = [f"{name}/3_{index}.png,{name}" for name in "ac" for index in range(3)]
    (tmp_path / "new" / "list.csv").write_text("\n".join(["path,label", *lines]))
    words = ("--data", "csv", f"data.folder={tmp_path / 'new'}", "data.train=list.csv")
    assert evaluate(colours, "--out", tmp_path / "out", *words).code == 0
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 6


def test_other_images_that_are_damaged_are_an_error_and_never_left_out(colours, evaluate, tmp_path):
    folder = write_colours(tmp_path / "new", {"a": 3, "c": 3})
    (folder / "a" / "damaged.png").write_bytes(b"no image")
    done = evaluate(colours, "--data", "image_folder", f"data.folder={folder}", "data.on_problem=skip")
    assert (done.code, "a/damaged.png is no image" in done.err) == (2, True)
