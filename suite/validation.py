"""Types and limits of configurations, checked when they are built; what does not fit is refused in one sentence."""

import types
import typing
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal, Union

from suite.errors import UsageError

# ---------------------------------------------------------------- helpers


def check_types(thing: Any) -> None:
    """Refuse a dataclass whose fields do not have the types they are declared with; names the field and the fix."""
    hints = typing.get_type_hints(type(thing))
    for field in fields(thing):
        value, hint = getattr(thing, field.name), hints[field.name]
        if not _fits(value, hint):
            raise UsageError(
                f"{type(thing).__name__}.{field.name} must be {_words(hint)}, not {value!r} ({type(value).__name__})"
            )


def require(thing: Any, field: str, holds: bool, what: str) -> None:
    """Refuse a value that is out of range: `require(self, 'lr', self.lr > 0, 'above 0')`."""
    if not holds:
        raise UsageError(f"{type(thing).__name__}.{field} must be {what}, not {getattr(thing, field)!r}")


def require_labels(thing: Any) -> None:
    """Refuse a `parameterization` that is not asked with labels."""
    asked = getattr(thing.parameterization, "asked_with", "labels")
    require(thing, "parameterization", asked == "labels", "asked with labels")


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, choice) for choice in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin in (tuple, list, Sequence):
        return isinstance(value, (list, tuple)) and all(_fits(v, typing.get_args(hint)[0]) for v in value)
    if origin is not None:
        return isinstance(value, origin)
    if isinstance(value, type):
        return False  # a reference without its parentheses gives the class
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        str: "a text in quotes",
        bool: "True or False",
        type(None): "None",
    }
    if hint in names:
        return names[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(repr(arg) for arg in args)
    if origin in (tuple, list):
        return f"a list, each {_words(args[0])}"
    return f"a reference to one such as @{hint.__name__.lower()}s.NAME()" if hasattr(hint, "__name__") else str(hint)
