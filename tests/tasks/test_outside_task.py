"""A task that somebody adds, in a file of their own: nothing in the package is touched."""

import pandas as pd
import pytest

from tests.conftest import TINY, only_run
from tests.support.interruption import read


def test_the_example_of_the_readme_trains_resumes_and_starts_a_classifier(rotations, cnnbench, outputs):
    words = (*TINY, "model=lenet", f"plugins={rotations}", "task=rotations")
    ended = cnnbench(*words, "epochs=2")
    assert ended.code == 0, ended.err
    run = only_run(outputs)
    result = read(run / "result.json")
    assert set(result["test"]) == {"loss", "accuracy", "samples"}
    assert result["parameters"]["total"] == result["parameters"]["trainable"]
    assert read(run / "run.json")["plugins"] == [str(rotations)]
    assert cnnbench("evaluate", str(run), f"plugins={rotations}").code == 0
    by_image = pd.read_csv(run / "evaluation" / "test-best" / "images.csv")
    assert list(by_image) == ["index", "class", "loss", "accuracy"]
    assert by_image["loss"].mean() == pytest.approx(result["test"]["loss"])
    longer = cnnbench(f"resume={run}", "epochs=3", f"plugins={rotations}")
    assert longer.code == 0, longer.err
    tuned = cnnbench(*TINY, "model=lenet", f"init.run={run}", f"plugins={rotations}", "epochs=1")
    assert tuned.code == 0, tuned.err
    assert "reinitialised: the head is built for 3 outputs" in tuned.out


def test_its_settings_are_checked_like_any_others(rotations, cnnbench):
    ended = cnnbench(*TINY, f"plugins={rotations}", "task=rotations", "task.turns=9")
    assert ended.code == 2
    assert "task.turns=9  must be a whole number at least 2 and at most 4" in ended.err
