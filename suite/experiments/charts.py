"""Charts: how a memory was learned, and accuracies. Same input, same PNG file; a failure is a sentence."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from suite.experiments.drawing import LONGEST_LABEL, picture, save, short
from suite.experiments.drawing import figure as new_figure

if TYPE_CHECKING:
    from suite.experiments.drawing import Axes

Matrix = Sequence[Sequence[float | None]]
"""R[i][j], the accuracy in percent on task j after task i; None where not measured."""

SHOWN_NUMBERS = 20
"""A matrix of more rows is drawn without its numbers."""

Estimated = tuple[float, float | None]
"""A mean in percent, and half of its 95% interval; None for a single value."""


class Bar(NamedTuple):
    """An accuracy."""

    mean: float
    """In percent."""
    half_interval: float | None
    """Half of its 95% interval; None for a single value."""
    n: str
    """Of how many values, such as '100' or '3 × 100'."""


MARKERS, DASHES = "osD^vPX*<>", ("-", "--", "-.", ":")
"""What tells lines apart without colour."""


@picture
def gradient_norms(norms: dict[str, list[list[float | None]]], file: Path) -> None:
    """The norm of d outer loss / d w_t back through an unroll, a line for each unroll and a colour for each memory."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for i, (when, unrolls) in enumerate(norms.items()):
        for j, line in enumerate(unrolls):
            shown = [math.nan if norm is None else norm for norm in line]
            name = f"{when}, {len(unrolls)} unroll{'s' if len(unrolls) > 1 else ''}" if j == 0 else None
            axes.plot(shown, label=name, linewidth=1, alpha=0.7, **_style(i) | {"markersize": 2})
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}" if high < 20 * low else "")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("inner step t")
    axes.set_ylabel("norm of d outer loss / d w_t, logarithmic")
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, file)


@picture
def accuracy_matrix(matrices: Sequence[Matrix], reduced: bool, file: Path) -> None:
    """R[i, j], the accuracy on task j after task i, as a heat map: the mean over networks, blank where not measured."""
    tasks = len(matrices[0])
    shown = torch.full((tasks, tasks), math.nan, dtype=torch.float64)
    for i in range(tasks):
        for j in range(tasks):
            found = [value for r in matrices if (value := r[i][j]) is not None]
            if found:
                shown[i, j] = sum(found) / len(found)
    figure = new_figure(6, 5)
    axes = figure.subplots()
    drawn = axes.imshow(shown.numpy(), cmap="viridis", vmin=0, vmax=100, interpolation="nearest")
    if tasks <= SHOWN_NUMBERS:
        for i, j in (~shown.isnan()).nonzero().tolist():
            value = float(shown[i, j])
            colour = "white" if value < 60 else "black"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    every = max(1, tasks // 10)
    places = list(range(0, tasks, every))
    axes.set_xticks(places, [str(p + 1) for p in places])
    axes.set_yticks(places, [str(p + 1) for p in places])
    axes.set_xlabel("measured on task")
    axes.set_ylabel("after task")
    axes.set_title(_networks(len(matrices), reduced))
    figure.colorbar(drawn, label="test accuracy (%)")
    save(figure, file)


@picture
def after_each_task(curves: Sequence[Sequence[float]], reduced: bool, file: Path) -> None:
    """The mean accuracy on all tasks seen so far after each task: a thin line for each network, and their mean."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    tasks = range(1, len(curves[0]) + 1)
    if len(curves) > 1:
        for i, curve in enumerate(curves):
            axes.plot(tasks, curve, color="0.6", linewidth=0.8, label="each network" if i == 0 else None)
    axes.plot(tasks, [fmean(values) for values in zip(*curves, strict=True)], color="C0", marker="o", label="mean")
    _of_tasks(axes, len(tasks))
    axes.set_title(_networks(len(curves), reduced))
    axes.legend()
    save(figure, file)


@picture
def methods_after_each_task(panels: Mapping[str, Mapping[str, Sequence[Estimated | None]]], file: Path) -> None:
    """By panel (such as a stream) and method: the mean accuracy on the tasks so far after each task, where measured.

    A panel's methods, and whether their runs are reduced, are named as they are given.
    """
    figure = new_figure(8.5, 4.2 * len(panels))
    for axes, (title, methods) in zip(
        figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels.items(), strict=True
    ):
        for i, (name, points) in enumerate(methods.items()):
            shift = 0.04 * (i - (len(methods) - 1) / 2)  # so that intervals do not hide each other
            drawn = [(t + shift, *point) for t, point in enumerate(points, 1) if point is not None]
            if not drawn:
                continue
            places, means, halves = zip(*drawn, strict=True)
            intervals = [half or 0.0 for half in halves]
            axes.errorbar(places, means, intervals, capsize=2, elinewidth=0.8, label=name, **_style(i))
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 100))  # an interval may go on
        _of_tasks(axes, max(map(len, methods.values())))
        axes.set_title(title)
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    save(figure, file)


def _style(i: int) -> dict[str, Any]:
    """How line i looks: another colour, and without colour another mark and another dash."""
    look = {"color": f"C{i}", "marker": MARKERS[i % len(MARKERS)], "linestyle": DASHES[i % len(DASHES)]}
    return look | {"markersize": 4}


def _of_tasks(axes: "Axes", tasks: int) -> None:
    """Axes of accuracies after each of so many tasks."""
    axes.set_xticks(range(1, tasks + 1, -(-tasks // 20)))
    axes.set_xlabel("after task")
    axes.set_ylabel("mean test accuracy on tasks so far (%)")
    axes.grid(alpha=0.3)


def _networks(number: int, reduced: bool) -> str:
    """A title: of how many networks, and whether of a reduced run."""
    return ("1 network" if number == 1 else f"mean of {number} networks") + (", reduced run" if reduced else "")


@picture
def accuracy_bars(panels: Mapping[str, Mapping[str, Bar]], title: str, file: Path) -> None:
    """By panel (such as a kind of episode) and method, an accuracy as a bar with its interval and its numbers."""
    lines = [len(bars) for bars in panels.values()]
    figure = new_figure(8.5, 0.9 + sum(0.27 * n + 0.75 for n in lines))
    figure.suptitle(title, fontsize=9)
    every = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=[n + 1 for n in lines])[:, 0]
    for axes, (name, bars) in zip(every, panels.items(), strict=True):
        places, means = list(range(len(bars))), [bar.mean for bar in bars.values()]
        halves = [bar.half_interval or 0.0 for bar in bars.values()]
        axes.barh(places, means, xerr=halves, color="0.75", edgecolor="0.3", capsize=3)
        for place, bar in enumerate(bars.values()):
            words = f"{bar.mean:.1f}" + ("" if bar.half_interval is None else f" ± {bar.half_interval:.1f}")
            beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
            axes.text(1.01, place, f"{words} (n = {bar.n})", **beside)
        names = ["\n".join(textwrap.wrap(bar, LONGEST_LABEL, max_lines=2, placeholder="…")) for bar in bars]
        axes.set_yticks(places, names, fontsize=8)
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, 100)  # an interval may go on
        axes.set_title(name, fontsize=9)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
    every[-1].set_xlabel("test accuracy (%)")
    save(figure, file)


@picture
def sweep(curves: dict[str, list[tuple[str, float, float | None]]], axis: str, seeds: int, file: Path) -> None:
    """Validation accuracy along an axis of a table, a curve for each combination of the others (paper, figure 1)."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for i, (name, points) in enumerate(curves.items()):
        places = list(range(len(points)))
        spread = [0.0 if s is None else s for _, _, s in points]
        means, label = [mean for _, mean, _ in points], short([name])[0] or None
        axes.errorbar(places, means, yerr=spread, capsize=2, label=label, **_style(i))
        axes.set_xticks(places, short([label for label, _, _ in points]))
    axes.set_xlabel(short([axis])[0])
    axes.set_ylabel("validation accuracy (%)")
    axes.set_title("one seed" if seeds == 1 else f"mean and standard deviation over {seeds} seeds")
    axes.grid(alpha=0.3)
    if any(curves):
        axes.legend()
    save(figure, file)


@picture
def curves(series: dict[str, list[tuple[int, float]]], file: Path) -> None:
    """One panel for each quantity over the outer iterations; a quantity without points is left out."""
    drawn = {name: points for name, points in series.items() if points}
    if not drawn:
        return
    figure = new_figure(5 * len(drawn), 3.5)
    for axes, (name, points) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn.items(), strict=True):
        axes.plot([x for x, _ in points], [y for _, y in points], marker="." if len(points) < 30 else None)
        axes.set_xlabel("outer step")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    save(figure, file)
