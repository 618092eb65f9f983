"""One sentence for whatever gin raised: where, what, and the nearest valid names."""

import difflib
import inspect
import re
import tokenize
from dataclasses import fields, is_dataclass
from typing import Any

from suite.config.root import Root
from suite.errors import first_line, one_line
from suite.evaluation.protocol import Protocol
from suite.registry import REGISTRIES, suggestion


def explain(where: str, error: BaseException) -> str:
    """One sentence, as in "--gin mine.gin, line 3: no data set is called 'digit'; did you mean 'digits'? …".

    `where` is the option that was read, '--gin FILE' or '--set BINDING'; an error names its own file and line, which
    is another one if the file was included.
    """
    if isinstance(error, RecursionError):  # even its text has no end
        return f"{where}: a value refers to itself or is nested too deep; write it plainly"
    line, file = getattr(error, "lineno", None), getattr(error, "filename", None)
    noted = re.search(r'In file "(.*)", line (\d+)', str(error))  # what gin adds to errors of other types
    if noted and where.startswith("--gin"):
        file, line = noted.groups()
    place = f"--gin {file}" if file else where
    if line and where.startswith("--gin"):
        place += f", line {line}"
    return f"{place}: {_cause(error)}"


def _cause(error: BaseException) -> str:
    """What is wrong, and what to write instead."""
    text = str(error)
    if isinstance(error, SystemExit):
        return f"a component ends the process (sys.exit({error.code!r})); mend the plugin that it is of"
    if isinstance(error, tokenize.TokenError):
        return "a bracket, a parenthesis or a quote is opened and not closed"
    token = re.search(r"Failed to parse token '([^']*)'", text)
    if token and re.fullmatch(r"[A-Za-z_][\w.-]*", token.group(1)):
        forms = "a text needs quotes, as in NAME = 'text', a component is @KIND.NAME(), a macro %NAME"
        return f"'{token.group(1)}' is not a value; {forms}"
    reference = re.search(r"No configurable matching reference '@?([^']+?)(?:\(\))?'", text)
    unknown = reference or re.search(r"No configurable matching '?([\w./]+)'?", text)
    if unknown:
        return _unknown_selector(unknown.group(1))
    parameter = re.search(r"configurable '([\w.]+)' doesn't have a parameter named '(\w+)'", text, re.IGNORECASE)
    if parameter:
        selector, name = parameter.groups()
        return f"{selector} has no field '{name}'; {suggestion(name, _fields(selector))}"
    macro = re.search(r"macro\(\) missing.*in scope '([^']+)'", text, re.DOTALL)
    if macro:
        return f"the macro {macro.group(1)} has no value; add a line {macro.group(1)} = …"
    missing = re.search(r"missing \d+ required positional arguments?: (.*)", text)
    if missing:
        return f"nothing gives a value for {missing.group(1)}; bind it"
    if isinstance(error, SyntaxError):
        unseen = next((letter for letter in (error.text or "").strip() if not letter.isprintable()), None)
        if unseen is not None:
            return f"it holds a letter that can't be seen (U+{ord(unseen):04X}); take it out"
        if set(error.text or "") & set("‘’“”") and "Unable to parse" in text:
            return "its quotes are a word processor's; write plain ones, as in 'text'"
        return first_line(error.msg or "it can not be read")
    plain = isinstance(error, (ValueError, KeyError, TypeError, OSError, ImportError, RuntimeError))
    return first_line(error).strip("\"'") if plain else one_line(error)


def _unknown_selector(selector: str) -> str:
    kind, _, name = selector.split("/")[-1].rpartition(".")
    if kind in REGISTRIES:
        return REGISTRIES[kind].unknown(name)
    every = ["run", "protocol", *(f"{kind}.{entry.name}" for kind, r in REGISTRIES.items() for entry in r)]
    names = {known.rpartition(".")[2] for known in every}
    near = [] if kind else difflib.get_close_matches(name, names, n=1)
    meant = " or ".join(f"'{known}'" for known in every if known.rpartition(".")[2] in near)  # of several kinds
    hint = f"did you mean {meant}?" if near else suggestion(selector, every)
    return f"nothing is called '{selector}'; {hint}"


def _fields(selector: str) -> list[str]:
    """The fields that gin can bind of what a selector names, with its kind or without it."""
    kind, _, name = selector.rpartition(".")
    build: Any = {"run": Root, "protocol": Protocol}.get(name)
    if build is None:
        kinds = [kind] if kind in REGISTRIES else list(REGISTRIES)
        build = next((REGISTRIES[k][name].build for k in kinds if name in REGISTRIES[k].names()), None)
    if is_dataclass(build):
        return [field.name for field in fields(build)]
    return list(inspect.signature(build).parameters) if build is not None else []
