"""The table of cases in the page about reliability names tests that there are."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from cnnbench.cli.help import DOCS

TESTS = Path(__file__).parents[1]
PAGE = (DOCS / "reliability.md").read_text(encoding="utf-8")
ROWS = {int(row[1]): row[2] for row in re.finditer(r"^\| (\d+)\. \|(.*)\|$", PAGE, re.MULTILINE)}
NAMED = sorted({tuple(found) for row in ROWS.values() for found in re.findall(r"`([\w/]+\.py)::(\w+)`", row)})


@cache
def functions_in(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_of_the_cases_names_a_test_or_says_why_not():
    assert list(ROWS) == list(range(1, 37))
    assert [number for number, row in ROWS.items() if "::" not in row] == [15]
    assert "does not apply" in ROWS[15]


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file, name):
    assert name in functions_in(file)
