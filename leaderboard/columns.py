"""The columns of a table on its page: at most seven, and what folds out of a line."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from leaderboard import format
from leaderboard.lines import Line, Part, apart
from leaderboard.published import Published
from leaderboard.records import Entry
from leaderboard.rows import Row
from leaderboard.tables import Table
from suite.runtime.record_schema import ACCURACY
from suite.runtime.record_statistics import Estimate


@dataclass(frozen=True)
class Link:
    """A link of a page."""

    to: str
    """The file, relative to the page."""
    text: str
    """What is shown."""


@dataclass(frozen=True)
class Bar:
    """An interval in a picture that is 100 wide."""

    low: float
    """Its left end."""
    mean: float
    """Its middle."""
    high: float
    """Its right end."""


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    """In the line's own size."""
    small: str = ""
    """Below it, smaller."""
    sort: str | float | None = None
    """What it is sorted by, if not by its text; '' is last."""
    mark: str = ""
    """A mark behind the text."""
    links: tuple[Link, ...] = ()
    """Links behind the text."""
    bar: Bar | None = None
    """Below the text."""


EMPTY = Cell(format.NONE, sort="")
"""Where there is nothing."""


@dataclass(frozen=True)
class Column:
    """One column: its title and its cells."""

    key: str
    """Names it in a page's address."""
    title: str
    """Over it."""
    cell: Callable[[Part, Line], Cell]
    """The line's cell."""
    hint: str = ""
    """Below the title, smaller."""
    best: str = "high"
    """Whether what is best is 'high' or 'low': it is first after the first click."""
    number: bool = True
    """Whether it is aligned as a number."""


def columns(table: Table) -> tuple[Column, ...]:
    """The columns of a table with runs; the last but two is there where the table needs it."""
    page = table.page
    within = page.within.removeprefix("evaluation ")
    return (
        Column(
            "method", "measured on" if page.row_axis else "method", partial(_method, table), best="low", number=False
        ),
        Column("accuracy", f"{page.quantity} (%)", _accuracy, "on test images, with its 95% interval"),
        Column("n", "n", _sample, f"{page.seeds} × {within} of each"),
        Column("difference", "difference", _difference, "to the best of its part, in points"),
        *_own(table),
        Column("cost", "cost", _cost, "mean time of a run; numbers stored", best="low"),
        Column("scale", "scale", _scale, "outer iterations", number=False),
    )


def _own(table: Table) -> Iterator[Column]:
    """The column that this table needs: printed figures, what was validated alone, or accuracy just after a task."""
    if any(row.published for row in table.measured):
        yield Column("printed", "printed", _printed, "as the source prints it")
    elif any(row.test is None for row in table.measured):
        yield Column("validation", "validation", _validation, "what choices look at")
    elif table.page.quantity != ACCURACY and "LA" in table.controls:
        yield Column("la", "LA", _just_after, "just after each task")


# ---------------------------------------------------------------- what is seen at once


def _method(table: Table, part: Part, line: Line) -> Cell:
    if line.control:
        return Cell(line.title, "; ".join(filter(None, ("control", line.differs))), sort=line.title)
    chosen = "chosen on validation" if line.row.chosen else ""
    mark = "best" if line.best else ""
    return Cell(line.title, "; ".join(filter(None, (chosen, line.differs))), sort=line.title, mark=mark)


def _accuracy(part: Part, line: Line) -> Cell:
    if not line.means:
        return EMPTY
    return accuracy(line.measured, part.bounds)


def accuracy(estimate: Estimate | None, bounds: tuple[float, float]) -> Cell:
    """An accuracy with a picture of its interval between bounds."""
    if estimate is None:
        return EMPTY
    low, high = bounds
    half = estimate.interval or 0.0

    def place(value: float) -> float:
        return round(min(max(2 + 96 * (value - low) / ((high - low) or 1), 0), 100), 1)

    bar = Bar(place(estimate.mean - half), place(estimate.mean), place(estimate.mean + half))
    return Cell(format.accuracy(estimate), sort=round(estimate.mean, 4), bar=bar)


def _sample(part: Part, line: Line) -> Cell:
    estimate = line.measured
    if estimate is None:
        return EMPTY
    return Cell(f"{estimate.memories} × {estimate.networks}", sort=estimate.memories * 10**6 + estimate.networks)


def _difference(part: Part, line: Line) -> Cell:
    """To the best of its part, until the reader picks another."""
    if part.best is None:
        return EMPTY
    if line is part.best:
        return Cell("0", "the reference", sort=0)
    found = apart(line, part.best)
    return Cell(found.text, found.words, sort=round(found.mean, 4)) if found is not None else EMPTY


def _printed(part: Part, line: Line) -> Cell:
    paper = line.row.paper
    if line.control or paper is None:
        return EMPTY
    return Cell(format.printed(paper), sort=paper.accuracy, links=(source(paper),))


def source(number: Published) -> Link:
    """Where a printed figure was seen: a link to the list of sources."""
    return Link(f"index.html#source-{number.source}", f"{number.source}, {number.place}")


def _validation(part: Part, line: Line) -> Cell:
    found = None if line.control else line.row.validation
    return Cell(format.accuracy(found), sort=round(found.mean, 4)) if found is not None else EMPTY


def _just_after(part: Part, line: Line) -> Cell:
    found = line.row.controls.get("LA")
    return Cell(format.accuracy(found.test), sort=round(found.test.mean, 4)) if found is not None else EMPTY


def _cost(part: Part, line: Line) -> Cell:
    if line.control:
        return EMPTY
    spent = format.time(line.row)
    return Cell(
        format.duration(spent[0]) if spent is not None else format.NONE,
        format.stored(line.row),
        sort=round(spent[0], 3) if spent is not None else "",
    )


def _scale(part: Part, line: Line) -> Cell:
    label, _, steps = format.scale(line.row).partition(", ")
    if line.control:
        return Cell(label, sort="")
    done = line.row.conditions.iterations if line.row.conditions is not None else None
    return Cell(label, steps.removesuffix(" iterations"), sort=done if done is not None else "")


# ---------------------------------------------------------------- what folds out


@dataclass(frozen=True)
class Detail:
    """A line of what folds out."""

    title: str
    """What it is."""
    text: str
    """Its value."""
    links: tuple[Link, ...] = ()
    """Links behind it."""


def details(part: Part, line: Line) -> tuple[Detail, ...]:
    """What a line has beside its columns."""
    return tuple(one for one in _details(part, line) if one.links or one.text not in ("", format.NONE))


def _details(part: Part, line: Line) -> Iterable[Detail]:
    page, estimate, row = part.page, line.measured, line.row
    if line.runs:
        yield Detail("runs", "", tuple(seed_link(entry) for entry in line.runs))
    if estimate is not None:
        yield Detail("interval over", format.over(estimate))
        yield Detail(f"standard deviation of {page.seeds}", format.spread(estimate.spread_of_memories))
        yield Detail(f"standard deviation of {page.within}", format.spread(estimate.spread_of_networks))
    if line.control:
        yield Detail("how", line.note)
        return
    if not page.axis:
        yield Detail("file", row.first["name"])
    yield Detail("validation", _with_kind(row.validation))
    for number in row.published:
        note = f" ({number.note})" if number.note else ""
        yield Detail("printed", f"{format.printed(number)}{note}", (source(number),))
    yield Detail("here less printed", format.points(row.apart))
    yield Detail("rank among full runs that were judged alike", str(row.rank or ""))
    for title, control in row.controls.items():
        found = control.behind
        how = "paired by episode" if found is not None and found.episodes else "paired"
        behind = f"; {format.difference(found)} over it, {how}" if found is not None else ""
        yield Detail(title, _with_kind(control.test) + (behind if page.quantity == ACCURACY else ""))
    yield from costs(row)


def costs(row: Row) -> Iterator[Detail]:
    """What a row's runs cost, and on what."""
    spent = format.time(row)
    if spent is not None:
        yield Detail("time", f"{format.duration(spent[0])} {spent[1]}, the mean of {len(row.runs)}")
    yield Detail("iterations per second", format.rate(row))
    yield Detail("peak memory in MiB", format.peak_mib(row))
    yield Detail("hardware", format.hardware(row))
    yield Detail("scale", format.scale(row))
    yield Detail("reduced by", "; ".join(row.first["scale"].get("reduced_by", ())))


def _with_kind(estimate: Estimate | None) -> str:
    """'81.0 ± 1.2 (95% over memories)'."""
    if estimate is None:
        return format.NONE
    over = f"95% over {estimate.interval_over}" if estimate.interval_over else "one value"
    return f"{format.accuracy(estimate)} ({over})"


def seed_link(entry: Entry) -> Link:
    """To a run's page."""
    return Link(f"runs/{entry.identity}.html", f"seed {entry.record['seed']}")
