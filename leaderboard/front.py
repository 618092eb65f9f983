"""The front page: of each data set and budget the best memory beside its controls, and accuracies against costs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from leaderboard import format
from leaderboard.charts import Amount, Bars, Plot, Result, bars, plot
from leaderboard.lines import Line, Part, apart, worth
from leaderboard.published import Published
from leaderboard.records import OF_MEMORY
from leaderboard.rows import Row
from leaderboard.tables import Table
from suite.runtime.record_schema import ACCURACY, FULL_DATA

KINDS = {"herding": "selected", "k-center": "selected", "random real images": "random", FULL_DATA: "whole"}
"""How a control's bar is filled; any other as the selected images'."""

BESIDE = ("herding", "random real images", FULL_DATA)
"""The controls beside the best memory."""

MOST_METHODS = 4
"""So many methods are beside each other at the most."""


@dataclass(frozen=True, eq=False)
class Best:
    """The best memory of a data set and budget."""

    part: Part
    """Where it stands."""
    line: Line
    """Its line."""
    bars: Bars
    """Its picture: itself, the next best methods and its controls."""
    behind: tuple[str, ...]
    """Its differences to them, in words."""


@dataclass(frozen=True, eq=False)
class Field:
    """What is known of a data set."""

    dataset: str
    """Its name in records."""
    bests: tuple[Best, ...]
    """By budget."""
    plots: tuple[Plot, ...]
    """Against stored numbers, and against seconds."""

    @property
    def title(self) -> str:
        """Its name for readers."""
        return format.dataset(self.dataset)


def fields(tables: Sequence[Table], parts_of: dict[str, tuple[Part, ...]]) -> Iterator[Field]:
    """Every data set whose memories were tested here; `parts_of` has the parts of each table by its page's slug."""
    found: dict[str, dict[float | None, list[tuple[Part, Line]]]] = {}
    for table in tables:
        if table.page.quantity == ACCURACY and not table.page.episodes and not table.page.axes:
            for part in parts_of[table.page.slug]:
                for line in part.lines:
                    if not line.control and line.row.shows == OF_MEMORY and line.row.test is not None:
                        budgets = found.setdefault(part.dataset, {})
                        budgets.setdefault(part.images_per_class, []).append((part, line))
    printed = _printed(tables)
    for dataset, budgets in sorted(found.items(), key=lambda one: _order(one[0])):
        bests = []
        for budget in sorted(budgets, key=lambda one: (one is None, one or 0.0)):
            part, line = max(budgets[budget], key=lambda one: worth(one[1].row))
            bests.append(_best(part, line, _next_best(line, [other for _, other in budgets[budget]])))
        every = [one for lines in budgets.values() for one in lines]
        yield Field(dataset, tuple(bests), tuple(_plots(dataset, every, printed.get(dataset, ()))))


def _order(dataset: str) -> tuple[int, str]:
    names = list(format.DATASETS)
    return (names.index(dataset) if dataset in names else len(names)), dataset


def _next_best(line: Line, every: Iterable[Line]) -> list[Line]:
    """The best lines of other methods that were judged alike, of runs as full and memories as many, the best first."""
    found: dict[str, Line] = {}
    for other in sorted(every, key=lambda one: worth(one.row), reverse=True):
        if other.judged == line.judged and worth(other.row)[:-1] == worth(line.row)[:-1]:
            found.setdefault(other.title, other)
    found.pop(line.title, None)
    return list(found.values())[: MOST_METHODS - 1]


def _best(part: Part, line: Line, next_best: Sequence[Line]) -> Best:
    test = line.row.test
    assert test is not None
    beside = [one for one in part.lines if one.control and one.judged == line.judged]
    shared = [one for one in beside if set(one.means) & set(line.means)]
    by_title = {one.title: one for one in sorted(reversed(shared), key=lambda one: line in one.beside)}  # its own last
    amounts = [Amount(f"{line.title} (best)", test.mean, test.interval, "memory", format.accuracy(test))]
    amounts += [
        Amount(one.title, one.measured.mean, one.measured.interval, "memory", format.accuracy(one.measured))
        for one in next_best
        if one.measured is not None
    ]
    words = []
    for title in BESIDE:
        control = line.row.controls.get(title)
        if control is not None:
            kind, tested = KINDS.get(title, "selected"), control.test
            amounts.append(Amount(title, tested.mean, tested.interval, kind, format.accuracy(tested)))
            found = apart(line, by_title[title]) if title in by_title else None
            if found is not None:
                words.append(f"{found.text} to {title} ({found.words})")
    return Best(part, line, bars(f"{part.title}: test accuracy (%)", amounts), tuple(words))


def _printed(tables: Iterable[Table]) -> dict[str, list[Published]]:
    """Printed figures of memories with a budget, by data set."""
    found: dict[str, list[Published]] = {}
    for table in tables:
        for row in table.rows:
            for number in row.published:
                if number.images_per_class is not None and not table.page.row_axis:
                    found.setdefault(number.dataset, []).append(number)
    return found


def _plots(dataset: str, every: Sequence[tuple[Part, Line]], printed: Sequence[Published]) -> Iterator[Plot]:
    of_storage, of_time = [], []
    for part, line in every:
        row = line.row
        assert row.test is not None
        kind, link = "reduced" if row.reduced else "full", f"{part.page.slug}.html#{line.anchor}"
        name = f"{line.name} ({format.scale(row)})"
        result = (row.test.mean, row.test.interval, name, kind, link)
        of_storage.append(Result(row.first["budget"]["stored_numbers"], *result))
        spent = format.time(row)
        if spent is not None:
            of_time.append(Result(spent[0], *result))
    of_class = _numbers_of_an_image_per_class([line.row for _, line in every])
    if of_class:
        for number in printed:
            name = f"{number.method}, printed ({number.source}, {number.place})"
            stored = (number.images_per_class or 0.0) * of_class
            link = f"#source-{number.source}"
            of_storage.append(Result(stored, number.accuracy, number.spread, name, "printed", link))
    title = format.dataset(dataset)
    for across, results in (("stored numbers", of_storage), ("seconds of a run", of_time)):
        made = plot(f"{title}: test accuracy against {across}", across, results)
        if made is not None:
            yield made


def _numbers_of_an_image_per_class(rows: Iterable[Row]) -> float | None:
    """How many numbers one real image of each class has, as the records of a data set count them."""
    for row in rows:
        budget = row.first["budget"]
        if budget["images_per_class"]:
            return float(budget["stored_numbers"]) / float(budget["images_per_class"])
    return None


# ---------------------------------------------------------------- streams and episodes


def contests(parts: Sequence[Part]) -> Iterator[tuple[Part, Bars]]:
    """For each stream or kind of episode, the best line of each method: of full runs where there are any."""
    first: dict[str, Part] = {}
    for part in parts:  # full before reduced
        first.setdefault(part.title, part)
    yield from ((part, _contest(part)) for part in first.values())


def _contest(part: Part) -> Bars:
    by_title: dict[str, Line] = {}
    for line in part.lines:
        known = by_title.get(line.title)
        if line.measured is not None and (known is None or _mean(line) > _mean(known)):
            by_title[line.title] = line
    amounts = [
        Amount(title, line.measured.mean, line.measured.interval, _kind(line), format.accuracy(line.measured))
        for title, line in by_title.items()
        if line.measured is not None
    ]
    return bars(f"{part.title}: {part.page.quantity} (%)", amounts)


def _kind(line: Line) -> str:
    """How a line's bar is filled: that of a method without a memory like selected images."""
    if line.control:
        return KINDS.get(line.title, "selected")
    return "memory" if line.row.first["budget"]["recalled_per_class"] else "selected"


def _mean(line: Line) -> float:
    return line.measured.mean if line.measured is not None else 0.0
