"""The source files that a class is made of, found without importing anything: when one changes, it is another class."""

import ast
import importlib.util
import os
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from suite.storage.files import sha256
from suite.storage.plain_files import open_plain


def code_of(kind: Any, aside: Collection[str] = ()) -> list[str]:
    """SHA-256 of the source files of a class, of its parents and of what these import, whatever the files are called.

    The imports of the suite's own files are not followed. Nor are packages that are installed, but for the one that the
    class is of. The modules in `aside` are left out. Nothing is imported here.
    """
    return _code_of(kind, frozenset(aside))


@cache  # what was loaded stays what it is, whatever happens to its file later
def _code_of(kind: Any, aside: frozenset[str]) -> list[str]:
    modules = {parent.__module__ for parent in kind.__mro__} - aside
    own = {module.split(".")[0] for module in modules} - {"suite"}
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        module = waiting.pop()
        root, file = module.split(".")[0], _source_file(module)
        if module in found or file is None or (root == "suite" and module not in modules):
            continue
        if root not in own and INSTALLED & set(file.parts):
            continue
        with open_plain(file, follow=True) as opened:
            source = opened.read()
        found[module] = sha256(source)
        waiting += [] if root == "suite" else _imports(source, module)
    return sorted(found.values())


def has_source(kind: type) -> bool:
    """Whether a class and its parents are of files that can be read, and not typed into a notebook or `python -c`."""
    modules = {parent.__module__ for parent in kind.__mro__}
    return all(_source_file(module) or module.split(".")[0] in sys.stdlib_module_names for module in modules)


INSTALLED = {"site-packages", "dist-packages"}
"""Folders of packages that come with a version, and are not edited."""


def _source_file(module: str) -> Path | None:
    """The Python file of a module that is loaded or could be; None for those of Python itself, and without a file."""
    root, *below = module.split(".")
    if root in sys.stdlib_module_names:
        return None
    places: list[str | None] = []
    with suppress(Exception):  # modules and their finders may run any code when they are asked
        if module in sys.modules:
            places = [sys.modules[module].__file__]
        elif spec := importlib.util.find_spec(root):  # of a name with a dot, it would import the package
            folders = [os.path.join(folder, *below) for folder in spec.submodule_search_locations or ()]
            inner = [place for folder in folders for place in (os.path.join(folder, "__init__.py"), f"{folder}.py")]
            places = [*inner] if below else [spec.origin]
    return next((Path(place) for place in places if place and place.endswith(".py") and os.path.isfile(place)), None)


def _imports(source: bytes, module: str) -> list[str]:
    """Every name in a module's imports that may be a module, wherever in it they stand; none if it is no Python."""
    package = getattr(sys.modules.get(module), "__package__", None) or module.rpartition(".")[0]
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (
        SyntaxError,
        ValueError,
        RecursionError,
        MemoryError,
    ):  # of another Python, too deep: bytes stand for it
        return []
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base]))
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name]
