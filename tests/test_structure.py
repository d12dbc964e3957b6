"""The map in `cnnbench/docs/architecture.md` is true: who imports whom, how much there is, what a run walks through."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnnbench
from cnnbench.cli.help import overview
from cnnbench.cli.parse import VERBS, verb_named

PACKAGE = Path(cnnbench.__file__).parent
LAYERS = (
    ("errors",),
    ("randomness",),
    ("registry",),
    ("config",),
    ("plugins",),
    ("augmentation", "store"),
    ("data",),
    ("models",),
    ("optim", "tasks"),
    ("training",),
    ("sweeps",),
    ("analysis",),
    ("api", "export"),
    ("cli", "docs"),
    ("train",),
    ("__main__",),
)
"""Packages and modules from the bottom up; each imports from those below it, and from itself."""
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def room(module: str) -> str:
    """Return the package or module at the top that `cnnbench.x.y` belongs to; empty: cnnbench itself."""
    return f"{module}..".split(".")[1]


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports of cnnbench, within functions too; not what only a type checker sees."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("cnnbench"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "cnnbench":
                yield from (f"cnnbench.{alias.name}" for alias in node.names if (PACKAGE / alias.name).exists())
                yield from (f"cnnbench.{alias.name}" for alias in node.names if (PACKAGE / f"{alias.name}.py").exists())
            elif (node.module or "").startswith("cnnbench."):
                yield str(node.module)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in imported(path):
        other = room(module)
        if other and other != own:
            assert RANK[other] < RANK[own], f"{own} imports {module}, which is above it or on its level"


def test_every_room_has_its_place():
    assert set(RANK) == {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES}


def test_the_top_holds_few_entries():
    assert len([path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]) <= 20


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320


def test_hydras_internals_are_used_in_two_files():
    users = {path.name for path in SOURCES if "hydra._internal" in path.read_text(encoding="utf-8")}
    assert users == {"compose.py", "files.py"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme_and_has_a_help_text_for_a_terminal(verb):
    assert f"cnnbench {verb}" in (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    assert [line for line in verb_named(verb).help_text().splitlines() if len(line) > 80] == []
    assert len(verb_named(verb).arguments) == len([one for one in verb_named(verb).arguments if one.settings["help"]])


def test_every_file_of_a_verb_is_in_the_table_which_the_help_shows():
    files = [path for path in (PACKAGE / "cli").glob("*.py") if "\nVERB = Verb(" in path.read_text(encoding="utf-8")]
    assert {path.stem for path in files} == set(VERBS)
    assert all(verb_named(verb).name == verb for verb in VERBS)
    assert [line for line in overview().splitlines() if len(line) > 80] == []
