"""From gin files and bindings to runs: every cell of a table and every seed, resolved to plain objects.

With `suite.registry` the only module that imports gin. A file binds `run`:

    run.experiment = @experiments.distillation()
    run.seeds = %SEEDS
    run.axes = {'momentum': {'none': ['INNER_OPTIMIZER = @inner_optimizers.no_momentum()'], 'full': [...]}}

`axes` makes a table: each axis has labelled values, each value is a list of bindings, and every combination is a cell.
`choose` names an axis whose value is chosen on the validation split when all cells are done, one for each combination
of the other axes; `then` lists bindings under which the chosen cell is run once more.
"""

import itertools
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import gin
from suite.config.gin_state import (
    Binding,
    Parsed,
    _build,
    _consumed,
    _displaced,
    _drop,
    _gin,
    _of_scales,
    _parse,
    _parsed,
    _parts,
    _refuse_unused,
    _used_in_parts,
    _with,
)
from suite.config.root import Root
from suite.errors import UsageError
from suite.evaluation.protocol import Protocol
from suite.registry import fingerprint, suggestion
from suite.storage.files import json_sha256
from suite.storage.gin_files import ROOT, gin_files
from suite.types import Experiment

gin.register("run", module="suite")(Root)

gin.register("protocol", module="suite")(Protocol)

gin.add_config_file_search_path(str(ROOT))


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
            raise UsageError(f"--gin: there is no file {file}; {suggestion(file, gin_files())}")
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
