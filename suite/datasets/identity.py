"""What a data set's images depend on, as one hash: its settings, the code that reads them and the user's own files.

A cache is found by this hash, so that other settings, an edited reader or a changed folder never give old images.
"""

import ast
import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, cast

from suite.errors import RunError, UsageError, one_line
from suite.registry import describe
from suite.storage.files import json_sha256, sha256
from suite.storage.plain_files import open_plain
from suite.types import DatasetInfo

OF_ALL = "suite.datasets.base"
"""The module that all data sets share. It reads no image, so an edit of it changes none."""


def identity(dataset: Any, info: DatasetInfo, version: int, files: Sequence[Path], cache_dir: Path) -> str:
    """SHA-256 of what a data set's images depend on, as far as it can be known before they are read.

    That is every setting, the metadata, the reader's version, its source (`_code`), and the content of `files`, of a
    folder all that lies in it but `cache_dir`. Raises UsageError for settings that can't be written down, and RunError
    for a file that can't be read.
    """
    try:
        contents = [_contents(file, cache_dir) for file in files]
        depends_on = [describe(dataset), asdict(info), version, _code(cast(Hashable, type(dataset))), contents]
        return sha256(json.dumps(depends_on, sort_keys=True, allow_nan=False, default=os.fspath).encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{info.name}: its settings can't be written down ({one_line(error)}), so that its images could not be "
            "found again; give texts, numbers, lists and components"
        ) from error


# ---------------------------------------------------------------- files


def _contents(file: Path, cache_dir: Path) -> Any:
    """SHA-256 of a file; of a folder, that of every file in it by its name; None for what is not there."""
    try:
        if not file.is_dir():
            return _sha256(file)
        return {str(one.relative_to(file)): _sha256(one) for one in _below(file, cache_dir)}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{file} can't be read ({one_line(error)}); mend it") from error


def _below(folder: Path, cache_dir: Path) -> Iterator[Path]:
    """What lies in a folder and is none, also behind links, in a fixed order."""
    seen = {_place(cache_dir)} if cache_dir.is_dir() else set()
    seen.add(_place(folder))
    for place, below, names in os.walk(folder, followlinks=True):
        new = [name for name in sorted(below) if _place(Path(place, name)) not in seen]
        seen |= {_place(Path(place, name)) for name in new}  # a link may lead back to where it lies
        below[:] = new
        yield from (Path(place, name) for name in sorted(names))


def _place(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _sha256(file: Path) -> str:
    with open_plain(file, follow=True) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# ---------------------------------------------------------------- code


@cache  # what was loaded stays what it is, whatever happens to its file later
def _code(kind: Any) -> list[str]:
    """SHA-256 of the source files of a class, of its parents and of what these import, whatever the files are called.

    The imports of the suite's own files are not followed: `version` stands for them. Nor are packages that are
    installed, but for the one that the class is of. A class that was typed in, without a file, gives its bytecode.
    """
    modules = {parent.__module__ for parent in kind.__mro__} - {OF_ALL}
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
        source = file.read_bytes()
        found[module] = sha256(source)
        waiting += [] if root == "suite" else _imports(source, module)
    typed_in = [parent for parent in kind.__mro__ if parent.__module__ == "__main__" and "__main__" not in found]
    return sorted([*found.values(), *(json_sha256(_compiled(parent)) for parent in typed_in)])


INSTALLED = {"site-packages", "dist-packages"}
"""Folders of packages that come with a version, and are not edited."""


def _source_file(module: str) -> Path | None:
    """The Python file of a module that is loaded or could be; None for those of Python itself, and without a file."""
    if module.split(".")[0] in sys.stdlib_module_names:
        return None
    origin = getattr(sys.modules.get(module), "__file__", None)
    if module not in sys.modules:
        with suppress(ImportError, ValueError, AttributeError):
            spec = importlib.util.find_spec(module)
            origin = spec.origin if spec is not None else None
    return Path(origin) if origin and origin.endswith(".py") and os.path.isfile(origin) else None


def _imports(source: bytes, module: str) -> list[str]:
    """Every name in a module's imports that may be a module, wherever in it they stand."""
    package = getattr(sys.modules.get(module), "__package__", None) or module.rpartition(".")[0]
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(filter(None, [*package.split(".")[: len(package.split(".")) - node.level + 1], base]))
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [name for name in names if name]


def _compiled(of: Any) -> Any:
    """What a class or function does, as plain data."""
    if isinstance(of, type):
        functions = {name: getattr(value, "fget", None) or value for name, value in vars(of).items()}
        return {name: _compiled(one.__code__) for name, one in functions.items() if hasattr(one, "__code__")}
    if isinstance(of, CodeType):
        return [of.co_code.hex(), list(of.co_names), [_compiled(constant) for constant in of.co_consts]]
    return repr(of)
