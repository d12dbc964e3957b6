"""Plugins as people first write them, and a run of one: a training, or one sentence that says what to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import TINY, only_run
from tests.support.interruption import read

IMPORTS = """
from typing import Literal
import torch
from torch import nn
from cnnbench import registry
from cnnbench.augmentation.base import Augmentation
from cnnbench.data.images import ImageData, Images
from cnnbench.tasks.base import Task
"""


@dataclass
class First:
    """A file, the words that use it, and the sentence that it is refused with, or else what its training says."""

    text: str
    words: str
    refusal: str = ""
    says: str = ""


def assert_trains_or_is_refused(first: First, cnnbench: Any, outputs: Path, tmp_path: Path) -> None:
    """Run a first file, and see that it ends in the sentence or in the training that it is said to."""
    (tmp_path / "here" / "plugin.py").write_text(f"{IMPORTS}\n{first.text.strip()}\n")
    tiny = [word for word in TINY if not word.startswith("data")] if "data=" in first.words else TINY
    ended = cnnbench(*tiny, "epochs=1", "plugins=plugin.py", *first.words.split())
    if first.refusal:
        assert (ended.code, ended.out) == (2, "")
        assert first.refusal in ended.err
        assert len(ended.err.splitlines()) == 1
        assert not outputs.exists()
    else:
        assert ended.code == 0, ended.err
        assert first.says in ended.out
        assert read(only_run(outputs) / "result.json")["epochs"] == 1
