"""The commands that a newcomer types first."""

import json

from tests.conftest import TINY, only_run


def test_a_run_leaves_everything_that_the_run_directory_promises(cnnbench, outputs):
    outcome = cnnbench(*TINY)
    assert outcome.code == 0, outcome.err
    run = only_run(outputs)
    names = {path.name.partition(".tfevents")[0] for path in run.iterdir()}
    promised = {"config.yaml", "run.json", "split.json", "metrics.jsonl", "events.out", "checkpoints", "result.json"}
    assert names >= promised
    result = json.loads((run / "result.json").read_text())
    assert result["test_measured"] == 1
    assert result["test"]["samples"] == 20


def test_the_same_command_again_shows_the_result_and_trains_nothing(cnnbench, outputs):
    assert cnnbench(*TINY).code == 0
    before = {path: path.stat().st_mtime_ns for path in only_run(outputs).rglob("*") if path.is_file()}
    again = cnnbench(*TINY)
    assert again.code == 0
    assert "finished" in again.out
    assert {path: path.stat().st_mtime_ns for path in only_run(outputs).rglob("*") if path.is_file()} == before
