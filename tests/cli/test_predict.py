"""`cnnbench predict`: classes of image files and of images of a run's own data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnbench
from cnnbench.analysis.predict import images_from_files
from cnnbench.data.decode import decode
from tests.conftest import ended
from tests.support.interruption import finished
from tests.support.photographs import write_classes
from tests.tasks.test_tasks import words_of


@pytest.fixture
def predict(capsys):
    return lambda *words: ended("predict", [str(word) for word in words], capsys)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 30, 3), dtype=np.uint8)
    for number, name in enumerate(("a.png", "b.jpg", "c.png")):
        Image.fromarray(pixels[number]).save(folder / name)
    return folder


def test_files_are_converted_as_in_training_and_their_classes_predicted(run, photos, predict):
    done = predict(run, photos, "--json", "--top-k", "2")
    assert done.code == 0, done.err
    predictions = json.loads(done.out)
    opened = cnnbench.load_run(run)
    assert [Path(one["image"]).name for one in predictions] == ["a.png", "b.jpg", "c.png"]
    for one in predictions:
        pixels = decode(Path(one["image"]), 20, 3, "crop").permute(2, 0, 1).unsqueeze(0)
        best = opened.predict(pixels)[0].topk(2)
        expected = [opened.classes[label] for label in best.indices.tolist()]
        assert [answer["class"] for answer in one["answers"]] == expected
        assert [answer["probability"] for answer in one["answers"]] == best.values.tolist()


def test_images_of_the_runs_own_data_come_with_their_class(run, predict):
    predictions = json.loads(predict(run, "--split", "test", "--index", "3,0", "--json").out)
    opened = cnnbench.load_run(run)
    images = opened.data("test")
    assert [one["class"] for one in predictions] == [opened.classes[images.labels[row]] for row in (3, 0)]
    probabilities = opened.predict(images.take(torch.tensor([3, 0])))
    for one, row in zip(predictions, probabilities, strict=True):
        answered = {answer["class"]: answer["probability"] for answer in one["answers"]}
        assert list(answered.values()) == sorted(answered.values(), reverse=True)
        assert answered == {name: pytest.approx(float(row[label])) for label, name in enumerate(opened.classes)}
    lines = predict(run, "--index", "3,0", "--top-k", "1").out.splitlines()  # of the test images, as for explain
    assert len(lines) == 2
    for line, one in zip(lines, predictions, strict=True):
        right = one["class"] == one["answers"][0]["class"]
        assert line.startswith(
            f"  {one['image']}  {one['class']} {'✓' if right else '✗'}  {one['answers'][0]['class']}"
        )


def test_each_image_is_drawn_next_to_its_predictions(run, photos, predict, tmp_path):
    assert predict(run, photos, "--picture", tmp_path / "panel.png").code == 0
    with Image.open(tmp_path / "panel.png") as picture:
        assert picture.height > 500
    again = predict(run, photos, "--picture", tmp_path / "panel.png")
    assert (again.code, "is not overwritten; give another name" in again.err) == (2, True)
    done = predict(run, photos, "--picture", tmp_path / "nowhere" / "panel.png")
    assert (done.code, "cannot be written" in done.err) == (2, True)


def test_colours_that_the_network_does_not_see_are_noted(tmp_path):
    for name, color in {"red": (250, 20, 30), "gray": (90, 90, 90)}.items():
        Image.new("RGB", (40, 40), color).save(tmp_path / f"{name}.jpg")
    for channels, notes in {1: ["1 image in colour, seen in gray, 16x16, as the network was trained"], 3: []}.items():
        decoded = images_from_files(
            [str(tmp_path)], lambda path, to=channels: decode(path, 16, to, "whole").movedim(2, 0)
        )
        assert decoded[2] == notes


def test_unusable_files_are_named_and_the_others_predicted(run, photos, predict):
    (photos / "broken.jpg").write_bytes(b"")
    done = predict(run, photos)
    assert done.code == 2
    assert len(done.out.splitlines()) == 3
    assert f"{photos / 'broken.jpg'} is empty" in done.err


def test_a_hostile_name_moves_no_cursor(run, photos, predict):
    (photos / "a.png").rename(photos / "\x1b[2J\n<b>.png")
    out = predict(run, photos).out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3


REFUSED = {
    "": "give files or folders of images, or --index N,N,… for images of the run's own",
    "photos --index 1": "for images of the run's own data, not both",
    "photos --split test": "for images of the run's own data, not both",
    "--split test": "--index N,N,… says which images of test",
    "--split test --index 1,x": "must be whole numbers separated by commas",
    "--split test --index 1,99": "--index '99': test has 40 images, counted from 0",
    "photos --top-k 0": "must be at least 1",
    "nowhere.png": "nowhere.png: no such file or folder",
}


@pytest.mark.parametrize("words", REFUSED)
def test_contradicting_arguments_are_refused(words, run, predict):
    done = predict(run, *words.split())
    assert done.code == 2
    assert REFUSED[words] in done.err


def test_a_folder_without_usable_images_is_refused(run, predict, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    done = predict(run, folder)
    assert (done.code, str(folder) in done.err) == (2, True)
    (folder / "empty.png").write_bytes(b"")
    done = predict(run, folder)
    assert (done.code, f"there is no image that can be used:\n  {folder / 'empty.png'} is empty" in done.err) == (
        2,
        True,
    )


def test_a_task_without_classes_is_refused(finished_once, photos, predict):
    done = predict(finished_once(*words_of("siamese")), photos)
    assert (
        done.code,
        "task siamese does not predict classes; in Python, run.map(run.model(), run.batches(), …)" in done.err,
    ) == (2, True)


def test_photographs_are_converted_as_in_training(tmp_path, predict):
    folder = write_classes(tmp_path / "classes", {"cat": 8, "dog": 8})
    words = (
        "data=image_folder",
        f"data.folder={folder}",
        "data.image_size=20",
        "data.crop=16",
        "data.test_fraction=0.25",
    )
    words += (
        "data.channels=1",
        "data.fit=stretch",
        "model=lenet",
        "epochs=1",
        "batch_size=4",
        "threads=1",
        "report=false",
        "device=cpu",
    )
    run = finished(words, tmp_path / "photographs")
    opened = cnnbench.load_run(run)
    file = next(folder.glob("cat/*"))
    (one,) = json.loads(predict(run, file, "--json").out)
    expected = opened.predict(decode(file, 20, 1, "stretch").permute(2, 0, 1).unsqueeze(0))[0]
    assert {answer["probability"] for answer in one["answers"]} == set(expected.tolist())


# Published networks ---------------------------------------------------------------------------------------------------


def test_a_published_network_predicts_its_own_classes(photos, predict, monkeypatch):
    import torchvision.models as zoo

    torch.manual_seed(0)
    state = zoo.get_model("squeezenet1_1").state_dict()
    monkeypatch.setattr(zoo.SqueezeNet1_1_Weights, "get_state_dict", lambda *_, **__: state)
    done = predict("torchvision/squeezenet1_1", photos / "a.png", "--json", "--top-k", "3")
    assert done.code == 0, done.err
    (one,) = json.loads(done.out)
    weights = zoo.SqueezeNet1_1_Weights.DEFAULT
    network = zoo.get_model("squeezenet1_1")
    network.load_state_dict(state)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (weights.transforms().mean, weights.transforms().std))
    pixels = decode(photos / "a.png", 256, 3, "crop").permute(2, 0, 1)[:, 16:240, 16:240] / 255
    with torch.inference_mode():
        best = network.eval()(((pixels - mean) / std).unsqueeze(0)).softmax(1)[0].topk(3)
    assert [answer["class"] for answer in one["answers"]] == [
        weights.meta["categories"][label] for label in best.indices.tolist()
    ]
    assert [answer["probability"] for answer in one["answers"]] == pytest.approx(best.values.tolist(), rel=1e-4)


def test_an_unknown_published_network_is_refused(predict, photos):
    done = predict("torchvision/resnet5", photos)
    assert (done.code, "did you mean 'resnet50'?" in done.err) == (2, True)
    done = predict("torchvision/resnet50", "--split", "test", "--index", "0")
    assert (done.code, "has no data of its own" in done.err) == (2, True)


def test_the_size_of_images_is_read_from_the_run_or_from_its_data(run):
    assert cnnbench.load_run(run).size == (3, 20, 20)
    record = json.loads((run / "run.json").read_text())
    del record["data"]["size"]
    (run / "run.json").write_text(json.dumps(record))
    assert cnnbench.load_run(run).size == (3, 20, 20)
