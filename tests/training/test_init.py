"""What a training starts from: the weights of a run, of a file, or published ones."""

import shutil
from pathlib import Path

import pytest
import torch

from cnnbench.errors import UserError
from cnnbench.store import checkpoint
from cnnbench.store.checkpoint import load_newest
from cnnbench.store.files import write_json
from cnnbench.store.folder import RunFolder, find_runs
from cnnbench.store.lookup import run_named
from cnnbench.training.init import initial_weights, load_initial_weights
from cnnbench.training.plan import plan_resume
from cnnbench.training.trainer import carry_out
from tests.conftest import TINY, only_run
from tests.optim.test_freezing import plan, weights_of
from tests.support.interruption import child_of, differences, finished, go, kill, outcome_of, read
from tests.support.training import prepared

pytestmark = pytest.mark.usefixtures("one_second_a_session")

SOURCE = (*TINY, "data.num_train=80", "model=lenet_v2", "regularization.batchnorm=true")
OTHER_DATA = (*SOURCE, "data.num_classes=4", "data.noise=0.5")
HEAD = {"head.linear.weight", "head.linear.bias"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return finished(SOURCE, tmp_path_factory.mktemp("source"))


@pytest.fixture
def source(trained, tmp_path) -> Path:
    """Return a finished run of three epochs, outside the outputs of this test."""
    return Path(shutil.copytree(trained, tmp_path / "source"))


def initial(*words: str) -> dict[str, torch.Tensor]:
    """Return the weights that a run begins with."""
    training = prepared(*words)
    assert load_initial_weights(training)
    return training.network.state_dict()


def save_weights(source: Path, path: Path, **changed: torch.Tensor) -> Path:
    weights = weights_of(source, "best")["weights"] | {key.replace("__", "."): value for key, value in changed.items()}
    if path.suffix == ".safetensors":
        library = pytest.importorskip("safetensors.torch")
        library.save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    else:
        torch.save(weights, path)
    return path


# Of a run -------------------------------------------------------------------------------------------------------------


def test_a_run_starts_from_the_best_weights_of_another_with_a_head_for_its_own_classes(source, outputs):
    words = (*OTHER_DATA, f"init.run={source}")
    best, begins, drawn = weights_of(source, "best")["weights"], initial(*words), prepared(*OTHER_DATA).network
    assert {name for name in best if not torch.equal(best[name], begins[name])} == HEAD
    assert all(torch.equal(begins[name], drawn.state_dict()[name]) for name in HEAD)
    assert go(*words) == 0
    run = only_run(outputs)
    record = read(run / "run.json")["init"]
    assert record == read(run / "result.json")["init"]
    assert (record["run"], record["loaded"], record["epochs"]) == (str(source), len(best) - 2, 3)
    assert record["reinitialised"] == dict.fromkeys(sorted(HEAD, reverse=True), "the head is built for 4 outputs")
    assert record["skipped"] == {}
    result = read(source / "result.json")
    assert record["checkpoint"] == {key: value for key, value in result["checkpoint"].items() if key != "kind"} | {
        "chosen": "best"
    }
    assert record["metrics"]["accuracy/val"] == result["val"]["accuracy"]
    assert record["data"] == "synthetic"


def test_the_last_weights_can_be_asked_for(source):
    begins = initial(*SOURCE, f"init.run={source}", "init.checkpoint=last", "seed=3")
    assert differences(begins, weights_of(source)) == []


def test_what_came_from_where_is_said(source, cnnbench):
    ended = cnnbench(*OTHER_DATA, f"init.run={source}", "epochs=1")
    assert ended.code == 0, ended.err
    best = read(source / "result.json")
    epoch = best["checkpoint"]["epoch"]
    said = f"note: initial weights: the best checkpoint (epoch {epoch}) of source trained on synthetic"
    assert f"{said} (loss/val {best['val']['loss']:.4f}, accuracy/val" in ended.out
    loaded = len(weights_of(source)) - len(HEAD)
    assert f"note: init: {loaded} tensors loaded; 2 reinitialised: the head is built for 4 outputs" in ended.out
    assert "was trained on the same data" not in ended.out


def test_the_same_data_are_said_and_another_split_of_them(source, cnnbench):
    words = (*SOURCE, f"init.run={source}", "epochs=2", "seed=1")
    out = cnnbench(*words).out
    assert "note: init.run was trained on the same data; total training: 3 + 2 epochs" in out
    assert "validation images of this run" not in out
    out = cnnbench(*words, "data.split_seed=7").out
    assert "note: init: the initial weights were trained on 7 of the 8 validation images of this run: it will" in out


def test_a_head_for_other_classes_is_begun_anew_even_where_it_would_fit(source):
    record = read(source / "run.json")
    record["data"]["classes"] = ["other", "classes", "here"]
    write_json(source / "run.json", record)
    start = initial_weights(prepared(*SOURCE, f"init.run={source}"))
    assert start.record["reinitialised"] == dict.fromkeys(start.record["reinitialised"], "the classes differ")
    assert start.record["reinitialised"].keys() == HEAD


def test_layers_that_only_one_of_them_has_are_printed(source):
    words = (*SOURCE, "regularization.batchnorm=false", "head.units=[8]", f"init.run={source}", "init.partial=true")
    record = initial_weights(prepared(*words)).record
    assert {name.split(".")[1][:4] for name in record["skipped"]} == {"norm", "line"}
    assert set(record["skipped"].values()) == {"not in this network"}
    assert record["reinitialised"] == dict.fromkeys(
        [f"head.linear.{layer}.{kind}" for layer in ("linear1", "linear") for kind in ("weight", "bias")],
        "not in the source",
    )


def test_epochs_of_a_chain_of_runs_add_up(source, outputs):
    assert go(*OTHER_DATA, f"init.run={source}", "epochs=1") == 0
    first = only_run(outputs)
    assert go(*OTHER_DATA, f"init.run={first}", "epochs=2", "seed=1") == 0
    assert read(child_of(first) / "run.json")["init"]["epochs"] == 4


# Resuming -------------------------------------------------------------------------------------------------------------


def test_the_last_run_is_a_source_and_stays_it(outputs, cnnbench):
    first = finished(SOURCE, outputs)
    assert cnnbench(*OTHER_DATA, "init.run=last", "epochs=1").code == 0
    second = run_named("last").path
    assert second != first
    assert RunFolder(second).config()["init"]["run"] == str(first), "and not `last`, which is another run by now"


def test_a_killed_run_needs_its_source_no_more(source, outputs, tmp_path, cnnbench):
    words = (*OTHER_DATA, f"init.run={source}")
    unbroken = finished(words, tmp_path / "unbroken")
    kill(plan(*words), after_step=8, saves_every=3)
    source.rename(tmp_path / "elsewhere")
    run = only_run(outputs)
    ended = cnnbench(*words)
    assert ended.code == 2
    assert "there is no such folder" in ended.err
    assert "Runs already started from it can be continued with cnnbench resume RUN" in ended.err
    assert carry_out(plan_resume(str(run), [])) == 0
    assert differences(outcome_of(run), outcome_of(unbroken)) == []


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_from_its_source_again(source, outputs, tmp_path):
    words = (*OTHER_DATA, f"init.run={source}")
    unbroken = finished(words, tmp_path / "unbroken")
    kill(plan(*words), after_step=2, saves_every=100)
    run = only_run(outputs)
    assert load_newest(run / "checkpoints", pytest.fail) is None
    assert carry_out(plan_resume(str(run), [])) == 0
    assert differences(outcome_of(run), outcome_of(unbroken)) == []


def test_a_source_that_has_changed_meanwhile_is_refused(source, outputs, tmp_path):
    path = save_weights(source, tmp_path / "weights.pt")
    kill(plan(*OTHER_DATA, f"init.file={path}"), after_step=2, saves_every=100)
    save_weights(source, path, features__conv1__bias=torch.zeros(6))
    with pytest.raises(UserError, match=r"has changed since this run was started"):
        carry_out(plan_resume(str(only_run(outputs)), []))


def test_a_run_that_goes_on_for_longer_does_not_start_anew_and_says_where_it_began(source, outputs):
    assert go(*OTHER_DATA, f"init.run={source}") == 0
    parent = only_run(outputs)
    shutil.rmtree(source)
    assert carry_out(plan_resume(str(parent), ["epochs=4"])) == 0
    child = child_of(parent)
    assert read(child / "result.json")["init"] == read(parent / "result.json")["init"]
    rows = (parent / "metrics.jsonl").read_text().splitlines()
    assert (child / "metrics.jsonl").read_text().splitlines()[: len(rows)] == rows


# Identity -------------------------------------------------------------------------------------------------------------


def test_the_same_start_is_the_same_run_wherever_it_lies(source, outputs, tmp_path, cnnbench):
    assert go(*OTHER_DATA, f"init.run={source}") == 0
    moved = source.rename(tmp_path / "elsewhere")
    shown = cnnbench(*OTHER_DATA, f"init.run={moved}")
    assert "rerun=true trains it again" in shown.out
    one = save_weights(moved, tmp_path / "one.pt")
    other = shutil.copy(one, tmp_path / "other.pth")
    assert plan(*SOURCE, f"init.file={one}").config.identity() == plan(*SOURCE, f"init.file={other}").config.identity()


def test_another_start_is_another_run(source, tmp_path):
    files = [save_weights(source, tmp_path / "one.pt")]
    files += [save_weights(source, tmp_path / "two.pt", features__conv1__bias=torch.zeros(6))]
    starts = [(), (f"init.run={source}",), (f"init.run={source}", "init.checkpoint=last")]
    starts += [(f"init.file={file}",) for file in files]
    identities = {plan(*SOURCE, *words).config.identity() for words in starts}
    assert len(identities) == 5


def test_a_recorded_start_is_the_same_run(source, outputs):
    words = (*OTHER_DATA, f"init.run={source}")
    assert go(*words) == 0
    run = only_run(outputs)
    assert plan_resume(str(run), []).config.identity() == plan(*words).config.identity()
    assert [found.path for found in find_runs(outputs, plan(*words).config.identity())] == [run]


def no_network(*_, **__):
    raise OSError("no network")


# Of files, and published ones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.safetensors"])
def test_a_state_dict_can_be_started_from(name, source, tmp_path):
    path = save_weights(source, tmp_path / name)
    begins = initial(*SOURCE, f"init.file={path}", "seed=3")
    assert differences(begins, weights_of(source, "best")["weights"]) == []


def test_published_weights_are_found_where_the_error_says_to_put_them(tmp_path, monkeypatch, outputs, cnnbench):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    words = (*TINY, "data.num_train=80", "data.channels=3", "data.image_size=32")
    words += ("model=torchvision", "model.architecture=squeezenet1_1", "init.weights=imagenet")
    ended = cnnbench(*words)
    assert ended.code == 2
    place = tmp_path / "torch" / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    assert "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth cannot be downloaded" in ended.err
    assert f"put it at {place}" in ended.err
    assert not outputs.exists()
    import torchvision.models as zoo

    torch.manual_seed(1)
    published = zoo.squeezenet1_1().state_dict()
    place.parent.mkdir(parents=True, exist_ok=True)
    torch.save(published, place)
    begins = initial(*words)
    assert {name for name in published if not torch.equal(published[name], begins[name])} == {
        "classifier.1.weight",
        "classifier.1.bias",
    }
    assert plan(*words).config.source == "torchvision SqueezeNet1_1_Weights.IMAGENET1K_V1"
    remark = "the published weights were trained on other inputs: data.statistics=imagenet"
    assert remark in [said.text for said in prepared(*words, "data.statistics=own").remarks]
    assert not prepared(*words).remarks


# Mistakes -------------------------------------------------------------------------------------------------------------

REFUSED = {
    "init.run=nowhere": "nowhere: there is no such folder, and no run below",
    "init.file=nowhere.pt": "no such file",
    "init.file=broken.txt": "must be a state dict: a file .pt, .pth, .bin, .ckpt, .tar or .safetensors; torch.save(",
    "init.file=broken.pt": "broken.pt is no state dict: ",
    "init.file=list.pt": "list.pt is no state dict: it must hold tensors by their names, and nothing else",
    "init.file=strange.pt": "fits nothing in 'lenet': they have no tensor names in common",
    "init.run=source init.file=list.pt": "and init.run exclude each other; give one",
    "init.checkpoint=last": "has no effect without init.run",
    "init.weights=imagenet": "'lenet' has no pretrained weights; these models have: 'timm', 'torchvision'",
    "source=abc": "no such key: only init.run, .weights and .file make a source",
    "init.run=source data.channels=3": "It takes images with 1 in place of 3 channels: data.channels=1",
    "init.run=source data.image_size=20": "trained on 16x16 pixels: set data.image_size, or data.crop, to that",
    "init.run=source model.maps=[7,16]": "features.conv1.weight: 6x1x5x5 there, 7x1x5x5 here",
    "init.run=unvalidated init.checkpoint=best": "it was never validated; init.checkpoint=last takes its last",
    "init.run=begun": "has no checkpoints any more: its folder checkpoints/ is empty or gone",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_started_from_is_refused_before_anything_is_made(words, source, outputs, cnnbench, monkeypatch):
    monkeypatch.chdir(source.parent)
    Path("broken.txt").write_text("no weights")
    Path("broken.pt").write_text("no weights")
    torch.save([torch.zeros(2)], "list.pt")
    torch.save({"strange": torch.zeros(2)}, "strange.pt")
    for name in ("unvalidated", "begun"):
        shutil.copytree(source, name)
    shutil.rmtree("begun/checkpoints")
    newest = max(Path("unvalidated/checkpoints").glob("*.json"))
    checkpoint.write_sealed(newest, read(newest) | {"best": None})
    ended = cnnbench(*SOURCE, *words.split())
    assert ended.code == 2
    assert REFUSED[words] in ended.err
    assert not outputs.exists()


def test_a_sweep_is_refused_before_its_first_job_where_one_start_does_not_fit(source, outputs, cnnbench):
    ended = cnnbench("-m", *SOURCE, f"init.run={source}", "model.maps=[6,16],[7,16]")
    assert ended.code == 2
    assert "nothing was started" in ended.err
    assert "7x1x5x5 here" in ended.err
    assert not list(outputs.glob("synthetic"))
