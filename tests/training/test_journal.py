from pathlib import Path

import pytest

from cnnbench.store.files import RowCount, read_rows
from cnnbench.training import journal as module
from cnnbench.training.journal import Journal
from cnnbench.training.loop import Progress


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr(module, "WAITS", 3600.0)
    return Journal(tmp_path / "metrics.jsonl", Progress())


def rows(number: int) -> list[dict[str, object]]:
    return [{"row": "step", "epoch": 1, "step": step, "loss/train": 1 / step} for step in range(1, number + 1)]


@pytest.mark.parametrize("end", [Journal.flush, lambda journal: journal.close("failed")], ids=["flush", "close"])
def test_rows_of_steps_that_wait_are_all_written_at_the_end(tmp_path: Path, journal: Journal, end) -> None:
    for row in rows(3):
        journal.write(row)
    assert list(read_rows(tmp_path / "metrics.jsonl")) == []
    end(journal)
    assert list(read_rows(tmp_path / "metrics.jsonl")) == rows(3)
    assert journal.rows.recorded() == RowCount(rows(3)).recorded()


def test_an_epoch_is_written_at_once_after_its_steps(tmp_path: Path, journal: Journal) -> None:
    epoch = {"row": "epoch", "epoch": 1, "step": 2, "loss/train": 0.5}
    for row in [*rows(2), epoch]:
        journal.write(row)
    assert list(read_rows(tmp_path / "metrics.jsonl")) == [*rows(2), epoch]


def test_rows_wait_no_longer_than_a_moment(tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITS", 0.0)
    for row in rows(2):
        journal.write(row)
        assert list(read_rows(tmp_path / "metrics.jsonl"))[-1] == row
