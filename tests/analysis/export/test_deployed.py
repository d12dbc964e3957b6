"""Runs of every kind are exported, and described as they are."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import cnnbench
from cnnbench.data import prepare
from tests.conftest import latest
from tests.support.exporting import FORMATS, LIGHT, WINDOW, file_of, used
from tests.support.interruption import finished, read
from tests.support.photographs import write_classes
from tests.support.training import SMALL


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
def test_a_plugin_task_is_exported_and_rebuilt(form, rotations, export):
    run = cnnbench.train(latest([*SMALL, "model=lenet", "task=rotations", "epochs=1"]), plugins=str(rotations)).path
    done = export(run, "--format", form, f"plugins={rotations}")
    assert (done.code, done.err) == (0, "")
    assert "outputs, float32 [N, 4]: of the network, as they are" in done.out
    known: dict[str, Any] = {}
    exec(done.out.partition("\n\n")[2], known)
    assert known["outputs"].shape == (2, 4)
