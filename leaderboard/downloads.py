"""Tables and records as CSV and JSON."""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from leaderboard import format
from leaderboard.lines import Line, Part
from leaderboard.rows import Row
from leaderboard.tables import Table
from suite.runtime.record_statistics import Estimate

MEASURED = ("method", "quantity", "network", "episodes", "split", "over", "note")
"""What tells the values of a record apart."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so would be a formula in a spreadsheet; it gets an apostrophe before it."""


def table(made: Table, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """A table's lines, those of printed figures that nobody ran here last; every line has the same keys."""
    lines = [_line(part, line) for part in parts for line in part.lines]
    return lines + [one for row in made.rows if not row.runs for one in _printed(row)]


def _line(part: Part, line: Line) -> dict[str, Any]:
    row, measured = line.row, None if line.control else line.row
    spent = format.time(row) if measured is not None else None
    paper = row.paper if measured is not None else None
    peaks = format.peaks_mib(row) if measured is not None else []
    return {
        "data_set": part.dataset,
        "images_per_class": row.images_per_class,
        "made_with": part.made_with,
        "kind": "control" if line.control else "run",
        "method": line.title,
        "differs": line.differs,
        "scale": row.conditions.label if row.conditions is not None else "",
        "reduced": part.reduced,
        "iterations": row.conditions.iterations if row.conditions is not None else None,
        **_estimate("test", row.test if measured is not None else line.measured),
        **_estimate("validation", row.validation if measured is not None else None),
        "seeds": " ".join(map(str, line.means)),
        "means": " ".join(f"{mean:.6g}" for mean in line.means.values()),
        "rank": row.rank if measured is not None else None,
        "stored_numbers": row.first["budget"]["stored_numbers"] if measured is not None else None,
        "seconds": spent[0] if spent is not None else None,
        "seconds_of": spent[1] if spent is not None else "",
        "peak_mib": max(peaks, default=None),
        "hardware": format.hardware(row) if measured is not None else "",
        "printed": paper.accuracy if paper is not None else None,
        "printed_spread": paper.spread if paper is not None else None,
        "source": f"{paper.source}, {paper.place}" if paper is not None else "",
        "note": line.note,
        "runs": " ".join(entry.identity for entry in line.runs),
    }


def _estimate(name: str, of: Estimate | None) -> dict[str, Any]:
    return {
        f"{name}_mean": of.mean if of is not None else None,
        f"{name}_half_interval": of.interval if of is not None else None,
        f"{name}_interval_over": (of.interval_over or "") if of is not None else "",
        f"{name}_memories": of.memories if of is not None else None,
        f"{name}_networks": of.networks if of is not None else None,
        f"{name}_sd_of_memories": of.spread_of_memories if of is not None else None,
        f"{name}_sd_of_networks": of.spread_of_networks if of is not None else None,
    }


def _printed(row: Row) -> Iterator[dict[str, Any]]:
    empty = dict.fromkeys(KEYS)
    for number in row.published:
        yield empty | {
            "data_set": number.dataset,
            "images_per_class": number.images_per_class,
            "made_with": number.row,
            "kind": "printed",
            "method": number.method,
            "printed": number.accuracy,
            "printed_spread": number.spread,
            "source": f"{number.source}, {number.place}",
            "note": number.note,
        }


KEYS = (
    *("data_set", "images_per_class", "made_with", "kind", "method", "differs", "scale", "reduced", "iterations"),
    *_estimate("test", None),
    *_estimate("validation", None),
    *("seeds", "means", "rank", "stored_numbers", "seconds", "seconds_of", "peak_mib", "hardware"),
    *("printed", "printed_spread", "source", "note", "runs"),
)
"""Of every line of a table."""


def as_json(value: Any) -> bytes:
    """The text of a JSON file."""
    return (json.dumps(value, allow_nan=False) + "\n").encode()


def as_csv(lines: Iterable[dict[str, Any]]) -> bytes:
    """The text of a CSV file with the columns of `KEYS`."""
    return _csv([KEYS, *([line[key] for key in KEYS] for line in lines)])


def record_as_csv(record: dict[str, Any]) -> bytes:
    """Every value that a record holds, a line each."""
    lines: list[Sequence[Any]] = [(*MEASURED, "number", "value")]
    for measurement in record["measurements"]:
        what = [measurement[key] for key in MEASURED]
        lines += [(*what, i, value) for i, value in enumerate(measurement["values"])]
    return _csv(lines)


def _csv(lines: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(value) for value in line] for line in lines])
    return text.getvalue().encode(errors="replace")


def _cell(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(FORMULA) and not all(map(_is_number, value.split()))
    return f"'{value}" if is_formula else value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
