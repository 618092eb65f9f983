"""Published numbers: `published.csv`, a row for each printed number, with the source it was seen in (`sources.csv`)."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from suite.errors import RunError, UsageError
from suite.storage.plain_files import read_plain, shown

HERE = Path(__file__).resolve().parent
MOST_BYTES, MOST_LETTERS = 2**20, 1000
"""Of a file of this kind, and of one of its fields."""

TABLES = ("components", "momentum", "transfer", "field")
"""Slugs of the pages that have published numbers."""


@dataclass(frozen=True)
class Source:
    """Where numbers were seen."""

    key: str
    """What `published.csv` calls it."""
    title: str
    """Of the paper or repository."""
    where: str
    """Where it was published."""


@dataclass(frozen=True)
class Published:
    """One printed accuracy."""

    table: str
    """The slug of its page."""
    dataset: str
    """The data set's name in records."""
    images_per_class: float | None
    """The budget; None for the whole training part."""
    row: str
    """What the memory was made with, where the table has that; else ''."""
    method: str
    """The method, or the network it was measured on."""
    accuracy: float
    """In percent."""
    spread: float | None
    """What stands behind ±, if anything does."""
    source: str
    """The key of its source."""
    place: str
    """Where in the source."""
    note: str
    """What a reader must know of it."""


def sources(file: Path = HERE / "sources.csv") -> dict[str, Source]:
    """Every source by its key; UsageError for a file that can't be read."""
    found: dict[str, Source] = {}
    for where, row in _rows(file, Source):
        if row["key"] in found or not all(row.values()):
            raise UsageError(f"{where}: a source needs a key of its own, a title and a place")
        found[row["key"]] = Source(**row)
    return found


def published(file: Path = HERE / "published.csv", known: dict[str, Source] | None = None) -> list[Published]:
    """Every number, in the file's order; UsageError for one that has no source, is no number or is there twice."""
    known = sources() if known is None else known
    numbers: dict[tuple[str, ...], tuple[str, Published]] = {}
    for where, row in _rows(file, Published):
        budget, accuracy, spread = (
            _number(row[name], name, where, most)
            for name, most in (("images_per_class", 1e9), ("accuracy", 100), ("spread", 100))
        )
        if accuracy is None or budget == 0:
            raise UsageError(f"{where}: a number needs an accuracy, and a budget above 0 or none")
        texts = {name: row[name] for name in ("table", "dataset", "row", "method", "source", "place", "note")}
        number = Published(images_per_class=budget, accuracy=accuracy, spread=spread, **texts)
        if (
            number.source not in known
            or number.table not in TABLES
            or "" in (number.place, number.dataset, number.method)
        ):
            raise UsageError(f"{where}: a number needs a source, a place in it, a table, a data set and a method")
        same = tuple(row[name] for name in ("table", "dataset", "images_per_class", "row", "method", "source"))
        if same in numbers:
            raise UsageError(
                f"{where}: it is the number of {numbers[same][0].split(', ')[-1]} once more; leave one out"
            )
        numbers[same] = where, number
    return [number for _, number in numbers.values()]


def _number(text: str, name: str, where: str, most: float) -> float | None:
    """A number as papers print them, of digits and a point; None for an empty text."""
    if text and (not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text) or float(text) > most):
        raise UsageError(
            f"{where}: its {name} is {shown(text)}, which is no number from 0 to {most:g}; write it as 12.3"
        )
    return float(text) if text else None


def _rows(file: Path, of: type) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row of a CSV file with the fields of a dataclass, and where it is; UsageError for what is no such file."""
    names = [field.name for field in fields(of)]
    try:
        text = read_plain(file, MOST_BYTES, follow=True).decode()
    except (OSError, RunError) as error:
        raise UsageError(f"{error}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not a text of UTF-8 ({error})") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = rows.line_num + 1
        where = f"{file}, line {line}"
        try:
            values = next(rows, None)
        except csv.Error as error:
            raise UsageError(f"{where}: it can't be read ({error}); is a quotation mark missing?") from error
        if line == 1:
            if values != names:
                raise UsageError(f"{where}: its {len(values or ())} columns must be {','.join(names)}")
            continue
        if values is None:
            return
        if not values:
            continue  # an empty line
        if len(values) != len(names):
            raise UsageError(f"{where}: it has {len(values)} fields, and the first line {len(names)}")
        for name, value in zip(names, values, strict=True):
            if len(value) > MOST_LETTERS or not value.isprintable():
                raise UsageError(
                    f"{where}: its {name} is {shown(value)}, longer than {MOST_LETTERS} letters or unprintable"
                )
        yield where, dict(zip(names, values, strict=True))
