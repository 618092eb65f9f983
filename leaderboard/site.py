"""The static site: a page for each table and for each run. It opens from the file system and needs no network.

Everything from a record reaches a page through a template that escapes it, and files are named by hashes of ours.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from leaderboard import charts, downloads, format, front, speedrun
from leaderboard.columns import Link, columns, details, source
from leaderboard.lines import Line, Part, parts
from leaderboard.pages import PAGES
from leaderboard.published import Published, Source
from leaderboard.records import FIGURES, MAX_BYTES, METRICS, OPERATIVE, Entry
from leaderboard.rows import Row
from leaderboard.tables import Table
from suite.errors import UsageError, harmless
from suite.runtime.record import label
from suite.runtime.record_schema import ACCURACY
from suite.storage.files import disk_errors, json_sha256, sha256
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


RECALLED, MEMORY_FILE = "recalled", "memory.safetensors"
"""The picture of the front page; the file of a run's memory."""

MOST_SEEDS = 20
"""A run's page links to so many other seeds at the most; its row links to all."""

PRINTED = "printed"
"""The scale of a figure that nobody ran here."""


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
    parts_of = {table.page.slug: parts(table) for table in tables}
    races = speedrun.races(tables)
    front_page = _front(tables, parts_of, races)
    yield rendered("index.html", "index.html", here="index", sources=sources.values(), **front_page)
    yield rendered(f"{speedrun.PAGE.slug}.html", "speedrun.html", here=speedrun.PAGE.slug, **_speedrun(races))
    homes: dict[str, Home] = {}
    by_key: dict[str, list[Home]] = {}
    for table in tables:
        slug, own = table.page.slug, parts_of[table.page.slug]
        yield rendered(f"{slug}.html", "table.html", here=slug, table=table, **_table(table, own))
        lines = downloads.table(table, own)
        yield f"{slug}.json", downloads.as_json(lines)
        yield f"{slug}.csv", downloads.as_csv(lines)
        for home in (Home(entry, part, line) for part in own for line in part.lines for entry in line.runs):
            if homes.setdefault(home.entry.identity, home) is home:
                by_key.setdefault(home.entry.record["run_key"], []).append(home)
    for home in homes.values():
        also = [Link(f"{one.entry.identity}.html", one.title) for one in by_key[home.entry.record["run_key"]]
                if one is not home]  # fmt: skip
        yield from _run_files(home, also, rendered)


def _count(table: Table) -> str:
    """'12 runs here (12 reduced), 6 printed figures'."""
    runs = {entry.identity: entry for row in table.measured for entry in row.runs}.values()
    printed = sum(len(row.published) for row in table.rows)
    reduced = sum(entry.record["scale"]["reduced"] for entry in runs)
    return f"{len(runs)} runs here ({reduced} reduced), {printed} printed figures"


# ---------------------------------------------------------------- the front page


def _front(
    tables: Sequence[Table], parts_of: dict[str, tuple[Part, ...]], races: Sequence[speedrun.Race]
) -> dict[str, Any]:
    """The variables of the front page's template."""
    contests = [
        (table.page, list(front.contests(parts_of[table.page.slug])))
        for table in tables
        if (table.page.quantity != ACCURACY or table.page.episodes) and table.measured
    ]
    fields = list(front.fields(tables, parts_of))
    run_here = {field.dataset for field in fields}
    return {
        "cards": [*((table.page, _count(table)) for table in tables), (speedrun.PAGE, speedrun.count(races))],
        "fields": [(field, [_recalled(best) for best in field.bests]) for field in fields],
        "contests": contests,
        "races": [
            (race, format.dataset(race.dataset), race.finishes[0] if race.finishes else None)
            for race in races
            if race.dataset in run_here
        ],
        "speedrun": speedrun,
        "format": format,
    }


def _recalled(best: front.Best) -> str:
    """The file of what the best memory recalls, of its first run with a picture; '' where there is none."""
    for entry in best.line.runs:
        if any(name == RECALLED for name, _ in _pictures(entry)):
            return f"runs/{entry.identity}-{RECALLED}.png"
    return ""


# ---------------------------------------------------------------- tables


def _table(table: Table, own: Sequence[Part]) -> dict[str, Any]:
    """The variables of a table's template."""
    printed = [(row, number) for row in table.rows if not row.runs for number in row.published]
    controls = dict.fromkeys(line.title for part in own for line in part.lines if line.control)
    return {
        "columns": columns(table) if own else (),
        "parts": own,
        "details": details,
        "means": _means,
        "episodes": _episodes,
        "printed": printed,
        "controls": list(controls),
        "has_printed": any(row.published for row in table.measured),
        "filters": _filters(own, printed),
        "charts": charts.along(table) if table.page.chart else [],
        "matrices": list(_matrices(table)) if table.page.row_axis else [],
        "format": format,
        "source": source,
    }


def _episodes(line: Line) -> str:
    """'RUN:70.25,71.5 OTHER:70.25,72': the values of each run's episodes, for the same."""
    return " ".join(f"{run}:{','.join(f'{value:.6g}' for value in values)}" for run, values in line.episodes.items())


def _means(line: Line) -> str:
    """'0:70.25 1:71.5': the means by seed, for the script that compares lines."""
    return " ".join([f"{seed}:{mean:.10g}" for seed, mean in line.means.items()])


def _filters(own: Sequence[Part], printed: Sequence[tuple[Row, Published]]) -> list[dict[str, Any]]:
    """The menus above a table, each with the values that its lines have."""
    lines = [
        (part.dataset, format.budget(line.row.images_per_class), line.title, line.row.conditions.label)
        for part in own for line in part.lines if line.row.conditions is not None
    ]  # fmt: skip
    lines += [(row.dataset, format.budget(row.images_per_class), row.method, PRINTED) for row, _ in printed]
    filters = []
    for i, (name, title) in enumerate({"dataset": "Data set", "budget": "I/C", "method": "Method",
                                       "scale": "Scale"}.items()):  # fmt: skip
        values = dict.fromkeys(line[i] for line in lines)
        options = [(value, format.dataset(value) if name == "dataset" else value) for value in values]
        filters.append({"name": name, "title": title, "options": options})
    return filters


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
        "columns": speedrun.COLUMNS,
        "datasets": list(speedrun.by_dataset(races)),
        "cells": speedrun.cells,
        "details": speedrun.details,
        "no_record": speedrun.NO_RECORD,
    }


# ---------------------------------------------------------------- runs


@dataclass(frozen=True, eq=False)
class Home:
    """A run, and where it stands."""

    entry: Entry
    """The run."""
    part: Part
    """The part of its table."""
    line: Line
    """The first line that it is in."""

    @property
    def title(self) -> str:
        """The run's name for people: data set, budget, method, what tells it from its namesakes, and the seed."""
        part, row = self.part, self.line.row
        budget = f"{format.budget(row.images_per_class)} I/C"
        method = f"made with {part.made_with}" if part.page.row_axis else self.line.title
        named = (format.dataset(part.dataset), budget, method, self.line.differs, f"seed {self.entry.record['seed']}")
        return ", ".join(filter(None, named))


def _run_files(
    home: Home, also: Sequence[Link], rendered: Callable[..., tuple[str, bytes]]
) -> Iterator[tuple[str, bytes]]:
    """A run's page and what lies beside it: its configuration, record, memory and pictures."""
    entry, identity = home.entry, home.entry.identity
    pictures = list(_pictures(entry))
    memory = _memory(entry)
    shown = [{"file": f"{identity}-{name}.png", "alt": PICTURES[name]} for name, _ in pictures]
    files = [Link(f"{identity}.json", "the record (JSON)"), Link(f"{identity}.csv", "its values (CSV)")]
    files += [Link(f"{identity}.gin", "the configuration (gin)")]
    files += [Link(f"{identity}.safetensors", "the memory (safetensors)")] if memory is not None else []
    variables = _run(home) | {"also": also, "pictures": shown, "files": files}
    yield rendered(f"runs/{identity}.html", "run.html", here="", **variables)
    yield f"runs/{identity}.gin", entry.record["config_text"].encode(errors="replace")
    yield f"runs/{identity}.json", downloads.as_json(entry.record)
    yield f"runs/{identity}.csv", downloads.record_as_csv(entry.record)
    if memory is not None:
        yield f"runs/{identity}.safetensors", memory
    yield from ((f"runs/{identity}-{name}.png", data) for name, data in pictures)


def _run(home: Home) -> dict[str, Any]:
    """The variables of a run's template."""
    entry, record = home.entry, home.entry.record
    others = [one for one in home.line.runs if one is not entry]
    code = record["environment"].get("code", {})
    ended = record["cost"].get("finished_at")
    titles = {"budget": "Budget", "cost": "Cost (seconds, MiB)", "facts": "Facts", "environment": "Environment"}
    return {
        "title": home.title,
        "name": ", ".join([record["name"], *record["cell"].values()]),
        "day": format.day(ended) if ended is not None else "",
        "page": home.part.page,
        "place": f"../{home.part.page.slug}.html#{home.line.anchor}",
        "siblings": [Link(f"{one.identity}.html", f"seed {one.record['seed']}") for one in others[:MOST_SEEDS]],
        "more_seeds": len(others[MOST_SEEDS:]),
        "record": record,
        "measurements": [_measurement(one) for one in record["measurements"]],
        "curves": charts.read_curves(entry, METRICS),
        "operative": _text(entry, OPERATIVE),
        "gin_file": f"{entry.identity}.gin",
        "commit": code.get("commit") or "",
        "changed": bool(code.get("changed")),
        "groups": [(title, _aligned(record[part])) for part, title in titles.items()],
    }  # fmt: skip


def _measurement(measurement: dict[str, Any]) -> dict[str, Any]:
    """A line of the measurements."""
    cells = [
        measurement["split"],
        f"{measurement['mean']:.2f}",
        format.spread(measurement["std"]),
        str(measurement["n"]),
        measurement["over"],
        measurement["note"],
    ]
    values = ", ".join([f"{value:.2f}" for value in measurement["values"]])
    return {"name": label(measurement), "cells": cells, "values": values}


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


def _memory(entry: Entry) -> bytes | None:
    """The run's memory file, if it is there and is the one that the record has the hash of."""
    named = entry.record["facts"].get("memory_sha256")
    data = entry.read(MEMORY_FILE) if named else None
    return data if data is not None and sha256(data) == named else None


def _text(entry: Entry, name: str) -> str:
    """A text of the run's folder, or '' if it has none that can be read."""
    try:
        return (entry.read(name) or b"").decode()
    except ValueError:
        return ""
