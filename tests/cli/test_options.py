"""`cnnbench options`: the list is complete, and the measures of networks are right."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from cnnbench.cli.catalog import all_options
from cnnbench.cli.catalog import without_a_file as registered_in_sources
from cnnbench.config.compose import Composer
from cnnbench.config.schema import GROUPS
from cnnbench.config.values import conf_dir
from cnnbench.models.build import smallest_side
from cnnbench.registry import LOGGERS, METRICS, SCHEDULERS
from cnnbench.training.plan import plan_run
from cnnbench.training.setup import setup
from tests.conftest import Outcome, ended
from tests.support.options import without_a_file

MY_NET = '''
from torch import nn

from cnnbench.registry import MODELS, OPTIMIZERS


@MODELS.register("plugged_net")
def plugged_net(spec, *, width: int = 4):
    """A net of my own."""
    return nn.Sequential(nn.Conv2d(spec.channels, width, 5), nn.Flatten(), nn.LazyLinear(spec.num_outputs))


@MODELS.register("plugged_choice")
def plugged_choice(spec, *, width: int):
    """A net that asks."""
    return plugged_net(spec, width=width)


@MODELS.register("plugged_mistake")
def plugged_mistake(spec):
    """A net that fails."""
    raise AttributeError("weights")


@OPTIMIZERS.register("plugged_descent")
def plugged_descent(groups, *, lr: float):
    """Downhill."""
'''


@pytest.fixture
def options(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*words: str) -> Outcome:
        return ended("options", words, capsys)

    return run


@pytest.fixture
def listing(options: Callable[..., Outcome]) -> Callable[..., list[dict]]:
    def run(*words: str) -> list[dict]:
        outcome = options(*words, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    return run


@pytest.fixture
def plugged_net(tmp_path: Path) -> Iterator[str]:
    """Return the path of a plugin, whose parts are forgotten after the test."""
    before = {group: dict(registry.components) for group, registry in GROUPS.items()}
    path = tmp_path / "my_net.py"
    path.write_text(MY_NET)
    yield str(path)
    for group, registry in GROUPS.items():
        registry.components = before[group]
        ConfigStore.instance().repo.pop(group, None)


def in_a_process(*words: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from cnnbench.train import main as m\ntry: m(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    )
    return subprocess.run([sys.executable, "-c", code, "options", *words], capture_output=True, text=True, check=True)


GROUPS_OF_FILES = sorted(path.name for path in conf_dir().iterdir() if path.is_dir())


def files(group: str) -> list[str]:
    folder = conf_dir() / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def options_of(group: str) -> list[str]:
    return sorted([*files(group), *(without_a_file(group) if group in GROUPS else ())])


@pytest.mark.parametrize("group", [group for group in GROUPS_OF_FILES if group != "model"])
def test_every_option_has_a_line_with_a_summary(listing, group):
    found = listing(group)
    assert [option["name"] for option in found] == options_of(group)
    assert {option["group"] for option in found} == {group}
    if group in GROUPS:
        assert [option["name"] for option in found if not option["summary"]] == []


@pytest.mark.parametrize("group", ["logger", "metric"])
def test_what_has_no_files_is_listed_as_well(options, listing, tmp_path, monkeypatch, group):
    registry = {"logger": LOGGERS, "metric": METRICS}[group]
    monkeypatch.setattr(registry, "components", dict(registry.components))
    (tmp_path / "mine.py").write_text(
        "from cnnbench.registry import METRICS\n\n"
        '@METRICS.register("mine")\ndef mine(predictions):\n    """Of mine."""\n    return 1.0\n'
    )
    found = [option["name"] for option in listing(group, f"plugins={tmp_path}/mine.py")]
    assert found == {"logger": ["mlflow", "tensorboard", "wandb"], "metric": ["mine"]}[group]
    if group == "metric":
        METRICS.components.pop("mine")
        assert options("metric").err.startswith("cnnbench options: no metric is registered; plugins=FILE adds yours.")


def test_dataset_is_a_name_of_the_group_data(listing):
    assert listing("dataset") == listing("data")


@pytest.mark.thorough
def test_every_network_is_measured_as_a_run_on_such_images_would_build_it(listing):
    found = {option["name"]: option for option in listing("model")}
    assert list(found) == options_of("model")
    asked = [name for name, option in found.items() if "(needs model." in option["summary"]]
    assert [name for name, option in found.items() if not option["parameters"] or not option["smallest"]] == asked
    assert {"timm", "torchvision"} <= set(asked)
    assert "needs model.architecture=" in found["torchvision"]["summary"]
    assert found["alexnet_bn"]["images"] == [3, 224, 224]
    composer = Composer()
    for name in ("lenet", "minialexnet_v4", "mlp"):
        plan = plan_run(composer, [f"model={name}", "data=synthetic"])
        training = setup(plan.config)
        spec = training.data.spec
        assert found[name]["parameters"] == training.parameters["total"]
        assert found[name]["images"] == [spec.channels, spec.height, spec.width]


def test_networks_are_measured_on_the_data_that_are_named(listing):
    lenet = next(option for option in listing("model", "lenet", "--data", "digits") if option["name"] == "lenet")
    assert (lenet["images"], lenet["classes"], lenet["parameters"]) == ([1, 32, 32], 10, 61_706)


def test_the_smallest_side_is_computed(listing):
    found = {option["name"]: option["smallest"] for option in listing("model", "*net")}
    # 5x5 and a pool twice: 16 -> 12 -> 6 -> 2 -> 1. Padded and pooled three times: 8 -> 4 -> 2 -> 1.
    assert (found["lenet"], found["minialexnet"]) == (16, 8)


@pytest.mark.parametrize("smallest", [1, 2, 3, 7, 8, 9, 32, 500, 512])
def test_the_search_finds_each_border(smallest):
    asked = []
    assert smallest_side(lambda side: asked.append(side) or side >= smallest) == smallest
    assert len(asked) < 20


def test_the_search_gives_up():
    assert smallest_side(lambda side: False) is None


@pytest.mark.parametrize(
    ("word", "expected"),
    [("CIFAR", ["cifar10", "cifar100"]), ("cifar?0", ["cifar10"]), ("*t", ["fashion_mnist", "mnist"])],
)
def test_a_word_is_part_of_a_name_or_a_pattern(listing, word, expected):
    assert [option["name"] for option in listing("data", word)] == expected


def test_what_is_registered_without_a_file_is_listed_too(listing, plugged_net):
    (descent,) = listing("optimizer", "plugged_", f"plugins={plugged_net}")
    assert descent == {"group": "optimizer", "name": "plugged_descent", "summary": "Downhill."}
    asks, fails, net = listing("model", "plugged_", f"plugins={plugged_net}")
    assert asks["summary"] == "A net that asks. (needs model.width=…)"
    assert (asks["parameters"], fails["parameters"], fails["smallest"]) == (None, None, None)
    assert (net["name"], net["summary"], net["smallest"]) == ("plugged_net", "A net of my own.", 5)


def test_what_the_package_registers_without_a_file_is_known_without_importing_it(listing, tmp_path, monkeypatch):
    source = "@SCHEDULERS.register(\n    'plugged_halves')\ndef halves(horizon):\n    '''By halves.'''\n"
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "halves.py").write_text(source)
    exec(source, {"SCHEDULERS": SCHEDULERS})
    monkeypatch.setattr("cnnbench.cli.catalog.PACKAGE", tmp_path)
    assert {"multistep", "plugged_halves", "polynomial"} <= {*all_options()["scheduler"]}
    (tmp_path / "optim" / "named_like_a_setting.py").write_text("@register_optimizer('momentum')\ndef _(): ...")
    assert registered_in_sources("optimizer", ["# As ever.\nname: sgd\nmomentum: 0.9\n"]) == ["momentum"]
    (halves,) = listing("scheduler", "plugged")
    assert halves["summary"] == "By halves."


@pytest.mark.parametrize("group", GROUPS)
def test_what_the_sources_register_is_found_without_importing_them(group):
    stated = set(GROUPS[group]) - set(without_a_file(group))
    assert stated <= set(registered_in_sources(group, ())) <= set(GROUPS[group])


def test_files_of_an_own_folder_are_listed_too(listing, tmp_path):
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text("# My own. And more.\nname: synthetic\n")
    (mine,) = listing("data", "mine", "--config-dir", str(tmp_path / "own"))
    assert mine["summary"] == "My own."


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lenet"], "no group is called 'lenet'; did you mean 'model lenet'? There are: 'augmentation', 'data', "),
        (["zzz"], "no group is called 'zzz'; there are: 'augmentation', 'data', "),
        (["modle"], "no group is called 'modle'; did you mean 'model'? There are: 'augmentation', 'data', "),
        (["data", "imagenet"], "no option of 'data' matches 'imagenet'; without it all of them are listed"),
        (["data", "--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["model", "--data", "mnist"], "MNIST is not in "),
        (["model", "--data", "mnits"], "did you mean 'mnist'?"),
        (["data", "a", "b"], "takes a group and a word at most"),
        (["optimizer", "--data", "digits"], "--data measures networks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_one_clear_message(options, words, message):
    outcome = options(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert "Traceback" not in outcome.err


def test_the_table_has_a_line_for_each_option(options):
    lines = options("model", "mini*").out.splitlines()
    assert " ".join(lines[0].split()) == "model= (on 10 classes) parameters image size smallest description"
    assert [line.split()[0] for line in lines[1:]] == [name for name in options_of("model") if name.startswith("mini")]
    row = next(line for line in lines if line.startswith("  minialexnet_v4 "))
    assert "  7 241 866     3x28x28         8  MiniAlexNet with dropout, random crops and batch norm." in row


@pytest.mark.parametrize("words", [["--help"], [], ["data"], ["experiment"]], ids=" ".join)
def test_neither_help_nor_a_list_of_files_imports_torch(words):
    if "--help" not in words and any(map(without_a_file, GROUPS)):
        pytest.skip("not all of them are files")
    assert in_a_process(*words).stdout.splitlines()[-1] == "False"


def test_everything_is_listed_without_measuring_networks_unless_their_images_are_named(listing, monkeypatch):
    everything = [(group, name) for group in GROUPS_OF_FILES for name in options_of(group)]
    measured = []
    monkeypatch.setattr("cnnbench.cli.options._measured", lambda option, *_: measured.append(option.name) or option)
    assert [(one["group"], one["name"]) for one in listing()] == everything
    assert measured == []
    assert [(one["group"], one["name"]) for one in listing("--data", "digits")] == everything
    assert measured == options_of("model")
