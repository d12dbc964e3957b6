"""`cnnbench export`: what is wrong with a command is said before anything heavy is imported."""

import subprocess
import sys

from cnnbench.analysis.export import formats
from cnnbench.cli.export import FORMATS


def test_mistakes_are_refused_at_once(command_of, tmp_path):
    assert "there is no 'onx'; did you mean 'onnx'?" in command_of("export", str(tmp_path), "--format", "onx").err
    assert "more: no such argument" in command_of("export", str(tmp_path), "--format", "onnx", "more").err
    code = "import sys, cnnbench.cli.export as _; sys.exit(str({'torch', 'pydantic'} & sys.modules.keys() or 0))"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert imported.stderr.strip() == "0"


def test_the_command_knows_every_format():
    assert tuple(formats.FORMATS) == tuple(FORMATS)
