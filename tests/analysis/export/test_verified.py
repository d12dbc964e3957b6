"""A file counts only when it does what the network does, and replaces none that may not be replaced."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cnnbench.analysis.export import formats
from cnnbench.analysis.export.deployed import Deployed
from tests.support.exporting import FORMATS, LIGHT, file_of
from tests.support.interruption import fingerprints

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
def test_a_file_for_one_batch_size_only_is_removed(form, run, export, monkeypatch):
    def for_two(network: Deployed) -> torch.export.ExportedProgram:
        return torch.export.export(network, (torch.zeros(2, *network.size, dtype=torch.uint8),))

    monkeypatch.setattr(formats, "traced", for_two)
    done = export(run, "--format", form)
    assert (done.code, "the file written cannot be used" in done.err) == (2, True)
    assert list((run / "export").iterdir()) == []


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
