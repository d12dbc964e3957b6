"""What one task learnt is where another one begins: encoders, heads, and runs that are named by their experiment."""

from pathlib import Path

import pytest
import torch

from cnnbench.config.values import conf_dir
from cnnbench.store.folder import RunFolder
from tests.optim.test_freezing import weights_of
from tests.support.interruption import differences, finished, go, read
from tests.support.training import SMALL, prepared
from tests.training.test_init import initial

pytestmark = pytest.mark.usefixtures("one_second_a_session")

NET = (*SMALL, "data.image_size=20", "model=embedding_net", "model.maps=[4]", "model.units=[8]", "model.dimensions=5")
CONV = (*SMALL, "model=conv_encoder", "model.maps=[6,3]")


def begun_from(words: tuple[str, ...], run: Path) -> tuple[set[str], set[str]]:
    """Return which weights a run begins with that are those of another run, and which are not."""
    given, begins = weights_of(run, "best")["weights"], initial(*words, f"init.run={run}")
    taken = {name for name in begins if any(torch.equal(begins[name], weight) for weight in given.values())}
    return taken, set(begins) - taken


def test_a_classifier_begins_with_an_autoencoders_encoder_and_a_head_of_its_own(tmp_path):
    run = finished((*CONV, "task=autoencoder"), tmp_path / "source")
    taken, drawn = begun_from(CONV, run)
    assert drawn == {"head.weight", "head.bias"}
    assert {name.partition(".")[0] for name in taken} == {"encoder"}


@pytest.mark.parametrize("task", ["siamese", "triplet"])
def test_a_classifier_begins_with_the_whole_of_what_placed_images(task, tmp_path, outputs):
    run = finished((*NET, f"task={task}"), tmp_path / "source")
    taken, drawn = begun_from(NET, run)
    assert drawn == {"head.weight", "head.bias"}
    assert "encoder.code.linear.weight" in taken
    assert go(*NET, f"init.run={run}", "epochs=1") == 0


def test_an_encoder_that_is_a_whole_network_is_found_below_its_name(tmp_path):
    lenet = (*SMALL, "model=lenet")
    run = finished((*lenet, "task=autoencoder", "task.dimensions=6"), tmp_path / "source")
    taken, drawn = begun_from(lenet, run)
    assert drawn == {"head.linear.weight", "head.linear.bias"}
    assert "features.conv1.weight" in taken


def test_the_same_task_goes_on_with_all_of_it_whatever_the_classes_are_called(tmp_path):
    run = finished((*NET, "task=siamese"), tmp_path / "source")
    begins = initial(*NET, "task=siamese", "data.num_classes=2", f"init.run={run}")
    assert differences(begins, weights_of(run, "best")["weights"]) == []


def test_a_head_of_another_task_is_begun_anew_even_where_it_would_fit(tmp_path):
    words = (*SMALL, "model=lenet")
    run = finished((*words, "task=siamese", "task.dimensions=3"), tmp_path / "source")
    _, drawn = begun_from(words, run)
    assert drawn <= {"head.linear.weight", "head.linear.bias"}
    assert "head.linear.weight" in drawn  # comparisons never change the bias: it is still what the seed drew


# By the name of an experiment -----------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path) -> Path:
    """Return a folder with an experiment, one that begins with it, and one that is initialised with itself."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    base = (conf_dir() / "experiment" / "transfer_lab" / "siamese_mnist.yaml").read_text()
    small = "\ndata:\n  subset:\n    per_class: 6\nthreads: 1\ndevice: cpu\n"
    text = base.replace("/data: mnist", "/data: digits").replace("epochs: 20", "epochs: 1").replace("256", "12")
    text = text.replace("seed: 1328", "seed: 1328\nmodel:\n  maps: [4]") + small
    (folder / "first.yaml").write_text(text)
    (folder / "second.yaml").write_text(text.replace("task: siamese", "task: triplet") + "init:\n  experiment: first\n")
    (folder / "circle.yaml").write_text(text + "init:\n  experiment: circle\n")
    return folder.parent


def test_a_run_begins_with_that_of_an_experiment_wherever_it_lies(own, cnnbench, outputs):
    asked = ("--config-dir", str(own))
    early = cnnbench(*asked, "experiment=second")
    assert early.code == 2
    assert f"init.experiment=first  has no finished run in {outputs}: cnnbench experiment=first" in early.err
    assert not outputs.exists()
    assert cnnbench(*asked, "experiment=first").code == 0
    (first,) = (path.parent for path in outputs.rglob("run.json"))
    RunFolder(first).update(status="stopped")
    assert "has no finished run in" in cnnbench(*asked, "experiment=second").err
    RunFolder(first).update(status="completed")
    ended = cnnbench(*asked, "experiment=second")
    assert ended.code == 0, ended.err
    (second,) = (path.parent for path in outputs.rglob("run.json") if path.parent != first)
    record = read(second / "run.json")
    assert record["init"]["run"] == str(first)
    assert record["init"]["identity"] == read(first / "run.json")["identity"]
    assert "experiment: null" in (second / "config.yaml").read_text()
    assert "finished" in cnnbench(*asked, "experiment=second").out  # the same run again
    assert cnnbench(f"resume={second}", "epochs=2").code == 0


def test_an_experiment_that_is_none_or_begins_with_itself_is_refused(own, cnnbench, outputs):
    ended = cnnbench("--config-dir", str(own), "experiment=circle")
    assert (ended.code, "init.experiment=circle  is initialised with itself" in ended.err) == (2, True)
    ended = cnnbench("init.experiment=nothing")
    assert (ended.code, "init.experiment=nothing  no such experiment" in ended.err) == (2, True)
    ended = cnnbench("init.experiment=cnn_lab/lenet_mnist", "init.run=somewhere")
    assert (ended.code, "and init.run exclude each other" in ended.err) == (2, True)
    assert not outputs.exists()


# How soon -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("goal", "epoch"), [(0.0, 1), (1.01, None)])
def test_the_result_says_in_which_epoch_validation_came_to_what_was_asked_for(goal, epoch, cnnbench, outputs):
    ended = cnnbench(*SMALL, f"reach={goal}")
    (run,) = (path.parent for path in outputs.rglob("run.json"))
    reached = read(run / "result.json")["reached"]
    step = None if epoch is None else epoch * 5
    assert reached == {"metric": "accuracy", "value": goal, "epoch": epoch, "step": step}
    said = "never" if epoch is None else f"in epoch {epoch}"
    assert f"reached     accuracy {goal:g} on validation {said}" in ended.out


def test_of_a_loss_the_lower_is_the_better_and_a_sweep_says_it_of_each_run(cnnbench):
    ended = cnnbench("-m", *SMALL, "task.watch=loss", "reach=0.0001", "seed=0,1")
    assert ended.out.count("loss 0.0001 on validation never") >= 2
    first = prepared(*SMALL)
    assert len(first.data.val) == 8


def test_without_validation_nothing_can_be_reached(cnnbench):
    ended = cnnbench(*SMALL, "reach=0.5", "data.val_fraction=0")
    assert ended.code == 2
    assert "reach=0.5  has nothing to measure with data.val_fraction=0" in ended.err
