"""Line charts as plain numbers, which a template draws; nothing here knows HTML."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from leaderboard import format
from leaderboard.records import Entry
from leaderboard.rows import Conditions
from leaderboard.tables import Table

WIDTH, HEIGHT = 460, 240
"""Of a chart, in picture units; `templates/chart.html` has them too."""

LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40
"""Margins, in picture units."""

MAX_POINTS = 200
"""About how many points of a curve are drawn."""

MAX_DOTS = 30
"""Above so many points of a line they are not marked one by one."""


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
    points: tuple[Point, ...]
    """From left to right."""

    @property
    def line(self) -> str:
        """The points as SVG writes them: 'x,y x,y ...'."""
        return " ".join(f"{point.x:g},{point.y:g}" for point in self.points)


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
    x_ticks: tuple[tuple[float, str], ...]
    """Places in picture units and their numbers."""
    y_ticks: tuple[tuple[float, str], ...]
    """Likewise."""
    dots: bool
    """Whether every point is marked."""


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
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(lows), max(highs))
    x_low, x_high = min(xs[0], x_ticks[0], min(xs)), max(x_ticks[-1], max(xs))
    y_low, y_high = min(y_ticks[0], min(lows)), max(y_ticks[-1], max(highs))

    def to_x(x: float) -> float:
        return round(LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT), 1)

    def to_y(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - TOP - BOTTOM), 1)

    def point(x: float, y: float, half: float | None) -> Point:
        title = f"{x:g}: {y:.4g}" + (f" ± {half:.2g}" if half is not None else "")
        return Point(to_x(x), to_y(y), round(to_y(y) - to_y(y + (half or 0)), 1), title)

    return Chart(
        title,
        across,
        up,
        tuple(Series(name, tuple(point(*values) for values in points)) for name, points in lines),
        tuple((to_x(x), f"{x:g}") for x in x_ticks),
        tuple((to_y(y), f"{y:g}") for y in y_ticks),
        dots=max(len(points) for _, points in lines) <= MAX_DOTS,
    )


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
        iteration, _, rest = line.partition(",")
        metric, _, value = rest.partition(",")
        if metric in points:
            with suppress(ValueError):
                x, y = float(iteration), float(value)
                if abs(x) < MOST and abs(y) < MOST:  # false for NaN
                    points[metric].append((x, y, None))
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
