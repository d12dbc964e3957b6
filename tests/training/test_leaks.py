"""Images that a network is tested on, and that the run which its weights come from was trained on."""

import shutil
from pathlib import Path

import pytest

import cnnbench
from cnnbench.errors import UserError
from cnnbench.store.files import write_sealed
from cnnbench.store.folder import RunFolder
from cnnbench.store.lookup import run_named
from cnnbench.training.plan import plan_resume
from cnnbench.training.trainer import carry_out
from tests.support.interruption import finished, go, read
from tests.support.photographs import photograph, write_classes, write_parts
from tests.support.training import plan_of

SHARED = ("epochs=1", "model=mlp", "model.units=[8]", "threads=1", "device=cpu", "report=false", "logger=[]")
DIGITS = (*SHARED, "data=digits")
PHOTOGRAPHS = (*SHARED, "data=image_folder", "data.image_size=12", "data.crop=null", "batch_size=4")
ELSEWHERE = (  # images of other classes, that fit a network for digits
    *SHARED, "data=synthetic", "data.num_train=40", "data.num_test=20", "data.num_classes=10", "data.channels=1",
    "batch_size=8",
)  # fmt: skip
ALIKE = (  # without noise there are fewer images than are asked for, so that both parts have the same ones
    *SHARED, "data=synthetic", "data.num_train=300", "data.num_test=20", "data.num_classes=2", "data.noise=0",
)  # fmt: skip
TRAINED, VALIDATED = 1294, 144  # of 1 797 digits, 359 are for testing

pytestmark = pytest.mark.usefixtures("outputs")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    return finished(DIGITS, tmp_path_factory.mktemp("digits"))


@pytest.fixture
def source(trained, tmp_path) -> Path:
    """Return a run on digits, of which each test has its own."""
    return Path(shutil.copytree(trained, tmp_path / "source"))


def begun(*words: str) -> Path:
    assert go(*words) == 0
    return run_named("last").path


def notes_of(run: Path) -> str:
    return "\n".join(read(run / "result.json")["notes"])


def forget_images(run: Path) -> None:
    """Make a run one of a version that did not record its images."""
    split = {key: value for key, value in read(run / "split.json").items() if key not in ("hashes", "checksum")}
    write_sealed(run / "split.json", split, long_lines=True)


# Initial weights ------------------------------------------------------------------------------------------------------


def test_weights_that_were_trained_on_test_images_are_refused(source, outputs):
    with pytest.raises(UserError) as refused:
        go(*DIGITS, "data.test_fraction=0.5", f"init.run={source}")
    assert f"init.run={source}" in str(refused.value)
    assert "these weights were trained on 484 of the 898 test images of this run" in str(refused.value)
    assert "data.test_fraction is 0.5, and 0.2 there" in str(refused.value)
    assert "init.accept_leaks=true" in str(refused.value)
    assert not outputs.exists()


@pytest.mark.parametrize("control", ["dry_run=true", "lr_find=true"])
def test_a_trial_refuses_them_too(control, source, cnnbench):
    done = cnnbench(*DIGITS, "data.test_fraction=0.5", f"init.run={source}", control)
    assert (done.code, "484 of the 898 test images" in done.err) == (2, True)


def test_what_was_accepted_is_recorded_and_on_the_page(source):
    words = (*DIGITS, "data.test_fraction=0.5", f"init.run={source}")
    assert plan_of(*words).config.identity() == plan_of(*words, "init.accept_leaks=true").config.identity()
    run = begun(*words, "init.accept_leaks=true")
    assert read(run / "result.json")["init"]["test_images_seen"] == {"trained": 484, "validated": 55}
    said = "the initial weights were trained on 484 of the 898 test images of this run: its result is no test"
    assert said in notes_of(run)
    assert said in cnnbench.load_run(run).report().read_text()


@pytest.mark.parametrize("words", [(), ("data.split_seed=3",), ("data.folds=5", "data.fold=1")])
def test_another_choice_of_validation_is_no_leak_of_test(words, source):
    run = begun(*DIGITS, "seed=1", *words, f"init.run={source}")
    assert "test_images_seen" not in read(run / "result.json")["init"]
    assert "test images" not in notes_of(run)
    looks_better = "validation images of this run: it will look better than it is" in notes_of(run)
    assert looks_better == bool(words)


def test_weights_that_test_images_only_chose_are_noted(tmp_path):
    folder = write_parts(tmp_path / "a", {"train": {"x": 6, "y": 6}, "val": {"x": 3, "y": 3}, "test": {"x": 2, "y": 2}})
    first = begun(*PHOTOGRAPHS, f"data.folder={folder}")
    other = write_parts(tmp_path / "b", {"train": {"x": 6, "y": 6}, "val": {}, "test": {}})
    shutil.copytree(folder / "val", other / "test")
    run = begun(*PHOTOGRAPHS, f"data.folder={other}", "data.val_fraction=0.25", f"init.run={first}")
    assert read(run / "result.json")["init"]["test_images_seen"] == {"trained": 0, "validated": 6}
    assert "chosen by 6 of the 6 test images of this run" in notes_of(run)


def test_photographs_are_known_by_their_content_in_whatever_folder(tmp_path):
    first = begun(*PHOTOGRAPHS, f"data.folder={write_classes(tmp_path / 'a', {'x': 12, 'y': 12})}")
    used = read(first / "split.json")["files"]["train"][:3]
    for number, name in enumerate(used):
        target = tmp_path / "b" / "test" / Path(name).parent / f"copy{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "a" / name, target)
    for name in "xy":
        photograph(tmp_path / "b" / "test" / name / "new.png", 500 + ord(name))
    write_classes(tmp_path / "b" / "train", {"x": 6, "y": 6}, first=900)
    with pytest.raises(UserError, match="trained on 3 of the 5 test images of this run"):
        go(*PHOTOGRAPHS, f"data.folder={tmp_path / 'b'}", f"init.run={first}")


def test_images_that_a_data_set_has_in_both_parts_are_no_leak_between_runs():
    first = begun(*ALIKE)
    run = begun(*ALIKE, "seed=1", "data.subset.first=100", f"init.run={first}")
    assert "test_images_seen" not in read(run / "result.json")["init"]


def test_a_leak_is_found_through_a_chain_of_runs_that_are_gone(source, tmp_path):
    second = begun(*ELSEWHERE, f"init.run={source}")
    resumed = plan_resume(str(second), ("epochs=2",))
    assert carry_out(resumed) == 0
    third = run_named("last").path
    assert third != second
    shutil.rmtree(second)
    shutil.rmtree(source)
    assert go(*DIGITS, "seed=1", f"init.run={third}") == 0
    with pytest.raises(UserError, match="trained on 484 of the 898 test images"):
        go(*DIGITS, "data.test_fraction=0.5", f"init.run={third}")


def test_a_split_that_is_restored_still_knows_what_came_before(source):
    second = begun(*ELSEWHERE, f"init.run={source}")
    before = read(second / "split.json")["hashes"]
    (second / "split.json").write_text("{")
    assert carry_out(plan_resume(str(second), ())) == 0
    assert read(second / "split.json")["hashes"] == before
    assert before.keys() == {"train", "val", "train_before", "val_before"}


# Runs that did not record their images --------------------------------------------------------------------------------


def test_of_an_older_run_it_is_said_that_it_cannot_be_checked(source, tmp_path):
    forget_images(source)
    run = begun(*DIGITS, "data.test_fraction=0.5", f"init.run={source}")
    assert "cannot be checked" in notes_of(run)
    assert str(source) in notes_of(run)
    again = begun(*ELSEWHERE, f"init.run={run}")
    assert "cannot be checked" in notes_of(again)  # of a link of the chain, too
    assert str(source) in notes_of(again)


def test_of_an_older_run_on_the_same_data_nothing_has_to_be_checked(source):
    forget_images(source)
    assert "cannot be checked" not in notes_of(begun(*DIGITS, "seed=1", f"init.run={source}"))


def test_hashes_that_are_damaged_are_not_read(source):
    split = read(source / "split.json")
    split.pop("checksum")
    write_sealed(source / "split.json", split | {"hashes": {"train": "AAAA"}}, long_lines=True)
    with pytest.raises(UserError, match=r"hashes\.train"):
        RunFolder(source).split()


# Other images ---------------------------------------------------------------------------------------------------------


def test_only_digits_that_a_run_has_not_seen_are_measured(source):
    run = cnnbench.load_run(source)
    for words in ("digits", "digits data.test_fraction=0.5"):
        report = run.evaluate(data=words)
        assert len(report.tables["predictions"]) == 1797 - TRAINED - VALIDATED
        assert report.metrics == run.evaluate().metrics  # the images that it was tested on
        assert any(f"left out: {1438:,} of these".replace(",", " ") in note for note in report.notes)


def test_all_digits_are_measured_that_a_run_was_not_trained_on(tmp_path):
    folder = tmp_path / "numbers"
    write_classes(folder, dict.fromkeys("0123456789", 5))
    words = ("data.image_size=32", "data.channels=1", "data.val_fraction=0")
    run = cnnbench.load_run(begun(*PHOTOGRAPHS, *words, f"data.folder={folder}"))
    report = run.evaluate(data="digits")
    assert len(report.tables["predictions"]) == 1797
    assert not any("left out" in note for note in report.notes)


def test_photographs_that_a_run_was_trained_on_are_left_out_of_others(tmp_path):
    folder = write_classes(tmp_path / "a", {"x": 12, "y": 12})
    run = cnnbench.load_run(begun(*PHOTOGRAPHS, f"data.folder={folder}", "data.test_fraction=0.25"))
    for name in "xy":
        photograph(folder / name / "new.png", 500 + ord(name))
    report = run.evaluate(data=f"image_folder data.folder={folder}")
    files = {Path(file).name for file in report.tables["predictions"]["file"]}
    assert (len(report.tables["predictions"]), "new.png" in files) == (8, True)
    files = RunFolder(run.path).split()["files"]
    for name in (*files["train"][:2], *files["val"]):
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, tmp_path / "b" / name)
    with pytest.raises(UserError, match="was trained or validated on all 4 images"):
        run.evaluate(data=f"image_folder data.folder={tmp_path / 'b'}")


def test_the_test_part_of_the_same_data_is_measured_whole():
    run = cnnbench.load_run(begun(*ALIKE))
    other = " ".join(word.removeprefix("data=") for word in ALIKE if word.startswith("data"))
    assert len(run.evaluate(data=other).tables["predictions"]) == 20


def test_of_an_older_run_it_is_said_that_other_images_cannot_be_checked(source):
    forget_images(source)
    report = cnnbench.load_run(source).evaluate(data="digits")
    assert len(report.tables["predictions"]) == 1797
    assert any("cannot be checked" in note for note in report.notes)
