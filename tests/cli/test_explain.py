"""`cnnbench explain`: which figures are drawn, for which images, and what is refused."""

import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from cnnbench.analysis.explanation import layers
from cnnbench.analysis.explanation.explainer import explainer_of
from cnnbench.analysis.explanation.layers import NotPossible
from cnnbench.analysis.explanation.pictures import KINDS as DRAW
from cnnbench.analysis.loading import load_run
from cnnbench.cli.explain import KINDS
from cnnbench.errors import UserError
from cnnbench.tasks.figures import plain
from tests.conftest import ended
from tests.support.explaining import NETWORKS, ONCE, TASKS, untrained
from tests.support.interruption import fingerprints, finished
from tests.support.photographs import write_classes
from tests.support.selection import diagonal, everyday
from tests.tasks.test_tasks import words_of


@pytest.fixture(scope="module", autouse=True)
def needs_captum():
    pytest.importorskip("captum")


@pytest.fixture
def explain(capsys):
    return lambda *words: ended("explain", [str(word) for word in words], capsys)


ALL = ("activations", "kernels", "gradcam", "saliency", "tsne")


PAIRS = list(product(TASKS, NETWORKS))


@pytest.mark.parametrize(("task", "network"), everyday(PAIRS, diagonal(TASKS, NETWORKS)))
def test_every_kind_of_every_task_and_network_is_drawn_or_not_possible(task, network, monkeypatch):
    monkeypatch.setattr(layers, "MAX_LAYERS", 2)
    explainer = untrained("data.image_size=20", *NETWORKS[network], *TASKS[task])
    drawn, none = [], []
    for kind in ALL:
        try:
            for picture in DRAW[kind](explainer):
                picture.figure.draw_without_rendering()
                assert picture.line
                drawn.append(kind)
        except NotPossible:
            none.append(kind)
    without_maps = network == "mlp" and task != "autoencoder"  # whose decoder has convolutions
    missing = {"gradcam", "saliency"} if not task.startswith("classification") else set()
    missing |= {"activations", "gradcam"} if without_maps else set()
    assert set(none) == missing
    assert set(drawn) == set(ALL) - missing


def test_by_default_every_kind_is_drawn_for_one_image_of_each_class(run, explain):
    before = fingerprints(run)
    done = explain(run)
    assert done.code == 0, done.err
    labels = load_run(run).data("test").labels.tolist()
    first = labels.index(0)
    names = [
        f"activations-features.conv1-test-{first}.png", f"activations-features.conv2-test-{first}.png",
        "gradcam.png", "kernels.png", "saliency.png", "tsne.png",
    ]  # fmt: skip
    folder = run / "explanation"
    assert sorted(path.name for path in folder.iterdir()) == names
    first_line, *lines = done.out.splitlines()
    assert first_line == f"  {run}, checkpoint best"
    assert sorted(line.split(":")[0].strip() for line in lines[: len(names)]) == names
    assert "  left out: activations of 2 other images, which --index names" in lines
    assert lines[-1] == f"  figures: {folder}"
    after = fingerprints(run)
    assert {name for name in after if after[name] != before.get(name)} == {f"explanation/{name}" for name in names}
    marks = fingerprints(folder)
    for name in names:
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 200
    assert explain(run).code == 0
    assert fingerprints(folder) == marks


@pytest.mark.parametrize("case", everyday(("siamese", "autoencoder"), ("autoencoder",)))
def test_explaining_a_task_without_classes_writes_nothing_else(case, explain, copy_of):
    run = copy_of(*words_of(case))
    before = fingerprints(run)
    done = explain(run)
    assert done.code == 0, done.err
    assert f"left out: gradcam: task {case} does not predict classes" in done.out
    after = fingerprints(run)
    assert {name: mark for name, mark in after.items() if not name.startswith("explanation/")} == before


def test_options_choose_what_is_drawn(run, explain, tmp_path):
    words = (
        "--index",
        "4,2",
        "--layer",
        "features.relu1",
        "--filter",
        3,
        "--class",
        "pattern 1",
        "--checkpoint",
        "last",
    )
    done = explain(run, *words, "--what", "saliency,activations", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "activations-features.relu1-3-test-2.png", "activations-features.relu1-3-test-4.png", "saliency.png",
    ]  # fmt: skip
    assert "features.relu1 of test 4 (" in done.out
    assert "): map 3 of 4, 6x6" in done.out
    assert not (run / "explanation").exists()


def test_titles_name_the_class_and_its_probability(run):
    opened = load_run(run)
    explainer, _ = explainer_of(opened, "best", [], "test", [0])
    probabilities = opened.predict(opened.data("test").take(torch.tensor([0])))[0]
    answer, true = int(probabilities.argmax()), explainer.inputs[0].true
    for label, word in ((None, "predicted"), (2, "for")):
        (picture,) = DRAW["gradcam"](replace(explainer, label=label))
        shown = answer if label is None else label
        title = picture.figure.axes[0].get_title(loc="left")
        expected = f"test 0 ({true})\n{word} {opened.classes[shown]}, {probabilities[shown]:.2f}"
        assert title in (expected, f"{expected}: none")


def test_files_are_explained_without_the_data(run, explain, tmp_path, monkeypatch):
    folder = write_classes(tmp_path / "photos", {"one": 2, "two": 1})
    (folder / "broken.png").write_bytes(b"")
    opened = load_run(run)
    explainer, unusable = explainer_of(opened, "best", [str(folder)], "test", None)
    assert [explainer.file_word(number) for number in range(3)] == ["0000-0", "0001", "0000-2"]
    assert len(unusable) == 1

    def gone(_, **__):
        raise UserError("the data are gone")

    monkeypatch.setattr("cnnbench.analysis.run.setup", gone)
    done = explain(run, folder)
    assert (done.code, f"not explained:\n  {folder / 'broken.png'} is empty" in done.err) == (2, True)
    assert "  left out: tsne: the data are gone\n" in done.out
    assert len(list((run / "explanation").iterdir())) == 3 + 3 * 2
    assert "--what tsne: the data are gone" in explain(run, folder, "--what", "tsne").err
    assert explain(run).err == "cnnbench explain: the data are gone\n"


MISTAKES = {
    "--what nothing": "--what nothing: no such kind; there are 'activations', 'kernels', 'gradcam'",
    "--what kernel": "did you mean 'kernels'?",
    "--layer conv1": "--layer conv1: no such layer; did you mean 'features.conv1'?; those with maps are",
    "--layer dense.linear3": "--layer dense.linear3: has no maps; those with maps are 'features.conv1'",
    "--layer features.conv1 --filter 4": "--filter 4: features.conv1 has 4 maps of 12x12, counted from 0",
    "--layer features.conv1 --filter -1": "--filter is the number of a map",
    "--filter 1": "--filter is the number of a map of the layer that --layer names",
    "--class 7": "--class 7: no such class; there are 'pattern 0', 'pattern 1', 'pattern 2'",
    "--index 40": "--index '40': test has 40 images, counted from 0",
    "--index 1,x": "--index: must be whole numbers separated by commas",
    "--what kernels --layer features.conv1": "--layer: is for 'activations', 'gradcam', which --what does not name",
    "--what gradcam --layer features.relu9": "did you mean 'features.relu",
    "--checkpoint 3": "has no checkpoint '3'",
    "nowhere.png": "nowhere.png: no such file or folder",
    "tsne": "tsne: no such file or folder; type --what tsne",
    "nowhere.png --split test": "give files or folders of images, or --split and --index",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_refused_with_alternatives_and_nothing_is_written(words, run, explain):
    done = explain(run, *words.split())
    assert done.code == 2
    assert MISTAKES[words] in done.err
    assert not (run / "explanation").exists()


def test_impossible_kinds_are_left_out_or_refused_if_named(tmp_path, explain):
    run = finished((*ONCE, *NETWORKS["mlp"], *TASKS["siamese"], "data.image_size=20"), tmp_path / "siamese")
    done = explain(run)
    assert done.code == 0, done.err
    for kind, reason in (
        ("activations", "the network has no convolutions, and so no maps"),
        ("gradcam", "task siamese does not predict classes"),
        ("saliency", "task siamese does not predict classes"),
    ):
        assert done.out.count(f"  left out: {kind}: {reason}\n") == 1
        refused = explain(run, "--what", kind)
        assert refused.code == 2
        assert f"--what {kind}: {reason}; without --what, all that is possible is drawn" in refused.err


def test_without_captum_the_other_kinds_are_drawn(run, explain, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    done = explain(run, "--index", 0)
    assert done.code == 0, done.err
    needed = "needs a library that is not installed: pip install 'cnnbench[explain]'"
    for kind in ("gradcam", "saliency"):
        assert f"left out: {kind}: {needed}" in done.out
        assert f"--what {kind}: {needed}" in explain(run, "--what", kind).err
        assert not (run / "explanation" / f"{kind}.png").exists()


def test_too_many_images_are_refused(run, explain):
    done = explain(run, "--split", "train", "--index", ",".join(map(str, range(41))))
    assert (done.code, "41 images are too many to look at; name at most 40" in done.err) == (2, True)


def test_a_split_without_images_has_nothing_to_explain(tmp_path, explain):
    run = finished((*ONCE, *NETWORKS["mlp"], "data.val_fraction=0"), tmp_path / "unvalidated")
    done = explain(run, "--split", "val", "--checkpoint", "last")
    assert (done.code, ": there are no val images; choose another split: 'train', 'test'." in done.err) == (2, True)


def test_an_output_folder_that_cannot_be_written_is_named(run, explain, tmp_path):
    (tmp_path / "file").write_text("")
    done = explain(run, "--what", "kernels", "--out", tmp_path / "file" / "out")
    assert (done.code, "--out FOLDER names another place" in done.err) == (2, True)


HOSTILE = ("$\\frac{$", "new\nline\x1b[2J", "a name that is much longer than any title")


def test_hostile_names_are_drawn_literally(tmp_path, explain, monkeypatch):
    folder = write_classes(tmp_path / "classes", dict.fromkeys(HOSTILE, 8))
    words = (
        "data=image_folder",
        f"data.folder={folder}",
        "data.image_size=16",
        "data.crop=16",
        "data.test_fraction=0.25",
        "epochs=1",
    )
    run = finished(
        (*words, *NETWORKS["lenet"], "batch_size=4", "threads=1", "device=cpu", "report=false"), tmp_path / "hostile"
    )
    drawn: list[str] = []
    save = Figure.savefig

    def noting(figure, *words, **settings):
        drawn.extend(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))
        save(figure, *words, **settings)

    monkeypatch.setattr(Figure, "savefig", noting)
    done = explain(run, "--class", HOSTILE[0])
    assert done.code == 0, done.err
    shown = "\n".join(drawn)
    assert "($\\frac{$)\nfor $\\frac{$, 0." in shown
    assert "(new line [2J)" in shown
    assert "(a name that is mu…)" in shown
    assert "\x1b" not in done.out + shown


def test_names_fit_into_a_line():
    assert plain("a\tb \x1b\u200b c") == "a b c"
    assert plain("x" * 19) == "x" * 17 + "…"


def test_the_command_knows_every_kind_of_figure():
    assert tuple(DRAW) == KINDS


def test_help_imports_nothing_heavy():
    code = "import sys, cnnbench.cli.explain; sys.exit(any(name in sys.modules for name in ('torch', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
