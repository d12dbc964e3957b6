"""What a run records of what it was computed with: packages, code that is not committed, instructions, memory."""

import importlib.metadata
import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cnnbench.config.run_config import RunConfig
from cnnbench.registry import DATASETS
from cnnbench.store import provenance
from tests.conftest import latest, only_run
from tests.support.interruption import read
from tests.support.training import SMALL, plan_of


def config_of(*words: str) -> RunConfig:
    return plan_of(*latest((*SMALL, *words))).config


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody")
    return subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """Return a checkout of a package that provenance takes for cnnbench, in a folder of its repository."""
    package = tmp_path / "repository" / "src" / "cnnbench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("one = 1\n")
    (package.parent / "other.py").write_text("")
    git(package, "init", "-q", str(tmp_path / "repository"))
    git(package, "add", "-A", ":/")
    git(package, "commit", "-qm", "first")
    monkeypatch.setattr(provenance, "cnnbench", SimpleNamespace(__file__=str(package / "__init__.py")))
    return package


def test_the_diff_makes_the_code_of_a_run_from_its_commit(checkout, tmp_path):
    state = provenance.git_state()
    assert state == {"commit": git(checkout, "rev-parse", "HEAD").strip(), "dirty": False}
    assert provenance.git_diff() == b""
    changed = {"__init__.py": b"two = 2\n", "new file \u00fc.py": b"three = 3\n", "pixels.bin": bytes(range(256))}
    for name, content in changed.items():
        (checkout / name).write_bytes(content)
    (checkout.parent / "other.py").write_text("no part of the package")
    assert provenance.git_state() == state | {"dirty": True}
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(tmp_path / "repository"), str(clone))
    (tmp_path / "code.diff").write_bytes(provenance.git_diff())
    git(clone, "apply", str(tmp_path / "code.diff"))
    assert {path.name: path.read_bytes() for path in (clone / "src" / "cnnbench").iterdir()} == changed
    assert (clone / "src" / "other.py").read_text() == ""


def test_a_run_of_changed_code_keeps_the_diff(cnnbench, outputs, monkeypatch):
    monkeypatch.setattr(provenance, "git_state", lambda: {"commit": "a1", "dirty": True})
    monkeypatch.setattr(provenance, "git_diff", lambda: b"-one = 1\n+two = 2\n")
    assert cnnbench(*SMALL, "epochs=1", "max_minutes=0.00001").code == 75
    run = only_run(outputs)
    monkeypatch.setattr(provenance, "git_diff", lambda: b"-one = 1\n+three = 3\n")
    assert cnnbench(*SMALL, "epochs=1").code == 0
    record = read(run / "run.json")
    first, second = (session["git"]["diff"] for session in record["sessions"])
    assert [(run / name).read_text()[-4:] for name in (first, second)] == ["= 2\n", "= 3\n"]
    assert record["git"] == {"commit": "a1", "dirty": True, "diff": first}
    monkeypatch.setattr(provenance, "git_state", lambda: {"commit": "a1", "dirty": False})
    assert cnnbench(*SMALL, "epochs=2").code == 0
    assert len(list(outputs.glob("*/*/*/*.diff"))) == 2


@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("git", 10), FileNotFoundError("git"), PermissionError()])
def test_a_diff_that_git_cannot_make_stops_no_run(cnnbench, outputs, monkeypatch, error):
    monkeypatch.setattr(provenance, "git_state", lambda: {"commit": "a1", "dirty": True})
    run = subprocess.run

    def fail(command, **options):
        if "diff" in command:
            raise error
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", fail)
    ended = cnnbench(*SMALL, "epochs=1")
    assert ended.code == 0, ended.err
    git = read(only_run(outputs) / "run.json")["sessions"][0]["git"]
    assert (git["dirty"], "diff" in git) == (True, False)


def test_outside_a_checkout_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "cnnbench", SimpleNamespace(__file__=str(tmp_path / "__init__.py")))
    assert provenance.git_state() is None


def test_every_installed_package_is_recorded_as_pip_names_it():
    packages = provenance.packages()
    assert f"numpy=={importlib.metadata.version('numpy')}" in packages
    assert packages == sorted(packages, key=str.casefold)
    assert len(packages) >= len({line.partition("=")[0] for line in packages}) > 20


def test_a_package_of_a_repository_is_recorded_with_its_commit():
    origin = {"url": "https://host/nets", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    assert provenance._requirement("nets", "1.0", json.dumps(origin)) == "nets @ git+https://host/nets@abc"
    edited = {"url": "file:///home/me/nets", "dir_info": {}}
    assert provenance._requirement("nets", "1.0", json.dumps(edited)) == "nets==1.0"


@pytest.mark.parametrize("user", ["me:secret", "secret"])
def test_no_password_in_the_address_of_a_repository_is_recorded(user):
    origin = {"url": f"https://{user}@host:8080/nets", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
    assert provenance._requirement("nets", "1.0", json.dumps(origin)) == "nets @ git+https://host:8080/nets@abc"


@pytest.mark.parametrize(
    "text", [None, "{", "[]", "{}", '{"vcs_info": {}}', '{"vcs_info": 1}', '{"url": "x", "vcs_info": {"vcs": "git"}}']
)
def test_a_package_whose_origin_cannot_be_read_has_its_version(text):
    assert provenance._requirement("nets", "1.0", text) == "nets==1.0"


def test_the_machine_is_recorded_with_instructions_and_blas():
    machine = provenance.machine("cpu")
    assert machine["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert f"BLAS_INFO={machine['blas']}" in torch.__config__.show()


def test_a_gpu_is_recorded_with_its_libraries_and_driver(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"the GPU at {device}")
    driver = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 01:58:54 UTC 2025\n"
    monkeypatch.setattr(provenance.Path, "read_text", lambda path, **_: driver)
    machine = provenance.machine("cuda:1")
    assert machine["name"] == "the GPU at cuda:1"
    assert machine["driver"] == "570.124.06"
    assert {"cuda", "cudnn", "instructions", "blas"} <= machine.keys()


def test_peak_memory_is_the_most_of_all_sessions(monkeypatch):
    (process,) = provenance.peak_memory("cpu", {}).values()
    assert 50e6 < process < 100e9
    assert provenance.peak_memory("cpu", {"process": process * 10, "gpu": 5}) == {"process": process * 10, "gpu": 5}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert provenance.peak_memory("cuda", {"gpu": 5})["gpu"] == 7


def test_what_the_seed_varies_depends_on_the_settings():
    varied, fixed, repeated = provenance.randomness(config_of("seed=3"))
    assert varied == "seed=3 varies initial weights, order of images and dropout if there is any"
    assert "does not vary which images train, validate and test (data.split_seed=0)" in fixed
    assert "repeatable bit for bit" in repeated
    varied, fixed, _ = provenance.randomness(
        config_of("augmentation=noise", "data.folds=3", "data.fold=1", "data.label_noise=0.1", "data.noise_seed=4")
    )
    assert varied.endswith("order of images, augmentation and dropout if there is any")
    assert "(data.fold=1, data.noise_seed=4)" in fixed
    assert "may give other bits" in provenance.randomness(config_of("deterministic=false"))[2]


def test_a_run_says_all_of_it_in_its_record_and_on_its_page(copy_of):
    run = copy_of(*latest((*SMALL, "report=true")))
    record, result = read(run / "run.json"), read(run / "result.json")
    assert record["packages"] == provenance.packages()
    assert record["memory"]["process"] > 50e6
    assert record["randomness"] == provenance.randomness(config_of("report=true"))
    assert result["seconds"]["epoch"] == pytest.approx(result["seconds"]["train"] / 3)
    page, text = (run / "report.html").read_text(), (run / "report.md").read_text()
    assert re.search(r"- training: [\d.]+ s, [\d.]+ s an epoch, without validation\n- peak memory: [\d ]+ MB", text)
    assert all(f"{key}: {record['machine'][key]}" in page for key in ("instructions", "blas"))
    assert all(f"- {line}" in text for line in record["randomness"])
    assert record["packages"][0] in page


def test_licence_and_citation_of_the_data_are_recorded(cnnbench, outputs):
    words = [word for word in SMALL if not word.startswith("data")]
    assert cnnbench(*words, "data=digits", "data.subset.first=50", "epochs=1").code == 0
    data = read(only_run(outputs) / "run.json")["data"]
    assert data["licence"] == "CC BY 4.0"
    assert data["citation"].startswith("Alpaydin, Kaynak 1998")
    own = {name for name in DATASETS if not DATASETS[name].is_from_plugin}
    unknown = {name for name in own if not (DATASETS[name].facts["citation"] and DATASETS[name].facts["licence"])}
    assert unknown == {"image_folder", "csv", "synthetic"}  # of whoever made them
