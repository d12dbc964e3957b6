"""The run that is exported, and the command."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Outcome
from tests.support.exporting import CASES


@pytest.fixture
def run(copy_of: Callable[..., Path]) -> Path:
    return copy_of(*CASES["classification"])


@pytest.fixture
def export(command_of: Callable[..., Outcome]) -> Callable[..., Outcome]:
    def of(*words: Any) -> Outcome:
        return command_of("export", *map(str, words))

    return of
