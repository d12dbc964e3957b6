"""The page of a run, made from its folder alone."""

import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.analysis.reports.evaluated import evaluation, thumbnail
from cnnbench.analysis.reports.page import Lines, Page, Picture, Table
from cnnbench.analysis.reports.single import page_of
from cnnbench.store.files import write_sealed
from cnnbench.store.folder import RunFolder
from cnnbench.tasks.gallery import Tile
from tests.conftest import ended, latest
from tests.support.interruption import finished, read
from tests.support.training import SHARED, SMALL
from tests.tasks.test_tasks import CASES, words_of


@pytest.fixture
def run(copy_of) -> Path:
    return copy_of(*latest((*SHARED, "report=true")))


@pytest.fixture
def report(capsys):
    return lambda *words: ended("report", [str(word) for word in words], capsys)


def kinds(run: Path) -> list[tuple[str, str]]:
    return [(section.kind, section.title) for section in page_of(RunFolder(run)).sections]


# What a training leaves -----------------------------------------------------------------------------------------------


def test_a_training_ends_with_a_page_to_open(outputs, cnnbench):
    done = cnnbench(*SMALL, "report=true")
    (page,) = outputs.glob("*/*/*/report.html")
    assert done.out.splitlines()[-1] == f"  page        {page}"
    again = cnnbench(*SMALL, "report=true")
    assert again.out.splitlines()[-1] == f"  page        {page}"


def test_a_training_writes_the_same_evaluation_as_the_command(run, tmp_path, capsys):
    assert ended("evaluate", [str(run), "--out", str(tmp_path / "again")], capsys).code == 0
    kept = run / "evaluation" / "test-best"
    names = sorted(path.name for path in kept.iterdir())
    assert sorted([*names, "report.html", "report.md"]) == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((kept / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_a_gap_between_training_and_validation_is_that_of_the_tested_weights(run):
    result = read(run / "result.json")
    result.pop("checksum")
    for share, is_said in ((1.0, True), (0.5, False)):
        result |= {"train": result["train"] | {"accuracy": share}, "val": result["val"] | {"accuracy": 0.5}}
        write_sealed(run / "result.json", result)
        text = page_of(RunFolder(run)).markdown()
        gap = "; accuracy is 1.0000 on training and 0.5000 on validation images: a gap of 0.5000"
        assert (gap in text) == is_said
        assert ("it underfits" in text) != is_said


def test_tensorboard_shows_confusions(run):
    shown = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    (event,) = shown.Images("confusion")
    assert event.step == read(run / "result.json")["checkpoint"]["step"]


def test_without_a_report_there_are_only_numbers(outputs, cnnbench):
    done = cnnbench(*SMALL, "report=false")
    assert "page  " not in done.out
    (result,) = outputs.glob("*/*/*/result.json")
    assert read(result)["test"]["ece"] >= 0
    assert not (result.parent / "report.html").exists()
    assert not (result.parent / "evaluation").exists()


def test_a_page_that_cannot_be_written_does_not_fail_the_training(outputs, cnnbench, monkeypatch):
    monkeypatch.setattr(
        "cnnbench.analysis.reports.page.Page.write", lambda *_: (_ for _ in ()).throw(OSError("no room"))
    )
    done = cnnbench(*SMALL, "report=true")
    assert done.code == 0
    assert "note: could not write its page: OSError: no room" in done.out
    (record,) = outputs.glob("*/*/*/run.json")
    assert read(record)["status"] == "completed"


def test_a_sweep_ends_with_its_runs_side_by_side(outputs, start):
    process = start(["-m", *SMALL, "report=true", "epochs=1", "optimizer.lr=0.1,0.2"])
    out, error = process.communicate(timeout=280)
    assert process.returncode == 0, error
    (sweep,) = outputs.glob("sweeps/*")
    page = sweep / "report.html"
    assert f"  writing the pages of 2 runs\n  page        {page}" in out
    assert len(list(outputs.glob("*/*/*/report.html"))) == 2
    text = page.read_text(encoding="utf-8")
    assert "optimizer.lr=0.1,0.2" in text
    assert len(re.findall(r'<a href="[^"]+/report.html"><circle', text)) == 2
    assert "refresh" not in text


# What the page of a run says ------------------------------------------------------------------------------------------


def test_the_page_of_a_run_has_all_sections(run):
    assert kinds(run)[:5] == [
        ("facts", "The run"), ("plot", "accuracy by epoch"), ("lines", "Findings"), ("plot", "loss by epoch"),
        ("table", "Metrics"),
    ]  # fmt: skip
    titles = [title for _, title in kinds(run)]
    for title in (
        "Classes, the worst first",
        "Confusion matrix",
        "Calibration",
        "Most confused pairs",
        "Most confident mistakes",
        "Kernels of the first convolution",
        "Settings",
        "Files",
    ):
        assert title in titles
    page = page_of(RunFolder(run))
    test = read(run / "result.json")["test"]
    assert f"accuracy {test['accuracy']:.4f} on 40 test images (95 % interval" in page.summary
    measured = next(section for section in page.sections if section.title == "Metrics")
    assert isinstance(measured, Table)
    rows = measured.content.set_index("metric")
    assert "top5" not in rows.index, "of ten classes, guessing has one of five in half of all cases"
    value, low, high = map(float, re.findall(r"\d\.\d+", rows.loc["loss", "test"]))
    assert low < value == round(test["loss"], 4) < high
    assert rows.loc["ece", ["test", "meaning"]].tolist() == [test["ece"], "expected calibration error"]
    settings = next(section for section in page.sections if section.title == "Settings")
    assert isinstance(settings, Table)
    rows = settings.content.set_index("setting")
    assert rows.loc["epochs", ["value", "from"]].tolist() == ["3", "command line"]


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("classification")])
def test_the_page_of_every_task_has_its_pictures(case, tmp_path):
    run = finished((*words_of(case), "report=true"), tmp_path / "task")
    pictures = {path.stem.rpartition("-epoch-")[0] for path in (run / "pictures").glob("*.png")}
    shown = [title for kind, title in kinds(run) if kind == "picture"]
    assert len(shown) == len(pictures)
    said = page_of(RunFolder(run)).summary
    assert said.startswith("loss" if case.startswith("autoencoder") else ("recall@1", "accuracy", "loss"))
    text = (run / "report.md").read_text(encoding="utf-8")
    assert "best validation " in text
    assert (" among " in said) == ("is higher among more images" in text) == said.startswith("recall@1")
    assert not re.search(r"recall@1 is [\d.]+ on training", text), "recall among other numbers of images is no gap"
    assert (run / "report.html").is_file()


def test_a_task_declares_its_metric_and_its_direction(run):
    result = read(run / "result.json")
    assert result["watched"] == [["accuracy", True], ["loss", False]]
    rows = [
        {"row": "epoch", "epoch": epoch, "step": epoch, "error/val": error}
        for epoch, error in ((1, 0.5), (2, 0.25), (3, 0.3))
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split in ("train", "val", "test"):
        result[split] = {"error": 0.3, "samples": 40}
    write_sealed(run / "result.json", result | {"watched": [["error", False]], "references": []})
    page = page_of(RunFolder(run))
    assert page.summary.startswith("error 0.3000 on 40 test images")
    assert "best validation error: 0.2500, in epoch 2 of 3" in page.markdown()


def test_no_prediction_is_shown_as_certain():
    shown = [thumbnail(Tile("mistakes", "1", "a", "b", share, b"")).lines[1:3] for share in (0.994, 0.9951)]
    assert shown == [["→ b", "0.99"], ["→ b", ">0.99"]]


def test_an_image_is_known_by_its_folder_its_file_and_its_row_which_explain_takes(tmp_path):
    tiles = [Tile("mistakes", f"/data/{name}/7.jpg", name, "cat", 0.5, b"") for name in ("dog", "cow")]
    (tmp_path / "predictions.csv").write_text("index,file\n64,/data/dog/7.jpg\n9,/data/cow/7.jpg\n")
    (gallery,) = evaluation(tmp_path, "test", tiles, {})
    shown = [one.lines for one in gallery.groups[0][1]]
    assert shown == [["dog", "→ cat", "0.50", "dog/7.jpg", "#64"], ["cow", "→ cat", "0.50", "cow/7.jpg", "#9"]]
    assert gallery.note.endswith("--split test --index 64,9`")
    (gallery,) = evaluation(tmp_path, "test", [Tile("doubts", "64", "dog", "dog", 0.5, b"")], {})
    assert gallery.groups[0][1][0].lines == ["dog", "0.50", "#64"]


def test_the_last_picture_of_each_kind_is_shown(run):
    (run / "pictures").mkdir()
    for epoch in (2, 12, 7):
        Image.new("RGB", (epoch, 5)).save(run / "pictures" / f"codes-epoch-{epoch:04}.png")
    (run / "pictures" / "damaged-epoch-0001.png").write_bytes(b"no image")
    (picture,) = [section for section in page_of(RunFolder(run)).sections if isinstance(section, Picture)]
    assert (picture.title, Image.open(BytesIO(picture.content)).width) == ("codes, epoch 12", 12)


@pytest.mark.parametrize(
    ("status", "lost", "epochs"), [("stopped", ["result.json"], 3), ("running", ["result.json", "metrics.jsonl"], 0)]
)
def test_the_page_of_an_unfinished_run_names_its_epoch(status, lost, epochs, run, report):
    for name in lost:
        (run / name).unlink()
    RunFolder(run).update(status=status)
    done = report(run)
    assert done.code == 0
    assert done.out.splitlines()[0] == f"  Not finished: {status} after {epochs} epochs."
    assert (("plot", "accuracy by epoch") in kinds(run)) == (epochs > 0)


def test_sentences_are_wrapped_between_words_for_a_terminal_and_for_no_program(run, report, monkeypatch):
    def sentences() -> str:
        return report(run).out.partition("  metric")[0]

    whole = sentences()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    wrapped = sentences()
    assert wrapped.split() == whole.split()
    assert max(map(len, wrapped.splitlines())) <= 60 < max(map(len, whole.splitlines()))


def test_values_that_are_no_numbers_are_nan_among_the_metrics_and_left_empty_elsewhere(run):
    result = read(run / "result.json")
    result["test"] |= {"accuracy": None, "loss": None, "ece": None}
    result["references"] = [{"metric": "loss", "split": "test", "value": 1.0, "ours": None, "source": "", "remark": ""}]
    write_sealed(run / "result.json", result)
    page = page_of(RunFolder(run))
    assert page.summary == "accuracy on the test images is not a number."
    assert "None" not in page.markdown()
    assert [line for line in page.markdown().splitlines() if "nan" in line] == [
        "| ece |  |  | nan | expected calibration error |"
    ]


def test_a_run_without_evaluation_files_has_a_page(run, report):
    shutil.rmtree(run / "evaluation")
    (run / "report.html").unlink()
    result = read(run / "result.json")
    result["test"].pop("ece")
    write_sealed(run / "result.json", result)
    assert report(run).code == 0
    assert (run / "report.html").is_file()
    assert "picture" not in dict(kinds(run))


def test_out_names_the_folder_of_the_page(run, report, tmp_path):
    done = report(run, "--out", tmp_path / "out")
    assert done.out.splitlines()[-1] == f"  page: {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.md").read_text(encoding="utf-8").startswith("# lenet_v2 on synthetic")


def test_repeated_evaluations_on_the_test_images_are_counted(run):
    RunFolder(run).update(test_measured=3)
    said = next(section for section in page_of(RunFolder(run)).sections if section.title == "Findings")
    assert isinstance(said, Lines)
    assert "the test images were measured 3 times, with those by cnnbench evaluate" in said.lines


def test_no_half_of_a_row_stays_empty(tmp_path):
    small, wide = Lines("small", ["one"], is_small=True), Lines("wide", ["one"])
    pages = [Page("", "", sections).html(tmp_path) for sections in ([small] * 3, [small, wide, small, small])]
    assert [page.count('class="half"') for page in pages] == [2, 2]
