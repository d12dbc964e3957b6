"""How many files a reader passes from the command line to the first step of the loop, and whether the way goes down."""

import importlib
import sys
from types import FrameType

import pytest

from cnnbench.plugins import register_everything
from cnnbench.train import run_command
from cnnbench.training.signals import StopRequests
from tests.test_structure import PACKAGE, RANK, room

PREFIX = f"{PACKAGE}/"
PARTS = ("augmentation/", "data/", "models/", "optim/", "tasks/", "training/loggers/")  # of which a run chooses some


class Arrived(BaseException):
    """The loop has begun its first step."""


def file_of(frame: FrameType | None) -> str:
    """Return the file of cnnbench that a frame executes, such as `training/loop.py`; empty for any other."""
    path = "" if frame is None else frame.f_code.co_filename  # a string: this is asked at every call of any function
    return path[len(PREFIX) :] if path.startswith(PREFIX) else ""


@pytest.fixture
def walked(outputs) -> dict[str, set[str]]:
    """Return the files whose functions run until the first step, each with the files that call into it."""
    register_everything()
    for module in ("cnnbench.api", "cnnbench.cli.train"):  # what is imported on the way is no function of the way
        importlib.import_module(module)
    callers: dict[str, set[str]] = {}

    def follow(frame: FrameType, event: str, _: object) -> None:
        file = file_of(frame)
        if event != "call" or not file or frame.f_code.co_name == "<module>":
            return
        before = frame.f_back
        while before is not None and not file_of(before):
            before = before.f_back
        callers.setdefault(file, set()).add(file_of(before) or file)
        if frame.f_code.co_name == "train_step" and file == "training/step.py":
            raise Arrived

    sys.setprofile(follow)
    try:
        with pytest.raises(Arrived):
            run_command([], StopRequests())
    finally:
        sys.setprofile(None)
    return callers


def test_a_run_passes_few_files_and_is_followed_downwards(walked):
    files = {file for file in walked if not file.startswith(PARTS)}
    assert "training/loop.py" in files
    assert len(files) <= 30, " ".join(sorted(files))
    rank = {file: RANK[room(f"cnnbench.{file.removesuffix('.py').replace('/', '.')}")] for file in walked}
    climbs = {(caller, file) for file in files for caller in walked[file] if rank[caller] < rank[file]}
    # One mechanism adapts defaults, for settings alone and with the data at hand: it is handed the function to try.
    assert climbs <= {("config/validate.py", "training/setup.py")}
