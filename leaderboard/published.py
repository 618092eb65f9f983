"""Published numbers: `published.csv`, a row for each printed number, with the source it was seen in (`sources.csv`)."""

import csv
from dataclasses import dataclass
from pathlib import Path

from suite.errors import UsageError

HERE = Path(__file__).resolve().parent
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
    """Every source by its key."""
    with file.open(newline="", encoding="utf-8") as text:
        return {row["key"]: Source(**row) for row in csv.DictReader(text)}


def published(file: Path = HERE / "published.csv", known: dict[str, Source] | None = None) -> list[Published]:
    """Every number, in the file's order; UsageError for one that has no source or is no number."""
    known = sources() if known is None else known
    numbers = []
    with file.open(newline="", encoding="utf-8") as text:
        for line, row in enumerate(csv.DictReader(text), 2):
            try:
                budget, spread = row.pop("images_per_class"), row.pop("spread")
                accuracy = float(row.pop("accuracy"))
                number = Published(
                    images_per_class=float(budget) if budget else None,
                    accuracy=accuracy,
                    spread=float(spread) if spread else None,
                    **row,
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{file}, line {line}: it can't be read ({error}); see the first line") from error
            complete = number.source in known and number.place and number.table in TABLES
            if not complete or not 0 <= accuracy <= 100:
                raise UsageError(f"{file}, line {line}: a number needs a source, a place in it, a table and 0 to 100%")
            numbers.append(number)
    return numbers
