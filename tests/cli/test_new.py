"""`cnnbench new`: files of one's own that train as they are written."""

import re
import shutil
from pathlib import Path

import pytest

from cnnbench.cli import new
from cnnbench.cli.catalog import HOMES, PACKAGE, registered_in
from cnnbench.cli.new import TEMPLATES, content
from tests.conftest import TINY, only_run
from tests.support.interruption import read

KINDS = list(HOMES)
NAMES = {"model": "my_net", "data": "bars", "augmentation": "darker", "optimizer": "sign_descent"}


def test_there_is_a_template_of_each_kind_and_no_other():
    assert sorted(path.stem for path in TEMPLATES.glob("*.py")) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_trains_with_the_command_that_is_said(kind, cnnbench, outputs):
    name = NAMES.get(kind, "mine")
    said = cnnbench("new", kind, name)
    assert said.code == 0, said.err
    typed = re.search(r"to use it +cnnbench (.*)", said.out)[1].split()
    assert typed == [f"plugins={name}.py", f"{kind}={name}"]
    rest = [word for word in TINY if kind != "data" or not word.startswith("data")]
    trained = cnnbench(*typed, *rest, *(["epochs=6", "seed=1"] if kind == "data" else []))
    assert trained.code == 0, trained.err
    assert name in trained.out
    result = read(only_run(outputs) / "result.json")
    assert 0 < result["test"]["loss"] < 2


def test_the_bars_are_learnt(cnnbench, outputs):
    assert cnnbench("new", "data", "bars").code == 0
    words = ("plugins=bars.py", "data=bars", "epochs=25", "threads=1", "device=cpu", "report=false")
    assert cnnbench(*words).code == 0
    assert read(only_run(outputs) / "result.json")["test"]["accuracy"] > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_its_settings_can_be_typed_and_its_option_is_listed(kind, cnnbench):
    assert cnnbench("new", kind, "mine").code == 0
    listed = cnnbench("options", kind, "mine", "plugins=mine.py")
    assert re.search(r"^  mine +.*[A-Z]", listed.out, re.MULTILINE), listed.err
    for setting in registered_in(kind, [Path("mine.py")])["mine"]:
        section = f"{kind}.mine" if kind == "augmentation" else kind
        refused = cnnbench("plugins=mine.py", f"{kind}=mine", f"{section}.{setting}=text")
        assert f"{section}.{setting}=text  must be" in refused.err


@pytest.mark.parametrize("kind", KINDS)
def test_each_name_of_the_template_is_replaced(kind):
    text = content(kind, "two_words")
    assert not re.search(r"\bmy_|\bMy[A-Z]", text)
    assert '"two_words"' in text


def test_no_file_is_overwritten(cnnbench):
    Path("mine.py").write_text("precious")
    outcome = cnnbench("new", "model", "mine")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "cnnbench new: mine.py exists already; nothing was written.\n"
    assert Path("mine.py").read_text() == "precious"


REFUSED = {
    "model lenet": "model=lenet exists already; choose another name",
    "model resnet": "model=resnet exists already",
    "model My-Net": "a name has lower-case letters, digits and _",
    "model class": "a name has lower-case letters",
    "model ../mine": "a name has lower-case letters",
    "model random": "random is the name of a Python module, which random.py would hide",
    "model torch": "torch is the name of a Python module",
    "mdoel mine": "KIND: there is no 'mdoel'; did you mean 'model'?",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_could_not_be_used_is_refused(cnnbench, tmp_path, words):
    outcome = cnnbench("new", *words.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert REFUSED[words] in outcome.err
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


def test_a_folder_that_cannot_be_written_to_is_named(cnnbench, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "mine.py")

    monkeypatch.setattr("cnnbench.store.files._replace", refuse)  # root may write anywhere
    outcome = cnnbench("new", "model", "mine")
    assert (outcome.code, "mine.py cannot be written" in outcome.err) == (2, True)


class TestInACheckout:
    """Where a file may become a part of cnnbench, the test that covers it is named."""

    @pytest.fixture
    def checkout(self, tmp_path, monkeypatch) -> Path:
        root = tmp_path / "checkout"
        shutil.copytree(PACKAGE / "cli" / "templates", root / "cnnbench" / "cli" / "templates")
        for folder in ("tests", "cnnbench/models", "mine"):
            (root / folder).mkdir()
        monkeypatch.setattr(new, "PACKAGE", root / "cnnbench")
        return root

    def test_in_the_package_it_is_registered_by_itself(self, checkout, cnnbench, monkeypatch):
        monkeypatch.chdir(checkout / "cnnbench" / "models")
        out = cnnbench("new", "model", "my_net").out
        assert "to use it    cnnbench model=my_net\n" in out
        assert "to test it   pytest tests -k my_net\n" in out

    def test_elsewhere_it_is_said_where_to_move_it(self, checkout, cnnbench, monkeypatch):
        monkeypatch.chdir(checkout / "mine")
        out = cnnbench("new", "model", "my_net").out
        assert "to use it    cnnbench plugins=my_net.py model=my_net\n" in out
        assert "to test it   move it to cnnbench/models/, where it needs no plugins=: pytest tests -k my_net\n" in out

    def test_outside_nothing_is_said_of_tests(self, checkout, cnnbench):
        assert "pytest" not in cnnbench("new", "model", "my_net").out
