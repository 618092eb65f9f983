"""From gin files and bindings to runs: every cell of a table and every seed, resolved to plain objects.

A file binds `run`:

    run.experiment = @experiments.distillation()
    run.seeds = %SEEDS
    run.axes = {'momentum': {'none': ['INNER_OPTIMIZER = @inner_optimizers.no_momentum()'], 'full': [...]}}

`axes` makes a table: each axis has labelled values, each value is a list of bindings, and every combination is a cell.
`choose` names an axis whose value is chosen on the validation split when all cells are done, one for each combination
of the other axes; `then` lists bindings under which the chosen cell is run once more.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from suite.config.gin_state import Binding, Parsed, build, build_with_texts, parse_bindings, parse_files
from suite.config.unused import (
    Axes,
    are_axes,
    are_texts,
    binding_of,
    bindings_for_all,
    name_of,
    refuse_idle_recipes,
    refuse_idle_sets,
    refuse_unused,
    replaced_axes,
    used_by_any,
)
from suite.errors import UsageError
from suite.registry import fingerprint, suggestion
from suite.storage.files import json_sha256
from suite.storage.plain_files import shown
from suite.types import Experiment

Cell = dict[str, str]
"""Axis -> label."""

MOST_RUNS = 10_000
"""Of one command: cells times seeds."""


@dataclass(frozen=True)
class Run:
    """One experiment with one seed: what is run, tracked and recorded as a unit."""

    name: str
    """Folder of the runs of one command, and their experiment in the tracker."""
    cell: Cell
    """Where it stands in its table; empty where there is none."""
    seed: int
    """Decides every random draw of the run."""
    scale: str
    """Label of how much of the paper's compute it uses."""
    experiment: Experiment
    """What is run, with all its components."""
    config_text: str
    """gin text that gives this run alone, and the same bits."""
    operative_text: str
    """The same with every default that was used."""
    choose: str | None = None
    """The axis whose best value on validation is run once more, as `then` of its cell says."""
    then: "Run | None" = None
    """What is run if this cell is chosen."""

    @cached_property
    def key(self) -> str:
        """Names the run's work: equal for equal settings and seed, whatever file they came from.

        Settings that only trade bytes for time are part of it, since they change the last bits; but how unrolls are run
        is left to the device by default, and is in the record.
        """
        return json_sha256([fingerprint(self.experiment), self.seed])[:16]

    @property
    def label(self) -> str:
        """Its cell and seed, for people: 'full momentum seed 0'."""
        return " ".join([*self.cell.values(), f"seed {self.seed}"])


def resolve(files: list[str], bindings: list[str], seed: int | None = None, only: list[str] | None = None) -> list[Run]:
    """The runs that gin files and `--set` bindings describe, in order; later files and bindings win.

    `seed` replaces the configuration's seeds; `only` picks cells by 'label' or 'axis=label', and no other is judged.
    Raises UsageError, in one sentence, for whatever is wrong: syntax, names, types, ranges, and bindings that nothing
    uses.
    """
    _require_files(files)
    states = parse_files(files)
    whole = parse_bindings(states[-1], bindings)
    replaced = [] if seed is None else [_seeds_name(whole), "run.seeds"]
    whole = parse_bindings(whole, [f"{name} = [{seed}]" for name in replaced[:1]])
    table = _table(files, states, whole, bindings, replaced)
    _refuse_many(table.size, f"the {table.size:,} cells of run.axes")
    picked = table.pick(only or [])
    used_by_runs: set[Binding] = set()
    runs: list[Run] = []
    for cell in table.cells:  # all of them, since a binding may serve a cell that was not picked
        try:
            of_cell, used_by_cell = _cell_runs(whole, table, cell, seed)
        except UsageError as error:
            if cell not in picked:
                used_by_runs |= whole.bindings  # it is unknown what this cell uses
                continue
            where = ", ".join(f"{axis}={label}" for axis, label in cell.items())
            raise UsageError(f"cell '{where}': {error}" if cell else str(error)) from error
        used_by_runs |= used_by_cell
        runs += of_cell if cell in picked else []
    used = used_by_runs | used_by_any([*states, whole, *replaced_axes(states, _axes(whole))])
    every = parse_bindings(whole, [*table.then, *table.lines])
    refuse_unused(every.bindings - bindings_for_all(files, bindings), used)
    refuse_idle_sets(bindings, every, used_by_runs, [run.operative_text for run in runs])
    refuse_idle_recipes(files, used)
    _refuse_equal(runs)
    return runs


def _require_files(files: list[str]) -> None:
    if not files:
        raise UsageError("name a configuration: --gin gin/quickstart.gin (files are in the folder gin/)")


def _seeds_name(whole: Parsed) -> str:
    """What binds the seeds: the macro that they are taken from, as a rule SEEDS, or `run.seeds` itself."""
    macro = re.fullmatch(r"%([\w/]+)", repr(whole.bound("seeds")))
    return macro[1] if macro and (macro[1], "gin.macro") in whole.tables else "run.seeds"


def _refuse_many(runs: int, which: str) -> None:
    """Raise UsageError for more runs than anybody waits for: each is built before the first starts."""
    if runs > MOST_RUNS:
        raise UsageError(f"{which} are {runs:,} runs, and one command takes at most {MOST_RUNS:,}; split it up")


def _refuse_equal(runs: list[Run]) -> None:
    """Raise UsageError for runs with one key: they would share a directory."""
    times = Counter(run.key for run in runs)
    equal = [run.label for run in runs if times[run.key] > 1]
    if equal:
        raise UsageError(f"these cells or seeds describe the same run: {', '.join(equal)}; make them differ")


def _cell_runs(whole: Parsed, table: "_Table", cell: Cell, only: int | None) -> tuple[list[Run], set[Binding]]:
    """The runs of one cell, one for each of its seeds or for the seed `only`, and the bindings that they use."""
    labels = table.labels | cell
    lines = [line for axis, label in cell.items() for line in table.axes[axis][label]]
    alone = [f"run.name = {table.name!r}", "run.axes = None", "run.choose = None", "run.then = None"]
    start = parse_bindings(whole, [*lines, *alone])
    runs: list[Run] = []
    root, used = build(start)
    seeds = root.seeds if only is None else [only]
    _refuse_many(len(seeds) * table.size, f"the {len(seeds):,} seeds of {table.size:,} cells")
    for seed in seeds:
        seed_lines = [f"run.cell = {labels!r}", f"run.seeds = [{seed}]"]
        run, used_by_run = _run(start, seed_lines, table.name, labels, seed)
        used |= used_by_run
        if table.choose is not None:
            chosen = labels | {"chosen": table.choose}
            chosen_lines = [*seed_lines, *table.then, f"run.cell = {chosen!r}"]
            then, used_by_run = _run(start, chosen_lines, table.name, chosen, seed)
            used |= used_by_run
            if getattr(run.experiment, "validation", None) == 0:
                raise UsageError(
                    f"run.choose: '{table.choose}' is chosen on validation images, and the experiment's validation = 0 "
                    "sets none aside; set it to a fraction such as 0.1"
                )
            run = replace(run, choose=table.choose, then=then)
        runs.append(run)
    return runs, used


def _run(start: Parsed, lines: list[str], name: str, cell: Cell, seed: int) -> tuple[Run, set[Binding]]:
    built = build_with_texts(start, lines)
    root = built.root
    return Run(name, cell, seed, root.scale, root.experiment, built.config_text, built.operative_text), built.used


# ---------------------------------------------------------------- tables


@dataclass(frozen=True)
class _Table:
    """The cells of a command; without axes there is one, which is empty."""

    name: str
    """Folder of its runs."""
    labels: Cell
    """What `run.cell` binds: the cell that a saved configuration is of."""
    axes: Axes
    choose: str | None
    """The axis whose value is chosen on validation."""
    then: list[str]
    """Bindings of the chosen cell's further run."""

    @property
    def size(self) -> int:
        """The number of cells."""
        return math.prod(map(len, self.axes.values()))

    @property
    def cells(self) -> list[Cell]:
        """Every combination of labels."""
        return [dict(zip(self.axes, labels, strict=True)) for labels in itertools.product(*self.axes.values())]

    @property
    def lines(self) -> list[str]:
        """The bindings of all labels."""
        return [line for labels in self.axes.values() for lines in labels.values() for line in lines]

    def pick(self, only: list[str]) -> list[Cell]:
        """The cells that `only` names by 'label' or 'axis=label': any of those of one axis, and so along every axis.

        Raises UsageError for what names no cell, and where none is left.
        """
        every = [(axis, label) for axis, labels in self.axes.items() for label in labels]
        named: dict[tuple[str, ...], list[tuple[str, str]]] = {}
        for wanted in only:
            meant = [(axis, label) for axis, label in every if wanted in (label, f"{axis}={label}")]
            if not meant:
                known = [f"{axis}={label}" for axis, label in every]
                hint = suggestion(wanted, known) if known else "this configuration has no cells"
                raise UsageError(f"--only: no cell is '{wanted}'; {hint}")
            axes = tuple(axis for axis, _ in meant)  # several, where axes share a label
            named.setdefault(axes, []).extend(meant)
        cells = [cell for cell in self.cells if all(set(meant) & cell.items() for meant in named.values())]
        if not cells:
            raise UsageError(f"--only: no cell is of all of these: {', '.join(only)}")
        return cells


def _table(files: list[str], states: list[Parsed], whole: Parsed, bindings: list[str], replaced: list[str]) -> _Table:
    """The table that the files and bindings describe; `replaced` names what `--seed` does. Raises UsageError."""
    name, cell, choose, then = (_field(whole, field) for field in ("name", "cell", "choose", "then"))
    every_axis = _axes(whole)
    axes = _free_axes(files, states, bindings, replaced, every_axis)
    if choose is not None and choose not in axes:
        if choose not in every_axis:
            raise UsageError(f"run.choose: no axis is called '{choose}'; {suggestion(choose, list(axes))}")
        choose, then = None, []  # a --set fixed the axis, so there is nothing to choose
    name = name or re.sub(r"[^\w.-]+", "-", Path(files[0]).stem).lstrip("-.") or "run"
    return _Table(name, cell or {}, axes, choose, then or [])


FIELDS = {
    "name": "a text in quotes",
    "cell": "{'axis': 'label', …}, where both are texts",
    "choose": "the name of an axis in quotes",
    "then": "a list of bindings, such as ['ITERATIONS = 100']",
}
"""What those fields of `run` must be, or None, that are read as they are written: before macros have values."""


def _field(whole: Parsed, name: str) -> Any:
    """One of FIELDS, or None where nothing binds it. Raises UsageError."""
    value = whole.bound(name)
    if name == "cell":
        fits = isinstance(value, dict) and are_texts([*value, *value.values()])
    else:
        fits = are_texts(value) if name == "then" else isinstance(value, str)
    if value is not None and not fits:
        raise UsageError(f"run.{name} must be {FIELDS[name]}, not {shown(value, 200)}")
    return value


def _axes(whole: Parsed) -> Axes:
    axes = whole.bound("axes") or {}
    if not are_axes(axes):
        raise UsageError(
            "run.axes must look like {'axis': {'label': ['binding', …], …}, …}, where axes, labels and bindings are "
            "texts: '10', not 10"
        )
    return axes


def _free_axes(files: list[str], states: list[Parsed], bindings: list[str], replaced: list[str], axes: Axes) -> Axes:
    """The axes that nothing fixes: a `--set`, or `--seed`, of the only thing that an axis varies takes its place.

    A later file that binds what an axis varies, or a `--set` of one of several things that it varies, would have no
    effect in any cell; it is refused. `--seed` has one: it replaces the seeds of cells, too.
    """
    varied = {axis: {_bound(line) for lines in labels.values() for line in lines} for axis, labels in axes.items()}
    given = dict.fromkeys(map(_bound, bindings), "--set")
    fixing = {*given, *map(_bound, replaced)}
    free = {
        axis: labels for axis, labels in axes.items() if len(varied[axis]) != 1 or not _shared(varied[axis], fixing)
    }
    options = given | _of_later_files(files, states, axes)
    for axis, labels in free.items():
        for binding, fixed in _shared(varied[axis], options):
            raise UsageError(
                f"{options[fixed]} {name_of(binding)}: the table varies it along its axis '{axis}'; pick cells with "
                f"--only '{axis}={next(iter(labels))}', or set run.axes"
            )
    return free


def _bound(line: str) -> Binding:
    return binding_of(line.split("=")[0].strip())


def _shared(some: Iterable[Binding], others: Iterable[Binding]) -> list[tuple[Binding, Binding]]:
    """The pairs that are one binding: 'addressing.bases' is 'parameterizations.addressing.bases' by a shorter name."""
    return [pair for pair in itertools.product(sorted(some), sorted(others)) if _are_one(*pair)]


def _are_one(one: Binding, other: Binding) -> bool:
    (scope, selector, parameter), (other_scope, other_selector, other_parameter) = one, other
    longer, shorter = sorted([f".{selector}", f".{other_selector}"], key=len, reverse=True)
    return (scope, parameter) == (other_scope, other_parameter) and longer.endswith(shorter)


def _of_later_files(files: list[str], states: list[Parsed], axes: Axes) -> dict[Binding, str]:
    """Binding -> the file, named as an option, that changes it after an earlier file bound these axes."""
    changed: dict[Binding, str] = {}
    for file, before, state in zip(files[1:], states, states[1:], strict=False):
        if before.bound("axes") == state.bound("axes") == axes:
            changed |= {binding: f"--gin {file}" for binding, _ in _values(state) - _values(before)}
        else:
            changed = {}  # the table is this file's own, or another
    return changed


def _values(state: Parsed) -> set[tuple[Binding, str]]:
    """Every binding with its value, as gin writes it."""
    return {((*where, name), repr(value)) for where, table in state.tables.items() for name, value in table.items()}
