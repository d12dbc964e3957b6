"""`cnnbench` apart from training: help, version, header, configuration, sweeps, own folders."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

import cnnbench as package
from cnnbench.cli.parse import VERBS
from cnnbench.config.compose import Composer
from cnnbench.config.schema import GROUPS
from cnnbench.config.validate import validate
from cnnbench.sweeps.expand import resolve_all
from cnnbench.training.plan import Plan, folder_name, plan_run
from tests.conftest import TINY

OWN_PRESET = """\
# @package _global_
# A small LeNet of my own.
defaults:
  - override /optimizer: adam

batch_size: 32

model:
  name: lenet
  maps: [4, 8]
  units: [20]
  activation: relu
  pool: max
  dropout: 0.0
  batchnorm: false
"""


@pytest.fixture
def own_folder(tmp_path: Path) -> str:
    """Return a folder of one's own, laid out like `conf/`, with a model preset."""
    file = tmp_path / "own" / "model" / "small.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(OWN_PRESET)
    return str(tmp_path / "own")


@pytest.fixture
def swept(cnnbench, monkeypatch) -> Callable[..., Sequence[Plan]]:
    """Return what plans a sweep, and starts none of its jobs."""

    def plans_of(*words: str) -> Sequence[Plan]:
        taken: list[Plan] = []
        monkeypatch.setattr("cnnbench.sweeps.launch.resolve_all", lambda plans: taken.extend(plans) or plans)
        monkeypatch.setattr("cnnbench.sweeps.launch.carry_out_sweep", lambda *_: (0, None))
        outcome = cnnbench(*words)
        assert outcome.code == 0, outcome.err
        return taken

    return plans_of


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def heavy_imports(*arguments: str) -> list[str]:
    """Return which heavy libraries a command imports."""
    ran = python(
        "import sys\n"
        "from cnnbench.train import main\n"
        "try:\n"
        f"    main({list(arguments)})\n"
        "finally:\n"
        "    heavy = {'torch', 'numpy', 'sklearn', 'pandas', 'tensorboard', 'hydra', 'pydantic', 'yaml'}\n"
        "    sys.stderr.write(f'imported: {sorted(heavy & sys.modules.keys())}')\n"
    )
    assert ran.returncode == 0, ran.stderr
    return yaml.safe_load(ran.stderr.rpartition("imported: ")[2])


@pytest.mark.parametrize(("loaded", "is_frozen"), [("", True), ("sys.modules['triton'] = sys", False)])
def test_the_end_searches_for_no_garbage_unless_a_library_complains_of_what_it_finds(loaded, is_frozen):
    code = f"import atexit, gc, sys\nfrom cnnbench.train import main\n{loaded}\nsys.argv = ['cnnbench', '--version']\n"
    ran = python(code + "atexit.register(lambda: print(gc.get_freeze_count() > 0))\nmain()")
    assert ran.stdout.endswith(f"\n{is_frozen}\n")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_the_help_shows_commands_and_examples(cnnbench, tmp_path, flag):
    outcome = cnnbench(flag)
    assert (outcome.code, outcome.err) == (0, "")
    assert all(re.search(rf"^  {verb}  .*\w", outcome.out, re.MULTILINE) for verb in VERBS)
    assert all(word in outcome.out for word in ("minialexnet_v4", "resume last", "-m ", "train --help"))
    assert len(outcome.out.splitlines()) <= 50, "what a newcomer needs, on one screen"
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_the_help_of_training_shows_groups_settings_and_what_to_do(cnnbench):
    text = cnnbench("train", "--help").out
    assert all(re.search(rf"^ *{group} .*\w", text, re.MULTILINE) for group in [*GROUPS, "regularization"])
    assert all(
        word in text for word in ("minialexnet_v4", "cnn_lab/lenet_mnist", "rerun=true", "--multirun", "epochs=40")
    )


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]], ids=" ".join)
def test_the_examples_of_the_help_are_commands_that_work(cnnbench, words):
    examples = re.findall(r"^ +cnnbench((?: [^ \n]+)*?)(?:  .*)?$", cnnbench(*words).out, re.MULTILINE)
    settings = [example.split() for example in examples if all("=" in word or word == "-m" for word in example.split())]
    assert len(settings) >= 3
    for typed in settings:
        of_sweeps = ("-m", "jobs", "seeds")
        single = [re.sub(r"=([^,]*),.*", r"=\1", word) for word in typed if word.partition("=")[0] not in of_sweeps]
        outcome = cnnbench("--cfg", "job", *single)
        assert outcome.code == 0, (typed, outcome.err)


def test_what_is_said_to_be_often_typed_works(cnnbench):
    text = cnnbench("--help").out.partition("Often typed")[2].partition("Exit codes")[0]
    outcome = cnnbench("--cfg", "job", *text[text.index("\n") :].split())
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("words", [["epoch=3"], ["plugins=x.py"], ["model=lenett", "-m"]], ids=" ".join)
def test_help_is_given_whatever_else_is_typed(cnnbench, words):
    outcome = cnnbench("--help", *words)
    assert (outcome.code, outcome.err) == (0, "")
    assert "usage: cnnbench" in outcome.out


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_and_version_import_nothing_heavy(arguments):
    assert heavy_imports(*arguments) == []


def test_the_version_is_printed(cnnbench):
    assert cnnbench("--version").out == f"cnnbench {package.__version__}\n"


def test_the_header_shows_settings_and_their_origins(cnnbench):
    cropped = ("augmentation=crop", "data.crop=16", "data.image_size=20")
    shown = cnnbench(*TINY, *cropped, "regularization=dropout", "optimizer.momentum=0", "epochs=1").out
    rows = [re.split(r"\s{2,}", line.strip()) for line in shown.splitlines()]
    shown_rows = {row[0]: tuple(row[1:]) for row in rows if len(row) == 3}
    assert shown_rows["augmentation.crop.padding"] == ("0", "augmentation/crop")
    assert shown_rows["regularization.dropout"] == ("0.5", "regularization/dropout")
    assert shown_rows["optimizer.momentum"] == ("0.0", "command line")
    assert shown_rows["optimizer.lr"] == ("0.05", "optimizer/sgd")
    assert not {
        key for key in shown_rows if key.startswith(("regularization.l1", "regularization.average", "checkpoint."))
    }


class TestShowingTheConfiguration:
    """`--cfg job` shows what would run, and runs nothing."""

    def test_the_whole_configuration_is_shown(self, cnnbench, tmp_path):
        words = ["model=minialexnet_v4", "data=synthetic", "seed=3", "optimizer.lr=1e-3"]
        shown = cnnbench(*words, "--cfg", "job")
        assert (shown.code, shown.err) == (0, "")
        composer = Composer()
        config = plan_run(composer, words).config
        values = yaml.safe_load(shown.out)
        assert values == config.to_dict()
        assert validate(values)[0].identity() == config.identity()
        assert [path.name for path in tmp_path.rglob("*")] == ["here"]

    def test_a_configuration_with_mistakes_is_not_shown(self, cnnbench):
        shown = cnnbench("--cfg", "job", "epoch=3")
        assert (shown.code, shown.out) == (2, "")
        assert "did you mean 'epochs'?" in shown.err

    def test_the_configuration_of_a_sweep_is_not_shown(self, cnnbench):
        shown = cnnbench("--cfg", "job", "-m", "seed=0,1")
        assert (shown.code, shown.out) == (2, "")
        assert "-m  and --cfg exclude each other; --cfg shows the configuration of one run" in shown.err


class TestSweepWords:
    """Which runs `-m` means; none of them is started here."""

    @pytest.mark.parametrize(
        "words",
        [
            ["-m", "model=lenet_v2", "seed=0,1"],
            ["model=lenet_v2", "-m", "seed=0,1"],
            ["model=lenet_v2", "seed=0,1", "-m"],
        ],
        ids=["first", "between", "last"],
    )
    def test_the_flag_may_stand_anywhere(self, swept, words):
        assert [(plan.choices["model"], plan.config.seed) for plan in swept(*words)] == [
            ("lenet_v2", 0),
            ("lenet_v2", 1),
        ]

    def test_every_combination_is_a_job(self, swept):
        plans = swept("-m", "regularization.dropout=0,0.5", "regularization.batchnorm=true,false")
        parts = [plan.config.regularization for plan in plans]
        assert [(part.dropout, part.batchnorm) for part in parts] == [
            (0.0, True),
            (0.0, False),
            (0.5, True),
            (0.5, False),
        ]

    def test_a_job_is_the_run_of_the_single_command(self, swept):
        plans = swept("-m", "regularization.batchnorm=true,false", "model=minialexnet_v2")
        composer = Composer()
        singles = [
            plan_run(composer, [f"regularization.batchnorm={value}", "model=minialexnet_v2"])
            for value in ("true", "false")
        ]
        for plan, single in zip(plans, singles, strict=True):
            assert (plan.config, plan.command) == (single.config, single.command)
            names = [folder_name(each.named_by, each.config.identity()) for each in (plan, single)]
            assert names[0] == names[1]

    def test_a_job_that_comes_up_twice_is_one(self, swept):
        assert [plan.config.seed for plan in resolve_all(swept("-m", "seed=0,1,0"))] == [0, 1]


class TestOwnFolder:
    """`--config-dir`: YAML files of one's own next to those that ship."""

    def test_a_preset_of_ones_own_is_used(self, cnnbench, own_folder):
        shown = cnnbench("--config-dir", own_folder, "model=small", "--cfg", "job")
        assert shown.code == 0, shown.err
        values = yaml.safe_load(shown.out)
        assert values["model"]["maps"] == [4, 8]
        assert (values["optimizer"]["name"], values["batch_size"]) == ("adam", 32)

    def test_presets_that_ship_stay(self, cnnbench, own_folder):
        assert cnnbench("--config-dir", own_folder, "model=lenet_v2", "--cfg", "job").code == 0

    @pytest.mark.parametrize("form", ["--config-dir {}", "-cd {}", "--config-dir={}"])
    def test_the_help_names_it(self, cnnbench, own_folder, form):
        words = form.format(own_folder).split()
        options = re.search(r"^  model .*?(?=^  \S)", cnnbench("train", "--help", *words).out, re.MULTILINE | re.DOTALL)
        assert re.search(r"\bsmall\b", options[0])

    def test_its_options_are_suggested(self, cnnbench, own_folder):
        assert "did you mean 'small'?" in cnnbench("--config-dir", own_folder, "model=smal").err

    @pytest.mark.parametrize("words", [[], ["--help"], ["--cfg", "job"]], ids=["run", "help", "configuration"])
    def test_a_missing_folder_is_named(self, cnnbench, words):
        outcome = cnnbench("train", "--config-dir", "nowhere", *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err == "cnnbench train: --config-dir nowhere: there is no such folder\n"


FLAGS = {
    "--epochs 3": "--epochs: no such argument; settings are typed without dashes: epochs=3",
    "--batch-size=16 --lr 0.1": "settings are typed without dashes: batch_size=16 optimizer.lr=0.1",
    "--dry-run model=lenet": "settings are typed without dashes: dry_run=true.",
    "--epochs model=lenet": "settings are typed without dashes: epochs=….",
    "--gpu 0": "settings are typed without dashes: device=cuda:0",
    "--config-name other": "--config-name: no such argument",
    "--multirn seed=0,1": "--multirn: no such argument; did you mean '--multirun'?",
    "--out x epochs=1": "--out: no such argument. See cnnbench train --help.",
    "-epochs=3": "settings are typed without dashes: epochs=3",
    "-x": "-x: no such argument. See cnnbench train --help.",
    "--cfg all": "--cfg: there is no 'all'; there are 'job'.",
    "--config-dir": "--config-dir/-cd: expected one argument",
}


@pytest.mark.parametrize("words", FLAGS)
def test_an_unknown_flag_is_refused_with_what_to_type(cnnbench, words):
    outcome = cnnbench(*words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert FLAGS[words] in outcome.err


SPACED = {
    "model = lenet": "cnnbench model=lenet",
    "train model= lenet": "cnnbench train model=lenet",
    "list model = lenet": "cnnbench list model=lenet",
    "model=lenet, epochs=2": "cnnbench model=lenet epochs=2",
    "model=lenet,lenet_v2 , mlp": "cnnbench -m model=lenet,lenet_v2,mlp",
    "train seed=0, 1": "cnnbench train -m seed=0,1",
    "model.maps=[6, 16]": "cnnbench 'model.maps=[6,16]'",
    "plugins=a.py, b.py": "cnnbench plugins=a.py,b.py",
    "data.folder=my photos epochs 3": "cnnbench 'data.folder=my photos' epochs 3",
    "evaluate last --data csv data.folder=my photos": "cnnbench evaluate last --data csv 'data.folder=my photos'",
    "notes=“wider, for longer”": "cnnbench 'notes=wider, for longer'",
    "data=“digits” ‘epochs=3’": "cnnbench data=digits epochs=3",
    "–m seed=0,1": "cnnbench -m seed=0,1",
    "—epochs=2": "cnnbench epochs=2",
    "—dry_run": "cnnbench dry_run=true",
    "–dry-run model=mlp": "cnnbench dry_run=true model=mlp",
    "train —epochs 3 —multirun seed=0,1": "cnnbench train epochs=3 --multirun seed=0,1",
    "evaluate last —split val": "cnnbench evaluate last --split val",
    "optimizer.lr=−0.1": "cnnbench optimizer.lr=-0.1",
}


@pytest.mark.parametrize("words", SPACED)
def test_spaces_quotes_and_dashes_of_a_text_for_people_are_answered_with_the_command(cnnbench, words):
    outcome = cnnbench(*words.split(" "))
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.endswith(f" Type: {SPACED[words]}\n")


def test_a_text_with_such_quotes_and_a_file_of_such_a_name_stay(cnnbench, command_of):
    Path("–x").mkdir()
    assert cnnbench("notes=‘wide’", "--cfg", "job").code == 0
    assert "Type: " not in command_of("predict", "last", "–x").err
