"""The table of faults names tests that there are."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LINES = (HERE / "faults.md").read_text().splitlines()
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in LINES
    if line.startswith("| ") and not line.startswith(("| input |", "| --- |"))
]
NAMED = sorted({name for row in ROWS for name in re.findall(r"`([^`]+::[^`]+)`", row[-1])})


@cache
def functions(file: str) -> set[str]:
    tree = ast.parse((HERE / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_has_an_input_what_was_and_what_is_and_a_test() -> None:
    assert len(ROWS) > 100
    for row in ROWS:
        assert len(row) == 4 and all(row), row
        assert re.search(r"`test_\w+\.py::test_\w+", row[-1]), row


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_table_names_is_there(name: str) -> None:
    file, function = name.split("[")[0].split("::")
    assert function in functions(file), name
