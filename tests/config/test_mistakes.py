"""What is wrong with a command is said at once, all of it, with the way out; and nothing is written."""

import pytest

from cnnbench.config.compose import Composer
from cnnbench.plugins import register_everything
from cnnbench.registry import SCHEDULERS
from cnnbench.training.plan import plan_run
from tests.support.mistakes import accepted, mistakes_in

register_everything()


def test_long_messages_are_wrapped_for_a_terminal_and_for_no_program(cnnbench, monkeypatch):
    words = ["data=nowhere", "modle=lenet"]
    whole = cnnbench(*words).err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    wrapped = cnnbench(*words).err
    assert len(whole.splitlines()) == 3
    assert " ".join(wrapped.split()) == " ".join(whole.split())
    lines = wrapped.splitlines()
    assert len(lines) > 4
    assert [line for line in lines if len(line) > 80] == []
    column = lines[1].index("no such data")
    assert {len(line) - len(line.lstrip()) for line in lines[2:4]} == {column}, "below the problem"


class TestCommand:
    """The whole command, and what it leaves behind."""

    def refused(self, cnnbench, tmp_path, *words: str) -> str:
        outcome = cnnbench(*words)
        assert (outcome.code, outcome.out) == (2, "")
        assert "Traceback" not in outcome.err
        left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
        assert left == ["here"], "a command that is refused writes nothing"
        return outcome.err

    def test_three_mistakes_are_reported_in_one_message(self, cnnbench, tmp_path):
        output = self.refused(cnnbench, tmp_path, "epoch=3", "modle=lenet", "optimizer.lr=fast")
        assert output.splitlines() == [
            "cnnbench: 3 mistakes in the configuration, nothing was started:",
            "  epoch=3            no such key; did you mean 'epochs'?",
            "  modle=lenet        no such key; did you mean 'model'?",
            "  optimizer.lr=fast  must be a number above 0",
        ]

    def test_mistakes_in_words_options_keys_values_and_controls_are_reported_together(self, cnnbench, tmp_path):
        words = ["model=lenett", "lenet", "seed=0,1", "hydra.run.dir=x", "epoch=3", "batch_size=0", "rerun=maybe"]
        output = self.refused(cnnbench, tmp_path, *words)
        assert "7 mistakes" in output
        assert all(word in output for word in words)

    def test_what_hydra_refuses_hides_no_other_mistake(self, cnnbench, tmp_path):
        output = self.refused(cnnbench, tmp_path, "~augmentation.crop", "modle=lenet", "optimizer.lr=fast")
        assert "3 mistakes" in output
        assert "  ~augmentation.crop " in output
        assert "did you mean 'model'?" in output
        assert "must be a number above 0" in output

    def test_mistakes_of_a_sweep_are_reported_before_any_job_starts(self, cnnbench, tmp_path):
        output = self.refused(cnnbench, tmp_path, "-m", "epochs=3,0,true", "modle=lenet")
        assert "epochs=0 " in output
        assert "epochs=true " in output
        assert output.count("modle=lenet") == 1

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (["data.crop=40"], "larger than the images"),
            (["batch_size=5000"], "exceeds the 1294 training images; use at most 1294"),
            (["scheduler=step", "scheduler.every=99"], "training ends after 40 epochs, before the first change"),
            (["resume=nowhere"], "nowhere: there is no such folder, and no run below"),
            (["resume="], "must be the folder of a run"),
            (["accept_stale=1"], "must be true or false"),
        ],
        ids=["crop", "batch", "schedule", "run folder", "no folder", "control"],
    )
    def test_what_only_the_data_or_the_parts_can_show_is_refused_as_well(self, cnnbench, tmp_path, words, text):
        assert text in self.refused(cnnbench, tmp_path, *words)

    @pytest.mark.slow
    def test_nothing_is_written_by_a_process_of_its_own(self, start, tmp_path):
        process = start(["epoch=3"])
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (2, "")
        assert "did you mean 'epochs'?" in err
        assert [path.name for path in tmp_path.rglob("*")] == ["here"]


WRONG_VALUES = {
    "seed=true": "a whole number at least 0 and below 4294967296",
    "seed=-1": "a whole number at least 0 and below 4294967296",
    "seed=1.0": "a whole number at least 0",
    "seed=4294967296": "below 4294967296",
    "seed=1099511627776": "below 4294967296",
    "seed=2**40": "a whole number",
    "seed='1'": "a whole number",
    "seed=null": "a whole number",
    "epochs=2.5": "a whole number above 0",
    "epochs=3.0": "a whole number above 0",
    "epochs=0": "a whole number above 0",
    "epochs=-1": "a whole number above 0",
    "epochs=": "a whole number above 0",
    "epochs=[1]": "a whole number above 0",
    "batch_size=0": "a whole number above 0",
    "batch_size=true": "a whole number above 0",
    "optimizer.lr=nan": "a number above 0",
    "optimizer.lr=inf": "a number above 0",
    "optimizer.lr=0": "a number above 0",
    "optimizer.lr=true": "a number above 0",
    "optimizer.momentum=1": "a number at least 0 and below 1",
    "optimizer.nesterov=1": "true or false",
    "regularization.dropout=1": "a number at least 0 and below 1 or null",
    "regularization.dropout=true": "a number at least 0 and below 1 or null",
    "regularization.batchnorm=1": "true or false or null",
    "regularization.l2=-0.1": "a number at least 0",
    "regularization.early_stopping.patience=0": "a whole number above 0 or null",
    "data.val_fraction=1": "a number at least 0 and below 1",
    "data.crop=0": "a whole number at least 2 or a number above 0 and below 1 or null",
    "data.crop=1.0": "a whole number at least 2 or a number above 0 and below 1 or null",
    "data.crop=1.5": "a whole number at least 2 or a number above 0 and below 1 or null",
    "data.crop=true": "a whole number at least 2 or a number above 0 and below 1 or null",
    "data.channels=2": "one of 1, 3 or null",
    "precision=fp8": "one of fp32, tf32, bf16, fp16",
    "device=tpu": "auto, cpu, mps, cuda",
    "deterministic=1": "true or false",
    "threads=0": "a whole number above 0 and at most 1024 or null",
    "max_minutes=0": "a number above 0 or null",
    "checkpoint.keep=0": "a whole number above 0",
    "model.pool=min": "one of max, average",
    "model.maps=[6]": "a list of 2, each",
    "model.maps=[6,16,32]": "a list of 2, each",
    "model.maps=[6,0]": "each a whole number above 0",
}


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    """Return the message on each wrong value, by word; as many as have different keys are typed in one command."""
    rounds: list[dict[str, str]] = []
    for word in WRONG_VALUES:
        key = word.partition("=")[0]
        free = next((typed for typed in rounds if key not in typed), None)
        if free is None:
            rounds.append(free := {})
        free[key] = word
    register_everything()
    opened = Composer()
    answers = [mistakes_in(opened, *typed.values()) for typed in rounds]
    assert len(rounds) < 10
    return {word: problem for answer in answers for word, problem in answer.items()}


@pytest.mark.parametrize("word", WRONG_VALUES)
def test_a_value_of_the_wrong_kind_is_answered_with_what_is_allowed(problems, word):
    assert problems[word].startswith("must be ")
    assert WRONG_VALUES[word] in problems[word]


def test_nothing_but_wrong_values_is_reported(problems):
    assert set(problems) == set(WRONG_VALUES)


ENTRY = "{metric: accuracy, value: 0.9, split: test, source: a book}"


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        ("{metric: accuracy, value: 0.9, split: test}", "; entry 2 lacks 'source'"),
        ("{metric: accuracy, value: 0.9, split: test, source: a book, page: 3}", "; entry 2 has an unknown 'page'"),
        ("{metric: accuracy, value: high, split: test, source: a book}", "; entry 2 has a wrong 'value'"),
        ("a book", ""),
    ],
)
def test_a_wrong_entry_of_a_list_of_settings_is_named_with_what_it_should_be(composer, entry, wrong):
    (problem,) = mistakes_in(composer, f"references=[{ENTRY},{entry}]").values()
    keys = "{metric: text, value: a number, split: one of train, val, test, source: text}"
    assert problem == f"must be a list, each settings in braces: {keys}{wrong}"


def test_a_folder_that_must_be_given_is_shown_as_it_is_typed(composer):
    (problem,) = mistakes_in(composer, "data=image_folder").values()
    assert "or a whole path; as in data.folder=my_photos" in problem


def test_a_missing_group_is_answered_with_its_options(composer):
    (problem,) = mistakes_in(composer, "~scheduler").values()
    assert "no such scheduler" in problem
    assert all(f"'{name}'" in problem for name in SCHEDULERS)


def test_no_experiment_can_be_said(composer):
    assert plan_run(composer, ["experiment=null"]).config == plan_run(composer, []).config


@pytest.mark.parametrize("words", [[], ["experiment=cnn_lab/lenet_mnist"]], ids=["alone", "over an experiment"])
def test_seed_0_is_a_seed(composer, words):
    assert plan_run(composer, [*words, "seed=0"]).config.seed == 0


def test_values_at_the_border_are_taken_as_they_are(composer):
    words = ["seed=4294967295", "epochs=1", "batch_size=1294", "optimizer.lr=1", "regularization.dropout=0"]
    config = accepted(composer, *words, "threads=1", "data.val_fraction=0.1").config
    assert (config.seed, config.epochs, config.batch_size, config.optimizer.settings["lr"]) == (
        4294967295,
        1,
        1294,
        1.0,
    )


@pytest.mark.parametrize("word", ["dataset=synthetic", "data=synthetic"])
def test_dataset_means_data(cnnbench, word, tmp_path):
    name = word.partition("=")[0]
    outcome = cnnbench(word, f"{name}.root={tmp_path}", f"{name}.num_classes=3", "--cfg", "job")
    assert outcome.code == 0, outcome.err
    section = outcome.out.partition("\ndata:\n")[2].split("\n", 3)
    assert section[:3] == ["  name: synthetic", "  num_train: 2000", "  num_test: 500"]
    assert f"  root: {tmp_path}\n" in outcome.out
    assert "  num_classes: 3\n" in outcome.out


@pytest.mark.parametrize(
    "words",
    [
        ("x" * 5000 + "=1",),
        ("optimizer." + "y" * 5000 + "=1",),
        ("model=" + "z" * 5000,),
        ("resume=" + "z" * 5000,),
        ("init.file=" + "z" * 5000 + ".pt",),
        ("data=image_folder", "data.folder=" + "z" * 5000),
        ("--config-dir", "z" * 5000),
        ("model.name=[]",),
        ("data=synthetic", "data.num_train=1000000000000"),
        ("data.image_size=50000",),
        ("threads=1000000",),
        ("-m", "seed=range(1,1)"),
    ],
    ids=lambda words: " ".join(words)[:30],
)
def test_the_very_long_and_the_very_large_are_refused_in_a_sentence(cnnbench, outputs, words):
    outcome = cnnbench(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("cnnbench: ")
    assert len(outcome.err) < 2500
    assert not outputs.exists()
