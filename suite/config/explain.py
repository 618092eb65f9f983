"""One sentence for whatever gin raised, with the nearest names."""

import re
import tokenize
from dataclasses import fields, is_dataclass

from suite.config.root import Root
from suite.evaluation.protocol import Protocol
from suite.registry import REGISTRIES, suggestion


def _explained(where: str, error: Exception) -> str:
    """One sentence for what gin raised, with the nearest names."""
    text = str(error)
    line = getattr(error, "lineno", None)
    file = getattr(error, "filename", None)
    place = (f"--gin {file}" if file else where) + (f", line {line}" if line and where.startswith("--gin") else "")
    if isinstance(error, tokenize.TokenError):
        return f"{place}: a bracket, a parenthesis or a quote is opened and not closed"
    token = re.search(r"Failed to parse token '([^']*)'", text)
    if token and re.fullmatch(r"[A-Za-z_][\w.-]*", token.group(1)):
        said = "a text needs quotes, as in NAME = 'text', a component is @KIND.NAME(), a macro %NAME"
        return f"{place}: '{token.group(1)}' is not a value; {said}"
    unknown = re.search(r"No configurable matching reference '@?([^']+?)(?:\(\))?'", text) or re.search(
        r"No configurable matching '?([\w./]+)'?", text
    )
    if unknown:
        kind, _, name = unknown.group(1).split("/")[-1].rpartition(".")
        if kind in REGISTRIES:
            return f"{place}: no {kind} is called '{name}'; {suggestion(name, REGISTRIES[kind].names())}"
        return f"{place}: nothing is called '{unknown.group(1)}'; {suggestion(unknown.group(1), _selectors())}"
    parameter = re.search(r"configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", text, re.IGNORECASE)
    if parameter:
        selector, name = parameter.groups()
        return f"{place}: {selector} has no field '{name}'; {suggestion(name, _fields(selector))}"
    macro = re.search(r"macro\(\) missing.*in scope '([^']+)'", text, re.DOTALL)
    if macro:
        return f"{place}: the macro {macro.group(1)} has no value; add a line {macro.group(1)} = …"
    missing = re.search(r"missing \d+ required positional arguments?: (.*)", text)
    if missing:
        return f"{place}: nothing gives a value for {missing.group(1).splitlines()[0]}; bind it"
    if isinstance(error, SyntaxError):
        return f"{place}: {(error.msg or 'it can not be read').splitlines()[0]}"
    return f"{place}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().strip("\"'").split("\n")[0]


def _selectors() -> list[str]:
    return ["run", "protocol"] + [f"{kind}.{entry.name}" for kind, r in REGISTRIES.items() for entry in r]


def _fields(selector: str) -> list[str]:
    kind, _, name = selector.rpartition(".")
    build = {"run": Root, "protocol": Protocol}.get(name)
    if build is None and kind in REGISTRIES and name in REGISTRIES[kind].names():
        build = REGISTRIES[kind][name].build  # type: ignore[assignment]
    return [field.name for field in fields(build)] if build is not None and is_dataclass(build) else []
