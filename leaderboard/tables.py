"""The tables: rows in order, ranked, and compared where their conditions are equal."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from leaderboard.pages import DATASETS, OTHERS, PAGES, Page
from leaderboard.published import Published
from leaderboard.records import Entry
from leaderboard.rows import OF_THE_METHOD, Row, number, rows_of
from suite.runtime.record_schema import ACCURACY, FULL_DATA
from suite.runtime.record_statistics import Difference, paired


@dataclass(frozen=True)
class Comparison:
    """A row beside the method before it, under equal conditions, on the seeds that both have."""

    first: Row
    """The row of the method that comes before."""
    row: Row
    """The row that is compared with it."""
    test: Difference
    """The row less the method before on test images."""


@dataclass(frozen=True)
class Table:
    """A page's rows and comparisons."""

    page: Page
    """What it shows."""
    rows: tuple[Row, ...]
    """In order."""
    comparisons: tuple[Comparison, ...]
    """Of neighbouring methods."""

    @cached_property
    def measured(self) -> tuple[Row, ...]:
        """Rows that were run here."""
        return tuple(row for row in self.rows if row.runs)

    @cached_property
    def controls(self) -> tuple[str, ...]:
        """Titles of all controls in it, the data's own last; of a stream, those of its other quantities."""
        titles = dict.fromkeys(title for row in self.rows for title in row.controls)
        if self.page.quantity != ACCURACY:
            return tuple(titles)
        return tuple(sorted(titles, key=lambda title: (title == FULL_DATA, title)))


def tables(entries: Sequence[Entry], published: Sequence[Published]) -> tuple[Table, ...]:
    """All tables, in order; every record is in exactly one, and every printed number too."""
    homes = {name: page.slug for page in PAGES for name in page.names}
    every = []
    for page in PAGES:
        runs = [entry for entry in entries if homes.get(entry.record["name"], OTHERS) == page.slug]
        printed = [number for number in published if number.table == page.slug]
        rows = _ranked(page, _ordered(page, _joined(rows_of(page, runs), printed)))
        comparisons = tuple(_comparisons(page, rows)) if page.axis and page.methods else ()
        every.append(Table(page, rows, comparisons))
    return tuple(every)


def _joined(rows: list[Row], printed: Sequence[Published]) -> list[Row]:
    """Rows with the numbers printed for the same thing, and rows for printed numbers that nobody ran here."""
    by_place: dict[tuple[str, float | None, str, str], list[Published]] = {}
    for accuracy in printed:
        place = (accuracy.dataset, accuracy.images_per_class, accuracy.row, accuracy.method)
        by_place.setdefault(place, []).append(accuracy)
    joined, places = [], set()
    for row in rows:
        place = (row.dataset, row.images_per_class, row.made_with, row.method)
        joined.append(replace(row, published=tuple(by_place.get(place, ()))))
        places.add(place)
    return joined + [Row(*place, published=tuple(of)) for place, of in by_place.items() if place not in places]


# ---------------------------------------------------------------- order and rank


def _ordered(page: Page, rows: list[Row]) -> list[Row]:
    """By data set and budget; full runs, then reduced ones, then what is only printed; methods in the paper's order."""

    def key(row: Row) -> tuple[Any, ...]:
        known = row.method in page.methods
        return (
            list(DATASETS).index(row.dataset) if row.dataset in DATASETS else len(DATASETS),
            row.dataset,
            *((row.images_per_class is None, row.images_per_class or 0.0) if page.quantity == ACCURACY else ()),
            2 if not row.runs else int(row.reduced),
            row.chosen,
            repr(_block(page, row)) if row.runs and not (page.row_axis or page.axes) else "",
            natural(row.made_with),
            page.methods.index(row.method) if known else len(page.methods),
            natural(row.method) if row.runs else [],
            row.runs[0].configuration if row.runs else "",
        )

    return sorted(rows, key=key)


def _block(page: Page, row: Row) -> Any:
    """What rows share that stand together: their conditions, or, where methods are whole experiments, their evaluation.

    It orders blocks by its text, so the order of the fields of `Conditions` matters.
    """
    if page.quantity == ACCURACY or row.conditions is None:
        return row.conditions
    return row.conditions.label, row.conditions.reduced, row.conditions.evaluation


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key that puts '4' before '16'."""
    parts = re.split(r"(\d+)", text)
    return [(0, float(part), "") if part.isdigit() and part.isascii() else (1, 0.0, part) for part in parts if part]


def _ranked(page: Page, rows: list[Row]) -> tuple[Row, ...]:
    """Full runs that were evaluated alike, by test accuracy. Reduced runs are never ranked."""
    means_of: dict[str, list[float]] = {}
    if page.ranked:
        for row in rows:
            if row.test is not None and row.conditions is not None and not row.reduced:
                means_of.setdefault(row.conditions.evaluation, []).append(row.test.mean)
    for means in means_of.values():
        means.sort()

    def rank(row: Row) -> int | None:
        if row.test is None or row.conditions is None or row.reduced:
            return None
        means = means_of.get(row.conditions.evaluation)
        return 1 + len(means) - bisect_right(means, row.test.mean) if means is not None else None

    return tuple(replace(row, rank=rank(row)) for row in rows)


# ---------------------------------------------------------------- comparisons


def _comparisons(page: Page, rows: Sequence[Row]) -> Iterable[Comparison]:
    """Each method beside the one before it, where both were run under equal conditions."""
    blocks: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.test is not None and not row.chosen:
            budget = row.images_per_class if page.quantity == ACCURACY else None
            blocks.setdefault((row.dataset, budget, row.made_with, _block(page, row)), []).append(row)
    for first, second in (pair for block in blocks.values() for pair in pairwise(block)):
        test = paired(first.tested, second.tested)
        if test is not None and first.method != second.method and _equal_sizes(first, second):
            yield Comparison(first, second, test)


def _equal_sizes(first: Row, second: Row) -> bool:
    """Whether two objectives of one kind agree in their sizes, such as inner steps or real images."""
    a, b = (row.first["config"].get("objective") for row in (first, second))
    if not isinstance(a, dict) or not isinstance(b, dict) or a.get("is") != b.get("is"):
        return True
    sizes = [key for key in set(a) & set(b) if number(a[key]) is not None and key not in OF_THE_METHOD]
    return all(a[key] == b[key] for key in sizes)
