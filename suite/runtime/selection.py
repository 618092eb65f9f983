"""Which cell of a table is best on validation, to be run once more."""

import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from suite.config.resolve import Run
from suite.errors import UsageError
from suite.experiments import plots
from suite.runtime.record import of_memory


def chosen(runs: list[Run], records: list[dict[str, Any]], out: Path) -> list[Run]:
    """What is run after a sweep: for each combination of the other axes, the cell that was best on validation.

    The mean over seeds decides, and every seed of the cell is run. Test accuracies are not looked at.
    """
    if runs[0].choose is None:
        return []
    axis = runs[0].choose
    groups: dict[str, dict[str, list[float]]] = {}
    for run, record in zip(runs, records, strict=True):
        others = ", ".join(label for name, label in run.cell.items() if name != axis)
        watched = [m["mean"] for m in of_memory(record) if m["split"] == "validation"]
        if not watched:
            raise UsageError(f"'{run.label}' measured nothing on validation, so no {axis} can be chosen; hold some out")
        groups.setdefault(others, {}).setdefault(run.cell[axis], []).append(watched[0])
    curves = {others: [(label, mean(v), stdev(v) if len(v) > 1 else None) for label, v in by.items()]
              for others, by in groups.items()}  # fmt: skip
    picture = out / runs[0].name / f"{re.sub(r'[^A-Za-z0-9]+', '-', axis)}.png"
    plots.sweep(curves, axis, picture)
    best = {others: max(by, key=lambda label: mean(by[label])) for others, by in groups.items()}
    for others, label in best.items():
        words = f"{others}: " if others else ""
        said = f"{words}{axis} {label} is best on validation ({mean(groups[others][label]):.1f}%)"
        print(f"[{runs[0].name}] {said}; {picture}", file=sys.stderr)
    chosen = [
        run.then
        for run in runs
        if run.cell[axis] == best[", ".join(label for name, label in run.cell.items() if name != axis)]
    ]
    return [run for run in chosen if run is not None]
