"""Gin text as statements: a text names registered components, follows includes, and makes Python run nothing else.

Left to itself, gin imports every module that a text names: by `import`, by its dynamic registration, and while it looks
for an included file inside Python packages. So files are found and statements are judged here (docs/trust.md).
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gin import config as gin_config
from gin import config_parser
from gin.utils import try_with_location

from suite.errors import RunError, UsageError
from suite.registry import REGISTRIES, is_named_module, suggestion
from suite.storage.gin_files import find, gin_files
from suite.storage.plain_files import read_plain, shown

Statement = Any
"""A statement of gin's parser, which has no types: a value for a parameter, or a module that is named as a plugin."""

MOST_BYTES = 2**20
"""Of one gin file; the largest of the suite has less than a hundredth of it."""


def file_statements(file: str) -> Iterator[Statement]:
    """The statements of a file and of what it includes, in order. Raises UsageError, and what gin's parser raises."""
    path = find(file)
    if path is None:
        raise UsageError(f"--gin: there is no file {file}; {suggestion(file, gin_files())}")
    yield from _of_file(file, path, ())


def binding_statements(binding: str) -> Iterator[Statement]:
    """Likewise of the text of one `--set`."""
    yield from _judged(binding, f"--set {shown(binding, 200)}", None, ())


def _of_file(name: str, path: Path, inside: tuple[Path, ...]) -> Iterator[Statement]:
    """`inside`: the files whose includes led here."""
    try:
        data = read_plain(path, MOST_BYTES, follow=True)
    except RunError as error:
        raise UsageError(f"--gin: {error}") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        kind = "in UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else f"in no UTF-8 ({error.reason})"
        raise UsageError(f"--gin {name} is a text {kind}; save it in UTF-8") from error
    yield from _judged(text, f"--gin {name}", name, (*inside, path.resolve()))


def _judged(text: str, place: str, name: str | None, inside: tuple[Path, ...]) -> Iterator[Statement]:
    """`name`: of the file, for the messages of gin's parser."""
    lines: Any = io.StringIO(text.removeprefix("\ufeff"), newline=None)
    lines.name = name
    for statement in config_parser.ConfigParser(lines, _Components()):
        where = place if name is None else f"{place}, line {statement.location.line_num}"
        if isinstance(statement, config_parser.IncludeStatement):
            yield from _included(statement.filename, where, inside)
        elif isinstance(statement, config_parser.BlockDeclaration):
            with try_with_location(statement.location):  # its bindings follow as statements of their own
                _Components().configurable_reference(statement.selector, evaluate=False)
        else:
            if isinstance(statement, config_parser.ImportStatement):
                _refuse_import(statement.module, where)
            yield statement


def _included(file: str, where: str, inside: tuple[Path, ...]) -> Iterator[Statement]:
    if not file.endswith(".gin"):  # whatever else lies on this machine is none of a configuration's business
        raise UsageError(f"{where}: it includes '{file}', and only files that end in .gin can be included")
    path = find(file)
    if path is None:
        raise UsageError(f"{where}: it includes '{file}', and there is no such file; {suggestion(file, gin_files())}")
    if path.resolve() in inside:
        raise UsageError(f"{where}: by '{file}' it includes itself, on its own or through others; take one include out")
    yield from _of_file(file, path, inside)


def _refuse_import(module: str, where: str) -> None:
    """Raise UsageError unless this very command named the module."""
    if module.split(".")[0] == "__gin__":
        raise UsageError(
            f"{where}: it asks for gin's dynamic registration, by which a text can call any function; take the line "
            "out, and name registered components, as in @datasets.digits()"
        )
    if not is_named_module(module):
        raise UsageError(
            f"{where}: it imports the module {module}, and a configuration runs no code of its own; if you trust that "
            f"module, name it: --plugin {module}"
        )


class _Components(gin_config.ParserDelegate):
    """Makes gin's references, to registered components and macros alone."""

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Any:
        """`@scope/name` or, with `evaluate`, `@scope/name()`."""
        return _of_component(super().configurable_reference(scoped_selector, evaluate))

    def macro(self, name: str) -> Any:
        """`%NAME`."""
        return _of_component(super().macro(name))


def _of_component(reference: Any) -> Any:
    """The reference. Raises ValueError if it is to something that gin knows and the suite does not."""
    selector = reference.configurable.selector
    if reference.scopes[-1:] == ["gin.REQUIRED"]:
        raise ValueError("%gin.REQUIRED stands for a value that is still to be given; write the value")
    kind, _, name = selector.rpartition(".")
    known = kind in REGISTRIES and name in REGISTRIES[kind].names()
    if not known and selector not in ("suite.protocol", "gin.macro", "gin.constant"):
        raise ValueError(
            f"no component is called '{reference.selector}', and a configuration can name nothing else "
            "(python -m suite.run --list); to add one, register it in a plugin"
        )
    return reference
