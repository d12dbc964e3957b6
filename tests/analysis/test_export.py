"""An exported network computes what the network of the run does, and its file describes how to use it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnbench
from cnnbench.analysis.export import formats
from cnnbench.analysis.export.deployed import Deployed
from cnnbench.cli.export import FORMATS as NAMES
from cnnbench.data import prepare
from cnnbench.registry import TASKS
from tests.conftest import ended, latest
from tests.support.interruption import fingerprints, finished, read
from tests.support.photographs import write_classes
from tests.support.training import SMALL
from tests.tasks.test_tasks import words_of

WINDOW = ("data.image_size=20", "data.crop=17")  # three pixels are left over: one before it, two after
CASES = {
    "classification": (
        *SMALL, *WINDOW, "model=lenet_v2", "data.channels=3", "regularization.batchnorm=true",
        "regularization.dropout=0.5", "data.num_test=70", "regularization.average.kind=ema",
    ),
    "one output": (*words_of("classification by one output"), *WINDOW, "model.batchnorm=true"),
    "autoencoder": (*words_of("autoencoder"), *WINDOW),
    "siamese": (*words_of("siamese"), *WINDOW, "epochs=1"),
}  # fmt: skip
OUTPUTS = {"classification": ("probabilities", [3]), "one output": ("probabilities", [2]),
           "autoencoder": ("images", [1, 17, 17]), "siamese": ("codes", [5])}  # fmt: skip
FORMATS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            any(find_spec(package) is None for package in formats.FORMATS[name].packages),
            reason=f"needs {', '.join(formats.FORMATS[name].packages)}",
        ),
    )
    for name in NAMES
]
(LIGHT,) = (form for form in FORMATS if form.values == ("safetensors",))


@pytest.fixture(scope="module")
def finished_once(tmp_path_factory) -> Callable[[str], Path]:
    runs: dict[str, Path] = {}

    def once(case: str) -> Path:
        if case not in runs:
            runs[case] = finished(CASES[case], tmp_path_factory.mktemp("finished"))
        return runs[case]

    return once


@pytest.fixture
def run_of(finished_once, tmp_path) -> Callable[[str], Path]:
    return lambda case: Path(shutil.copytree(finished_once(case), tmp_path / "run"))


@pytest.fixture
def run(run_of) -> Path:
    return run_of("classification")


@pytest.fixture
def export(capsys):
    return lambda *words: ended("export", [str(word) for word in words], capsys)


def file_of(run: Path, form: str, which: str = "best") -> Path:
    return run / "export" / f"{which}.{formats.FORMATS[form].suffix}"


def used(form: str, path: Path) -> tuple[Callable[[Tensor], Tensor], Any]:
    """Return what a file computes and says of itself, read as those do who do not have this package."""
    if form == "onnx":
        import onnx
        import onnxruntime

        onnx.checker.check_model(path, full_check=True)
        session = onnxruntime.InferenceSession(path)
        said = session.get_modelmeta().custom_metadata_map["cnnbench"]
        return lambda pixels: torch.from_numpy(session.run(None, {"pixels": pixels.numpy()})[0]), json.loads(said)
    if form == "torch_export":
        files = {"cnnbench.json": ""}
        program = torch.export.load(path, extra_files=files)
        return program.module(), json.loads(files["cnnbench.json"])
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        said = file.metadata()["cnnbench"]
    return formats.network_in(path), json.loads(said)


def by_hand(run: Path, pixels: Tensor, which: str | int = "best") -> Tensor:
    """Return what the network of a run gives for whole images."""
    opened = cnnbench.load_run(run)
    if opened.task.scores is not None:
        return opened.predict(pixels, which)
    mean, std = (torch.tensor(opened.record["data"][name]).view(-1, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        return opened.model(which)((pixels[:, :, 1:18, 1:18] / 255 - mean) / std)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMATS)
def test_a_file_computes_what_the_network_does_and_holds_its_description(form, case, run_of, export):
    run = run_of(case)
    done = export(run, "--format", form)
    assert (done.code, done.err) == (0, "")
    path = file_of(run, form)
    answer, said = used(form, path)
    opened = cnnbench.load_run(run)
    images = opened.data("test").take(torch.arange(20))
    for number in (1, 2, 20):
        expected = by_hand(run, images[:number])
        assert torch.allclose(answer(images[:number]), expected, atol=1e-5), number
    name, shape = OUTPUTS[case]
    assert read(Path(f"{path}.json")) == said
    assert said["output"] == said["output"] | {"name": name, "shape": shape, "dtype": "float32"}
    channels = 3 if case == "classification" else 1
    assert said["pixels"] == {"dtype": "uint8", "channels": channels, "height": 20, "width": 20}
    assert (said["window"], said["classes"]) == ([17, 17], list(opened.classes))
    record = opened.record
    assert (said["mean"], said["std"]) == (record["data"]["mean"], record["data"]["std"])
    assert said["run"]["identity"] == record["identity"]
    assert (said["run"]["checkpoint"], said["run"]["epoch"]) == ("best", opened.epoch_of("best"))
    assert (said["task"], said["cnnbench"]) == (opened.config.task.name, cnnbench.__version__)
    number = len(opened.data("test"))
    assert said["verified"] == {"on": "the test split", "images": number, "greatest_difference_allowed": 1e-4}
    assert f"at most, on {number} images of the test split" in done.out
    assert f"pixels, uint8 [N, {channels}, 20, 20]" in done.out
    assert sorted(path.parent.iterdir()) == [path, Path(f"{path}.json")]
    for place in (Path(cnnbench.__file__).parent, Path(torch.__file__).parent, run):
        assert str(place).encode() not in path.read_bytes()
    known: dict[str, Any] = {}
    exec(done.out.partition("\n\n")[2], known)
    assert list(known[name].shape) == [2, *shape]


@pytest.mark.parametrize("form", FORMATS)
def test_any_checkpoint_is_exported_as_it_is_evaluated(form, run, export):
    images = cnnbench.load_run(run).data("test").take(torch.arange(9))
    for which in ("last", "15"):
        assert export(run, "--format", form, "--checkpoint", which).code == 0
        answer, said = used(form, file_of(run, form, which))
        assert torch.allclose(answer(images), by_hand(run, images, "last"), atol=1e-5)
        assert (str(said["run"]["checkpoint"]), said["run"]["epoch"]) == (which, 3)
    done = export(run, "--format", form, "--checkpoint", "7")
    assert (done.code, "has no checkpoint '7'" in done.err) == (2, True)


@pytest.mark.parametrize("form", [LIGHT])
def test_weights_are_those_of_the_network_by_name(form, run, export):
    from safetensors.torch import load_file

    assert export(run, "--format", form).code == 0
    weights, network = load_file(file_of(run, form)), cnnbench.load_run(run).model()
    assert {name: tensor.tolist() for name, tensor in weights.items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


@pytest.mark.parametrize("form", [LIGHT])
def test_shared_and_strided_weights_are_written_too(form):
    from safetensors.torch import load

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 4)).to(memory_format=torch.channels_last)
    network[2].weight = network[1].weight
    network[1].bias = nn.Parameter(torch.zeros(4, 2)[:, 0])
    state = network.state_dict()
    weights = load(formats.FORMATS[form].write(Deployed(network, (3, 8, 8), (8, 8), (0.0,), (1.0,)), {}))
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[name], state[name]) for name in state)


# What is written counts only when it does what the network does ------------------------------------------------------

TAMPERED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "other values": (lambda outputs: outputs + 0.001, "probabilities differ from those of the network by up to 0.001"),
    "no numbers": (lambda outputs: outputs * torch.nan, "by up to nan on 70 images of the test split, where 1e-04 is"),
    "another shape": (lambda outputs: outputs[:, :2], "have the shape [70, 2] for 70 images"),
}


@pytest.mark.parametrize(
    ("form", "what"),
    [pytest.param(*form.values, "other values", marks=form.marks) for form in FORMATS[1:]]
    + [pytest.param(*LIGHT.values, what, marks=LIGHT.marks) for what in TAMPERED],
)
def test_a_file_with_other_outputs_is_removed(form, what, run, export, monkeypatch):
    change, problem = TAMPERED[what]
    forward = Deployed.forward
    monkeypatch.setattr(Deployed, "forward", lambda self, pixels: change(forward(self, pixels)))
    done = export(run, "--format", form)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert list((run / "export").iterdir()) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_with_another_description_is_removed(form, run, export, monkeypatch):
    own = formats.FORMATS[form]
    changed = replace(own, write=lambda network, about: own.write(network, {**about, "torch": "0"}))
    monkeypatch.setitem(formats.FORMATS, form, changed)
    done = export(run, "--format", form)
    assert (done.code, "does not hold its description" in done.err) == (2, True)
    assert list((run / "export").iterdir()) == []


@pytest.mark.parametrize("form", FORMATS[1:])
def test_a_network_that_cannot_be_traced_is_refused_with_the_reason(form, run, export, monkeypatch):
    forward = Deployed.forward

    def undecided(self: Deployed, pixels: Tensor) -> Tensor:
        return forward(self, pixels) if pixels.sum() > 0 else torch.zeros(len(pixels), 3)

    monkeypatch.setattr(Deployed, "forward", undecided)
    done = export(run, "--format", form)
    assert (done.code, f"--format {form}: cannot hold this network: " in done.err) == (2, True)
    assert not (run / "export").exists()


@pytest.mark.parametrize("form", FORMATS[1:])
def test_a_file_for_one_batch_size_only_is_removed(form, run, export, monkeypatch):
    def for_two(network: Deployed) -> torch.export.ExportedProgram:
        return torch.export.export(network, (torch.zeros(2, *network.size, dtype=torch.uint8),))

    monkeypatch.setattr(formats, "traced", for_two)
    done = export(run, "--format", form)
    assert (done.code, "the file written cannot be used" in done.err) == (2, True)
    assert list((run / "export").iterdir()) == []


# Where it goes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [LIGHT])
def test_an_earlier_export_is_replaced_only_by_a_verified_one(form, run, export, monkeypatch):
    export(run, "--format", form)
    path = file_of(run, form)
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(Deployed, "forward", lambda self, pixels: torch.zeros(len(pixels), 3))
        assert export(run, "--format", form).code == 2
    assert path.read_bytes() == b"old"
    done = export(run, "--format", form)
    assert (done.code, "replaces the file of an earlier export" in done.out) == (0, True)
    assert path.read_bytes() != b"old"


@pytest.mark.parametrize("form", [LIGHT])
def test_a_file_that_out_names_is_never_overwritten(form, run, export, tmp_path):
    path = tmp_path / "new" / "folders" / "mine.safetensors"
    assert export(run, "--format", form, "--out", path).code == 0
    before = fingerprints(path.parent)
    done = export(run, "--format", form, "--out", path)
    assert (done.code, f"{path} exists, and is not overwritten; name another" in done.err) == (2, True)
    path.unlink()
    done = export(run, "--format", form, "--out", path)
    assert (done.code, f"{path}.json exists" in done.err) == (2, True)
    assert fingerprints(path.parent).items() <= before.items()
    assert not (run / "export").exists()


@pytest.mark.parametrize("form", [LIGHT])
def test_a_file_that_cannot_be_written_is_named(form, run, export, tmp_path):
    done = export(run, "--format", form, "--out", tmp_path / "model.bin")
    assert (done.code, "a file of --format safetensors ends in .safetensors" in done.err) == (2, True)
    done = export(run, "--format", form, "--out", run / "run.json" / "model.safetensors")
    assert (done.code, "--out FILE names another place" in done.err) == (2, True)


@pytest.mark.parametrize("package", formats.FORMATS["onnx"].packages)
def test_a_missing_package_is_named(package, run, export, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    done = export(run, "--format", "onnx")
    assert (done.code, package in done.err) == (2, True)
    assert "pip install 'cnnbench[onnx]'" in done.err


def test_mistakes_are_refused_at_once(run, export):
    assert "invalid choice: 'onx'" in export(run, "--format", "onx").err
    assert "unknown: more" in export(run, "--format", "onnx", "more").err
    names = [*formats.FORMATS]
    assert names == list(NAMES)
    code = "import sys, cnnbench.cli.export as _; sys.exit(str({'torch', 'pydantic'} & sys.modules.keys() or 0))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert imported.stderr.strip() == "0"


# What a run can be like -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_photographs_with_odd_class_names_and_missing_data(form, tmp_path, export):
    names = ["<script>alert(1)</script>".replace("/", "\\"), 'a "quoted"\nname', "Käse 🧀 狐"]
    folder = write_classes(tmp_path / "classes", dict.fromkeys(names, 8))
    words = ("data=image_folder", f"data.folder={folder}", *WINDOW, "data.fit=stretch", "data.test_fraction=0.25")
    words += ("model=lenet", "epochs=1", "batch_size=4", "threads=1", "device=cpu", "report=false")
    run = finished(words, tmp_path / "photographs")
    assert export(run, "--format", form).code == 0
    said = used(form, file_of(run, form))[1]
    assert sorted(said["classes"]) == sorted(names)
    assert (said["file"]["side"], said["file"]["fit"]) == (20, "stretch")
    shutil.rmtree(folder)
    prepare._load.cache_clear()
    done = export(run, "--format", form)
    assert done.code == 0
    assert "256 images of random pixels" in done.out
    (note,) = (line for line in done.out.splitlines() if "compared on random pixels, not on images: " in line)
    assert str(folder) in note
    assert used(form, file_of(run, form))[1]["verified"]["on"] == "random pixels"


@pytest.mark.parametrize("form", [LIGHT])
def test_a_run_in_half_precision_is_exported_and_compared_in_full(form, tmp_path, export):
    run = finished((*SMALL, "model=lenet", "precision=bf16", "epochs=1"), tmp_path / "half")
    done = export(run, "--format", form)
    assert (done.code, done.err) == (0, "")
    assert "computes in fp32; the run did in bf16" in done.out


@pytest.mark.parametrize("form", [LIGHT])
def test_a_run_without_a_recorded_image_size_is_exported(form, run, export):
    record = read(run / "run.json")
    del record["data"]["size"]
    (run / "run.json").write_text(json.dumps(record))
    assert export(run, "--format", form).code == 0
    assert read(Path(f"{file_of(run, form)}.json"))["pixels"]["height"] == 20


@pytest.mark.parametrize("form", [LIGHT])
def test_a_plugin_task_is_exported_and_rebuilt(form, tmp_path, export, monkeypatch):
    text = (Path(__file__).parents[2] / "README.md").read_text()
    begin = text.index("# rotations.py")
    plugin = tmp_path / "rotations.py"
    plugin.write_text(text[begin : text.index("```", begin)])
    monkeypatch.setattr(TASKS, "components", dict(TASKS.components))
    from cnnbench import train

    run = train(latest([*SMALL, "model=lenet", "task=rotations", "epochs=1"]), [str(plugin)]).path
    done = export(run, "--format", form, f"plugins={plugin}")
    assert (done.code, done.err) == (0, "")
    assert "outputs, float32 [N, 4]: of the network, as they are" in done.out
    known: dict[str, Any] = {}
    exec(done.out.partition("\n\n")[2], known)
    assert known["outputs"].shape == (2, 4)
