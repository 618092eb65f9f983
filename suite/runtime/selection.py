"""Which cell of a table is best on validation, to be run once more."""

import re
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from suite.config.resolve import Run
from suite.errors import UsageError
from suite.experiments import charts
from suite.runtime.record import of_memory

Accuracies = dict[str, dict[str, list[float]]]
"""By the labels of all other axes, by the label on the axis of the choice: the validation accuracy of every seed."""


def chosen(runs: list[Run], records: list[dict[str, Any]], out: Path) -> list[Run]:
    """What is run after a sweep: for each combination of the other axes, the cell that was best on validation.

    The mean over seeds decides, and every seed of the cell is run. Test accuracies are not looked at. A plot of the
    sweep is left in the table's directory. Raises UsageError for a run that measured nothing on validation.
    """
    axis = runs[0].choose
    if axis is None:
        return []
    accuracies = _accuracies(runs, records, axis)
    curves = {
        others: [(label, mean(v), stdev(v) if len(v) > 1 else None) for label, v in by_label.items()]
        for others, by_label in accuracies.items()
    }
    picture = out / runs[0].name / f"{re.sub(r'[^A-Za-z0-9]+', '-', axis)}.png"
    seeds = max(len(v) for by_label in accuracies.values() for v in by_label.values())
    charts.sweep(curves, axis, seeds, picture)
    best = {others: max(by_label, key=lambda label: mean(by_label[label])) for others, by_label in accuracies.items()}
    for others, label in best.items():
        accuracy = mean(accuracies[others][label])
        where = f"{others}: " if others else ""
        sentence = f"{where}{axis} {label} is best on validation ({accuracy:.1f}%)"
        print(f"[{runs[0].name}] {sentence}; {picture}", file=sys.stderr)
    of_best = [run for run in runs if run.cell[axis] == best[_others(run, axis)]]
    return [run.then for run in of_best if run.then is not None]


def _accuracies(runs: list[Run], records: list[dict[str, Any]], axis: str) -> Accuracies:
    """The memory's accuracy on validation, of every run."""
    accuracies: Accuracies = {}
    for run, record in zip(runs, records, strict=True):
        validation = [measurement["mean"] for measurement in of_memory(record) if measurement["split"] == "validation"]
        if not validation:
            raise UsageError(f"'{run.label}' measured nothing on validation, so no {axis} can be chosen; hold some out")
        accuracies.setdefault(_others(run, axis), {}).setdefault(run.cell[axis], []).append(validation[0])
    return accuracies


def _others(run: Run, axis: str) -> str:
    """The labels of a run's cell on the other axes."""
    return ", ".join(label for name, label in run.cell.items() if name != axis)
