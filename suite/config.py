"""From gin files and bindings to runs: every cell of a table and every seed, resolved to plain objects.

With `suite.registry` the only module that imports gin. A file binds `run`:

    run.experiment = @experiments.distillation()
    run.seeds = %SEEDS
    run.axes = {'momentum': {'none': ['INNER_OPTIMIZER = @inner_optimizers.no_momentum()'], 'full': [...]}}

`axes` makes a table: each axis has labelled values, each value is a list of bindings, and every combination is a cell.
`choose` names an axis whose value is chosen on the validation split when all cells are done, one for each combination
of the other axes; `then` lists bindings under which the chosen cell is run once more.
"""

import difflib
import itertools
import logging
import re
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config
from suite.errors import SuiteError, UsageError
from suite.evaluate import Protocol
from suite.files import json_sha256
from suite.registry import REGISTRIES, fingerprint, suggestion
from suite.types import Experiment, check_types, require

ROOT = Path(__file__).resolve().parent.parent
"""Where `gin/` lies; includes are found from here, whatever the working directory."""


@dataclass(frozen=True)
class Root:
    """What a gin file describes: one experiment, the seeds to run it with, and the axes of its table if it is one."""

    experiment: Experiment
    seeds: list[int]
    name: str | None = None
    scale: str = "custom"
    axes: dict[str, dict[str, list[str]]] | None = None
    cell: dict[str, str] | None = None
    choose: str | None = None
    then: list[str] | None = None

    def __post_init__(self) -> None:
        check_types(self)
        plain = self.name is None or not (self.name.startswith(".") or set(self.name) & {"/", "\0"} or not self.name)
        require(self, "name", plain, "the name of a folder, without '/'")
        if not self.seeds:
            raise UsageError("SEEDS must hold at least one whole number, as in SEEDS = [0]")


gin.register("run", module="suite")(Root)
gin.register("protocol", module="suite")(Protocol)
gin.add_config_file_search_path(str(ROOT))

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


@dataclass(frozen=True)
class Run:
    """One experiment with one seed: what is run, tracked and recorded as a unit."""

    name: str
    cell: dict[str, str]
    seed: int
    scale: str
    experiment: Experiment
    config_text: str
    """gin text that gives this run alone, and the same bits."""
    operative_text: str
    """The same with every default that was used."""
    choose: str | None = None
    """The axis whose best value on validation is run once more, as `then` of its cell says."""
    then: "Run | None" = None

    @cached_property
    def key(self) -> str:
        """Names the run's work: equal for equal settings and seed, whatever file they came from.

        What only trades memory for time counts as a setting too, since it changes the last bits.
        """
        return json_sha256([fingerprint(self.experiment), self.seed])[:16]

    @property
    def label(self) -> str:
        return " ".join([*self.cell.values(), f"seed {self.seed}"])

    @property
    def folder(self) -> str:
        words = re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(self.cell.values())).strip("-").lower()
        return f"{words + '-' if words else ''}seed{self.seed}-{self.key}"


def resolve(files: list[str], bindings: list[str], seed: int | None = None, only: list[str] | None = None) -> list[Run]:
    """The runs that gin files and `--set` bindings describe, in order; later files and bindings win.

    Raises UsageError, in one sentence, for whatever is wrong with them: syntax, names, types, ranges, and bindings that
    nothing uses. `only` picks cells by 'label' or 'axis=label'.
    """
    if not files:
        raise UsageError("name a configuration: --gin gin/quickstart.gin (files are in the folder gin/)")
    for file in files:
        if not Path(file).is_file() and not (ROOT / file).is_file():
            known = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "gin").rglob("*.gin"))
            raise UsageError(f"--gin: there is no file {file}; {suggestion(file, known)}")
    parts = _parts(files)
    whole = _with(parts[-1], bindings)
    every_axis = _axes(whole)
    choose, then = whole.bound("choose"), whole.bound("then") or []
    name = whole.bound("name") or re.sub(r"[^\w.-]+", "-", Path(files[0]).stem).lstrip("-.") or "run"
    cell_before = whole.bound("cell") or {}
    if seed is not None:
        macro = ("SEEDS", "gin.macro") in whole.tables
        bindings = [*bindings, f"SEEDS = [{seed}]" if macro else f"run.seeds = [{seed}]"]
        whole = _with(whole, bindings[-1:])
    axes = _free_axes(files, parts, bindings, every_axis)

    if choose is not None and choose not in axes:
        if choose in every_axis:
            choose, then = None, []  # a --set took its place
        else:
            raise UsageError(f"run.choose: no axis is called '{choose}'; {suggestion(str(choose), list(axes))}")
    cells = [dict(zip(axes, combo, strict=True)) for combo in itertools.product(*axes.values())]
    picked = _picked(cells, axes, only)
    used = _used_in_parts([*parts, whole, *_displaced(parts, every_axis)])
    runs: list[Run] = []
    for cell in cells:  # all of them, since a binding may serve a cell that was not picked
        own = [binding for axis, label in cell.items() for binding in axes[axis][label]]
        labels = dict(cell_before) | cell
        own += [f"run.name = {name!r}", "run.axes = None", "run.choose = None", "run.then = None"]
        start = _with(whole, own)
        for one in _seeds(start):
            lines = [f"run.cell = {labels!r}", f"run.seeds = [{one}]"]
            run, consumed = _one(start, lines, name, labels, one)
            used |= consumed
            if choose is not None:
                chosen = labels | {"chosen": choose}
                last, consumed = _one(start, [*lines, *then, f"run.cell = {chosen!r}"], name, chosen, one)
                used |= consumed
                run = replace(run, choose=choose, then=last)
            if cell in picked:
                runs.append(run)
    every_line = [line for values in axes.values() for lines in values.values() for line in lines]
    _refuse_unused(_with(whole, [*then, *every_line]).bindings - _of_scales(files, bindings), used)
    keys = [run.key for run in runs]
    twice = [run.label for run in runs if keys.count(run.key) > 1]
    if twice:
        raise UsageError(f"these cells or seeds describe the same run: {', '.join(twice)}; make them differ")
    return runs


def _one(start: Parsed, lines: list[str], name: str, cell: dict[str, str], seed: int) -> tuple[Run, set[Binding]]:
    """The run of what was parsed and these lines, and the bindings that it used."""
    with _gin(start):
        _parse(lines)
        root = _build()
        consumed = _consumed()
        _drop(_parsed().bindings - consumed)
        text = gin.config_str(max_line_length=120)
        operative = gin.operative_config_str(max_line_length=120)
    return Run(name, cell, seed, root.scale, root.experiment, text, operative), consumed


def _seeds(start: Parsed) -> list[int]:
    with _gin(start):
        return _build().seeds


# ---------------------------------------------------------------- tables


def _axes(whole: Parsed) -> dict[str, dict[str, list[str]]]:
    axes = whole.bound("axes") or {}
    shape_is_right = isinstance(axes, dict) and all(
        isinstance(values, dict) and values and all(isinstance(lines, list) for lines in values.values())
        for values in axes.values()
    )
    if not shape_is_right:
        raise UsageError("run.axes must look like {'axis': {'label': ['binding', …], …}, …}")
    return axes


def _picked(
    cells: list[dict[str, str]], axes: dict[str, dict[str, list[str]]], only: list[str] | None
) -> list[dict[str, str]]:
    for wanted in only or []:
        axis, _, label = wanted.rpartition("=")
        kept = [c for c in cells if (label in c.values() if not axis else c.get(axis) == label)]
        if not kept:
            known = [f"{axis}={label}" for axis, values in axes.items() for label in values]
            said = suggestion(wanted, known) if known else "this configuration has no cells"
            raise UsageError(f"--only: no cell is '{wanted}'; {said}")
        cells = kept
    return cells


def _free_axes(
    files: list[str], parts: list[Parsed], bindings: list[str], axes: dict[str, dict[str, list[str]]]
) -> dict[str, dict[str, list[str]]]:
    """The axes that nothing overrules: a `--set` of the one thing that an axis varies takes its place.

    A later file that binds what an axis varies, or a `--set` of one among several things, would be overruled by every
    cell in silence; that is refused instead.
    """
    given = {binding.split("=")[0].strip() for binding in bindings}
    varied = {axis: {line.split("=")[0].strip() for lines in v.values() for line in lines} for axis, v in axes.items()}
    # 'addressing.bases' is 'parameterizations.addressing.bases' by a shorter name.
    given |= {one for names in varied.values() for one in names for short in given if one.endswith(f".{short}")}
    free = {axis: values for axis, values in axes.items() if not (len(varied[axis]) == 1 and varied[axis] <= given)}
    fixed = dict.fromkeys(given, "--set")
    known: dict[str, str] | None = None
    for file, part in zip(files, parts, strict=True):
        now = {scope: repr(v["value"]) for (scope, selector), v in part.tables.items() if selector == "gin.macro"}
        if known is not None:
            fixed |= {name: f"--gin {file}" for name, value in now.items() if known.get(name) != value}
        known = now if known is not None or part.bound("axes") else None
    for axis, values in free.items():
        for name in sorted(varied[axis] & set(fixed)):
            raise UsageError(
                f"{fixed[name]} {name}: the table varies it along its axis '{axis}'; pick cells with "
                f"--only '{axis}={next(iter(values))}', or set run.axes"
            )
    return free


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
    """Types of everything gin built, also of outside components that do not check themselves."""
    if is_dataclass(thing) and not isinstance(thing, type):
        check_types(thing)
        for field in fields(thing):
            _check_tree(getattr(thing, field.name))


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
