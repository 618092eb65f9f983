"""Bindings that nothing uses. Most are misspelt names, so they are refused; a few are meant, and exempt."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

from suite.config.gin_state import Binding, Parsed, build, parse_bindings
from suite.errors import UsageError
from suite.registry import REGISTRIES
from suite.storage.gin_files import ROOT, find

Axes = dict[str, dict[str, list[str]]]
"""Axis -> label -> bindings."""

READ_BY_THE_SUITE = {("", "suite.run", name) for name in ("axes", "cell", "name", "choose", "then")}
"""Fields of `run` that no component takes a value from."""


def used_by_any(states: Iterable[Parsed]) -> set[Binding]:
    """The bindings used by the first file alone, by the first two, …

    A later file or `--set` may replace a component whose settings an earlier file holds: these settings were used by
    the earlier files alone, and are no mistake. A binding that no state uses is one.
    """
    used: set[Binding] = set()
    for state in states:
        try:
            used |= build(state)[1]
        except UsageError:
            continue  # the first files may be incomplete, and a table may be complete only in its cells
    return used


def are_axes(value: object) -> TypeGuard[Axes]:
    """Whether a value is axes of labels, each with a list of bindings, and all of them texts."""
    return isinstance(value, dict) and all(
        isinstance(axis, str)
        and isinstance(labels, dict)
        and labels
        and all(isinstance(label, str) and are_texts(lines) for label, lines in labels.items())
        for axis, labels in value.items()
    )


def are_texts(value: object) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def replaced_axes(states: Iterable[Parsed], axes: Axes) -> list[Parsed]:
    """Each state whose table a later file replaced by `axes`, under each label of the replaced table."""
    replaced: list[Parsed] = []
    for state in states:
        table = state.bound("axes")
        if are_axes(table) and table != axes:
            replaced += [parse_bindings(state, lines) for labels in table.values() for lines in labels.values()]
    return replaced


FOR_ALL = ("scale", "recipe")
"""Folders of gin files that serve all experiments, each of which uses only some of their bindings."""


def bindings_for_all(files: list[str], bindings: list[str]) -> set[Binding]:
    """What scales and recipes bind, and the settings of components in shared files, unless a `--set` names it."""
    paths = {path for folder in FOR_ALL for path in (ROOT / "gin" / folder).glob("*.gin")}
    paths |= {path for file in files if Path(file).parent.name in FOR_ALL and (path := find(file)) is not None}
    names = {name for path in paths for name in re.findall(r"^([\w./]+) *=", path.read_text(), re.MULTILINE)}
    for path in (ROOT / "gin" / "shared").glob("*.gin"):
        names |= {*re.findall(r"^([\w./]+\.[\w.]+) *=", path.read_text(), re.MULTILINE)}
    return {binding_of(name) for name in names - {binding.split("=")[0].strip() for binding in bindings}}


def refuse_idle_recipes(files: list[str], used: set[Binding]) -> None:
    """Raise UsageError for a recipe of which the experiment uses nothing, such as one of distillation for a stream."""
    for file in files:
        path = find(file) if Path(file).parent.name == "recipe" else None
        if path is not None:
            names = re.findall(r"^([\w./]+) *=", path.read_text(), re.MULTILINE)
            if not {binding_of(name) for name in names} & used:
                raise UsageError(f"--gin {file}: this experiment uses none of its settings; leave it out")


def binding_of(name: str) -> Binding:
    """'outer/inner_optimizers.adam.lr', or a macro's name, as gin keeps it."""
    scope, _, rest = name.rpartition("/")
    selector, _, parameter = rest.rpartition(".")
    return (scope, selector, parameter) if selector else (name, "gin.macro", "value")


def refuse_unused(bound: set[Binding], used: set[Binding]) -> None:
    """Raise UsageError for the first binding that nothing uses, with the nearest macro that is used."""
    for scope, selector, parameter in sorted(bound - used - READ_BY_THE_SUITE):
        if selector == "gin.macro":
            macros = sorted({s for s, sel, _ in used if sel == "gin.macro"})
            near = difflib.get_close_matches(scope, macros, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(macros)}"
            raise UsageError(f"nothing uses the macro {scope}; {hint}")
        name = name_of((scope, selector, parameter))
        raise UsageError(f"nothing uses the binding {name}, since this run has no such component; remove it")


def refuse_idle_sets(given: list[str], whole: Parsed, used: set[Binding], texts: list[str]) -> None:
    """Raise UsageError for the first `--set` that no run uses, with what to write instead where that can be told.

    A file may hold what its runs do not use, since a later one replaces components. Who sets a value by hand means it,
    and a sweep of a value that nothing uses would measure nothing. `used` is what any cell uses, picked or not, so that
    one `--set` serves commands that pick different cells; `texts` are the operative texts of the runs.
    """
    plain = [binding for binding in given if not binding.lstrip().startswith("include")]
    for scope, selector, parameter in sorted(parse_bindings(Parsed(), plain).bindings - used - READ_BY_THE_SUITE):
        if selector != "gin.macro":
            idle = (scope, selector, parameter)
            raise UsageError(f"--set {name_of(idle)}: no run uses it; {_instead([idle], whole, texts)}")
        reference = re.compile(rf"%{re.escape(scope)}(?![\w/])")
        values = ((where, name, value) for where, table in whole.tables.items() for name, value in table.items())
        set_by_it = [(*where, name) for where, name, value in values if reference.search(repr(value))]
        if not set_by_it:
            raise UsageError(f"--set {scope}: no run uses it, since another binding takes its place; leave it out")
        names = ", ".join(sorted(name_of(binding) for binding in set_by_it))
        raise UsageError(f"--set {scope}: sets {names}, which no run uses; {_instead(set_by_it, whole, texts)}")


def name_of(binding: Binding) -> str:
    """As `--set` takes it: 'outer/inner_optimizers.adam.lr', or a macro's name."""
    scope, selector, parameter = binding
    if selector == "gin.macro":
        return scope
    return f"{scope + '/' if scope else ''}{selector.removeprefix('suite.')}.{parameter}"


def _instead(idle: list[Binding], whole: Parsed, texts: list[str]) -> str:
    """The same parameters of those components of the same kinds that the runs have, in the same scopes."""
    macros = {scope for scope, selector in whole.tables if selector == "gin.macro"}  # whose values gin scopes by them
    found: set[str] = set()
    for scope, selector, parameter in idle:
        kind = selector.rpartition(".")[0]
        for entry in REGISTRIES.get(kind, ()):
            line = re.compile(rf"^((?:\w+/)*)(?:{kind}\.)?{entry.name}\.{parameter} =", re.MULTILINE)
            paths = {path for text in texts for path in line.findall(text)}
            if scope in {"/".join(part for part in path.split("/")[:-1] if part not in macros) for path in paths}:
                found.add(f"{scope + '/' if scope else ''}{kind}.{entry.name}.{parameter} = …")
    return f"write {' or '.join(sorted(found))}" if found else "leave it out"
