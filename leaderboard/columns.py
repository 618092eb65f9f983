"""The columns of a table: what stands over each, and what each row has in it, on the page and in Markdown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from leaderboard import format
from leaderboard.records import Entry
from leaderboard.rows import Row
from leaderboard.tables import Table
from suite.runtime.record_statistics import Estimate


@dataclass(frozen=True)
class Link:
    """A link of a page."""

    to: str
    """The file, relative to the page."""
    text: str
    """What is shown."""


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a table."""

    text: str
    """In the row's own size."""
    small: str = ""
    """Below it, smaller."""
    sort: str | float | None = None
    """What it is sorted by, if not by its text; '' is last."""
    number: bool = False
    """Whether it is aligned as a number."""
    mark: str = ""
    """A mark behind the text."""
    links: tuple[Link, ...] = ()
    """Links behind the text."""


EMPTY = Cell(format.NONE, sort="")
"""Of a row that nobody ran here, in a column that is of runs."""


@dataclass(frozen=True)
class Column:
    """One column: its title and its cells. It is on the page, in Markdown, or on both."""

    title: str
    """Over it on the page; '' where only Markdown has it."""
    cell_of_row: Callable[[Row], Cell]
    """The row's cell."""
    hint: str = ""
    """Below the title, smaller."""
    markdown: str = ""
    """Over it in Markdown; '' where only the page has it."""
    markdown_text: Callable[[Row], str] | None = None
    """What Markdown has in place of the cell's text."""
    of_runs: bool = True
    """Whether only rows that were run here have something in it; it is empty for what is only printed."""

    def cell(self, row: Row) -> Cell:
        """The row's cell on the page."""
        return self.cell_of_row(row) if row.runs or not self.of_runs else EMPTY

    def text(self, row: Row) -> str:
        """The same in Markdown."""
        return self.markdown_text(row) if self.markdown_text is not None else self.cell(row).text


def columns(table: Table) -> list[Column]:
    """All columns of a table, in order; where the page has no records and no place for them, the last is the source."""
    page, runs = table.page, bool(table.page.names) or bool(table.measured)
    every = list(_identity(table))
    if not page.episodes:
        every.append(_printed(with_source=runs))
    if not runs:
        return [*every, Column("source", lambda row: Cell(_source(row)), of_runs=False)]
    return [*every, *_accuracies(table), *_controls(table), *COST]


# ---------------------------------------------------------------- what a row is


def _identity(table: Table) -> Iterator[Column]:
    """What a row is: data set, budget, method, and what the method varies with."""
    page = table.page
    yield Column("data set", _dataset, markdown="data set", of_runs=False)
    yield Column("I/C", _budget, "budget in real images per class", markdown="I/C", of_runs=False)
    if page.row_title:
        yield Column(page.row_title, lambda row: Cell(row.made_with), markdown=page.row_title, of_runs=False)
    title = "measured on" if page.row_axis else "method"
    yield Column(title, _method, markdown=title, markdown_text=_method_in_markdown, of_runs=False)


def _dataset(row: Row) -> Cell:
    return Cell(format.dataset(row.dataset), sort=row.dataset)


def _budget(row: Row) -> Cell:
    return Cell(format.budget(row.images_per_class), sort=row.images_per_class or "", number=True)


def _method(row: Row) -> Cell:
    small, mark = "chosen on validation" if row.chosen else "", "reduced" if row.reduced else ""
    return Cell(row.method, small, sort=row.method, mark=mark)


def _method_in_markdown(row: Row) -> str:
    return row.method + (" (chosen)" if row.chosen else "")


# ---------------------------------------------------------------- accuracies


def _printed(with_source: bool) -> Column:
    """What the paper prints; its source has a column of its own where there are no runs."""

    def cell(row: Row) -> Cell:
        parts = [_source(row)] if with_source else []
        parts += [row.paper.note] if row.paper is not None else []
        value = row.paper.accuracy if row.paper is not None else ""
        return Cell(format.printed(row.paper), "; ".join(filter(None, parts)), sort=value, number=True)

    return Column("printed", cell, "as the source prints it", markdown="paper", of_runs=False)


def _source(row: Row) -> str:
    return f"{row.paper.source}, {row.paper.place}" if row.paper is not None else ""


def _accuracies(table: Table) -> Iterator[Column]:
    """What was measured here, with its spreads."""
    page = table.page
    if not page.episodes:
        yield Column("rank", _rank, "among full runs that were judged alike")
    test = "here, test"
    hint = "mean and half of its 95% interval"
    yield Column(test, lambda row: accuracy(row.test), hint, markdown=f"{test} (95% interval)")
    yield Column("", lambda row: Cell(format.over(row.test)), markdown="interval over")
    yield Column("n", _sample, f"{page.seeds} × {page.within} of each", markdown="n")
    yield Column(f"sd of {page.seeds}", _spread_of_memories)
    yield Column(f"sd of {page.within.removeprefix('evaluation ')}", _spread_of_networks)
    if not page.episodes:
        yield Column("difference", _difference, "here less printed, in points", markdown="difference")
        yield Column("validation", lambda row: accuracy(row.validation), markdown="validation")


def _rank(row: Row) -> Cell:
    return Cell(str(row.rank) if row.rank else format.NONE, sort=row.rank or "", number=True)


def accuracy(estimate: Estimate | None, note: str = "") -> Cell:
    """An accuracy with what its interval is over, and a note."""
    if estimate is None:
        return Cell(format.NONE, sort="", number=True)
    over = format.over(estimate)
    small = [f"95% over {over}" if estimate.interval is not None else over, note]
    return Cell(format.accuracy(estimate), "; ".join(filter(None, small)), sort=round(estimate.mean, 4), number=True)


def _sample(row: Row) -> Cell:
    return Cell(format.sample(row.test or row.validation), sort=len(row.runs))


def _spread_of_memories(row: Row) -> Cell:
    return _number(row.test.spread_of_memories if row.test is not None else None, format.spread)


def _spread_of_networks(row: Row) -> Cell:
    return _number(row.test.spread_of_networks if row.test is not None else None, format.spread)


def _difference(row: Row) -> Cell:
    return _number(row.apart, format.points)


def _number(value: float | None, text: Callable[[float | None], str]) -> Cell:
    return Cell(text(value), sort="" if value is None else round(value, 4), number=True)


def _controls(table: Table) -> Iterator[Column]:
    """One for each title."""
    of_episodes = table.page.episodes
    cell = _control_of_episodes if of_episodes else _control
    text = _control_of_episodes_in_markdown if of_episodes else _control_in_markdown
    for title in table.controls:
        yield Column(title, partial(cell, title), markdown=title, markdown_text=partial(text, title))


def _control(title: str, row: Row) -> Cell:
    control = row.controls.get(title)
    return accuracy(control.test, control.note) if control is not None else accuracy(None)


def _control_of_episodes(title: str, row: Row) -> Cell:
    """With its own number of episodes; notes stand below the table."""
    control = row.controls.get(title)
    return accuracy(control.test, f"n = {format.count(control.test)}") if control is not None else accuracy(None)


def _control_in_markdown(title: str, row: Row) -> str:
    return format.mean(row.controls[title].test if title in row.controls else None)


def _control_of_episodes_in_markdown(title: str, row: Row) -> str:
    if title not in row.controls:
        return format.NONE
    test = row.controls[title].test
    return f"{format.accuracy(test)} (n = {format.count(test)})"


# ---------------------------------------------------------------- cost


def _stored(row: Row) -> Cell:
    stored = row.first["budget"]["stored_numbers"]
    return Cell(f"{stored:,}", sort=stored, number=True)


def _scale(row: Row) -> Cell:
    return Cell(format.scale(row), sort=format.scale(row) if row.conditions is not None else "")


def _rate(row: Row) -> Cell:
    rate = format.rate(row)
    return Cell(rate, sort="" if rate == format.NONE else rate, number=True)


def _peak(row: Row) -> Cell:
    return Cell(format.peak_mib(row), sort=max(format.peaks_mib(row), default=""), number=True)


def _hardware(row: Row) -> Cell:
    return Cell("", format.hardware(row), sort=format.hardware(row))


def _runs(row: Row) -> Cell:
    return Cell("", sort=len(row.runs), links=tuple(_link(entry) for entry in row.runs))


def _link(entry: Entry) -> Link:
    return Link(f"runs/{entry.identity}.html", f"seed {entry.record['seed']}")


COST = (
    Column("stored numbers", _stored, markdown="stored numbers"),
    Column("scale", _scale, markdown="scale"),
    Column("iterations/s", _rate, markdown="iterations/s"),
    Column("peak MiB", _peak),
    Column("hardware", _hardware),
    Column("runs", _runs),
)
"""The last columns of every table with runs."""
