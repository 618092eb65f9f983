"""The drawing of two streams from the leaderboard's records: accuracy on the tasks so far, after each of twenty."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from suite.experiments.continual import metrics

RECORDS = Path(__file__).resolve().parents[2] / "leaderboard" / "records"
TASKS = 20
"""Of a stream of the whole length; shorter ones are not drawn."""

METHODS = {
    ("permutations", "compress-then-recall"): ("memories", "blue"),
    ("rotations", "absorbed alone"): ("memories", "blue"),
    ("", "ER"): ("replay", "red"),
    ("", "DER++ (Avalanche)"): ("DER++", "ink"),
    ("", "naive"): ("naive", "soft"),
    ("", "joint"): ("all images", "ink"),
}
"""By stream (of any: '') and cell: what a line is called, and its colour. Ours is what training images chose."""

RATES = {
    ("permutations", "naive"): 0.001,
    ("permutations", "ER"): 0.005,
    ("rotations", "naive"): 0.0005,
    ("rotations", "ER"): 0.005,
}
"""Of methods with records at several rates, the one that training images chose."""

PANEL, LEFT, TOP, HEIGHT = 226, 36, 50, 200
"""Picture units: a panel's width, the room left of it, above it, and its height."""


@dataclass(frozen=True)
class Line:
    """A method's line, the mean over streams and networks."""

    name: str
    """What it is called."""
    colour: str
    """Its colour's name."""
    after: tuple[float, ...]
    """Accuracy on the tasks so far after each task, or after the last alone."""


def lines(stream: str) -> list[Line]:
    """The lines of a stream, of its records with the whole length."""
    found: dict[str, list[Sequence[float]]] = {}
    for file in sorted((RECORDS / stream).glob("*/result.json")):
        record: dict[str, Any] = json.loads(file.read_text())
        cell = record["cell"].get("method", "")
        if (stream, cell) in RATES and record["config"]["optimizer"]["lr"] != RATES[stream, cell]:
            continue
        for matrix in record["facts"].get("matrices", []):
            after = [value for value in metrics.curve(matrix) if value is not None]
            if len(matrix) == TASKS and len(after) in (1, TASKS):
                found.setdefault(cell, []).append(after)
    drawn = []
    for (of, cell), (name, colour) in METHODS.items():
        if of in ("", stream) and cell in found:
            drawn.append(Line(name, colour, tuple(fmean(step) for step in zip(*found[cell], strict=True))))
    return drawn


def parts() -> Iterable[str]:
    """Two panels beside each other, with each line's name and last value at its end."""
    for i, stream in enumerate(("permutations", "rotations")):
        yield from _panel(stream, LEFT + i * (PANEL + 146))


def _panel(stream: str, left: float) -> Iterable[str]:
    of = lines(stream)
    low, high = 20.0, 90.0
    places = [(value, TOP + HEIGHT * (high - value) / (high - low)) for value in range(20, 91, 10)]
    yield f'<text x="{left:g}" y="24" class="strong">{stream.capitalize()}</text>'
    for value, y in places:
        yield f'<path class="frame" d="M{left:g},{y:.1f}h{PANEL:g}"/>'
        yield f'<text x="{left - 8:g}" y="{y + 4:.1f}" class="small end">{value}</text>'
    across = [left + PANEL * t / (TASKS - 1) for t in range(TASKS)]
    for t in (0, 4, 9, 14, 19):
        yield f'<text x="{across[t]:.1f}" y="{TOP + HEIGHT + 20:g}" class="small mid">{t + 1}</text>'
    yield f'<text x="{left + PANEL / 2:g}" y="{TOP + HEIGHT + 40:g}" class="small mid">tasks so far</text>'
    ends = _apart([TOP + HEIGHT * (high - line.after[-1]) / (high - low) for line in of])
    for line, end in zip(of, ends, strict=True):
        heights = [TOP + HEIGHT * (high - value) / (high - low) for value in line.after]
        if len(heights) == TASKS:
            d = "M" + " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, heights, strict=True))
            yield f'<path d="{d}" style="fill:none;stroke:var(--{line.colour});stroke-width:2.2"/>'
        yield f'<circle cx="{across[-1]:.1f}" cy="{heights[-1]:.1f}" r="3.4" style="fill:var(--{line.colour})"/>'
        style, text = f"fill:var(--{line.colour})", f"{line.after[-1]:.1f} {line.name}"
        yield (f'<text x="{left + PANEL + 10:g}" y="{end + 4:.1f}" class="small" style="{style}">{text}</text>')


def _apart(heights: Sequence[float], least: float = 15) -> list[float]:
    """The heights, moved down where two would touch."""
    placed: dict[int, float] = {}
    last = float("-inf")
    for i in sorted(range(len(heights)), key=lambda i: heights[i]):
        last = placed[i] = max(heights[i], last + least)
    return [placed[i] for i in range(len(heights))]
