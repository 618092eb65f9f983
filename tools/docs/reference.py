"""Reference pages, made of the code: components, commands, gin files, protocols, the Python face, types and tools."""

import ast
import dataclasses
import importlib
import inspect
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from suite.__main__ import COMMANDS, load
from suite.evaluation.protocol import PROTOCOLS, Protocol
from suite.registry import REGISTRIES, Entry, load_components
from suite.storage.gin_files import gin_files
from tools.docs.pages import REPOSITORY

COLUMNS = 100
"""Width of a command's help."""

LONGEST_DEFAULT = 60
"""Letters of a default in a table."""


def pages() -> dict[str, str]:
    """Name below `reference/` -> text, of every page."""
    load_components()
    kinds = {f"{kind}.md": components(kind) for kind in REGISTRIES}
    return kinds | {
        "commands.md": commands(),
        "gin.md": gin(),
        "protocols.md": protocols(),
        "python.md": python(),
        "record.md": record(),
        "types.md": types(),
        "templates.md": templates(),
        "tools.md": tools(),
    }


# ---------------------------------------------------------------- docstrings


def prose(text: str) -> str:
    """A docstring as Markdown: its signs stay signs, examples and indented lines become code.

    >>> prose("w <- w - lr *g*, see `a_b`.")
    'w &lt;- w - lr \\\\*g\\\\*, see `a_b`.'
    """
    blocks = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if block.startswith(">>> "):
            blocks.append(f"```pycon\n{block}\n```")
        elif all(line.startswith("    ") for line in block.split("\n")):
            blocks.append(f"```text\n{textwrap.dedent(block)}\n```")
        else:
            parts = block.split("`")
            parts[::2] = [re.sub(r"([*_\[\]|])", r"\\\1", part.replace("<", "&lt;")) for part in parts[::2]]
            blocks.append("`".join(parts))
    return "\n\n".join(blocks)


def cell(text: str) -> str:
    """A docstring in a cell of a table: one line."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(prose(text).split()))


@cache
def _class_body(kind: type) -> tuple[ast.stmt, ...]:
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(node, ast.ClassDef)
    return tuple(node.body)


def declared(kind: type) -> dict[str, tuple[str, str]]:
    """Field -> its annotation as written and the string below it, of a class and those that it extends."""
    own = [one for one in reversed(kind.__mro__) if one.__module__.split(".")[0] in ("suite", "tools")]
    return {name: said for one in own for name, said in declared_in(one).items()}


def declared_in(kind: type) -> dict[str, tuple[str, str]]:
    """The same of the class alone."""
    found, body = {}, _class_body(kind)
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = str(after.value.value) if is_text else ""  # type: ignore[union-attr]
            found[node.target.id] = (ast.unparse(node.annotation), text)
    return found


def fields_table(kind: type) -> str:
    """The fields of a dataclass, or '' where it has none."""
    if not dataclasses.is_dataclass(kind) or not dataclasses.fields(kind):
        return ""
    texts = declared(kind)
    rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in dataclasses.fields(kind):
        annotation, text = texts.get(field.name, ("", ""))
        kind_of = code(annotation) if annotation else ""
        rows.append(f"| `{field.name}` | {kind_of} | {_default(field)} | {cell(text)} |")
    return "\n".join(rows)


def code(text: str) -> str:
    """Text as code in a cell of a table."""
    return "<code>" + text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;") + "</code>"


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        value: Any = field.default_factory()
    elif field.default is not dataclasses.MISSING:
        value = field.default
    else:
        return "needed"
    text = repr(value)
    return code(text if len(text) <= LONGEST_DEFAULT else f"{text[:LONGEST_DEFAULT]}…")


# ---------------------------------------------------------------- components


def components(kind: str) -> str:
    """The page of one registry."""
    name = {"datasets": "data sets"}.get(kind, kind.replace("_", " "))
    head = f"# {name.capitalize()}\n\nIn gin `@{kind}.NAME()`, and `{kind}.NAME.FIELD = …` sets a "
    head += (
        f"field. `python -m suite.run --list {kind}` prints this list, your own among it. What a new one must offer: "
    )
    contents = "\n".join(f"- [`{entry.name}`](#{entry.name}): {prose(entry.summary)}" for entry in _own(kind))
    return (
        "\n\n".join([head + "[types](types.md).", contents, *(_component(kind, entry) for entry in _own(kind))]) + "\n"
    )


def _own(kind: str) -> list[Entry]:
    return [entry for entry in REGISTRIES[kind] if entry.origin.startswith("suite.")]


def _component(kind: str, entry: Entry) -> str:
    build = entry.build
    parts = [f"## `{entry.name}` {{: #{entry.name} }}", prose(inspect.getdoc(build) or "")]
    parts.append(fields_table(build) if isinstance(build, type) else f"```python\n{_signature(build)}\n```")
    parts.append(f"`{entry.origin}`")
    return "\n\n".join(part for part in parts if part)


def _signature(function: Callable[..., Any]) -> str:
    """A function's head as it is written."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    arguments = ast.unparse(node.args)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({arguments}){returns}"
    return line if len(line) <= 90 else f"{node.name}(\n    " + ",\n    ".join(_split(arguments)) + f",\n){returns}"


def _split(arguments: str) -> list[str]:
    """The arguments of a signature, one by one."""
    parts, depth = [""], 0
    for letter in arguments:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


# ---------------------------------------------------------------- commands and tools


def commands() -> str:
    """Every command with its help."""
    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), str(COLUMNS)
    try:
        parts = []
        for name, (module, summary) in COMMANDS.items():
            words = module.removesuffix(".__main__")
            told = f"`memory-suite {name}`, or `python -m {words}`: {prose(summary)}."
            parts.append(f"## {name}\n\n{told}\n\n```text\n{load(module).parser().format_help().rstrip()}\n```")
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({"COLUMNS": before} if before is not None else {})
    head = (
        '# Commands\n\n`memory-suite` is all of them in one; `eval "$(memory-suite completion bash)"` (or `zsh`) adds '
    )
    head += "completion in a shell. Exit status: 0 done, 1 something failed, 2 usage error, 75 stopped at a checkpoint."
    return "\n\n".join([head, *parts]) + "\n"


def tools() -> str:
    """Every tool of a checkout with what its module says."""
    head = "# Tools\n\nIn a checkout, for those who measure the suite or change it."
    texts = {file.stem: ast.get_docstring(ast.parse(file.read_text())) or "" for file in _tools()}
    parts = [f"## tools.{name}\n\n{prose(text)}" for name, text in texts.items()]
    return "\n\n".join([head, *parts]) + "\n"


def templates() -> str:
    """Every template of a method, whole."""
    head = (
        "# Templates\n\nA file to start from, for each kind of component; copy it, and give the commands of its head."
    )
    files = sorted((REPOSITORY / "docs" / "templates").glob("*.py"))
    heads = [f"## {one.stem.replace('_', ' ').capitalize()} {{: #{one.stem} }}" for one in files]
    parts = [f"{name}\n\n```python\n{one.read_text().rstrip()}\n```" for name, one in zip(heads, files, strict=True)]
    return "\n\n".join([head, *parts]) + "\n"


def _tools() -> Iterator[Path]:
    for file in sorted((REPOSITORY / "tools").glob("*.py")):
        if "__main__" in file.read_text():
            yield file


# ---------------------------------------------------------------- gin


def gin() -> str:
    """Every configuration with its head and its macros."""
    head = "# Configurations\n\nIn gin `NAME = …` sets a macro, `%NAME` uses it, and a later `--gin` or `--set` wins. "
    head += "What the head of each file says, and the macros that it sets itself:"
    return "\n\n".join([head, *(_gin_file(name) for name in sorted(gin_files(), key=_order))]) + "\n"


def _order(name: str) -> tuple[bool, str]:
    return "/" in name.removeprefix("gin/"), name


def _gin_file(name: str) -> str:
    text = (REPOSITORY / name).read_text()
    comments = re.match(r"(?:#.*\n)*", text)
    said = textwrap.dedent(re.sub(r"^#", "", comments[0], flags=re.MULTILINE)) if comments else ""
    includes = re.findall(r"^include '(.+)'", text, re.MULTILINE)
    anchors = [f"[`{one}`](#{_anchor(one)})" for one in includes]
    macros = re.findall(r"^([A-Z][A-Z0-9_]*) *= *(.+?)(?: +# *(.*))?$", text, re.MULTILINE)
    rows = [f"| `{macro}` | {code(value)} | {cell(why)} |" for macro, value, why in macros]
    table = "\n".join(["| macro | value | |", "| --- | --- | --- |", *rows]) if rows else ""
    parts = [f"## {name} {{: #{_anchor(name)} }}", f"```text\n{said.rstrip()}\n```" if said else ""]
    parts += [f"Includes {', '.join(anchors)}." if anchors else "", table]
    return "\n\n".join(part for part in parts if part)


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", name.removesuffix(".gin").lower())


# ---------------------------------------------------------------- protocols


def protocols() -> str:
    """Every evaluation protocol with its settings, and what a setting means."""
    head = "# Protocols\n\nHow networks are trained to judge a set of images. [Several protocols](../judging.md"
    head += (
        "#several-protocols) says how they are used and compared. Settings that are not named are at their defaults."
    )
    parts = []
    for name, protocol in PROTOCOLS.items():
        file = REPOSITORY / "gin" / "protocols" / f"{name}.gin"
        said = re.match(r"(?:#.*\n)*", file.read_text()) if file.is_file() else None
        text = textwrap.dedent(re.sub(r"^#", "", said[0], flags=re.MULTILINE)).rstrip() if said else ""
        rows = [f"| `{key}` | {code(repr(value))} |" for key, value in protocol.settings().items()]
        table = "\n".join(["| setting | value |", "| --- | --- |", *rows])
        parts.append("\n\n".join(filter(None, [f"## {name}", f"```text\n{text}\n```" if text else "", table])))
    return "\n\n".join([head, *parts, "## Settings", fields_table(Protocol)]) + "\n"


# ---------------------------------------------------------------- Python


def python() -> str:
    """The public names of the package."""
    api, memory = importlib.import_module("suite.api"), importlib.import_module("suite.memory")
    own = importlib.import_module("suite.datasets.from_torch")
    functions = {"suite.distil": api.distil, "suite.load": memory.load, "suite.from_torch": own.from_torch}
    parts = ["# Python", "`import suite` takes no time: torch is imported with the first name that is used."]
    parts += [f"## {name}\n\n```python\n{_signature(call)}\n```\n\n{_doc(call)}" for name, call in functions.items()]
    parts.append(f"## suite.Memory\n\n{_doc(memory.Memory)}")
    for name, member in inspect.getmembers(memory.Memory):
        call = inspect.unwrap(getattr(member, "__func__", member)) if callable(member) else None
        if not name.startswith("_") and inspect.isfunction(call) and call.__module__.startswith("suite."):
            parts.append(f"### Memory.{name}\n\n```python\n{_signature(call)}\n```\n\n{_doc(member)}")
        elif not name.startswith("_") and isinstance(member, property):
            parts.append(f"### Memory.{name}\n\n{_doc(member)}")
    return "\n\n".join(parts) + "\n"


def record() -> str:
    """Every key of a result record, part by part."""
    module = importlib.import_module("suite.runtime.record_schema")
    head = f"# Result record\n\nWhat `result.json` holds (schema {module.SCHEMA}); the whole is `Record`. "
    parts = [head + "`NotRequired` keys are there where they say something."]
    for name, kind in vars(module).items():
        if isinstance(kind, type) and kind.__module__ == module.__name__ and name.endswith("Record"):
            above = [base.__name__ for base in kind.__orig_bases__ if base.__name__ != "TypedDict"]  # type: ignore[attr-defined]
            more = "".join(f" It has the keys of [{one}](#{one.lower()}), too." for one in above)
            rows = [
                f"| `{key}` | {code(kind_of)} | {cell(text)} |" for key, (kind_of, text) in declared_in(kind).items()
            ]
            table = "\n".join(["| key | type | meaning |", "| --- | --- | --- |", *rows])
            parts.append(f"## {name}\n\n{_doc(kind)}{more}\n\n{table}")
    return "\n\n".join(parts) + "\n"


def types() -> str:
    """What every kind of component must offer: the classes of `suite.types`."""
    module = importlib.import_module("suite.types")
    parts = ["# Types", prose(module.__doc__ or "")]
    for name, kind in vars(module).items():
        if isinstance(kind, type) and kind.__module__ == "suite.types" and not name.startswith("_"):
            parts.append(f"## {name}\n\n{_doc(kind)}")
            parts.append(fields_table(kind))
            for method in _class_body(kind):
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    parts.append(f"```python\n{_head(method)}\n```\n\n{prose(ast.get_docstring(method) or '')}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def _doc(thing: object) -> str:
    return prose(inspect.getdoc(thing) or "")
