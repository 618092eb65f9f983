"""The static site: a page for each table and for each run. It opens from the file system and needs no network.

Everything from a record reaches a page through a template that escapes it, and files are called by hashes of ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboard import charts, words
from leaderboard.published import Source
from leaderboard.records import FIGURES, METRICS, OPERATIVE, Entry, contents
from leaderboard.statistics import Estimate
from leaderboard.tables import SPECS, Comparison, Row, Spec, Table
from suite.errors import UsageError
from suite.runtime.record import label
from suite.storage.files import disk_errors, json_sha256

HERE = Path(__file__).resolve().parent
ASSETS = ("style.css", "script.js")
SIGN = ".made-by-leaderboard-build"
"""Says that a folder is a site of ours and may be replaced."""

PICTURES = {
    "recalled": "recalled images, a row for each class (of a stream: for each task)",
    "bases": "the memory's bases",
    "coefficients": "the coefficients of every recalled image",
    "similarity": "cosine similarity of the classes' coefficients",
    "gradient_norms": "the gradient's norm back through the inner steps",
    "matrix": "accuracy on each task after each task, the mean over networks",
    "recalled_right": "cases whose class is told rightly: the shot, and what it recalled, each stretched",
    "recalled_wrong": "cases whose class is told wrongly: the shot, and what it recalled, each stretched",
    "after_each_task": "mean accuracy on the tasks so far, after each task",
}
"""Pictures of a run that a page shows, by their file names, and what they are of."""

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Link:
    to: str
    text: str


@dataclass(frozen=True)
class Cell:
    text: str
    small: str = ""
    sort: str | float | None = None
    """What it is sorted by, if not by its text; '' is last."""
    number: bool = False
    mark: str = ""
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Column:
    title: str
    says: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a page: its cells, and what filters look at."""

    dataset: str
    budget: str
    method: str
    scale: str
    cells: tuple[Cell, ...] = field(default=())


def write(out: Path, tables: Sequence[Table], known: Mapping[str, Source]) -> int:
    """Write the whole site to a folder that is new, empty or an earlier site; returns how many runs have pages.

    Files that are as they should be are not touched. Of those that no page needs any more, the ones are removed that
    an earlier build made: they are listed in `SIGN`. What others put there stays.
    """
    with disk_errors(out):
        signed = (out / SIGN).is_file()
        if (out / "runs").is_symlink() or (out.exists() and not signed and (not out.is_dir() or any(out.iterdir()))):
            raise UsageError(f"--out: {out} holds something else than a site; name a new folder")
        (out / "runs").mkdir(parents=True, exist_ok=True)
        before = (out / SIGN).read_text(encoding="utf-8").split("\n") if signed else []
        wanted: list[str] = []
        for name, data in _files(tables, known):
            if not signed and not wanted:
                (out / SIGN).touch()  # a build that is interrupted can be done again
            _put(f"{out}/{name}", data)
            wanted.append(name)
        for name in sorted(set(before) - set(wanted)):
            if name and ".." not in name and not name.startswith("/"):
                (out / name).unlink(missing_ok=True)
        _put(f"{out}/{SIGN}", "\n".join(wanted).encode())
    return sum(name.startswith("runs/") and name.endswith(".html") for name in wanted)


def _put(file: str, data: bytes) -> None:
    """Have a file hold `data`; strings and no Path, since a site may have tens of thousands."""
    with suppress(FileNotFoundError), open(file, "rb") as held:
        if held.read() == data:
            return
    with open(file, "wb") as fresh:
        fresh.write(data)


def _files(tables: Sequence[Table], known: Mapping[str, Source]) -> Iterator[tuple[str, bytes]]:
    """Every file of the site: its name and what is in it."""
    templates = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )

    def page(file: str, template: str, **given: Any) -> tuple[str, bytes]:
        root = "../" * file.count("/")
        return file, templates.get_template(template).render(given, specs=SPECS, root=root).encode()

    for name in ASSETS:
        yield name, (HERE / "assets" / name).read_bytes()
    cards = [(table.spec, _count(table)) for table in tables]
    yield page("index.html", "index.html", here="index", sources=known.values(), cards=cards)
    homes: dict[str, tuple[Entry, Spec]] = {}
    work: dict[str, list[Entry]] = {}
    for table in tables:
        yield page(f"{table.spec.slug}.html", "table.html", here=table.spec.slug, table=table, **_table(table))
        for entry in _runs(table):
            homes[entry.identity] = entry, table.spec
            work.setdefault(entry.record["run_key"], []).append(entry)
    for identity, (entry, spec) in homes.items():
        same = [Link(f"{o.identity}.html", name_of(o)) for o in work[entry.record["run_key"]] if o is not entry]
        pictures = list(_pictures(entry))
        shown = [{"file": f"{identity}-{name}.png", "alt": PICTURES[name]} for name, _ in pictures]
        about = _run(entry) | {"home": spec, "same_elsewhere": same, "pictures": shown}
        yield page(f"runs/{identity}.html", "run.html", here="", **about)
        yield f"runs/{identity}.gin", entry.record["config_text"].encode(errors="replace")
        yield from ((f"runs/{identity}-{name}.png", data) for name, data in pictures)


def _count(table: Table) -> str:
    runs = _runs(table)
    printed = sum(len(row.published) for row in table.rows)
    reduced = sum(entry.record["scale"]["reduced"] for entry in runs)
    return f"{len(runs)} runs here ({reduced} reduced), {printed} printed figures"


def _runs(table: Table) -> list[Entry]:
    return list({entry.identity: entry for row in table.measured for entry in row.runs}.values())


# ---------------------------------------------------------------- tables


def _table(table: Table) -> dict[str, Any]:
    columns = _columns(table)
    parts: dict[str, list[Line]] = {"full": [], "reduced": [], "printed": []}
    for row in table.rows:
        parts["printed" if not row.runs else "reduced" if row.reduced else "full"] += _lines(table, row)
    lines = [line for part in parts.values() for line in part]
    return parts | {
        "columns": columns if lines else [],
        "notes": words.notes(table.measured) if table.spec.episodes else [],
        "filters": _filters(lines),
        "comparisons": [_compared(one) for one in table.comparisons],
        "charts": charts.along(table) if table.spec.chart else [],
        "matrices": list(_matrices(table)) if table.spec.row_axis else [],
    }


def _columns(table: Table) -> list[Column]:
    measured = bool(table.spec.experiments) or bool(table.measured)
    made = [Column(table.spec.row_title)] if table.spec.row_title else []
    columns = [
        Column("data set"),
        Column("I/C", "budget in real images per class"),
        *made,
        Column("measured on" if table.spec.row_axis else "method"),
        *([] if table.spec.episodes else [Column("printed", "as the source prints it")]),
    ]
    if not measured:
        return [*columns, Column("source")]
    return [
        *columns,
        *([] if table.spec.episodes else [Column("rank", "among full runs that were judged alike")]),
        Column("here, test", "mean and half of its 95% interval"),
        Column("n", f"{table.spec.seeds} × {table.spec.within} of each"),
        Column(f"sd of {table.spec.seeds}"),
        Column(f"sd of {table.spec.within.removeprefix('evaluation ')}"),
        *([] if table.spec.episodes else [Column("difference", "here less printed, in points"), Column("validation")]),
        *(Column(name) for name in table.controls),
        Column("stored numbers"),
        Column("scale"),
        Column("iterations/s"),
        Column("peak MiB"),
        Column("hardware"),
        Column("runs"),
    ]


def _lines(table: Table, row: Row) -> Iterator[Line]:
    """One line for a row that was run; one for each source of a row that was not."""
    measured = bool(table.spec.experiments) or bool(table.measured)
    for printed in row.published if not row.runs else (row.paper,):
        cells = [
            Cell(words.dataset(row.dataset), sort=row.dataset),
            Cell(words.budget(row.images_per_class), sort=row.images_per_class or "", number=True),
            *([Cell(row.made_with)] if table.spec.row_title else []),
            Cell(
                row.method,
                small="chosen on validation" if row.chosen else "",
                sort=row.method,
                mark="reduced" if row.reduced else "",
            ),
        ]
        source = f"{printed.source}, {printed.place}" if printed is not None else ""
        noted = "; ".join(filter(None, [source, printed.note])) if printed is not None else ""
        if not table.spec.episodes:
            cells.append(
                Cell(
                    words.printed(printed),
                    small=noted if measured else (printed.note if printed is not None else ""),
                    sort="" if printed is None else printed.accuracy,
                    number=True,
                )
            )
        cells += _measured(table, row) if measured else [Cell(source)]
        scale = row.conditions.label if row.conditions is not None else "printed"
        yield Line(row.dataset, words.budget(row.images_per_class), row.method, scale, tuple(cells))


def _measured(table: Table, row: Row) -> list[Cell]:
    if not row.runs:
        first = (3 if table.spec.episodes else 4) + bool(table.spec.row_title)
        return [Cell(words.NONE, sort="")] * (len(_columns(table)) - first)
    test = row.test
    stored = row.first["budget"]["stored_numbers"]
    episodes = table.spec.episodes
    return [
        *([] if episodes else [Cell(str(row.rank) if row.rank else words.NONE, sort=row.rank or "", number=True)]),
        _accuracy(test),
        Cell(words.seeds(test or row.validation), sort=len(row.runs)),
        _number(test.spread_of_memories if test is not None else None, words.spread),
        _number(test.spread_of_networks if test is not None else None, words.spread),
        *([] if episodes else [_number(row.apart, words.points), _accuracy(row.validation)]),
        *(
            _accuracy(found, f"n = {words.values(found)}" if episodes and found else words.note(row, name))
            for name, found in ((name, row.controls.get(name)) for name in table.controls)
        ),
        Cell(f"{stored:,}", sort=stored, number=True),
        Cell(words.scale(row), sort=words.scale(row) if row.conditions is not None else ""),
        Cell(words.rate(row), sort="" if words.rate(row) == words.NONE else words.rate(row), number=True),
        Cell(words.memory(row), sort=max(words.peaks(row), default=""), number=True),
        Cell("", small=words.hardware(row), sort=words.hardware(row)),
        Cell("", sort=len(row.runs), links=tuple(_link(entry) for entry in row.runs)),
    ]


def _link(entry: Entry) -> Link:
    return Link(f"runs/{entry.identity}.html", f"seed {entry.record['seed']}")


def _accuracy(found: Estimate | None, note: str = "") -> Cell:
    """With what its interval is over."""
    if found is None:
        return Cell(words.NONE, sort="", number=True)
    small = [f"95% over {words.over(found)}" if found.interval is not None else words.over(found), note]
    return Cell(words.accuracy(found), "; ".join(filter(None, small)), sort=round(found.mean, 4), number=True)


def _number(value: float | None, shown: Any) -> Cell:
    return Cell(shown(value), sort="" if value is None else round(value, 4), number=True)


def _filters(lines: Sequence[Line]) -> list[dict[str, Any]]:
    titles = {"dataset": "Data set", "budget": "I/C", "method": "Method", "scale": "Scale"}
    found = []
    for name, title in titles.items():
        values = dict.fromkeys(getattr(line, name) for line in lines)
        options = [(value, words.dataset(value) if name == "dataset" else value) for value in values]
        found.append({"name": name, "title": title, "options": options})
    return found


def _compared(one: Comparison) -> dict[str, Any]:
    cells = [
        words.dataset(one.dataset),
        words.budget(one.images_per_class),
        one.what,
        words.difference(one.test),
        str(one.test.seeds),
        words.verdict(one.test),
    ]
    return {"cells": cells, "scale": one.label, "reduced": one.reduced}


def _matrices(table: Table) -> Iterator[dict[str, Any]]:
    """What was made with each architecture (rows) on each (columns), here by scale, and as printed."""
    groups: dict[tuple[str, str, bool], dict[tuple[str, str], tuple[float, str]]] = {}
    for row in table.rows:
        where = f"{words.dataset(row.dataset)}, {words.budget(row.images_per_class)} I/C"
        at = (row.made_with, row.method)
        if row.test is not None:
            title, settings = f"{where}, here: {words.scale(row)}", _alike(row)
            groups.setdefault((title, settings, row.reduced), {}).setdefault(
                at, (row.test.mean, words.accuracy(row.test))
            )
        if row.paper is not None:
            shown = row.paper.accuracy, words.printed(row.paper)
            groups.setdefault((f"{where}, printed", "", False), {}).setdefault(at, shown)
    for (title, _, reduced), cells in groups.items():
        made, measured = (list(dict.fromkeys(at[i] for at in cells)) for i in (0, 1))
        low, high = min(v for v, _ in cells.values()), max(v for v, _ in cells.values())
        heat = {at: round(100 * (v - low) / ((high - low) or 1)) for at, (v, _) in cells.items()}
        rows = [
            (one, [{"text": cells.get((one, m), (0, words.NONE))[1], "heat": heat.get((one, m), 0)} for m in measured])
            for one in made
        ]
        yield {"title": title, "reduced": reduced, "columns": measured, "rows": rows}


def _alike(row: Row) -> str:
    """What must agree in one matrix: everything but the network."""
    settings = {key: value for key, value in row.first["config"].items() if key not in ("architecture", "transfer")}
    return json_sha256(settings)


# ---------------------------------------------------------------- runs


def name_of(entry: Entry) -> str:
    record = entry.record
    return ", ".join([record["name"], *record["cell"].values(), f"seed {record['seed']}"])


def _run(entry: Entry) -> dict[str, Any]:
    """What a run's page says of its record; configuration and pictures lie beside the page."""
    record = entry.record
    figures = [
        {
            "name": label(figure),
            "cells": [
                figure["split"],
                f"{figure['mean']:.2f}",
                words.spread(figure["std"]),
                str(figure["n"]),
                figure["over"],
                ", ".join(f"{value:.2f}" for value in figure["values"]),
                str(figure.get("note", "")),
            ],
        }
        for figure in record["measurements"]
    ]
    code = record["environment"].get("code")
    code = code if isinstance(code, dict) else {}
    titles = {"budget": "Budget", "cost": "Cost (seconds, MiB)", "facts": "Facts", "environment": "Environment"}
    return {
        "title": name_of(entry),
        "record": record,
        "figures": figures,
        "curves": charts.read_curves(entry, METRICS),
        "operative": _text(entry, OPERATIVE),
        "gin_file": f"{entry.identity}.gin",
        "commit": code.get("commit") or "",
        "changed": bool(code.get("changed")),
        "groups": [(title, _lined_up(record[part])) for part, title in titles.items()],
    }


def _lined_up(part: Any) -> str:
    """A part of a record as text, a setting a line."""
    pairs = list(_settings(part, ""))
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:{width}}  {value}" for name, value in pairs)


def _settings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every setting in it by a dotted name, decimals with six digits."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _settings(one, name if key == "is" and name else f"{name}.{key}" if name else key)
    else:
        yield name, str(_rounded(value))


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _pictures(entry: Entry) -> Iterator[tuple[str, bytes]]:
    """The run's pictures by name; what is no PNG file is left out."""
    for name in PICTURES if FIGURES in entry.files else ():
        assert entry.folder is not None
        with suppress(OSError):
            data = contents(entry.folder / FIGURES / f"{name}.png")
            if data.startswith(PNG):
                yield name, data


def _text(entry: Entry, name: str) -> str:
    """A text of the run's folder, or '' if it has none that can be read."""
    try:
        return contents(entry.folder / name).decode() if entry.folder and name in entry.files else ""
    except (OSError, ValueError):
        return ""
