"""Published figures: `published.csv`, a row for each printed number, with the source it was seen in (`sources.csv`)."""

import csv
from dataclasses import dataclass
from pathlib import Path

from suite.errors import UsageError

HERE = Path(__file__).resolve().parent
TABLES = ("components", "momentum", "transfer", "field")


@dataclass(frozen=True)
class Source:
    """Where numbers were seen."""

    key: str
    title: str
    where: str


@dataclass(frozen=True)
class Published:
    """One printed accuracy in percent; `row` is what the memory was made with, where the table has that."""

    table: str
    dataset: str
    images_per_class: float | None
    row: str
    method: str
    accuracy: float
    spread: float | None
    source: str
    place: str
    note: str


def sources(file: Path = HERE / "sources.csv") -> dict[str, Source]:
    with file.open(newline="", encoding="utf-8") as text:
        return {row["key"]: Source(**row) for row in csv.DictReader(text)}


def published(file: Path = HERE / "published.csv", known: dict[str, Source] | None = None) -> list[Published]:
    """Every number, in the file's order; UsageError for one that has no source or is no number."""
    known = sources() if known is None else known
    found = []
    with file.open(newline="", encoding="utf-8") as text:
        for line, row in enumerate(csv.DictReader(text), 2):
            try:
                budget, spread = row.pop("images_per_class"), row.pop("spread")
                accuracy = float(row.pop("accuracy"))
                one = Published(
                    images_per_class=float(budget) if budget else None,
                    accuracy=accuracy,
                    spread=float(spread) if spread else None,
                    **row,
                )
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UsageError(f"{file}, line {line}: it can't be read ({error}); see the first line") from error
            if one.source not in known or not one.place or one.table not in TABLES or not 0 <= accuracy <= 100:
                raise UsageError(f"{file}, line {line}: a number needs a source, a place in it, a table and 0 to 100%")
            found.append(one)
    return found
