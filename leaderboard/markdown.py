"""The tables as Markdown, between markers in a README."""

import re
from collections.abc import Iterable, Sequence

from leaderboard import words
from leaderboard.statistics import Estimate
from leaderboard.tables import Row, Table
from suite.errors import UsageError

MARKER = re.compile(r"<!-- ([\w-]+): (begin|end) -->")


def fill(text: str, tables: Iterable[Table], where: str) -> str:
    """The text with each table put between its own markers, as in `<!-- momentum: begin -->`.

    Raises UsageError for a marker that stands alone or that no table answers to.
    """
    known = {table.spec.slug: table for table in tables}
    found = [(m.group(1), m.group(2), m.start(), m.end()) for m in MARKER.finditer(text)]
    made, at = "", 0
    if len(found) % 2:
        raise UsageError(f"{where}: the marker '{found[-1][0]}: {found[-1][1]}' has no partner; markers come in pairs")
    for (slug, kind, _, begin), (other, last, end, _) in zip(found[::2], found[1::2], strict=True):
        if (kind, last) != ("begin", "end") or slug != other or slug not in known:
            raise UsageError(f"{where}: '{slug}: {kind}' and '{other}: {last}' are not the markers of one table")
        made += f"{text[at:begin]}\n{markdown(known[slug])}"
        at = end
    return made + text[at:]


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
    if table.comparisons:
        parts.append(_comparisons(table))
    return "\n".join(parts) if parts else "Nothing was run here yet.\n"


def _table(table: Table, rows: Sequence[Row]) -> str:
    spec = table.spec
    by_row, control = bool(spec.row_title), _of_episodes if spec.episodes else words.mean
    head = ["data set", "I/C", *([spec.row_title] if by_row else []), "measured on" if spec.row_axis else "method"]
    head += [] if spec.episodes else ["paper"]
    head += ["here, test (95% interval)", "interval over", "n"]
    head += [] if spec.episodes else ["difference", "validation"]
    head += [*table.controls, "stored numbers", "scale", "iterations/s"]
    body = []
    for row in rows:
        cells = [words.dataset(row.dataset), words.budget(row.images_per_class), *([row.made_with] if by_row else [])]
        cells += [row.method + (" (chosen)" if row.chosen else "")]
        cells += [] if spec.episodes else [words.printed(row.paper)]
        cells += [words.accuracy(row.test), words.over(row.test), words.seeds(row.test or row.validation)]
        cells += [] if spec.episodes else [words.points(row.apart), words.accuracy(row.validation)]
        cells += [control(row.controls.get(name)) for name in table.controls]
        cells += [f"{row.first['budget']['stored_numbers']:,}", words.scale(row), words.rate(row)]
        body.append(cells)
    return _rows([head, ["---"] * len(head), *body])


def _of_episodes(found: Estimate | None) -> str:
    """With its own number of episodes."""
    return words.accuracy(found) + (f" (n = {words.values(found)})" if found is not None else "")


def _notes(rows: Sequence[Row]) -> str:
    """How controls were trained, where that is another way than a memory's networks are."""
    return "".join(f"\n{name}: {plain(note)}.\n" for name, note in words.notes(rows))


def _comparisons(table: Table) -> str:
    head = [
        "data set",
        "I/C",
        "methods, same seeds",
        "difference in test accuracy (paired 95% interval)",
        "seeds",
        "scale",
    ]
    body = [
        [
            words.dataset(one.dataset),
            words.budget(one.images_per_class),
            one.what,
            words.difference(one.test),
            str(one.test.seeds),
            one.label + (" (reduced)" if one.reduced else ""),
        ]
        for one in table.comparisons
    ]
    return _rows([head, ["---"] * len(head), *body])


def _rows(rows: Iterable[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(cell if cell == "---" else plain(cell) for cell in row) + " |\n" for row in rows)


def plain(text: str) -> str:
    """A text that Markdown shows as it is, on one line."""
    text = re.sub(r"\b(www)\.", "\\1\u200b.", " ".join(text.split()))
    return re.sub(
        r"([\\`*_\[\]<>&|~#@:$])", lambda m: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(m[1], "\\" + m[1]), text
    )
