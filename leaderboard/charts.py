"""Pictures as plain numbers, which templates draw; nothing here knows HTML."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from leaderboard import format
from leaderboard.records import Entry
from leaderboard.rows import Conditions
from leaderboard.tables import Table

WIDTH, HEIGHT = 460, 240
"""Of a chart, in picture units; `templates/chart.html` has them too."""

LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 40
"""Margins, in picture units."""

MAX_POINTS = 200
"""About how many points of a curve are drawn."""

MAX_DOTS = 30
"""Above so many points of a line they are not marked one by one."""


@dataclass(frozen=True)
class Axis:
    """From values to places in picture units."""

    low: float
    """The value at its beginning, or its logarithm."""
    high: float
    """The value at its end, or its logarithm."""
    start: float
    """Where it begins."""
    end: float
    """Where it ends."""
    logarithmic: bool = False
    """Whether equal ratios have equal lengths."""

    @property
    def unit(self) -> float:
        """The length of one."""
        return (self.end - self.start) / ((self.high - self.low) or 1)

    def place(self, value: float) -> float:
        """Where a value is."""
        value = math.log10(value) if self.logarithmic else value
        return round(self.start + (value - self.low) * self.unit, 1)


Ticks = tuple[tuple[float, str], ...]
"""Places in picture units and their numbers."""


@dataclass(frozen=True)
class Point:
    """A place in the picture."""

    x: float
    """In picture units from the left."""
    y: float
    """In picture units from the top."""
    bar: float
    """Half of its interval in picture units."""
    title: str
    """The values that it stands for."""


@dataclass(frozen=True)
class Series:
    """A line."""

    name: str
    """Its name, '' for the only one."""
    line: str
    """Its points as SVG writes them: 'x,y x,y ...'."""
    points: tuple[Point, ...]
    """Those that are marked, from left to right."""


@dataclass(frozen=True)
class Chart:
    """One picture."""

    title: str
    """Below it."""
    across: str
    """What the horizontal axis is of."""
    up: str
    """What the vertical axis is of."""
    series: tuple[Series, ...]
    """Its lines."""
    x_ticks: Ticks
    """Of the horizontal axis."""
    y_ticks: Ticks
    """Of the vertical axis."""


Values = Sequence[tuple[float, float, float | None]]
"""x, y, and half of y's interval."""


def chart(title: str, across: str, up: str, series: Iterable[tuple[str, Values]]) -> Chart | None:
    """The chart of named lines; None if there is nothing to draw."""
    lines = [(name, sorted(points)) for name, points in series if points]
    if not lines:
        return None
    xs = [x for _, points in lines for x, _, _ in points]
    lows = [y - (bar or 0) for _, points in lines for _, y, bar in points]
    highs = [y + (bar or 0) for _, points in lines for _, y, bar in points]
    across_axis, x_ticks = _scaled(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up_axis, y_ticks = _scaled(min(lows), max(highs), HEIGHT - BOTTOM, TOP)
    to_x, to_y = across_axis.place, up_axis.place

    def point(x: float, y: float, half: float | None) -> Point:
        text = f"{x:g}: {y:.4g}" + (f" ± {half:.2g}" if half is not None else "")
        return Point(to_x(x), to_y(y), round(to_y(y) - to_y(y + (half or 0)), 1), text)

    def line(points: Values) -> str:
        left, top, right, down = across_axis.start, up_axis.start, across_axis.unit, up_axis.unit
        first, least = across_axis.low, up_axis.low
        return " ".join([f"{left + (x - first) * right:.1f},{top + (y - least) * down:.1f}" for x, y, _ in points])

    dots = max(len(points) for _, points in lines) <= MAX_DOTS
    drawn = (Series(name, line(points), tuple(point(*one) for one in points) if dots else ()) for name, points in lines)
    return Chart(title, across, up, tuple(drawn), x_ticks, y_ticks)


def _scaled(low: float, high: float, start: float, end: float) -> tuple[Axis, Ticks]:
    """An axis that holds both values, and its ticks."""
    ticks = _ticks(low, high)
    axis = Axis(min(low, ticks[0]), max(high, ticks[-1]), start, end)
    return axis, tuple((axis.place(tick), f"{tick:g}") for tick in ticks)


MOST = 1e100
"""Beyond it nothing is drawn: differences and steps of what is must be finite."""


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from at or below `low` to at or above `high`."""
    if high - low < 1 / MOST:
        high = low + (abs(low) if abs(low) > 1 / MOST else 1)
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(n * step, 10) for n in range(first, last + 1)]


def curves(text: str) -> list[Chart]:
    """The loss and the accuracy on validation over the outer iterations, of a run's `metrics.csv`."""
    titles = {"loss": "outer loss", "validation_accuracy": "validation accuracy (%)"}
    points: dict[str, list[tuple[float, float, float | None]]] = {metric: [] for metric in titles}
    for line in text.splitlines()[1:]:
        cells = line.split(",", 2)
        if len(cells) == 3 and cells[1] in points:
            try:
                x, y = float(cells[0]), float(cells[2])
            except ValueError:
                continue
            if -MOST < x < MOST and -MOST < y < MOST:  # false for NaN
                points[cells[1]].append((x, y, None))
    charts = [
        chart(f"{title}, at the end {points[metric][-1][1]:.4g}", "outer iteration", title,
              [("", _thinned(points[metric]))])
        for metric, title in titles.items() if points[metric]
    ]  # fmt: skip
    return [drawn for drawn in charts if drawn is not None]


def _thinned(points: list[tuple[float, float, float | None]]) -> Values:
    """About `MAX_POINTS` of them, the last among them."""
    every = math.ceil(len(points) / MAX_POINTS) if points else 1
    return points[::every] + ([points[-1]] if points and (len(points) - 1) % every else [])


def along(table: Table) -> list[Chart]:
    """For a table whose methods are numbers: validation accuracy along them, for each data set, budget and scale."""
    groups: dict[tuple[str, Conditions | None], list[tuple[float, float, float | None]]] = {}
    for row in table.measured:
        if row.validation is None or row.chosen or not row.method.isdecimal() or len(row.method) > 9:
            continue
        reduced = " (reduced)" if row.reduced else ""
        budget = f"{format.budget(row.images_per_class)} I/C"
        title = f"{format.dataset(row.dataset)}, {budget}, {format.scale(row)}{reduced}"
        point = float(row.method), row.validation.mean, row.validation.interval
        groups.setdefault((title, row.conditions), []).append(point)
    charts = [
        chart(title, table.page.axis, "validation accuracy (%)", [("", points)])
        for (title, _), points in groups.items()
    ]
    return [drawn for drawn in charts if drawn is not None]


def read_curves(entry: Entry, name: str) -> list[Chart]:
    """The curves of a file in a run's folder, or none if there is no such file or it can't be read."""
    return curves((entry.read(name) or b"").decode(errors="replace"))


# ---------------------------------------------------------------- bars

START, END, BAR = 8, 404, 38
"""Where bars begin and end, and the height that each takes with the line above it; `templates/chart.html` has the first
two."""


@dataclass(frozen=True)
class Amount:
    """A bar to be drawn."""

    name: str
    """Above it, on the left."""
    mean: float
    """Its length."""
    interval: float | None
    """Half of its 95% interval."""
    kind: str
    """Its filling: 'memory', 'selected', 'random' or 'whole'."""
    text: str
    """Above it, on the right."""


@dataclass(frozen=True)
class Bar:
    """A bar in picture units."""

    amount: Amount
    """What it is of."""
    y: float
    """The upper edge of what it takes."""
    width: float
    """Its length, from `START`."""
    low: float
    """Where its interval begins."""
    high: float
    """Where its interval ends."""


@dataclass(frozen=True)
class Bars:
    """A picture of bars below each other."""

    title: str
    """What it is of."""
    height: float
    """Of the picture."""
    bars: tuple[Bar, ...]
    """From above."""
    ticks: Ticks
    """Of their lengths."""


def bars(title: str, amounts: Sequence[Amount]) -> Bars:
    """Bars from zero to a hundred percent."""
    axis = Axis(0, 100, START, END)
    made = []
    for i, one in enumerate(amounts):
        half = one.interval or 0.0
        low, mean, high = (axis.place(min(max(v, 0), 100)) for v in (one.mean - half, one.mean, one.mean + half))
        made.append(Bar(one, BAR * i, round(mean - START, 1), low, high))
    ticks = tuple((axis.place(tick), f"{tick}") for tick in (0, 25, 50, 75, 100))
    return Bars(title, BAR * len(amounts) + 20, tuple(made), ticks)


# ---------------------------------------------------------------- accuracy against cost


@dataclass(frozen=True)
class Result:
    """An accuracy at a cost."""

    cost: float
    """Above zero."""
    accuracy: float
    """In percent."""
    interval: float | None
    """Half of its 95% interval."""
    name: str
    """Whose it is."""
    kind: str
    """'full', 'reduced' or 'printed'."""
    link: str
    """Where it stands in a table."""


@dataclass(frozen=True)
class Mark:
    """A result in picture units."""

    result: Result
    """What it is of."""
    x: float
    """From the left."""
    y: float
    """From the top."""
    low: float
    """The lower end of its interval."""
    high: float
    """The upper end."""


@dataclass(frozen=True)
class Plot:
    """Accuracies against a cost."""

    title: str
    """What it is of."""
    across: str
    """What the cost is."""
    marks: tuple[Mark, ...]
    """Results, those on a front last."""
    fronts: tuple[tuple[str, str], ...]
    """Of our runs and of printed figures: the kind, and the steps of the best at no more cost, as SVG writes them."""
    best: tuple[Result, ...]
    """The results of the fronts, cheapest first."""
    x_ticks: Ticks
    """Of the cost."""
    y_ticks: Ticks
    """Of the accuracy."""


def plot(title: str, across: str, results: Sequence[Result]) -> Plot | None:
    """The plot of results; None if all that can be drawn cost the same."""
    drawn = [one for one in results if 0 < one.cost < MOST]
    if len({one.cost for one in drawn}) < 2:
        return None
    lows = [max(one.accuracy - (one.interval or 0), 0) for one in drawn]
    highs = [min(one.accuracy + (one.interval or 0), 100) for one in drawn]
    across_axis, x_ticks = _decades(min(one.cost for one in drawn), max(one.cost for one in drawn))
    up_axis, y_ticks = _scaled(min(lows), max(highs), HEIGHT - BOTTOM, TOP)
    fronts, best = [], []
    for kinds, name in ((("full", "reduced"), "ours"), (("printed",), "printed")):
        front = pareto([one for one in drawn if one.kind in kinds])
        best += front
        places = [(across_axis.place(one.cost), up_axis.place(one.accuracy)) for one in front]
        steps = "".join(f"H{x:g}V{y:g}" for x, y in places[1:])
        if places:
            fronts.append((name, f"M{places[0][0]:g} {places[0][1]:g}{steps}H{across_axis.end:g}"))
    marks: dict[tuple[float, float, str], Mark] = {}  # of several in one place, one
    on_front = set(map(id, best))
    for one in sorted(drawn, key=lambda one: id(one) in on_front):
        half = one.interval or 0.0
        x, y, low, high = (
            across_axis.place(one.cost),
            *(up_axis.place(min(max(v, 0), 100)) for v in (one.accuracy, one.accuracy - half, one.accuracy + half)),
        )
        place = (round(x / 2), round(y / 2), one.kind)
        marks.pop(place, None)
        marks[place] = Mark(one, x, y, low, high)
    return Plot(title, across, tuple(marks.values()), tuple(fronts), tuple(best), x_ticks, y_ticks)


def pareto(results: Iterable[Result]) -> list[Result]:
    """Those that no other equals at less cost or beats at the same, cheapest first.

    >>> of = [Result(c, a, None, "", "full", "") for c, a in ((2, 50), (1, 40), (3, 45), (2, 48), (4, 60))]
    >>> [(one.cost, one.accuracy) for one in pareto(of)]
    [(1, 40), (2, 50), (4, 60)]
    """
    front: list[Result] = []
    for one in sorted(results, key=lambda one: (one.cost, -one.accuracy)):
        if not front or one.accuracy > front[-1].accuracy:
            front.append(one)
    return front


def _decades(low: float, high: float) -> tuple[Axis, Ticks]:
    """A logarithmic axis that holds both values, with ticks at 1, 2 and 5, at powers of ten alone, or, of values that
    are close to each other, at round numbers between them."""
    first, last = math.log10(low), math.log10(high)
    room = max(0.05, (last - first) / 20)
    axis = Axis(first - room, last + room, LEFT, WIDTH - RIGHT, logarithmic=True)
    powers = range(math.floor(first) - 1, math.ceil(last) + 1)
    factors = (1,) if last - first > 3 else (1, 3) if last - first > 1.5 else (1, 2, 5)
    every = max(1, len(powers) // 8)
    values = [m * 10.0**p for p in powers if p % every == 0 for m in factors]
    if last - first < 0.8:
        values = _ticks(10**axis.low, 10**axis.high)
    shown = [value for value in values if value > 0 and axis.low <= math.log10(value) <= axis.high]
    return axis, tuple((axis.place(value), _short(value)) for value in shown)


def _short(value: float) -> str:
    """'20k' for 20,000."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
