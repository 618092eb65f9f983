"""The tables as Markdown, between markers in a README."""

import re
import shlex
from collections.abc import Iterable, Sequence

from leaderboard import format, speedrun
from leaderboard.lines import Line, Part, parts
from leaderboard.tables import Table
from suite.errors import UsageError, harmless
from suite.runtime.record_schema import ACCURACY

HERE = "leaderboard/"
"""The folder of the README that has the repository's tables, from that of the repository."""

FREE = ("herding", "random real images")
"""Controls that a method is compared with, the stronger one first."""

MARKER = re.compile(r"<!-- ([\w-]+): (begin|end) -->")
"""Where a table begins or ends, by the slug of its page."""


def fill(text: str, tables: Sequence[Table], where: str) -> str:
    """The text with each table put between its own markers, as in `<!-- momentum: begin -->`.

    Raises UsageError for a marker without its partner, or of no table.
    """
    slugs = {*(table.page.slug for table in tables), speedrun.PAGE.slug}
    markers = [(m.group(1), m.group(2), m.start(), m.end()) for m in MARKER.finditer(text)]
    filled, position = "", 0
    if len(markers) % 2:
        slug, kind, *_ = markers[-1]
        raise UsageError(f"{where}: the marker '{slug}: {kind}' has no partner; markers come in pairs")
    for (slug, kind, _, begin), (other, last, end, _) in zip(markers[::2], markers[1::2], strict=True):
        if (kind, last) != ("begin", "end") or slug != other or slug not in slugs:
            raise UsageError(f"{where}: '{slug}: {kind}' and '{other}: {last}' are not the markers of one table")
        filled += f"{text[position:begin]}\n{_section(slug, tables)}"
        position = end
    return filled + text[position:]


def _section(slug: str, tables: Sequence[Table]) -> str:
    """What stands between the markers of a page."""
    if slug == speedrun.PAGE.slug:
        return races(speedrun.races(tables))
    (table,) = [table for table in tables if table.page.slug == slug]
    return markdown(table)


def races(every: Sequence[speedrun.Race]) -> str:
    """The speedrun: its rule, and a table with the rows of every target, fastest first."""
    rows: list[list[str]] = [list(speedrun.TITLES), ["---"] * len(speedrun.TITLES)]
    seeds: dict[str, None] = {}
    for race in every:
        target = plain(f"{format.dataset(race.dataset)}, {race.title}" + (f", {race.note}" if race.note else ""))
        for finish in race.finishes:
            rows.append([target, *map(plain, speedrun.texts(finish)), _linked(speedrun.file(finish))])
            if speedrun.file(finish):
                seeds[speedrun.command(finish.row, "FILE")] = None
        if not race.finishes:
            rows.append([target, speedrun.NO_RECORD, *[format.NONE] * (len(speedrun.TITLES) - 2)])
    lines = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    again = " or ".join(f"`{command}`" for command in seeds)
    return f"{plain(speedrun.RULE)}\n\n{lines}" + (
        f"\nA row is run again with its configuration and its seeds: {again}.\n" if again else ""
    )


def _linked(file: str) -> str:
    """A link to a file of the repository from beside the records; elsewhere its path as code, if that can hold it."""
    if not file or set(file) & set("`|\n\r"):
        return format.NONE
    return (
        f"[gin]({file.removeprefix(HERE)})" if file.startswith(HERE) and " " not in file else f"`{shlex.quote(file)}`"
    )


def markdown(table: Table) -> str:
    """What was run here, a table for each part, full runs before reduced ones, whose headings say so."""
    made = [_part(table, part) for part in parts(table)]
    notes = format.notes(table.measured)
    made += [f"{name}: {plain(note)}.\n" for name, note in notes]
    return "\n".join(made) if made else "Nothing was run here yet.\n"


def _part(table: Table, part: Part) -> str:
    """A part under its heading, with a column for what is printed where anything is."""
    printed = any(line.row.published for line in part.lines)
    beside = {id(line): _differences(table, part, line) for line in part.lines}
    titles = ["measured on" if table.page.row_axis else "method", f"{_measured(table)} (95% interval)", "n"]
    titles += ["difference"] if any(beside.values()) else []
    titles += ["paper"] if printed else []
    titles += ["cost", "scale"]
    body = []
    for line in part.lines:
        cells = [_name(line), _accuracy(line), format.sample(line.measured)]
        cells += [beside[id(line)] or format.NONE] if any(beside.values()) else []
        cells += [format.NONE if line.control else format.printed(line.row.paper)] if printed else []
        body.append([*cells, _cost(line), format.NONE if line.control else format.scale(line.row)])
    reduced = " (reduced: not ranked, for orders and trends)" if part.reduced else ""
    return f"**{plain(part.title)}**{reduced}\n\n{_rows([titles, ['---'] * len(titles), *body])}"


def _measured(table: Table) -> str:
    """What stands in the column of accuracies."""
    return "test" if table.page.quantity == ACCURACY else f"{table.page.quantity}, test"


def _name(line: Line) -> str:
    best = " (best)" if line.best else ""
    return line.name + best + (", control" if line.control else "")


def _accuracy(line: Line) -> str:
    """On test images, or on validation images where nothing else was measured."""
    return format.accuracy(line.measured) + ("" if line.means or line.measured is None else " (validation)")


def _differences(table: Table, part: Part, line: Line) -> str:
    """Paired differences: to the method before, and to the first of `FREE` that was measured beside it."""
    if line.control:
        return ""
    names = {id(other.row): other.name for other in part.lines if not other.control}
    told = [
        f"{format.difference(one.test)} to {names[id(one.first)]}"
        for one in table.comparisons
        if one.row is line.row
    ]  # fmt: skip
    title = next((title for title in FREE if title in line.row.controls), None)
    behind = line.row.controls[title].behind if title is not None else None
    if behind is not None:
        told.append(f"{format.difference(behind)} to {title}")
    return "; ".join(told)


def _cost(line: Line) -> str:
    if line.control:
        return format.NONE
    spent = format.time(line.row)
    return ", ".join(([format.duration(spent[0])] if spent is not None else []) + [format.stored(line.row)])


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(cell if cell == "---" else plain(cell) for cell in row) + " |\n" for row in rows)


def plain(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    text = re.sub(r"\b(www)\.", "\\1\u200b.", harmless(" ".join(text.split())))
    return re.sub(
        r"([\\`*_\[\]<>&|~#@:$])", lambda m: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(m[1], "\\" + m[1]), text
    )
