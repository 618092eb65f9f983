"""The tables as Markdown, between markers in a README."""

import re
from collections.abc import Iterable, Sequence

from leaderboard import format, speedrun
from leaderboard.columns import columns
from leaderboard.rows import Row
from leaderboard.tables import Comparison, Table
from suite.errors import UsageError, harmless

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


def races(every: Iterable[speedrun.Race]) -> str:
    """The speedrun: its rule, and a table with the rows of every target, fastest first."""
    titles = ["data set", "target", *speedrun.TITLES]
    rows = [[plain(title) for title in titles], ["---"] * len(titles)]
    for race in every:
        target = [plain(format.dataset(race.dataset)), plain(race.title + (f", {race.note}" if race.note else ""))]
        for finish in race.finishes:
            rows.append([*target, *map(plain, speedrun.texts(finish)), _code(speedrun.again(finish))])
        if not race.finishes:
            rows.append([*target, speedrun.NO_RECORD, *[format.NONE] * (len(speedrun.TITLES) - 1)])
    return f"{plain(speedrun.RULE)}\n\n" + "".join("| " + " | ".join(row) + " |\n" for row in rows)


def _code(text: str) -> str:
    """A text as code, or as it is where code could not hold it."""
    return plain(text) if text == format.NONE or set(text) & set("`|\n\r") else f"`{text}`"


def markdown(table: Table) -> str:
    """What was run here, beside what the paper prints; full runs first, reduced ones under a heading that says so."""
    full = [row for row in table.measured if not row.reduced]
    reduced = [row for row in table.measured if row.reduced]
    parts = []
    if full:
        parts.append(_table(table, full) + _notes(full))
    if reduced:
        parts.append(
            "**Reduced runs**: a small part of the paper's iterations, inner steps and networks. They show orders and "
            "trends, and are never ranked with full ones.\n\n" + _table(table, reduced) + _notes(reduced)
        )
    if table.over_controls:
        parts.append(_comparisons("over what one has for free, same seeds", table.over_controls))
    if table.comparisons:
        parts.append(_comparisons("methods, same seeds", table.comparisons))
    return "\n".join(parts) if parts else "Nothing was run here yet.\n"


def _table(table: Table, rows: Sequence[Row]) -> str:
    shown = [column for column in columns(table) if column.markdown]
    titles = [column.markdown for column in shown]
    return _rows([titles, ["---"] * len(titles), *([column.text(row) for column in shown] for row in rows)])


def _notes(rows: Sequence[Row]) -> str:
    """How controls were trained, where that is another way than a memory's networks are."""
    return "".join(f"\n{name}: {plain(note)}.\n" for name, note in format.notes(rows))


def _comparisons(title: str, comparisons: Sequence[Comparison]) -> str:
    head = [
        "data set",
        "I/C",
        title,
        "difference in test accuracy (paired 95% interval)",
        "seeds",
        "scale",
    ]
    body = [
        [
            format.dataset(comparison.dataset),
            format.budget(comparison.images_per_class),
            comparison.title,
            format.difference(comparison.test),
            str(comparison.test.seeds),
            comparison.label + (" (reduced)" if comparison.reduced else ""),
        ]
        for comparison in comparisons
    ]
    return _rows([head, ["---"] * len(head), *body])


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(cell if cell == "---" else plain(cell) for cell in row) + " |\n" for row in rows)


def plain(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    text = re.sub(r"\b(www)\.", "\\1\u200b.", harmless(" ".join(text.split())))
    return re.sub(
        r"([\\`*_\[\]<>&|~#@:$])", lambda m: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(m[1], "\\" + m[1]), text
    )
