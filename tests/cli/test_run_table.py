"""`cnnbench list` as a table, in a terminal of any width and in a pipe; as CSV and JSON; in an order."""

import csv
import io
import json
import re
import shutil
import sys
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from cnnbench.cli.run_table import begun, cut
from cnnbench.store.folder import RunFolder
from cnnbench.store.lookup import run_named
from tests.conftest import ended
from tests.support.run_folders import write_run


@pytest.fixture
def listing(capsys):
    def run(*words: str) -> str:
        done = ended("list", list(words), capsys)
        assert done.code == 0, done.err
        return done.out

    return run


@pytest.fixture
def in_terminal(listing, monkeypatch):
    """Return the listing in a terminal of so many columns."""

    def run(columns: int, *words: str) -> str:
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setattr(sys.stdout, "isatty", lambda: True)
            return listing(*words)

    return run


@pytest.fixture
def ablation(outputs) -> Path:
    """Return a folder with 24 runs: two networks, dropout, learning rate, three seeds."""
    grid = product(("lenet", "mlp"), (0.0, 0.5), (0.01, 0.1), range(3))
    for number, (model, dropout, lr, seed) in enumerate(grid):
        words = (f"model={model}", f"regularization.dropout={dropout}", f"optimizer.lr={lr}", f"seed={seed}")
        write_run(outputs, 0.5 + number / 100, *words, "epochs=4")
    return outputs


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the cells of a table by their headings, which stand above their first or their last character."""
    head, *lines = text.splitlines()
    places = [(found.start(), found.end()) for found in re.finditer(r"\S+", head)]
    rows = []
    for line in lines:
        cells = [(found.start(), found.end(), found[0]) for found in re.finditer(r"\S+(?: \S+)*", line)]
        above = {
            head[start:end]: text
            for start, end in places
            for first, last, text in cells
            if first == start or last == end
        }
        rows += [above] if "run" in above else []
    return rows


@pytest.mark.parametrize("columns", [80, 120, None])
def test_every_run_of_an_ablation_looks_different(columns, ablation, in_terminal, listing):
    text = listing() if columns is None else in_terminal(columns)
    rows = rows_of(text)
    assert len(rows) == 24
    assert len({(row["model"], row["dropout"], row["lr"], row["seed"]) for row in rows}) == 24
    assert rows[0].items() >= {"model": "lenet", "dropout": "0", "lr": "0.01", "accuracy": "0.5000"}.items()
    assert columns is None or max(map(len, text.splitlines()[:-1])) <= columns
    assert ("since" in rows[0], "size" in rows[0]) == {80: (False, True), 120: (True, True), None: (True, True)}[
        columns
    ]
    assert "epochs" not in rows[0]  # the same in all of them


@pytest.mark.parametrize("columns", [80, 400])
def test_what_stands_for_a_run_is_taken_by_other_commands(columns, ablation, in_terminal):
    paths = {path.parent for path in ablation.glob("*/*/*/run.json")}
    one = min(paths)
    rerun = Path(shutil.copytree(one, RunFolder(one).next_rerun().path))
    shown = [row["run"] for row in rows_of(in_terminal(columns))]
    assert {run_named(word).path for word in shown} == {*paths, rerun}
    assert all(("/" in word) == (columns == 400) for word in shown)


def test_of_two_folders_with_the_same_hash_more_is_shown(outputs, in_terminal):
    one = write_run(outputs, 0.5, "seed=1")
    other = Path(shutil.copytree(one, outputs / "copies" / "lenet" / one.name))
    long = Path(shutil.copytree(one, outputs / "synthetic" / "lenet" / f"{'long' * 20}-0a1b2c3d"))
    assert {run_named(row["run"]).path for row in rows_of(in_terminal(80))} == {one, other, long}


def test_runs_elsewhere_say_how_other_commands_find_them(ablation, in_terminal, monkeypatch, tmp_path):
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(tmp_path / "others"))
    text = in_terminal(80, "--in", str(ablation))
    assert f"CNNBENCH_OUTPUTS={ablation}" in text.splitlines()[-1]
    monkeypatch.setenv("CNNBENCH_OUTPUTS", str(ablation))
    below = in_terminal(80, "--in", str(ablation / "synthetic"))
    assert "CNNBENCH_OUTPUTS" not in below
    assert all(run_named(row["run"]) for row in rows_of(below))


def test_a_name_that_was_given_to_a_run_after_it_was_trained_is_told_from_one_that_it_began_with(outputs, listing):
    write_run(outputs, 0.5, "seed=0", labels={"name": "study"})
    write_run(outputs, 0.5, "seed=1", "name=study", labels={"name": "study"})
    assert [row["name"] for row in rows_of(listing())] == ["study (later)", "study"]
    assert [run["name"] for run in json.loads(listing("--json"))] == ["study", "study"]


def test_columns_that_tell_runs_apart_come_before_those_that_do_not(outputs, in_terminal):
    for seed in range(3):
        write_run(outputs, 0.5, f"seed={seed}", "epochs=3", "batch_size=32")
    write_run(outputs, 0.5, "seed=3", "epochs=4000", "batch_size=320", "tags=[lab3,wide,slow]", "name=the largest one")
    text = in_terminal(60)
    assert rows_of(text)[0].items() >= {"seed": "0", "status": "completed", "accuracy": "0.5000"}.items()
    assert "tags" not in rows_of(text)[-1]
    assert re.search(r"  no room for .*tags; --csv has everything", text)
    assert rows_of(in_terminal(140))[-1].items() >= {"name": "the largest one", "tags": "lab3,wide,slow"}.items()


def test_why_a_run_failed_and_how_far_others_came_is_shown(outputs, in_terminal, listing):
    failed = write_run(
        outputs, None, "seed=1", "epochs=50", status="failed", error=f"ValueError: first\nand {'x' * 99}"
    )
    paused = write_run(outputs, None, "seed=2", "epochs=50", status="paused")  # by an earlier version
    running = write_run(outputs, None, "seed=3", "epochs=50", status="running")
    with (running / "metrics.jsonl").open("a") as file:
        file.write('{"row": "step", "epoch": 4, "step": 31, "loss/train": 1.0}\n{"row": "st')
    (write_run(outputs, None, "seed=4", "epochs=50", status="running") / "metrics.jsonl").unlink()
    text = listing()
    standing = {row["seed"]: (row["status"], row["epoch"]) for row in rows_of(text)}
    assert standing == {
        "1": ("failed", "3/50"), "2": ("stopped", "3/50"), "3": ("stopped", "3/50"), "4": ("stopped", "0/50")
    }  # fmt: skip
    assert f"{failed.name}: ValueError: first and {'x' * 99}\n" in text
    assert text.count(f"{paused.name}") == 1
    (line,) = [line for line in in_terminal(70).splitlines() if "ValueError" in line]
    assert len(line) == 70
    assert re.fullmatch(r"  [0-9a-f]{8}: ValueError: first and x+…", line)


def test_a_new_setting_tells_no_runs_apart_until_it_is_typed(outputs, listing):
    old, new = write_run(outputs, 0.5, "seed=1"), write_run(outputs, 0.5, "seed=2")
    config = (old / "config.yaml").read_text()
    (old / "config.yaml").write_text(config.replace("accumulate: 1\n", ""))
    record = json.loads((old / "run.json").read_text())
    del record["config"]["accumulate"]
    (old / "run.json").write_text(json.dumps(record))
    assert "accumulate" not in listing()
    record = json.loads((new / "run.json").read_text())
    record["origins"]["accumulate"] = "command line"
    (new / "run.json").write_text(json.dumps(record))
    assert "accumulate" in listing().splitlines()[0]


def test_what_changes_no_result_is_no_column(outputs, listing):
    write_run(outputs, 0.5, "seed=1", "threads=1", "device=cpu")
    write_run(outputs, 0.5, "seed=2", "threads=2")
    assert rows_of(listing())[0].keys() == {"seed", "status", "accuracy", "loss", "since", "size", "run"}


ORDERS = {
    "accuracy": ["c", "b", "a", "none"],
    "accuracy --reverse": ["a", "b", "c", "none"],
    "accuracy/test": ["c", "b", "a", "none"],
    "loss": ["c", "b", "a", "none"],
    "dropout": ["none", "b", "a", "c"],
    "regularization.dropout --reverse": ["c", "a", "b", "none"],
    "started": ["a", "none", "b", "c"],
    "started --reverse": ["c", "b", "none", "a"],
    "epoch": ["none", "a", "b", "c"],
    "dataset.num_train": ["a", "b", "c", "none"],
}


@pytest.fixture
def four_runs(outputs) -> Path:
    """Return runs with the names a, none (which has no result, and the dropout of its network, 0), b and c."""
    write_run(outputs, 0.7, "name=a", "regularization.dropout=0.15", "seed=1")
    unfinished = write_run(outputs, None, "name=none", "data.num_train=9000", status="failed")
    (unfinished / "metrics.jsonl").unlink()
    write_run(outputs, 0.8, "name=b", "regularization.dropout=0.05", "seed=3")
    write_run(outputs, 0.9, "name=c", "regularization.dropout=0.2", "seed=0")
    return outputs


@pytest.mark.parametrize("words", ORDERS)
def test_runs_are_listed_in_an_order(words, four_runs, listing):
    assert [row["name"] for row in rows_of(listing("--sort", *words.split()))] == ORDERS[words]
    plain = json.loads(listing("--json", "--sort", *words.split()))
    assert [run["name"] for run in plain] == ORDERS[words]


def test_the_largest_come_last_and_the_newest_first_where_that_is_asked_for(four_runs, listing):
    sizes = [run["bytes"] for run in json.loads(listing("--json", "--sort", "size"))]
    assert sizes == sorted(sizes)
    assert [row["name"] for row in rows_of(listing("--reverse"))] == ["c", "b", "none", "a"]


def test_what_runs_are_ordered_by_is_shown(four_runs, in_terminal):
    assert "loss" in in_terminal(60, "--sort", "loss").splitlines()[0]
    assert rows_of(in_terminal(80, "--sort", "accuracy/train"))[0]["accuracy/train"] == "1.0000"
    assert "started" in in_terminal(80, "--sort", "started").splitlines()[0]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("acuracy", "did you mean 'accuracy'?"),
        ("droput", "did you mean 'dropout'?"),
        ("startd", "did you mean 'started'?"),
        ("name.nothing", "no run has 'name.nothing'."),
    ],
)
def test_an_unknown_key_is_refused(word, hint, four_runs, capsys):
    done = ended("list", ["--sort", word], capsys)
    assert (done.code, f"--sort {word}: " in done.err, hint in done.err) == (2, True, True)
    assert hint in ended("list", [f"{word}=1"], capsys).err or word == "startd"


def test_an_end_that_several_keys_have_is_refused_unless_one_of_them_differs(outputs, listing, capsys):
    write_run(outputs, 0.5, "head.units=[8]", "head.dropout=0.2", "seed=1")
    write_run(outputs, 0.6, "head.units=[8]", "head.dropout=0.3", "seed=1")
    assert [run["test"]["accuracy"] for run in json.loads(listing("dropout=0.3", "--json"))] == [0.6]
    assert "  dropout  " in listing()
    write_run(outputs, 0.7, "regularization.dropout=0.1", "seed=1")
    done = ended("list", ["dropout=0.3"], capsys)
    assert "'dropout' is the end of head.dropout, regularization.dropout; type one of them." in done.err
    assert {"head.dropout", "regularization.dropout"} <= rows_of(listing())[0].keys()


def test_csv_has_every_setting_that_differs_and_every_metric(ablation, listing):
    write_run(ablation, None, "model=lenet", "seed=9", "epochs=4", status="failed", error="ValueError: 1,\n2")
    table = pd.read_csv(io.StringIO(listing("--csv")))
    assert len(table) == 25
    assert {"model", "model.name", "regularization.dropout", "optimizer.lr", "seed"} <= set(table)
    assert not {"epochs", "data", "batch_size"} & set(table)
    assert table["accuracy/test"].iloc[:24].tolist() == pytest.approx([0.5 + number / 100 for number in range(24)])
    assert table["status"].tolist() == ["completed"] * 24 + ["failed"]
    assert table["error"].iloc[24] == "ValueError: 1, 2"
    assert all((Path(path) / "run.json").is_file() for path in table["path"])
    assert listing("seed=77", "--csv") == ""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")'])
def test_a_spreadsheet_executes_nothing(text, outputs, listing):
    path = write_run(outputs, 0.5, "seed=1")
    write_run(outputs, 0.5, "seed=2")
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(record | {"labels": {"name": text, "notes": text, "tags": [text]}}))
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(result | {"test": {"silhouette": -0.25, text: 0.5}}))
    head, first, _ = csv.reader(io.StringIO(listing("--csv")))
    row = dict(zip(head, first, strict=True))
    assert (row["name"], row["notes"], row["tags"]) == (f"'{text}", f"'{text}", f"'{text}")
    assert row["silhouette/test"] == "-0.25"  # a number stays one
    assert not [cell for cell in (*head, *first) if cell.startswith(("=", "+", "@")) or cell == text]


def test_json_has_what_the_table_has(four_runs, listing):
    runs = json.loads(listing("--json", "--sort", "accuracy"))
    best = runs[0]
    assert run_named(best["run"]).path == Path(best["path"])
    assert best["settings"] == {
        "regularization.dropout": 0.2,
        "seed": 0,
        "data.num_train": best["settings"]["data.num_train"],
    }
    assert (best["name"], best["tags"], best["epoch"], best["epochs"], best["error"]) == ("c", [], 3, 40, None)
    assert runs[-1]["error"] == "no error was recorded"


def test_text_of_others_cannot_steer_a_terminal(outputs, listing):
    path = write_run(outputs, None, status="failed", error="ValueError: \x1b[2Jgone")
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(record | {"labels": {"name": "two\nlines \x1b]0;title\x07"}}))
    text = listing()
    assert r"two lines \x1b]0;title\x07" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4


def test_long_text_loses_its_middle_or_its_end():
    assert (cut("0123456789", 7), cut("0123456789", 6), cut("01", 2), cut("012", None)) == (
        "012…789",
        "012…89",
        "01",
        "012",
    )
    assert (begun("0123456789", 7), begun("01", 2)) == ("012345…", "01")


def test_where_there_are_no_runs_there_is_no_table(outputs, listing):
    outputs.mkdir()
    assert listing("--sort", "accuracy") == f"  0 runs, 0 B, in {outputs}\n"


def test_a_setting_that_is_null_has_the_value_that_counts(outputs, listing):
    write_run(outputs, 0.9, "model=lenet_v2", "model.dropout=0.3", "seed=1")
    write_run(outputs, 0.9, "model=lenet_v2", "regularization.dropout=0", "seed=2")
    assert [(row["dropout"], row["seed"]) for row in rows_of(listing())[:2]] == [("0.3", "1"), ("0", "2")]
    for condition, seeds in {"dropout=0.3": ["1"], "dropout=0": ["2"], "model.dropout=0.3": ["1"]}.items():
        assert re.findall(r"seed(\d)", listing(condition)) == seeds, condition
    assert "no run has dropout=null; there are '0.0', '0.3'" in listing("dropout=null")


def test_a_setting_that_is_null_in_some_runs_only_is_told_from_zero(outputs, listing):
    write_run(outputs, 0.9, "regularization.clip.norm=1", "seed=1")
    write_run(outputs, 0.9, "seed=2")
    assert [row["norm"] for row in rows_of(listing())[:2]] == ["1", "null"]
    assert "no run has norm=0; there are '1.0', 'null'" in listing("norm=0")
