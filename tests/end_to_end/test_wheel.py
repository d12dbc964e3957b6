"""An installed cnnbench works like a checkout: from any folder, configuration files included."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*words: str, cwd: Path, **environment: str) -> str:
    ended = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_a_wheel_built_from_the_source_distribution_trains_from_another_folder(tmp_path, outputs):
    run("-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert {"cnnbench/conf/config.yaml", "cnnbench/py.typed"} <= set(packed.namelist())
        packed.extractall(tmp_path / "site")
    (metadata,) = (tmp_path / "site").glob("*.dist-info/METADATA")
    assert "## Set up" in metadata.read_text(encoding="utf-8")
    assert not re.search(r"\]\((?!https?:|#)", metadata.read_text(encoding="utf-8")), "an index has no such page"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    installed = str(tmp_path / "site")
    where = run("-c", "import cnnbench; print(cnnbench.__file__)", cwd=elsewhere, PYTHONPATH=installed)
    assert where.startswith(installed)
    assert "minialexnet_v4" in run("-m", "cnnbench", "--help", cwd=elsewhere, PYTHONPATH=installed)
    assert "# Architecture" in run("-m", "cnnbench", "help", "architecture", cwd=elsewhere, PYTHONPATH=installed)
    assert "wrote mine.py" in run("-m", "cnnbench", "new", "model", "mine", cwd=elsewhere, PYTHONPATH=installed)
    assert "epochs: 2" in run("-m", "cnnbench", "--cfg", "job", "epochs=2", cwd=elsewhere, PYTHONPATH=installed)
    run("-m", "cnnbench", "epochs=1", "threads=1", cwd=elsewhere, PYTHONPATH=installed)
    assert list(outputs.glob("digits/lenet/*/result.json"))
