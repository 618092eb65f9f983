"""Every public definition says what it is, every field too, and every example in a docstring runs."""

import ast
import doctest
import importlib
from collections.abc import Iterator
from functools import cache

import pytest
from command_line import REPOSITORY

from suite.registry import REGISTRIES

PACKAGES = ("suite", "leaderboard", "tools")
MODULES = {
    ".".join(file.relative_to(REPOSITORY).with_suffix("").parts): file
    for package in PACKAGES
    for file in sorted((REPOSITORY / package).rglob("*.py"))
}

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text())


def definitions(node: Definition, name: str) -> Iterator[tuple[str, Definition]]:
    """A module or class with its public classes and functions, methods and properties among them, by dotted name."""
    yield name, node
    for inner in node.body:
        if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
            yield from definitions(inner, f"{name}.{inner.name}")
        elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) and not inner.name.startswith("_"):
            yield f"{name}.{inner.name}", inner


def documented(module: str) -> Iterator[tuple[str, int, str]]:
    """Name, line and text of every docstring in a module, private ones and those of fields not among them."""
    for name, node in definitions(tree(module), module):
        text = ast.get_docstring(node, clean=False)
        if text is not None:
            yield name, node.body[0].lineno - 1, text


def is_string(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@pytest.mark.parametrize("module", MODULES)
def test_every_public_definition_has_a_docstring(module: str) -> None:
    silent = [name for name, node in definitions(tree(module), module) if not ast.get_docstring(node)]
    assert not silent, f"without a docstring: {', '.join(silent)}"


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_every_field_of_a_public_dataclass_has_its_own_string(module: str) -> None:
    silent = []
    for name, node in definitions(tree(module), module):
        dataclass = isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)
        if dataclass:
            for field, after in zip(node.body, [*node.body[1:], None], strict=True):
                public = isinstance(field, ast.AnnAssign) and not ast.unparse(field.target).startswith("_")
                if public and not is_string(after):
                    silent.append(f"{name}.{ast.unparse(field.target)}")
    assert not silent, f"without a string below it: {', '.join(silent)}"


COMPONENTS = [
    pytest.param(entry.build, id=f"{kind}.{entry.name}")
    for kind, entries in REGISTRIES.items()
    for entry in entries
    if entry.origin.startswith("suite.")
]


@pytest.mark.parametrize("build", COMPONENTS)
def test_every_registered_component_shows_an_example(build: type) -> None:
    assert doctest.DocTestParser().get_examples(build.__doc__ or ""), f"{build.__name__} has no >>> in its docstring"


def examples(module: str) -> list[doctest.DocTest]:
    """The doctests of a module. Found in its text, since the checks of shapes wrap its functions."""
    parser, names = doctest.DocTestParser(), vars(importlib.import_module(module))
    tests = [
        parser.get_doctest(text, names, name, str(MODULES[module]), line) for name, line, text in documented(module)
    ]
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("module", [m for m in MODULES if ">>> " in MODULES[m].read_text()])
def test_examples_run(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples(module):
        runner.run(test)
    assert runner.tries > 0 and runner.failures == 0, capsys.readouterr().out


def test_an_example_that_is_wrong_fails(capsys: pytest.CaptureFixture[str]) -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner().run(test).failed == 1 and "Expected:" in capsys.readouterr().out


def test_what_is_missing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '"""A module."""\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    """A."""\n    x: int\n'
    text += "    def b(self): ...\n    def _c(self): ...\n"
    monkeypatch.setitem(globals(), "tree", lambda module: ast.parse(text))
    with pytest.raises(AssertionError, match=r"without a docstring: m\.A\.b\n"):
        test_every_public_definition_has_a_docstring("m")
    with pytest.raises(AssertionError, match=r"without a string below it: m\.A\.x\n"):
        test_every_field_of_a_public_dataclass_has_its_own_string("m")
