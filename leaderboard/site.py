"""The static site: a page for each table and for each run. It opens from the file system and needs no network.

Everything from a record reaches a page through a template that escapes it, and files are named by hashes of ours.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboard import charts, format, speedrun
from leaderboard.columns import Cell, Column, Link, columns
from leaderboard.pages import PAGES, Page
from leaderboard.published import Source
from leaderboard.records import FIGURES, MAX_BYTES, METRICS, OPERATIVE, Entry
from leaderboard.rows import Row
from leaderboard.tables import Comparison, Table
from suite.errors import UsageError, harmless
from suite.runtime.record import label
from suite.storage.files import disk_errors, json_sha256
from suite.storage.plain_files import read_plain

HERE = Path(__file__).resolve().parent
ASSETS = ("style.css", "script.js", "icon.svg")
"""Files that every page loads."""

SIGN = ".made-by-leaderboard-build"
"""Its presence says that a folder is a site of ours and may be replaced; it lists the files of the last build."""

PICTURES = {
    "recalled": "recalled images, a row for each class (of a stream: for each task)",
    "stages": "what the memory recalled at its start, half way and at its end, a row for each class",
    "bases": "the memory's bases",
    "coefficients": "the coefficients of every recalled image",
    "similarity": "cosine similarity of the classes' coefficients",
    "gradient_norms": "the gradient's norm back through the inner steps",
    "matrix": "accuracy on each task after each task, the mean over networks",
    "recalled_right": "cases that were classified rightly: the shot, and what it recalled, each stretched",
    "recalled_wrong": "cases that were classified wrongly: the shot, and what it recalled, each stretched",
    "accuracies": "accuracy in episodes of the memory and of what stands beside it, with 95% intervals",
    "after_each_task": "mean accuracy on the tasks so far, after each task",
}
"""Pictures of a run that a page shows, by their file names, and what they are of."""

PNG = b"\x89PNG\r\n\x1a\n"
"""How a PNG file begins."""


@dataclass(frozen=True)
class Line:
    """A row of a page: its cells, and what filters look at."""

    dataset: str
    """Its name in records."""
    budget: str
    """Images per class."""
    method: str
    """The row's method."""
    scale: str
    """The scale's name, or 'printed'."""
    cells: tuple[Cell, ...]
    """One for each column."""


# ---------------------------------------------------------------- files


def write(out: Path, tables: Sequence[Table], sources: Mapping[str, Source]) -> int:
    """Write the whole site to a folder that is new, empty or an earlier site; returns how many runs have pages.

    Files that are as they should be are not touched. Of those that no page needs any more, the ones are removed that
    an earlier build made: they are listed in `SIGN`. What others put there stays. Raises UsageError for a folder of
    something else.
    """
    with disk_errors(out):
        signed = (out / SIGN).is_file()
        if (out / "runs").is_symlink() or (out.exists() and not signed and (not out.is_dir() or any(out.iterdir()))):
            raise UsageError(f"--out: {out} holds something else than a site; name a new folder")
        (out / "runs").mkdir(parents=True, exist_ok=True)
        before = read_plain(out / SIGN, MAX_BYTES).decode(errors="replace").split("\n") if signed else []
        names: list[str] = []
        for name, data in _files(tables, sources):
            if not signed and not names:
                (out / SIGN).touch()  # a build that is interrupted can be done again
            _put(f"{out}/{name}", data)
            names.append(name)
        for name in sorted(set(before) - set(names)):
            if re.fullmatch(r"(runs/)?[\w-]+\.\w+", name):  # of the forms that we make
                (out / name).unlink(missing_ok=True)
        _put(f"{out}/{SIGN}", "\n".join(names).encode())
    return sum(name.startswith("runs/") and name.endswith(".html") for name in names)


def _put(file: str, data: bytes) -> None:
    """Have a file hold `data`; strings and no Path, since a site may have tens of thousands."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(file).st_mode):
            raise UsageError(f"--out: {file} is in the way, and no plain file; move it away")
        with open(file, "rb") as present:
            if present.read() == data:
                return
    with open(file, "wb") as fresh:
        fresh.write(data)


def _files(tables: Sequence[Table], sources: Mapping[str, Source]) -> Iterator[tuple[str, bytes]]:
    """Every file of the site: its name and what is in it."""
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: harmless(value) if type(value) is str else value,
    )

    def rendered(file: str, template: str, **variables: Any) -> tuple[str, bytes]:
        root = "../" * file.count("/")
        return file, templates.get_template(template).render(
            variables, pages=(*PAGES, speedrun.PAGE), root=root
        ).encode()

    for name in ASSETS:
        yield name, (HERE / "assets" / name).read_bytes()
    races = speedrun.races(tables)
    cards = [*((table.page, _count(table)) for table in tables), (speedrun.PAGE, speedrun.count(races))]
    yield rendered("index.html", "index.html", here="index", sources=sources.values(), cards=cards)
    yield rendered(f"{speedrun.PAGE.slug}.html", "speedrun.html", here=speedrun.PAGE.slug, **_speedrun(races))
    homes: dict[str, tuple[Entry, Page]] = {}
    by_key: dict[str, list[Entry]] = {}
    for table in tables:
        slug = table.page.slug
        yield rendered(f"{slug}.html", "table.html", here=slug, table=table, **_table(table))
        for entry in _runs(table):
            homes[entry.identity] = entry, table.page
            by_key.setdefault(entry.record["run_key"], []).append(entry)
    for identity, (entry, page) in homes.items():
        others = [other for other in by_key[entry.record["run_key"]] if other is not entry]
        same = [Link(f"{other.identity}.html", name_of(other)) for other in others]
        pictures = list(_pictures(entry))
        shown = [{"file": f"{identity}-{name}.png", "alt": PICTURES[name]} for name, _ in pictures]
        variables = _run(entry) | {"home": page, "same_elsewhere": same, "pictures": shown}
        yield rendered(f"runs/{identity}.html", "run.html", here="", **variables)
        yield f"runs/{identity}.gin", entry.record["config_text"].encode(errors="replace")
        yield from ((f"runs/{identity}-{name}.png", data) for name, data in pictures)


def _count(table: Table) -> str:
    """'12 runs here (12 reduced), 6 printed figures'."""
    runs = _runs(table)
    printed = sum(len(row.published) for row in table.rows)
    reduced = sum(entry.record["scale"]["reduced"] for entry in runs)
    return f"{len(runs)} runs here ({reduced} reduced), {printed} printed figures"


def _runs(table: Table) -> list[Entry]:
    """Every run of its rows, once."""
    return list({entry.identity: entry for row in table.measured for entry in row.runs}.values())


# ---------------------------------------------------------------- tables


def _table(table: Table) -> dict[str, Any]:
    """The variables of a table's template."""
    shown = [column for column in columns(table) if column.title]
    parts: dict[str, list[Line]] = {"full": [], "reduced": [], "printed": []}
    for row in table.rows:
        parts["printed" if not row.runs else "reduced" if row.reduced else "full"] += _lines(shown, row)
    lines = [line for part in parts.values() for line in part]
    return parts | {
        "columns": shown if lines else [],
        "notes": format.notes(table.measured) if table.page.episodes else [],
        "filters": _filters(lines),
        "comparisons": [_comparison(one) for one in table.comparisons],
        "over_controls": [_comparison(one) for one in table.over_controls],
        "charts": charts.along(table) if table.page.chart else [],
        "matrices": list(_matrices(table)) if table.page.row_axis else [],
    }


def _lines(shown: Sequence[Column], row: Row) -> Iterator[Line]:
    """One line for a row that was run; one for each source of a row that was not."""
    scale = row.conditions.label if row.conditions is not None else "printed"
    for one in [row] if row.runs else [replace(row, published=(number,)) for number in row.published]:
        cells = tuple(column.cell(one) for column in shown)
        yield Line(row.dataset, format.budget(row.images_per_class), row.method, scale, cells)


def _filters(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The menus above a table, each with the values that its lines have."""
    filters = []
    for name, title in {"dataset": "Data set", "budget": "I/C", "method": "Method", "scale": "Scale"}.items():
        values = dict.fromkeys(getattr(line, name) for line in lines)
        options = [(value, format.dataset(value) if name == "dataset" else value) for value in values]
        filters.append({"name": name, "title": title, "options": options})
    return filters


def _comparison(comparison: Comparison) -> dict[str, Any]:
    """A line of the comparisons."""
    cells = [
        format.dataset(comparison.dataset),
        format.budget(comparison.images_per_class),
        comparison.title,
        format.difference(comparison.test),
        str(comparison.test.seeds),
        format.verdict(comparison.test),
    ]
    return {"cells": cells, "scale": comparison.label, "reduced": comparison.reduced}


def _matrices(table: Table) -> Iterator[dict[str, Any]]:
    """What was made with each architecture (rows) on each (columns), here by scale, and as printed."""
    groups: dict[tuple[str, str, bool], dict[tuple[str, str], tuple[float, str]]] = {}
    for row in table.rows:
        where = f"{format.dataset(row.dataset)}, {format.budget(row.images_per_class)} I/C"
        place = (row.made_with, row.method)
        if row.test is not None:
            group = f"{where}, here: {format.scale(row)}", _settings_but_networks(row), row.reduced
            groups.setdefault(group, {}).setdefault(place, (row.test.mean, format.accuracy(row.test)))
        if row.paper is not None:
            accuracy = row.paper.accuracy, format.printed(row.paper)
            groups.setdefault((f"{where}, printed", "", False), {}).setdefault(place, accuracy)
    for (title, _, reduced), cells in groups.items():
        made_with, measured_on = (list(dict.fromkeys(place[i] for place in cells)) for i in (0, 1))
        low, high = min(mean for mean, _ in cells.values()), max(mean for mean, _ in cells.values())
        heated = {
            place: {"text": text, "heat": round(10 * (mean - low) / ((high - low) or 1))}
            for place, (mean, text) in cells.items()
        }
        empty = {"text": format.NONE, "heat": 0}
        rows = [(one, [heated.get((one, other), empty) for other in measured_on]) for one in made_with]
        yield {"title": title, "reduced": reduced, "columns": measured_on, "rows": rows}


def _settings_but_networks(row: Row) -> str:
    """Hash of what must agree in one matrix."""
    settings = {key: value for key, value in row.first["config"].items() if key not in ("architecture", "transfer")}
    return json_sha256(settings)


def _speedrun(races: Sequence[speedrun.Race]) -> dict[str, Any]:
    """The variables of the speedrun's template."""
    return {
        "page": speedrun.PAGE,
        "rule": speedrun.RULE,
        "titles": speedrun.TITLES,
        "datasets": list(speedrun.by_dataset(races)),
        "cells": speedrun.cells,
        "no_record": speedrun.NO_RECORD,
    }


# ---------------------------------------------------------------- runs


def name_of(entry: Entry) -> str:
    """A run's name for people: its table, its cell and its seed."""
    record = entry.record
    return ", ".join([record["name"], *record["cell"].values(), f"seed {record['seed']}"])


def _run(entry: Entry) -> dict[str, Any]:
    """The variables of a run's template; configuration and pictures lie beside the page."""
    record = entry.record
    code = record["environment"].get("code", {})
    titles = {"budget": "Budget", "cost": "Cost (seconds, MiB)", "facts": "Facts", "environment": "Environment"}
    return {
        "title": name_of(entry),
        "record": record,
        "measurements": [_measurement(one) for one in record["measurements"]],
        "curves": charts.read_curves(entry, METRICS),
        "operative": _text(entry, OPERATIVE),
        "gin_file": f"{entry.identity}.gin",
        "commit": code.get("commit") or "",
        "changed": bool(code.get("changed")),
        "groups": [(title, _aligned(record[part])) for part, title in titles.items()],
    }


def _measurement(measurement: dict[str, Any]) -> dict[str, Any]:
    """A line of the measurements."""
    cells = [
        measurement["split"],
        f"{measurement['mean']:.2f}",
        format.spread(measurement["std"]),
        str(measurement["n"]),
        measurement["over"],
        ", ".join(f"{value:.2f}" for value in measurement["values"]),
        measurement["note"],
    ]
    return {"name": label(measurement), "cells": cells}


def _aligned(part: Any) -> str:
    """A part of a record as text, a setting a line."""
    pairs = list(_settings(part, ""))
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in pairs)


def _settings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every setting in it by a dotted name, decimals with six digits."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _settings(inner, name if key == "is" and name else f"{name}.{key}" if name else key)
    else:
        yield name, str(_rounded(value))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _pictures(entry: Entry) -> Iterator[tuple[str, bytes]]:
    """The run's pictures by name; what is no PNG file is left out."""
    for name in PICTURES if FIGURES in entry.files else ():
        data = entry.read(f"{FIGURES}/{name}.png")
        if data is not None and data.startswith(PNG):
            yield name, data


def _text(entry: Entry, name: str) -> str:
    """A text of the run's folder, or '' if it has none that can be read."""
    try:
        return (entry.read(name) or b"").decode()
    except ValueError:
        return ""
