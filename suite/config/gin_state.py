"""Gin's state: parsed, extended and built, and left as it was. The one module that reads gin's private tables.

gin has no public way to ask which bindings there are and which of them were used.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser
from gin.utils import try_with_location

from suite.config.gin_errors import explain
from suite.config.gin_text import Statement, binding_statements, file_statements
from suite.config.root import Root
from suite.errors import SuiteError, UsageError, first_line
from suite.storage.plain_files import shown
from suite.validation import validate

Binding = tuple[str, str, str]
"""Scope, configurable and parameter of one binding; of a macro: its name, 'gin.macro', 'value'."""


MOST_LETTERS = 100_000
"""Of a binding: gin takes seconds for more, and ten thousand seeds have half of them."""


@dataclass(frozen=True)
class Parsed:
    """The bindings and imports of parsed texts; a start from which more can be parsed or built, as often as needed."""

    tables: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """(Scope, configurable) -> parameter -> value; references are not resolved."""
    imports: set[Any] = field(default_factory=set)
    """Import statements of the files, of modules that the command named as plugins."""

    @property
    def bindings(self) -> set[Binding]:
        """Every binding, without its value."""
        return {(*where, parameter) for where, values in self.tables.items() for parameter in values}

    def bound(self, name: str) -> Any:
        """The value of a field of `run`; None where nothing binds it."""
        return self.tables.get(("", "suite.run"), {}).get(name)


@dataclass(frozen=True)
class Built:
    """What gin makes of parsed bindings."""

    root: Root
    """The object that `run` describes."""
    used: set[Binding]
    """The bindings that some component took a value from."""
    config_text: str
    """Gin text of the used bindings alone."""
    operative_text: str
    """Gin text of every value that was used, defaults included."""


# ---------------------------------------------------------------- parse


def parse_files(files: Sequence[str]) -> list[Parsed]:
    """The state after the first file, after the first two, … Raises UsageError."""
    states: list[Parsed] = []
    with _restored(Parsed()):
        for file in files:
            _bind(f"--gin {file}", file_statements(file))
            states.append(_snapshot())
    return states


def parse_bindings(start: Parsed, bindings: Sequence[str]) -> Parsed:
    """The state after `start` and these bindings. Raises UsageError."""
    with _restored(start):
        _parse(bindings)
        return _snapshot()


def _parse(bindings: Sequence[str]) -> None:
    for binding in bindings:
        if "=" not in binding:
            raise UsageError(f"--set {binding}: write NAME = VALUE, as in --set 'ITERATIONS = 100'")
        if len(binding) > MOST_LETTERS:
            raise UsageError(f"--set {shown(binding)}: has {len(binding):,} letters, at most {MOST_LETTERS:,} are read")
        _bind(f"--set {shown(binding, 200)}", binding_statements(binding))


def _bind(where: str, statements: Iterable[Statement]) -> None:
    """Give gin what the statements bind. Raises UsageError."""
    try:
        for statement in statements:
            if isinstance(statement, config_parser.ImportStatement):
                gin_config._IMPORTS.add(statement)
                continue
            scope, selector, parameter, value, location = statement
            if not parameter:
                scope, selector, parameter = f"{scope}/{selector}" if scope else selector, "gin.macro", "value"
            with try_with_location(location):
                gin.bind_parameter((scope, selector, parameter), value)
    except SuiteError:
        raise
    except Exception as error:  # whatever gin's parser raises
        raise UsageError(explain(where, error)) from error


# ---------------------------------------------------------------- build


def build(start: Parsed) -> tuple[Root, set[Binding]]:
    """What `run` describes, and the bindings that some component took a value from. Raises UsageError."""
    with _restored(start):
        return _build_root(), _used()


def build_with_texts(start: Parsed, bindings: Sequence[str]) -> Built:
    """Likewise of `start` and these bindings, with the gin texts that give it again. Raises UsageError."""
    with _restored(start):
        _parse(bindings)
        root, used = _build_root(), _used()
        _drop(_snapshot().bindings - used)
        return Built(root, used, gin.config_str(max_line_length=120), gin.operative_config_str(max_line_length=120))


def _build_root() -> Root:
    """The root object; the note that gin appends to an error's message is cut off."""
    try:
        root = gin.get_configurable("suite.run")()
    except SuiteError as error:
        raise UsageError(_with_macro(error)) from error
    except (Exception, SystemExit) as error:  # gin's own, and whatever a component from outside raises
        raise UsageError(explain("the configuration", error)) from error
    _check_tree(root)
    return root


def _with_macro(error: SuiteError) -> str:
    """Its sentence, after the macro that gave the value which it refuses: that is what was written."""
    sentence = re.sub(r"^Root\.", "run.", first_line(error))
    noted = (
        r"(\w+)\.(\w+) must be .*\n *In call to configurable '([\w.]+)' \(<class '(?:.*\.)?\1'>\)(?: in scope '(.*)')?"
    )
    found = re.match(noted, str(error))
    if found is None:
        return sentence
    _, parameter, name, path = found.groups(default="")
    selectors = [selector for _, selector in gin_config._CONFIG if f".{selector}".endswith(f".{name}")]
    values = (gin_config._CONFIG.get((s, selector), {}).get(parameter) for s in _scopes(path) for selector in selectors)
    macro = re.fullmatch(r"%(\w+)", repr(next((value for value in values if value is not None), None)))
    return f"{macro.group(1)}: {sentence}" if macro else sentence


def _check_tree(component: Any) -> None:
    """Check the types of everything gin built, also of outside components that do not check themselves."""
    if is_dataclass(component) and not isinstance(component, type):
        validate(component)
        for part in fields(component):
            _check_tree(getattr(component, part.name))


# ---------------------------------------------------------------- gin's private tables


@contextmanager
def _restored(start: Parsed) -> Iterator[None]:
    """Gin with exactly these bindings, and with none afterwards, whatever happens."""
    gin.clear_config(clear_constants=False)
    try:
        gin_config._CONFIG.update({where: dict(values) for where, values in start.tables.items()})
        gin_config._IMPORTS.update(start.imports)
        yield
    finally:
        gin.clear_config(clear_constants=False)


def _snapshot() -> Parsed:
    return Parsed({where: dict(values) for where, values in gin_config._CONFIG.items()}, set(gin_config._IMPORTS))


def _used() -> set[Binding]:
    """The bindings that some call took a value from: for each parameter that of the innermost scope."""
    tables = gin_config._CONFIG
    used: set[Binding] = set()
    for (path, selector), parameters in gin_config._OPERATIVE_CONFIG.items():
        for parameter in parameters:
            scope = next((s for s in _scopes(path) if parameter in tables.get((s, selector), {})), None)
            if scope is not None:
                used.add((scope, selector, parameter))
    return used


def _scopes(path: str) -> list[str]:
    """The scopes that a call in this one takes values from, the innermost first."""
    parts = path.split("/") if path else []
    return ["/".join(parts[:n]) for n in range(len(parts), -1, -1)]


def _drop(bindings: set[Binding]) -> None:
    for scope, selector, parameter in bindings:
        del gin_config._CONFIG[scope, selector][parameter]
        if not gin_config._CONFIG[scope, selector]:
            del gin_config._CONFIG[scope, selector]
