"""`cnnbench evaluate`."""

import os
from pathlib import Path

import pandas as pd
import pytest

import cnnbench
from cnnbench.analysis.reports.single import page_of
from cnnbench.data import prepare
from cnnbench.registry import DATASETS
from cnnbench.store.files import write_sealed
from cnnbench.store.folder import RunFolder
from tests.conftest import ended, only_run
from tests.support.interruption import finished, read, stop
from tests.support.photographs import write_classes
from tests.support.selection import everyday
from tests.support.training import SMALL, plan_of
from tests.tasks.test_tasks import ALIKE, CASES, words_of

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_a_run_in_a_precision_of_gpus_is_evaluated_on_any_machine(precision, outputs, evaluate, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("cnnbench.training.setup.NVIDIA_ONLY", ())  # stands for a GPU: a processor computes in both
        path = finished((*SMALL, "epochs=1", f"precision={precision}", "regularization.average.kind=ema"), outputs)
    assert evaluate(path, "--split", "test").code == 0
    assert evaluate(path, "--checkpoint", "last").code == 0
    result = read(path / "result.json")["test"]
    assert read(path / "evaluation" / "test-best" / "metrics.json")["loss"] == pytest.approx(result["loss"], rel=1e-3)


def test_evaluation_reproduces_the_result_to_the_last_digit(run, evaluate):
    result = read(run / "result.json")
    for split in ("test", "val", "train"):
        assert evaluate(run, "--split", split).code == 0
        folder = run / "evaluation" / f"{split}-best"
        metrics = read(folder / "metrics.json")
        assert {name: metrics[name] for name in ("loss", "accuracy")} == {
            name: result[split][name] for name in ("loss", "accuracy")
        }
        table = pd.read_csv(folder / "predictions.csv")
        assert len(table) == result[split]["samples"]
        assert table["right"].mean() == pytest.approx(metrics["accuracy"])
        assert pd.read_csv(folder / "classes.csv")["images"].sum() == len(table)
        expected = [
            "calibration.csv", "classes.csv", "confusion.csv", "confusion.png", "gallery.csv", "gallery.png",
            "metrics.csv", "metrics.json", "predictions.csv", "report.html", "report.md",
        ]  # fmt: skip
        assert sorted(path.name for path in folder.iterdir()) == expected


def test_another_evaluation_is_added_to_the_page_of_the_run(outputs, cnnbench, evaluate):
    cnnbench(*SMALL, "epochs=1", "report=true")
    page = only_run(outputs) / "report.md"
    assert "Other evaluations" not in page.read_text(encoding="utf-8")
    assert evaluate(page.parent, "--split", "val", "--checkpoint", "last").code == 0
    assert "| val-last |" in page.read_text(encoding="utf-8")
    assert '<a href="evaluation/val-last/report.html">' in page.with_suffix(".html").read_text(encoding="utf-8")
    assert "Confusion matrix" in (page.parent / "evaluation/val-last/report.html").read_text(encoding="utf-8")


def test_the_test_images_are_not_measured_until_that_is_asked_for(outputs, cnnbench, evaluate, capsys):
    done = cnnbench(*SMALL, "epochs=1", "test=false", "report=true")
    (path,) = (result.parent for result in outputs.glob("*/*/*/result.json"))
    assert "test        not measured; to measure it: cnnbench evaluate " in done.out
    assert (path / "evaluation" / "val-best" / "predictions.csv").is_file()
    assert not (path / "evaluation" / "test-best").exists()
    assert "test" not in read(path / "result.json")
    assert read(path / "result.json")["test_measured"] == 0
    assert "test_measured" not in read(path / "run.json")
    page = (path / "report.md").read_text()
    assert "validation images" in page
    assert "The test images are not measured yet." in page
    assert "completed" in ended("list", [], capsys).out
    assert "measured on the test images for the first time" in evaluate(path).out
    result = RunFolder(path).result()
    assert result["test"] == read(path / "evaluation" / "test-best" / "metrics.json") | {"samples": 20}
    assert result["test_measured"] == read(path / "run.json")["test_measured"] == 1
    assert "on 20 test images" in (path / "report.md").read_text()
    shown = cnnbench(*SMALL, "epochs=1", "report=true")  # the same run, test measured as if it never was a question
    assert "not measured" not in shown.out
    assert len(list(outputs.glob("*/*/*/result.json"))) == 1


def test_what_test_false_leaves_out_is_what_would_have_been_measured(tmp_path, evaluate):
    words = (*SMALL, "epochs=1", "references=[{metric: accuracy, value: 0.5, split: test, source: a book}]")
    usual, late = (finished((*words, *more), tmp_path / name) for name, more in (("a", ()), ("b", ("test=false",))))
    assert read(late / "result.json")["references"] == []
    assert evaluate(late).code == 0
    for key in ("train", "val", "test", "checkpoint", "references", "test_measured"):
        assert read(usual / "result.json")[key] == read(late / "result.json")[key]


def test_an_error_that_a_source_has_in_per_cent_stands_next_to_the_accuracy(outputs, cnnbench):
    reference = "metric: accuracy, split: {}, source: a book"
    test, train = (reference.format(split) for split in ("test", "train"))
    words = f"references=[{{{test}, value: 0.9789, error: true}}, {{{train}, value: 0.5}}]"
    done = cnnbench(*SMALL, "epochs=1", "report=true", words)
    (path,) = (result.parent for result in outputs.glob("*/*/*/result.json"))
    result = read(path / "result.json")
    ours = result["test"]["accuracy"]
    with_error, without = result["references"]
    assert (with_error["error_percent"], with_error["our_error_percent"]) == (2.11, round(100 - 100 * ours, 4))
    assert "error_percent" not in without
    assert f"accuracy/test 0.9789 (error 2.11 %); ours {ours:.4f} (error {100 - 100 * ours:.2f} %)" in done.out
    assert "accuracy/train 0.5; ours" in done.out


@pytest.mark.parametrize("case", ["triplet", "autoencoder"])
def test_no_task_looks_at_test_where_it_should_not(case, tmp_path):
    words = next(words_of(name) for name in CASES if name.startswith(case))
    run = finished((*words, "test=false", "report=true"), tmp_path / "task")
    assert "test" not in read(run / "result.json")
    assert not (run / "embeddings" / "test.npz").exists()


def test_every_later_look_at_test_is_counted(run, evaluate):
    first = read(run / "run.json")["test_measured"]
    for words in (["--checkpoint", "last"], [], ["--split", "val"], ["--data", "synthetic", "data.num_classes=3"]):
        evaluate(run, *words)
    assert read(run / "run.json")["test_measured"] == first + 2
    cnnbench.load_run(run).evaluate()
    assert read(run / "run.json")["test_measured"] == first + 3
    cnnbench.load_run(run).evaluate("val")
    assert read(run / "run.json")["test_measured"] == first + 3
    done = evaluate(run)
    assert (
        f"the test images were measured {first + 4} times: what you choose by them needs other images for a fair test"
        in done.out
    )
    ended_page = cnnbench.load_run(run).report().with_name("report.md").read_text()
    assert f"the test images were measured {first + 4} times, with those by cnnbench evaluate" in ended_page


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("which", ["best", "last"])
def test_averaged_weights_are_evaluated(kind, which, tmp_path, evaluate):
    words = (*SMALL, "model=lenet_v2", "regularization.batchnorm=true", f"regularization.average.kind={kind}")
    words += ("regularization.average.start=0.3",) if kind == "swa" else ()
    run = finished((*words, f"tested={which}"), tmp_path / "averaged")
    assert evaluate(run, "--checkpoint", which, "--out", tmp_path / "out").code == 0
    metrics, result = read(tmp_path / "out" / "metrics.json"), read(run / "result.json")["test"]
    assert (metrics["loss"], metrics["accuracy"]) == (result["loss"], result["accuracy"])


OTHERS = [case for case in CASES if not case.startswith("classification")]


@pytest.mark.parametrize("case", everyday(OTHERS, [case for case in OTHERS if case not in ALIKE]))
def test_evaluation_reproduces_the_result_of_every_task(case, copy_of, tmp_path, evaluate):
    run = copy_of(*words_of(case))
    assert evaluate(run, "--out", tmp_path / "out").code == 0
    result = read(run / "result.json")["test"]
    result.pop("samples")
    assert read(tmp_path / "out" / "metrics.json") == result
    refused = evaluate(run, "--split", "val", "--out", tmp_path / "out")
    assert (refused.code, f"of something else; give a free one, as --out {tmp_path}/out_2\n" in refused.err) == (
        2,
        True,
    )
    refused = evaluate(run, "--split", "val", "--out", tmp_path / "out")
    assert (refused.code, f"of something else; give a free one, as --out {tmp_path}/out_2\n" in refused.err) == (
        2,
        True,
    )
    assert evaluate(run, "--split", "val", "--out", tmp_path / "val").code == 0
    assert {"mAP", "R-precision"} <= read(tmp_path / "val" / "metrics.json").keys()


@pytest.mark.parametrize("cache", ["true", "false"])
def test_predictions_for_photographs_name_their_files(cache, tmp_path, evaluate):
    folder = write_classes(tmp_path / "classes", {"cat": 8, "dog": 8})
    words = ("data=image_folder", f"data.folder={folder}", "data.image_size=20", "data.crop=16")
    words += (
        "data.test_fraction=0.25",
        f"data.cache={cache}",
        "model=lenet",
        "epochs=1",
        "batch_size=4",
        "threads=1",
        "report=false",
        "device=cpu",
    )
    run = finished(words, tmp_path / "photographs")
    for split in ("test", "train"):
        assert evaluate(run, "--split", split, "--out", tmp_path / split).code == 0
        table = pd.read_csv(tmp_path / split / "predictions.csv")
        assert all(Path(file).is_file() for file in table["file"])
        assert [Path(file).parent.name for file in table["file"]] == list(table["class"])
        assert table["file"].is_unique


def test_the_worst_classes_come_first(run, evaluate):
    out = evaluate(run).out
    table = pd.read_csv(run / "evaluation" / "test-best" / "classes.csv").sort_values(["top1", "class"])
    lines = out[out.index("worst first") :].splitlines()[2:]
    assert [line[2:12].strip() for line in lines[: len(table)]] == list(table["class"])


REFUSED = {
    "--data synthetic data.num_classes=4": "the network was trained for",
    "--data synthetic data.num_classes=3 data.crop=20": "gives 3x20x20 images; the network takes 3x16x16",
    "--data nothing": "no such data",
    "--checkpoint 7": "has no checkpoint '7'; there are 'tested', 'best', 'last', '15'",
    "accept_stale=true": "no such argument; there is nothing to accept: changed code is used",
    "--checkpoint first": "has no checkpoint 'first'",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_evaluated_is_refused_with_the_reason(words, run, evaluate):
    done = evaluate(run, *words.split())
    assert done.code == 2
    assert REFUSED[words] in done.err
    assert not (run / "evaluation").exists()


CHANGED = {"fingerprint": "the data changed since the training", "split": "the split changed since the training"}


@pytest.mark.parametrize("what", CHANGED)
def test_changed_data_are_refused(what, run, evaluate):
    folder = RunFolder(run)
    record = folder.record()
    if what == "split":
        folder.update(split="0" * 64)
    else:
        folder.update(data=record["data"] | {"fingerprint": "0" * 64})
    done = evaluate(run)
    assert (done.code, CHANGED[what] in done.err) == (2, True)


def test_what_differs_from_the_training_is_named_where_numbers_differ(run, evaluate):
    folder, recorded = RunFolder(run), read(run / "result.json")
    before = folder.record()
    write_sealed(folder.result_file, recorded | {"test": recorded["test"] | {"accuracy": 2.0}})
    assert "code, libraries and machine have not changed; a file was edited, or the network draws" in evaluate(run).out
    folder.update(code=before["code"] | {"cnnbench/models/plain.py": "0", "plug.py": "0"})
    folder.update(versions=before["versions"] | {"torch": "1.0"}, machine=before["machine"] | {"name": "abacus"})
    done = evaluate(run)
    assert (
        ", and 2 in result.json: plug.py (not given), cnnbench/models/plain.py changed since the training" in done.out
    )
    assert done.out.index("note: accuracy is") < done.out.index("classes, the worst first")
    write_sealed(folder.result_file, recorded | {"test": recorded["test"] | {"accuracy": 1.0}})
    findings = page_of(folder).markdown().partition("## Findings\n\n")[2]
    assert findings.startswith("- accuracy is 1.0000 in the result, and ")
    assert "; torch was 1.0 in the training, and is " in done.out
    assert "; name was abacus in the training, and is " in done.out
    assert "plug.py (not given) changed since the training; the code as it is now is used." in done.err


def test_photographs_that_changed_since_are_named(tmp_path, evaluate):
    folder = write_classes(tmp_path / "classes", {"cat": 8, "dog": 8})
    words = ("data=image_folder", f"data.folder={folder}", "data.image_size=16", "data.crop=16", "model=mlp")
    run = finished((*words, "epochs=1", "threads=1", "report=false"), tmp_path / "outputs")  # all images in a batch
    trained = RunFolder(run).split()["files"]["train"]
    (folder / trained[0]).unlink()
    (folder / trained[1]).rename(folder / "cat" / "new.png")
    (folder / trained[2]).write_bytes((folder / trained[3]).read_bytes())
    prepare._load.cache_clear()
    gone = ", ".join(f"'{name}'" for name in sorted(trained[:2]))
    said = f"(2 files gone: {gone}; 1 file new: 'cat/new.png'; 1 file changed: '{trained[2]}')"
    assert f"the data changed since the training {said}; results" in evaluate(run).err


def test_a_run_that_is_not_finished_says_how_far_it_came(outputs, evaluate):
    stop(plan_of(*SMALL), at_check=7)
    assert (
        "note: the run is not finished, 1 of 3 epochs done; measured with its checkpoint"
        in evaluate(only_run(outputs)).out
    )


def test_a_folder_that_is_not_a_run_is_named(evaluate, tmp_path):
    done = evaluate(tmp_path)
    assert done.code == 2
    assert f"{tmp_path} is no run folder" in done.err


def test_without_validation_there_is_no_best_checkpoint(tmp_path, evaluate):
    run = finished((*SMALL, "data.val_fraction=0"), tmp_path / "unvalidated")
    done = evaluate(run, "--checkpoint", "best")
    assert (done.code, "never validated" in done.err) == (2, True)
    assert evaluate(run, "--split", "val").code == 2


@pytest.mark.parametrize("words", [("data.val_fraction=0",), ("tested=last",)])
def test_the_checkpoint_that_was_tested_is_evaluated(words, tmp_path, evaluate):
    run = finished((*SMALL, *words), tmp_path / "last")
    assert evaluate(run).code == 0
    metrics, result = read(run / "evaluation" / "test-last" / "metrics.json"), read(run / "result.json")["test"]
    assert {**metrics, "samples": 20} == result
    assert cnnbench.load_run(run).tested == "last"


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        ({"kind": "last", "chosen": "best on validation"}, "last"),
        ({"chosen": "best on validation"}, "best"),
        ({"chosen": "last, without validation"}, "last"),
    ],
    ids=["key", "older result, best", "older result, last"],
)
def test_the_checkpoint_that_was_tested_is_read_from_the_result(recorded, expected, run):
    result = read(run / "result.json")
    write_sealed(run / "result.json", result | {"checkpoint": {"epoch": 3, "step": 15} | recorded})
    assert cnnbench.load_run(run).tested == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(run, evaluate, tmp_path):
    tmp_path.chmod(0o500)
    assert "--out FOLDER names another place" in evaluate(run, "--out", tmp_path / "out").err


def test_data_without_a_test_part_say_so_and_which_part_to_take(cnnbench, evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(DATASETS, "components", dict(DATASETS.components))
    (tmp_path / "untested.py").write_text(
        "import torch\nfrom cnnbench import register_dataset\nfrom cnnbench.data.images import ImageData, Images\n\n"
        '@register_dataset("untested")\ndef untested(root):\n    """Dark and bright."""\n'
        "    labels = torch.arange(60) % 2\n"
        "    images = Images((labels * 200).byte().view(-1, 1, 1, 1).expand(-1, 1, 16, 16), labels)\n"
        '    return ImageData(images, images[:0], ("dark", "bright"))\n'
    )
    plugins = f"plugins={tmp_path}/untested.py"
    trained = cnnbench(plugins, "data=untested", "model=mlp", "epochs=1", "threads=1", "report=false")
    assert "there are no test images\n" in trained.out
    assert "evaluate" not in trained.out
    for verb in ("evaluate", "explain", "predict"):
        done = cnnbench(verb, "last", plugins, *(["--index", "0"] if verb == "predict" else []))
        assert done.code == 2
        assert ": there are no test images; choose another split: 'train', 'val'.\n" in done.err
    assert cnnbench("evaluate", "last", plugins, "--split", "val").code == 0
    assert "There are no test images." in cnnbench("report", "last").out
