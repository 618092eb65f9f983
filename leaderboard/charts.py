"""Line charts as plain numbers, which a template draws; nothing here knows HTML."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from leaderboard import words
from leaderboard.records import Entry, contents
from leaderboard.tables import Conditions, Table

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40
MOST_POINTS = 200


@dataclass(frozen=True)
class Point:
    """A place in the picture, what it stands for, and half of its interval in picture units."""

    x: float
    y: float
    bar: float
    says: str


@dataclass(frozen=True)
class Series:
    name: str
    points: tuple[Point, ...]

    @property
    def line(self) -> str:
        return " ".join(f"{point.x:g},{point.y:g}" for point in self.points)


@dataclass(frozen=True)
class Chart:
    title: str
    across: str
    up: str
    series: tuple[Series, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    dots: bool
    """Whether every point is marked."""


Values = Sequence[tuple[float, float, float | None]]
"""x, y, and half of y's interval."""


def chart(title: str, across: str, up: str, series: Iterable[tuple[str, Values]]) -> Chart | None:
    """None if there is nothing to draw."""
    given = [(name, sorted(points)) for name, points in series if points]
    if not given:
        return None
    xs = [x for _, points in given for x, _, _ in points]
    lows = [y - (bar or 0) for _, points in given for _, y, bar in points]
    highs = [y + (bar or 0) for _, points in given for _, y, bar in points]
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(lows), max(highs))
    x_low, x_high = min(xs[0], x_ticks[0], min(xs)), max(x_ticks[-1], max(xs))
    y_low, y_high = min(y_ticks[0], min(lows)), max(y_ticks[-1], max(highs))

    def at_x(x: float) -> float:
        return round(LEFT + (x - x_low) / ((x_high - x_low) or 1) * (WIDTH - LEFT - RIGHT), 1)

    def at_y(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - y_low) / ((y_high - y_low) or 1) * (HEIGHT - TOP - BOTTOM), 1)

    drawn = tuple(
        Series(name, tuple(_point(at_x(x), at_y(y), at_y(y) - at_y(y + (bar or 0)), x, y, bar) for x, y, bar in points))
        for name, points in given
    )
    return Chart(
        title,
        across,
        up,
        drawn,
        tuple((at_x(x), f"{x:g}") for x in x_ticks),
        tuple((at_y(y), f"{y:g}") for y in y_ticks),
        dots=max(len(points) for _, points in given) <= 30,
    )


def _point(x: float, y: float, bar: float, at: float, value: float, half: float | None) -> Point:
    return Point(x, y, round(bar, 1), f"{at:g}: {value:.4g}" + (f" ± {half:.2g}" if half is not None else ""))


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from at or below `low` to at or above `high`."""
    if high <= low:
        high = low + (abs(low) or 1)
    rough = (high - low) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(n * step, 10) for n in range(first, last + 1)]


def curves(text: str) -> list[Chart]:
    """The loss and the accuracy on validation over the outer iterations, of a run's `metrics.csv`."""
    wanted = {"loss": "outer loss", "validation_accuracy": "validation accuracy (%)"}
    found: dict[str, list[tuple[float, float, float | None]]] = {name: [] for name in wanted}
    for line in text.splitlines()[1:]:
        at, _, rest = line.partition(",")
        name, _, value = rest.partition(",")
        if name in found:
            with suppress(ValueError):
                point = float(at), float(value)
                if math.isfinite(point[0]) and math.isfinite(point[1]):
                    found[name].append((*point, None))
    titles = {name: f"{what}, at the end {found[name][-1][1]:.4g}" for name, what in wanted.items() if found[name]}
    made = [chart(titles[name], "outer iteration", wanted[name], [("", _thinned(found[name]))]) for name in titles]
    return [one for one in made if one is not None]


def _thinned(points: list[tuple[float, float, float | None]]) -> Values:
    every = math.ceil(len(points) / MOST_POINTS) if points else 1
    return points[::every] + ([points[-1]] if points and (len(points) - 1) % every else [])


def along(table: Table) -> list[Chart]:
    """For a table whose methods are numbers: validation accuracy along them, for each data set, budget and scale."""
    groups: dict[tuple[str, Conditions | None], list[tuple[float, float, float | None]]] = {}
    for row in table.measured:
        if row.validation is None or row.chosen or not row.method.isdecimal() or len(row.method) > 9:
            continue
        reduced = " (reduced)" if row.reduced else ""
        title = f"{words.dataset(row.dataset)}, {words.budget(row.images_per_class)} I/C, {words.scale(row)}{reduced}"
        groups.setdefault((title, row.conditions), []).append(
            (float(row.method), row.validation.mean, row.validation.interval)
        )
    up = "validation accuracy (%)"
    made = [chart(title, table.spec.axis, up, [("", points)]) for (title, _), points in groups.items()]
    return [one for one in made if one is not None]


def read_curves(entry: Entry, name: str) -> list[Chart]:
    """A run's curves, or none if its folder has none that can be read."""
    if entry.folder is None or name not in entry.files:
        return []
    try:
        return curves(contents(entry.folder / name).decode())
    except (OSError, ValueError):
        return []
