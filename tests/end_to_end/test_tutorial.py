"""The tutorial can be followed, and its notebook: each of their commands and cells, in their order."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cnnbench.cli.help import DOCS
from tests.cli.test_docs import examples_in
from tests.support.photographs import write_classes


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_commands_of_the_tutorial_end_well(monkeypatch):
    monkeypatch.delenv("CNNBENCH_OUTPUTS")
    write_classes(Path("my_photos"), dict.fromkeys(("bird", "frog", "ship"), 200))
    typed = list(examples_in(DOCS / "tutorial.md"))
    assert len(typed) > 8
    for command in typed:
        words = shlex.split(command)[1:]
        ended = subprocess.run([sys.executable, "-m", "cnnbench", *words], capture_output=True, text=True, check=False)
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
    assert Path("my_report", "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cells_of_the_notebook_run(outputs):
    notebook = json.loads((DOCS / "examples" / "laboratory.ipynb").read_text(encoding="utf-8"))
    known: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), known)
    assert len(list(outputs.glob("digits/*/*/report.html"))) == 7
    assert 0 < known["ours"].result["test"]["worst_class"] <= known["ours"].result["test"]["accuracy"]
