"""The tutorial can be followed: each of its commands, in its order."""

import shlex
import subprocess
import sys
from pathlib import Path

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
