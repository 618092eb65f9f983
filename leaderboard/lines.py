"""Lines of a table: its rows and the controls of their runs, in parts that are compared, and what each is named by."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

from leaderboard import format
from leaderboard.pages import Page
from leaderboard.records import Entry
from leaderboard.rows import Row
from leaderboard.tables import Table
from suite.runtime.record_schema import ACCURACY, FULL_DATA
from suite.runtime.record_statistics import Difference, Estimate, estimate, half_interval, paired, stdev
from suite.storage.files import json_sha256

MEMORIES = 3
"""With at least so many seeds, a row comes before one with fewer when the best is looked for."""

MOST_DIFFERENCES = 3
"""So many settings of rows with one name are told at the most."""


@dataclass(frozen=True, eq=False)
class Line:
    """One line: a row that was run, or a control that was measured beside rows of its part."""

    row: Row
    """The row; of a control, the first that it was measured beside."""
    title: str
    """The method, the network it was measured on, or the control."""
    control: bool = False
    """Whether it is a control."""
    note: str = ""
    """How a control was trained, where that is another way than a memory's networks are."""
    measured: Estimate | None = None
    """Its test accuracy, or what stands for it on its page."""
    tested: dict[int, list[float]] = field(default_factory=dict)
    """By seed, its values on test images."""
    differs: str = ""
    """What tells it apart from lines with its name in its part."""
    best: bool = False
    """Whether it is the best row of its part."""
    anchor: str = ""
    """Names it on its page."""
    beside: tuple["Line", ...] = ()
    """Of a control, the rows that it was measured beside."""

    @property
    def name(self) -> str:
        """The title, with what tells it apart."""
        chosen = " (chosen)" if not self.control and self.row.chosen else ""
        return ", ".join(filter(None, (self.title + chosen, self.differs)))

    @cached_property
    def means(self) -> dict[int, float]:
        """By seed, the mean on test images."""
        return {seed: fmean(values) for seed, values in sorted(self.tested.items())}

    @cached_property
    def episodes(self) -> dict[str, list[float]]:
        """By run, its values in that run's episodes; of rows with one run alone, since several are paired by seed."""
        found = {}
        for line in self.beside or (self,):
            tested = line.row.controls[self.title].tested if self.control else line.row.tested
            if line.row.shows.episodes and len(line.row.runs) == len(tested) == 1:
                found[line.row.runs[0].identity] = next(iter(tested.values()))
        return found

    @property
    def runs(self) -> tuple[Entry, ...]:
        """Its own runs; () for a control."""
        return () if self.control else self.row.runs

    @property
    def judged(self) -> str:
        """Equal for lines that were evaluated alike."""
        return self.row.conditions.evaluation if self.row.conditions is not None else ""


@dataclass(frozen=True, eq=False)
class Part:
    """Lines that answer one question: data set, budget, and full or reduced."""

    page: Page
    """Of its table."""
    dataset: str
    """The data set's name in records."""
    images_per_class: float | None
    """The budget; None for the whole training part, and where methods differ in it."""
    budgeted: bool
    """Whether its lines share their budget."""
    made_with: str
    """What the memories were made with, or the kind of episode."""
    reduced: bool
    """Whether the runs did less than the paper."""
    lines: tuple[Line, ...]
    """Rows in the table's order, then controls."""

    @property
    def title(self) -> str:
        """'Fashion-MNIST, 1 I/C'."""
        budget = f"{format.budget(self.images_per_class)} I/C" if self.budgeted else ""
        made_with = f"made with {self.made_with}" if self.page.row_axis and self.made_with else self.made_with
        return ", ".join(filter(None, (format.dataset(self.dataset), budget, made_with)))

    @cached_property
    def best(self) -> Line | None:
        """Its best row on test images."""
        return next((line for line in self.lines if line.best), None)

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest end of an interval."""
        ends = [end for line in self.lines for end in (_ends(line.measured) if line.measured is not None else ())]
        return (min(ends), max(ends)) if ends else (0.0, 100.0)


def _ends(estimate: Estimate) -> tuple[float, float]:
    half = estimate.interval or 0.0
    return max(estimate.mean - half, -100.0), min(estimate.mean + half, 100.0)


def parts(table: Table) -> tuple[Part, ...]:
    """The parts of a table in its order, full before reduced."""
    page, budgeted = table.page, table.page.quantity == ACCURACY
    rows_of: dict[tuple[str, float | None, str, bool], list[Row]] = {}
    for row in table.measured:
        budget = row.images_per_class if budgeted else None
        rows_of.setdefault((row.dataset, budget, row.made_with, row.reduced), []).append(row)
    return tuple(
        Part(page, dataset, budget, budgeted, made_with, reduced, tuple(_lines(page, rows)))
        for (dataset, budget, made_with, reduced), rows in rows_of.items()
    )


def _lines(page: Page, rows: Sequence[Row]) -> Iterator[Line]:
    """A line for each row, and one for each control."""
    differ = _differences(rows)
    tested = [i for i, row in enumerate(rows) if row.test is not None]
    best = max(tested, key=lambda i: worth(rows[i]), default=None)
    own = []
    for i, row in enumerate(rows):
        title = f"{row.method} {page.axis}" if page.chart and row.method.isdecimal() else row.method
        measured = row.test or row.validation
        own.append(Line(row, title, False, "", measured, row.tested, differ[i], i == best, _anchor(row)))
    yield from own
    if page.quantity == ACCURACY:
        yield from _controls(page, own)


def worth(row: Row) -> tuple[bool, bool, bool, float]:
    """What the best has most of: full runs before reduced ones, what stores something, several memories, the mean."""
    assert row.test is not None
    stores = row.first["budget"]["stored_numbers"] > 0
    return not row.reduced, stores, row.test.memories >= MEMORIES, row.test.mean


def _anchor(row: Row) -> str:
    return "row-" + json_sha256([row.runs[0].identity, row.shows])[:12]


SAME, LATEST = 0.3, 8
"""Means of one control by the same seed, in percent, that other hardware may give; and how many are looked through."""


def _controls(page: Page, rows: Sequence[Line]) -> Iterator[Line]:
    """Each control once for all rows that share it: judged alike, with the same means on the seeds that they share.

    Of several with one title, each says which rows it was measured beside.
    """
    found: dict[tuple[str, str, str], list[tuple[list[Line], dict[int, list[float]]]]] = {}
    for row in rows:
        for title, control in row.row.controls.items():
            known = found.setdefault((title, control.note, row.judged), [])
            for beside, tested in known[-LATEST:]:
                if _same(tested, control.tested):
                    tested |= {seed: values for seed, values in control.tested.items() if seed not in tested}
                    beside.append(row)
                    break
            else:
                known.append(([row], dict(control.tested)))
    ordered = sorted(found.items(), key=lambda one: (one[0][0] == FULL_DATA, one[0][0]))
    every = [(title, note, beside, tested) for (title, note, _), known in ordered for beside, tested in known]
    times = Counter(title for title, *_ in every)
    for n, (title, note, beside, tested) in enumerate(every):
        estimated = estimate(dict(sorted(tested.items())), page.seeds, page.within)
        yield Line(
            beside[0].row, title, True, note, estimated, tested, _beside(beside) if times[title] > 1 else "",
            anchor=f"{beside[0].anchor}-{n}", beside=tuple(beside),
        )  # fmt: skip


def _beside(rows: Sequence[Line]) -> str:
    """'beside BPTT and 2 others'."""
    others = len(rows) - 1
    return f"beside {rows[0].name}" + (f" and {others} other{'s' if others > 1 else ''}" if others else "")


def _same(one: dict[int, list[float]], other: dict[int, list[float]]) -> bool:
    shared = set(one) & set(other)
    return bool(shared) and all(abs(fmean(one[seed]) - fmean(other[seed])) <= SAME for seed in shared)


# ---------------------------------------------------------------- what tells rows of one name apart


def _differences(rows: Sequence[Row]) -> list[str]:
    """For each row, the settings in which it differs from rows of its name, or else its file; '' for the only one."""
    by_name: dict[tuple[str, bool], list[int]] = {}
    for i, row in enumerate(rows):
        by_name.setdefault((row.method, row.chosen), []).append(i)
    told = ["" for _ in rows]
    for same in by_name.values():
        if len(same) > 1:
            settings = [dict(_settings(rows[i].first["config"], "")) for i in same]
            names = dict.fromkeys(name for one in settings for name in one)
            apart = [name for name in names if len({one.get(name, "") for one in settings}) > 1]
            apart.sort(key=lambda name: (name != "iterations", name != "start", name.count(".")))
            for i, one in zip(same, settings, strict=True):
                told[i] = _told([(name, one[name]) for name in apart if name in one])
    files = [rows[i].first["name"] for i in range(len(rows))]
    times = Counter((row.method, row.chosen, words) for row, words in zip(rows, told, strict=True))
    for i, row in enumerate(rows):
        if times[row.method, row.chosen, told[i]] > 1 and len(set(files)) > 1:
            told[i] = ", ".join(filter(None, (files[i], told[i])))
    return told


def _told(settings: Sequence[tuple[str, str]]) -> str:
    """'iterations 380, lr 0.1'; of many, the first two, and how many others there are."""
    shown = settings[: MOST_DIFFERENCES if len(settings) <= MOST_DIFFERENCES else 2]
    texts = [f"{name.rpartition('.')[2].replace('_', ' ')} {value}" for name, value in shown]
    more = len(settings) - len(shown)
    return ", ".join(texts) + (f" and {more} other settings" if more > 0 else "")


def _settings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every setting by a dotted name; a component's own name stands under the name of its place."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _settings(inner, name if key == "is" and name else f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        words = [str(one.get("is", one) if isinstance(one, dict) else one) for one in value]
        yield name, format.short(" and ".join(filter(None, (", ".join(words[:-1]), *words[-1:]))))
    else:
        yield name, format.short(f"{value:g}" if isinstance(value, float) else str(value))


# ---------------------------------------------------------------- differences of any two lines


@dataclass(frozen=True)
class Apart:
    """How far one line is from another, and what is known of it."""

    mean: float
    """In points."""
    interval: float | None
    """Half of its 95% interval."""
    seeds: int
    """Shared seeds; 0 where it is not paired."""
    episodes: int = 0
    """Episodes of the run that both are of; 0 where the interval is not over them."""

    @property
    def words(self) -> str:
        """'better, 3 shared seeds'."""
        how = "not paired" if not self.seeds else f"{self.seeds} shared seed{'' if self.seeds == 1 else 's'}"
        if self.episodes:
            how = f"{self.episodes} shared episodes"
        if self.interval is None:
            return f"no interval, {how}"
        shown = abs(self.mean) > self.interval
        return f"{'not told apart' if not shown else 'better' if self.mean > 0 else 'worse'}, {how}"

    @property
    def text(self) -> str:
        """'+2.5 ± 1.2'."""
        return format.difference(Difference(self.mean, self.seeds, self.interval))


def apart(line: Line, other: Line) -> Apart | None:
    """What a line has more than another on test images: paired on shared seeds, else by Welch's interval.

    Two lines of one run are paired by its episodes.

    `assets/script.js` does the same for the row that a reader picks.
    """
    if not line.means or not other.means:
        return None
    for run in [run for run in line.episodes if run in other.episodes]:
        within = paired({0: other.episodes[run]}, {0: line.episodes[run]}, by_episode=True)
        if within is not None and within.episodes:
            return Apart(within.mean, within.interval, 1, within.episodes)
    found = paired(other.tested, line.tested)
    if found is not None and (found.seeds > 1 or min(len(line.means), len(other.means)) == 1):
        return Apart(found.mean, found.interval, found.seeds)
    first, second = list(line.means.values()), list(other.means.values())
    mean = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2:
        return Apart(mean, None, 0)
    return Apart(mean, welch(first, second), 0)


def welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Half of the 95% interval of a difference of means that are not paired, by Welch's t.

    The degrees of freedom are rounded down.
    """
    a, b = (stdev(values) ** 2 / len(values) for values in (first, second))
    if a + b == 0:
        return 0.0
    freedom = max(1, math.floor((a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))))
    return half_interval(math.sqrt((a + b) * (freedom + 1)), freedom + 1)
