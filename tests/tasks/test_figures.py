"""Figures of tasks: reconstructions, embeddings, TensorBoard's projector."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.data.prepare import prepare
from cnnbench.tasks import figures, projector
from cnnbench.tasks.retrieval import neighbour_accuracy, recall_at, silhouette
from cnnbench.training.step import map_images
from tests.conftest import only_run
from tests.support.interruption import go, read
from tests.support.training import SMALL, plan_of, prepared
from tests.support.zoo import LABELS

SIAMESE = (
    *SMALL, "data.image_size=20", "model=embedding_net", "model.maps=[4]", "model.units=[8]", "model.dimensions=5",
    "task=siamese", "task.show_every=2",
)  # fmt: skip
AUTOENCODER = (*SMALL, "model=conv_encoder", "model.maps=[6,3]", "task=autoencoder", "task.show_every=1")


def projected(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return what the projector shows: embeddings, and names."""
    (table,) = folder.rglob("tensors.tsv")
    names = (table.parent / "metadata.tsv").read_text().splitlines()
    assert (folder / "projector_config.pbtxt").read_text().count("tensor_path") == 1
    return np.loadtxt(table, delimiter="\t", ndmin=2), names


def test_embeddings_of_validation_are_shown_on_the_way_and_those_of_the_test_images_at_the_end(outputs):
    assert go(*SIAMESE) == 0
    folder = only_run(outputs) / "embeddings"
    assert sorted(path.name for path in folder.iterdir()) == ["test", "test.npz", "val-epoch-0002"]
    with np.load(folder / "test.npz") as file:
        arrays = dict(file)
    shown, names = projected(folder / "test")
    assert arrays["codes"].shape == (20, 5)
    assert shown == pytest.approx(arrays["codes"], abs=6e-5)
    assert names == [arrays["classes"][label] for label in arrays["labels"]]
    shown, names = projected(folder / "val-epoch-0002")
    assert (shown.shape, len(names)) == ((8, 5), 8)


def test_exported_embeddings_are_those_of_the_tested_network_and_what_is_measured_is_theirs(outputs):
    assert go(*SIAMESE, "tested=last") == 0
    run = only_run(outputs)
    training = prepared(*SIAMESE, "tested=last")
    from cnnbench.store.checkpoint import load_newest

    training.network.load_state_dict(load_newest(run / "checkpoints", pytest.fail)["network"])
    embeddings = {
        split: map_images(training.network, training.batches(split), training.task.eval_step, training.config)
        for split in ("train", "test")
    }
    assert not embeddings["test"].is_inference()  # a task may compute metrics in place
    with np.load(run / "embeddings" / "test.npz") as file:
        arrays, result = dict(file), read(run / "result.json")["test"]
    labels = {split: getattr(training.data, split).labels for split in ("train", "test")}
    assert np.array_equal(arrays["codes"], embeddings["test"].numpy())
    assert arrays["labels"].tolist() == labels["test"].tolist()
    assert result["recall@1"] == recall_at(embeddings["test"], labels["test"], (1,))[0]
    assert result["5-nn"] == neighbour_accuracy(
        embeddings["train"], labels["train"], embeddings["test"], labels["test"]
    )
    assert result["silhouette"] == silhouette(embeddings["test"], labels["test"])


def test_reconstructions_are_drawn_of_validation_on_the_way_and_of_test_images_at_the_end(outputs):
    assert go(*AUTOENCODER) == 0
    run = only_run(outputs)
    best = read(run / "result.json")["checkpoint"]["epoch"]
    names = sorted(path.name for path in (run / "pictures").iterdir())
    drawn = [f"reconstructions-val-epoch-000{epoch}.png" for epoch in (1, 2, 3)]
    assert names == [f"reconstructions-test-epoch-000{best}.png", *drawn, f"tsne-epoch-000{best}.png"]
    with Image.open(run / "pictures" / names[0]) as picture:
        assert picture.width > 600
    events = EventAccumulator(str(run)).Reload()
    assert sorted(events.Tags()["images"]) == ["reconstructions-test", "reconstructions-val", "tsne"]
    result = read(run / "result.json")["test"]
    assert set(result) == {
        "loss",
        "recall@1",
        "recall@5",
        "recall@10",
        "mAP",
        "R-precision",
        "5-nn",
        "silhouette",
        "samples",
    }


@pytest.mark.parametrize(("count", "title"), [(10, ""), (10, "shades"), (1, "")])
def test_a_grid_shows_images_row_by_row_each_under_its_caption(count, title):
    shades = torch.arange(1, count + 1).view(count, 1, 1, 1).expand(count, 1, 4, 6) / 20
    captions = [f"image\n{number}" for number in range(1, count + 1)]
    axis = figures.image_grid(shades, captions, title=title).axes[0]
    page = np.asarray(axis.images[0].get_array())[..., 0]
    assert len(axis.texts) == count
    for number, caption in enumerate(axis.texts, start=1):
        x, y = caption.get_position()
        assert caption.get_text() == f"image\n{number}"
        assert page[int(y) + 2, int(x)] == pytest.approx(number / 20)
    rows = page[int(axis.texts[0].get_position()[1]) + 2], page[-1]
    assert all(np.unique(row).size > min(count, 2) for row in rows)


def test_input_and_reconstruction_are_drawn_on_one_scale():
    dark, bright = torch.zeros(4, 1, 5, 5), torch.full((4, 1, 5, 5), 0.5)
    figure = figures.reconstructions(dark, bright, "half")
    left, right = (axis.images[0] for axis in figure.axes)
    assert left.get_clim() == right.get_clim() == (0, 1)
    assert left.get_array()[3, 3].tolist() == [0, 0, 0]
    assert right.get_array()[3, 3].tolist() == [0.5, 0.5, 0.5]


def test_a_scatter_plot_shows_each_code_once_and_is_the_same_again(monkeypatch):
    monkeypatch.setattr(figures, "TSNE_POINTS", 40)
    embeddings = torch.randn(100, 6, generator=torch.Generator().manual_seed(0))
    places = []
    for _ in range(2):
        axis = figures.tsne_scatter(embeddings, LABELS, ("cat", "dog", "fox", "owl"), seed=0).axes[0]
        points = np.concatenate([group.get_offsets() for group in axis.collections])
        assert len(points) == len(np.unique(points, axis=0)) == 40
        places.append(points)
    assert np.array_equal(*places)
    assert [text.get_text() for text in axis.texts] == ["cat", "dog", "fox", "owl"]


def test_embeddings_of_one_number_are_drawn_as_well():
    embeddings = torch.randn(20, 1, generator=torch.Generator().manual_seed(0))
    assert (
        figures.tsne_scatter(embeddings, torch.arange(20) % 2, ("a\nb", "b"), seed=0).axes[0].texts[0].get_text()
        == "a b"
    )


def test_too_few_embeddings_are_not_drawn():
    assert figures.tsne_scatter(torch.randn(3, 6), torch.tensor([0, 1, 1]), ("a", "b"), seed=0) is None


def test_names_of_classes_keep_to_their_line_and_column():
    names = projector.class_names(torch.tensor([1, 0]), ("a\tb", "c\nd $x$ <script>"))
    assert names == ["c d $x$ <script>", "a b"]


def test_hostile_names_are_drawn_as_they_are():
    figure = figures.tsne_scatter(torch.randn(30, 4), torch.arange(30) % 2, ("$\\frac{", "<script>"), seed=0)
    figure.savefig(Path("hostile.png"))
    assert Path("hostile.png").stat().st_size > 1000


def test_sprites_of_many_images_shrink_to_what_a_browser_takes(monkeypatch):
    monkeypatch.setattr(projector, "LARGEST_SPRITE", 30)
    training = prepared(*SIAMESE)
    from cnnbench.tasks.context import EvalContext

    network, splits = training.network, {"val": training.batches("val")}
    context = EvalContext(
        network, training.data, splits,
        lambda batches, each: map_images(network, batches, each, training.config), Path(), 1,
        lambda name, picture: None,
    )  # fmt: skip
    pictures = projector.thumbnails(context, training.batches("val"))
    side = 30 // math.ceil(8**0.5)
    assert pictures.shape == (8, 1, side, side)
    assert 0 <= pictures.min() < pictures.max() <= 1
    monkeypatch.setattr(projector, "LARGEST_SPRITE", 8192)
    pictures = projector.thumbnails(context, training.batches("val"))
    expected = prepare(plan_of(*SIAMESE).config.data).val.pixels / 255
    assert torch.allclose(pictures, expected, atol=1e-5)
