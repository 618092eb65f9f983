"""Gin's tables, saved and put back: what was bound, what was used, and what nothing uses.

gin has no public way to ask which bindings there are and which were used; this module reads its private tables."""

import difflib
import logging
import re
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config
from suite.config.explain import _explained, _first_line
from suite.config.root import ROOT, Root
from suite.errors import SuiteError, UsageError
from suite.validation import validate

Binding = tuple[str, str, str]
"""Scope, configurable and parameter of one binding; of a macro: its name, 'gin.macro', 'value'."""


@dataclass(frozen=True)
class Parsed:
    """What gin knows after a parse, to go on from there as often as one likes without parsing again."""

    tables: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Of every scope and configurable: its parameters and their values, references not followed."""
    imports: set[Any] = field(default_factory=set)

    @property
    def bindings(self) -> set[Binding]:
        return {(*where, parameter) for where, values in self.tables.items() for parameter in values}

    def bound(self, name: str) -> Any:
        """The value of a field of `run`, None where nothing binds it."""
        return self.tables.get(("", "suite.run"), {}).get(name)


# ---------------------------------------------------------------- gin


PARSE_ERRORS = (SyntaxError, tokenize.TokenError, ValueError, KeyError, TypeError)
"""What gin raises for a text that it can't take."""


@contextmanager
def _gin(start: Parsed) -> Iterator[None]:
    """Gin with these bindings and nobody else's, and with none left behind, whatever happens."""
    gin.clear_config(clear_constants=False)
    try:
        gin_config._CONFIG.update({where: dict(values) for where, values in start.tables.items()})
        gin_config._IMPORTS.update(start.imports)
        yield
    finally:
        gin.clear_config(clear_constants=False)


def _parts(files: list[str]) -> list[Parsed]:
    """What the first file binds, the first two, …"""
    parts: list[Parsed] = []
    with _gin(Parsed()):
        for file in files:
            _parse_file(file)
            parts.append(_parsed())
    return parts


def _with(start: Parsed, bindings: list[str]) -> Parsed:
    """What was parsed, and these bindings after it."""
    with _gin(start):
        _parse(bindings)
        return _parsed()


@contextmanager
def _quiet() -> Iterator[None]:
    """gin logs an error for every place where an include is not, before it finds it in the next."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _parse_file(file: str) -> None:
    try:
        with _quiet():
            gin.parse_config_file(file)
    except (*PARSE_ERRORS, OSError, ImportError) as error:
        raise UsageError(_explained(f"--gin {file}", error)) from error


def _parse(bindings: list[str]) -> None:
    for binding in bindings:
        if "=" not in binding:
            raise UsageError(f"--set {binding}: write NAME = VALUE, as in --set 'ITERATIONS = 100'")
        try:
            gin.parse_config(binding)
        except PARSE_ERRORS as error:
            raise UsageError(_explained(f"--set {binding!r}", error)) from error


def _build() -> Root:
    """The root object; gin's wrapping of what was raised on the way is taken off."""
    try:
        root = gin.get_configurable("suite.run")()
    except SuiteError as error:
        raise UsageError(_first_line(error)) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(_explained("the configuration", error)) from error
    _check_tree(root)
    return root


def _check_tree(thing: Any) -> None:
    """Types and limits of everything gin built, also of dataclasses that nothing registered."""
    if is_dataclass(thing) and not isinstance(thing, type):
        validate(thing)
        for field in fields(thing):
            _check_tree(getattr(thing, field.name))


# ---------------------------------------------------------------- bindings that nothing uses
# gin has no public way to ask which bindings there are and which were used; these functions read its private tables.


def _parsed() -> Parsed:
    return Parsed({where: dict(values) for where, values in gin_config._CONFIG.items()}, set(gin_config._IMPORTS))


def _consumed() -> set[Binding]:
    """Bindings that some call took a value from: the one of the nearest scope, for each parameter."""
    parsed = gin_config._CONFIG
    found: set[Binding] = set()
    for (path, selector), parameters in gin_config._OPERATIVE_CONFIG.items():
        parts = path.split("/") if path else []
        scopes = ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]
        for parameter in parameters:
            scope = next((s for s in scopes if parameter in parsed.get((s, selector), {})), None)
            if scope is not None:
                found.add((scope, selector, parameter))
    return found


def _drop(bindings: set[Binding]) -> None:
    for scope, selector, parameter in bindings:
        del gin_config._CONFIG[scope, selector][parameter]
        if not gin_config._CONFIG[scope, selector]:
            del gin_config._CONFIG[scope, selector]


def _used_in_parts(parts: list[Parsed]) -> set[Binding]:
    """What is used by the first file, the first two, …: a binding may be displaced by a later file or `--set`.

    So one line can replace a data set or a parameterization whose settings the file holds, while a binding that no
    reading of the command line ever uses is still a mistake.
    """
    used: set[Binding] = set()
    for part in parts:
        with _gin(part):
            try:
                _build()
            except UsageError:
                continue  # a part need not be complete, and a table may be complete only in its cells
            used |= _consumed()
    return used


def _displaced(parts: list[Parsed], axes: dict[str, dict[str, list[str]]]) -> list[Parsed]:
    """What was parsed with each value of the axes that a later file took the place of."""
    tables = [(part, part.bound("axes") or {}) for part in parts]
    before = [(part, table) for part, table in tables if table and table != axes]
    return [
        _with(part, lines) for part, table in before for values in table.values() for lines in values.values()
    ]  # fmt: skip


def _of_scales(files: list[str], bindings: list[str]) -> set[Binding]:
    """Macros of scales that no `--set` names: a scale serves every kind of experiment, and each uses its own."""
    scales = [*(ROOT / "gin" / "scale").glob("*.gin"), *(Path(file) for file in files if _is_scale(file))]
    texts = [(file if file.is_file() else ROOT / file).read_text() for file in scales]
    names = {name for text in texts for name in re.findall(r"^(\w+) *=", text, re.MULTILINE)}
    return {(name, "gin.macro", "value") for name in names - {binding.split("=")[0].strip() for binding in bindings}}


def _is_scale(file: str) -> bool:
    """Whether a file is in a folder for scales."""
    return Path(file).parent.name == "scale"


def _refuse_unused(known: set[Binding], used: set[Binding]) -> None:
    own = {("", "suite.run", name) for name in ("axes", "cell", "name", "choose", "then")}
    for scope, selector, parameter in sorted(known - used - own):
        if selector == "gin.macro":
            macros = sorted({s for s, sel, _ in used if sel == "gin.macro"})
            near = difflib.get_close_matches(scope, macros, n=1)
            said = f"did you mean {near[0]}?" if near else f"there are: {', '.join(macros)}"
            raise UsageError(f"nothing uses the macro {scope}; {said}")
        name = f"{scope + '/' if scope else ''}{selector.removeprefix('suite.')}.{parameter}"
        raise UsageError(f"nothing uses the binding {name}, since this run has no such component; remove it")
