"""`plugins=my_net.py`: code of one's own in one file, without a YAML."""

import json
import re
import sys

import pytest

from cnnbench import plugins
from cnnbench.plugins import register_everything
from cnnbench.registry import METRICS, MODELS
from cnnbench.store import provenance
from tests.conftest import TINY, only_run

MY_NET = '''
from pydantic import PositiveInt
from torch import nn

from cnnbench.registry import MODELS


@MODELS.register("plugged_net")
def plugged_net(spec, *, width: PositiveInt, depth: PositiveInt = 1):
    """A net of my own."""
    sizes = [spec.channels * spec.height * spec.width, *[width] * depth]
    dense = [layer for pair in zip(sizes, sizes[1:]) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *dense, nn.Linear(width, spec.num_classes))
'''


def test_a_network_of_ones_own_trains(cnnbench, outputs, tmp_path):
    (tmp_path / "here" / "my_net.py").write_text(MY_NET)
    outcome = cnnbench("plugins=my_net.py", "model=plugged_net", "model.width=5", *TINY)
    assert outcome.code == 0, outcome.err
    run = only_run(outputs)
    record = json.loads((run / "run.json").read_text())
    assert run.parent.name == "plugged_net"
    assert record["plugins"] == ["my_net.py"]
    assert "my_net.py" in record["code"]
    assert record["parameters"]["total"] == 16 * 16 * 5 + 5 + 5 * 3 + 3
    assert "plugins" not in (run / "config.yaml").read_text().partition("\n")[2]


def test_its_settings_come_from_its_signature(cnnbench, tmp_path):
    (tmp_path / "my_net.py").write_text(MY_NET)
    typed = [f"plugins={tmp_path}/my_net.py", "model=plugged_net", "--cfg", "job"]
    shown = cnnbench(*typed, "model.width=5")
    assert "model:\n  name: plugged_net\n  width: 5\n  depth: 1\n" in shown.out
    (tmp_path / "my_net.py").write_text(MY_NET.replace("depth: PositiveInt = 1)", "depth: PositiveInt = 1, **more)"))
    refused = cnnbench(*typed, "model.width=5", "model.pool=2")
    assert refused.code == 2
    assert "model.pool=2  no such key; what `**` of a signature would take is no setting: give it" in refused.err
    refused = cnnbench(*typed, "model.dephth=2")
    assert refused.code == 2
    assert "model.width=    must be given: a whole number above 0" in refused.err
    assert "model.dephth=2  no such key; did you mean 'model.depth'?" in refused.err


def test_the_header_says_that_it_comes_from_a_signature(cnnbench, tmp_path):
    (tmp_path / "my_net.py").write_text(MY_NET)
    shown = cnnbench(f"plugins={tmp_path}/my_net.py", "model=plugged_net", "model.width=5", "epochs=1", *TINY).out
    assert re.search(r"model\.name +plugged_net +signature in my_net\.py\n", shown)
    assert re.search(r"optimizer\.lr +0\.05 +optimizer/sgd\n", shown)


def test_it_is_known_only_where_it_is_plugged_in(cnnbench):
    refused = cnnbench("model=plugged_net")
    assert refused.code == 2
    assert "no such model" in refused.err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "gone.py",
            None,
            "gone.py: no such Python file; give the path of a file, or the name of a module, that registers",
        ),
        ("notes.txt", "notes", "notes.txt: no such Python file"),
        ("broken.py", "def x(:\n", "broken.py cannot be imported: "),
        ("lacks.py", "import not_there_at_all", "lacks.py cannot be imported: lacks.py:1: ModuleNotFoundError: "),
        ("twice.py", MY_NET.replace('"plugged_net"', '"lenet"'), "model 'lenet' is registered twice"),
        (
            "preset.py",
            MY_NET.replace('"plugged_net"', '"lenet_v2"'),
            "model 'lenet_v2': model=lenet_v2 is a preset already; choose another name.",
        ),
    ],
    ids=["missing", "no Python", "syntax", "import", "name taken", "name of a preset"],
)
def test_a_file_that_cannot_be_plugged_in_is_refused_with_the_reason(cnnbench, tmp_path, name, content, message):
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    outcome = cnnbench(f"plugins={file}")
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "outputs").exists()


def test_a_file_mended_after_a_failure_is_read_anew(cnnbench, tmp_path):
    file = tmp_path / "my_net.py"
    file.write_text("import not_there_at_all")
    typed = [f"plugins={file}", "model=plugged_net", "model.width=5", "--cfg", "job"]
    assert cnnbench(*typed).code == 2
    file.write_text(MY_NET)
    assert cnnbench(*typed).code == 0


def test_two_files_of_one_name_are_two_plugins(tmp_path):
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "net.py")
        files[-1].write_text(MY_NET.replace('"plugged_net"', f'"{name}"'))
    for _ in range(2):  # the command registers before it composes, and again where it trains
        assert [module.__file__ for module in register_everything(map(str, files))] == [str(file) for file in files]
    both = provenance.plugin_hashes(register_everything(map(str, files)))
    assert sorted(both) == ["one/net.py", "two/net.py"]
    assert both["one/net.py"] != both["two/net.py"]
    assert [*provenance.plugin_hashes(register_everything([str(files[0])]))] == ["net.py"]


def test_what_a_file_imports_from_beside_it_is_found_and_counts_as_code(tmp_path):
    folder, file = tmp_path / "nets", tmp_path / "nets" / "uses_blocks.py"
    (folder / "parts_of_it").mkdir(parents=True)
    file.write_text(f"import blocks_beside\n{MY_NET}")
    (folder / "blocks_beside.py").write_text("from parts_of_it.sizes import SIZE\n")
    (folder / "parts_of_it" / "sizes.py").write_text("SIZE = 3\n")
    (folder / "blocks_aside.py").write_text("SIZE = 4\n")
    before = list(sys.path)

    def hashes() -> dict[str, str]:
        (module,) = register_everything(str(file))
        assert sys.path == before
        sizes.append(module.blocks_beside.SIZE)
        return provenance.plugin_hashes([module])

    sizes: list[int] = []
    first = hashes()
    assert list(first) == ["uses_blocks.py", "blocks_beside.py", "sizes.py"]
    (folder / "blocks_aside.py").write_text("SIZE = 50\n")
    assert hashes() == first
    (folder / "parts_of_it" / "sizes.py").write_text("SIZE = 40\n")  # while a notebook goes on
    assert provenance.changed_names(first, hashes()) == ["sizes.py"]
    assert sizes == [3, 3, 40]


def test_a_file_beside_that_was_edited_is_other_code(cnnbench, tmp_path):
    here, words = tmp_path / "here", ("plugins=edits.py", "model=plugged_net", "model.width=5", "epochs=1", *TINY)
    (here / "edits.py").write_text(f"import edits_beside\n{MY_NET}")
    (here / "edits_beside.py").write_text("SIZE = 1\n")
    assert cnnbench(*words).code == 0
    assert "made with other code" not in cnnbench(*words).out
    (here / "edits_beside.py").write_text("SIZE = 20\n")
    assert "note: made with other code: edits_beside.py" in cnnbench(*words).out


def test_a_module_below_the_current_folder_is_found(cnnbench, tmp_path):
    package = tmp_path / "here" / "package_here"
    package.mkdir()
    (package / "nets.py").write_text(f"from . import sizes\n{MY_NET}")
    (package / "sizes.py").write_text("SIZE = 3\n")
    words = ("model=plugged_net", "model.width=5", "--cfg", "job")
    refused = cnnbench("plugins=package_here/nets.py", *words)
    assert refused.code == 2
    assert refused.err.endswith("; give it as a module of its package: plugins=package_here.nets\n")
    assert cnnbench("plugins=package_here.nets", *words).code == 0
    (module,) = register_everything("package_here.nets")
    assert list(provenance.plugin_hashes([module])) == ["nets.py", "sizes.py"]


def test_a_module_beside_an_installed_one_is_none_of_its_files(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "installed_net.py").write_text(f"import installed_library\n{MY_NET}")
    (folder / "installed_library.py").write_text("SIZE = 3\n")
    monkeypatch.syspath_prepend(folder)
    assert list(provenance.plugin_hashes(register_everything("installed_net"))) == ["installed_net.py"]


def test_a_file_beside_that_cannot_be_read_as_code_counts_by_its_text(tmp_path):
    (tmp_path / "tries.py").write_text(f"try:\n    import tried_beside\nexcept SyntaxError:\n    pass\n{MY_NET}")
    (tmp_path / "tried_beside.py").write_text("def x(:\n")
    hashes = provenance.plugin_hashes(register_everything(f"{tmp_path}/tries.py"))
    assert list(hashes) == ["tries.py", "tried_beside.py"]


def test_an_installed_package_that_cannot_be_imported_is_named_once_and_ends_no_command(
    cnnbench, tmp_path, monkeypatch
):
    (tmp_path / "broken_nets").mkdir()
    (tmp_path / "broken_nets" / "__init__.py").write_text("\nimport not_there_at_all\n")
    (tmp_path / "nets_of_others-1.0.dist-info").mkdir()
    (tmp_path / "nets_of_others-1.0.dist-info" / "METADATA").write_text("Name: nets-of-others\nVersion: 1.0\n")
    (tmp_path / "nets_of_others-1.0.dist-info" / "entry_points.txt").write_text(
        "[cnnbench.plugins]\nnets = broken_nets.models\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    note = (
        "note: the installed package nets-of-others cannot be imported: "
        f"{tmp_path}/broken_nets/__init__.py:2: ModuleNotFoundError: No module named 'not_there_at_all'\n"
    )
    for code, words in (
        (0, ["options", "optimizer"]),
        (2, ["model=broken_net", *TINY]),
        (0, ["dry_run=true", *TINY]),
    ):
        monkeypatch.setattr(plugins, "_said", set())  # as in a process of its own
        ended = cnnbench(*words)
        assert (ended.code, ended.err.count(note)) == (code, 1), ended.err


@pytest.mark.parametrize("verb", ["evaluate", "resume", "predict", "explain", "export"])
def test_a_run_says_which_file_it_needs_and_the_command_to_type(cnnbench, outputs, tmp_path, verb):
    file = tmp_path / "here" / "my_net.py"
    file.write_text(MY_NET)
    assert cnnbench("plugins=my_net.py", "model=plugged_net", "model.width=5", "epochs=1", *TINY).code == 0
    more = {"predict": ("--index", "0"), "export": ("--format", "safetensors")}.get(verb, ())
    MODELS.components.pop("plugged_net")  # as in another process
    ended = cnnbench(verb, "last", *more)
    assert ended.code == 2
    assert (
        "was trained with model.name=plugged_net of plugins=my_net.py, which has to be given as it was then."
        in ended.err
    )
    assert ended.err.endswith(f" Type: cnnbench {verb} last {' '.join((*more, 'plugins=my_net.py'))}\n")
    file.unlink()
    gone = "; my_net.py is not here any more, so give the path of a copy. Type: cnnbench"
    assert gone in cnnbench(verb, "last", *more).err


def test_a_run_says_what_a_file_that_was_edited_no_longer_does(cnnbench, tmp_path):
    file = tmp_path / "here" / "my_net.py"
    file.write_text(MY_NET)
    assert cnnbench("plugins=my_net.py", "model=plugged_net", "model.width=5", "epochs=1", *TINY).code == 0
    file.write_text(MY_NET.replace("width", "units"))
    refused = cnnbench("evaluate", "last", "plugins=my_net.py")
    assert refused.code == 2
    assert "my_net.py:8: model 'plugged_net' was edited since the training: let it take these" in refused.err
    assert "\n  model.width=5  no such key" in refused.err
    file.write_text(MY_NET.replace("[width] * depth", "[width] * depth, 7").replace("Linear(width", "Linear(7"))
    refused = cnnbench("evaluate", "last", "plugins=my_net.py")
    assert refused.code == 2
    assert (
        "the code makes another network than in the training: 3.weight was 3x5 and is 7x5, 3.bias was 3 and is 7, "
        "5.weight is new and 1 more. Give the code as it was then, or train again with rerun=true.\n"
    ) in refused.err


def test_a_run_says_that_a_metric_came_from_a_file(cnnbench, tmp_path):
    (tmp_path / "here" / "mine.py").write_text(
        "from cnnbench.registry import METRICS\n\n@METRICS.register('mine')\n"
        'def mine(predictions):\n    """One."""\n    return 1.0\n'
    )
    assert cnnbench("plugins=mine.py", "task.metrics=[mine]", "epochs=1", "report=true", *TINY).code == 0
    METRICS.components.pop("mine")
    assert "trained with task.metrics=[mine] of plugins=mine.py" in cnnbench("evaluate", "last").err
    assert cnnbench("report", "last").code == 0  # which computes nothing


def test_no_file_at_all_is_a_mistake(cnnbench):
    refused = cnnbench("plugins=", "--cfg", "job")
    assert refused.code == 2
    assert "plugins=" in refused.err
