"""Three test images of the run that all share, with its network."""

import pytest

from cnnbench.analysis.explanation.explainer import Explainer, explainer_of
from cnnbench.analysis.loading import load_run
from tests.support.training import SHARED


@pytest.fixture
def explainer(finished_once) -> Explainer:
    return explainer_of(load_run(finished_once(*SHARED)), "best", [], "test", [0, 3, 5])[0]
