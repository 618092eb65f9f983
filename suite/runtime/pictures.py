"""Charts of what runs measured, made of their records: of a run's episodes, and of the methods of a table."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from suite.errors import report
from suite.experiments import charts
from suite.experiments.continual import metrics
from suite.experiments.drawing import picture
from suite.runtime.record_schema import MEMORY
from suite.runtime.record_statistics import estimate
from suite.runtime.summary import Record, methods_of, rows_of
from suite.storage.files import make_directory


def of_run(record: Record, directory: Path) -> None:
    """In a run's `figures`: accuracies in its episodes, where it has any."""
    _accuracies([record], directory / "figures" / "accuracies.png")


def of_table(records: Sequence[Record], folder: Path) -> None:
    """In a table's folder, all methods in one picture: accuracies in episodes, and after each task of a stream."""
    files = folder / "accuracies.png", folder / "after-each-task.png"
    before = [_stamp(file) for file in files]
    _accuracies(records, files[0])
    _after_each_task(records, files[1])
    for file, stamp in zip(files, before, strict=True):
        if _stamp(file) != stamp:  # else it is of another command, or none was drawn
            report(f"[{folder.name}] all methods in one picture: {file}")


def _stamp(file: Path) -> tuple[int, int] | None:
    """What changes when a file is written anew; None for one that is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


@picture
def _accuracies(records: Sequence[Record], file: Path) -> None:
    """By kind of episode, a bar with its 95% interval for each method and for what stands beside the methods."""
    rows = [row for row in rows_of(records) if row.measurement["episodes"] and row.test]
    if not rows:
        return
    times = Counter((row.measurement["episodes"], row.measurement["method"]) for row in rows)
    panels: dict[str, dict[str, charts.Bar]] = {}
    over: dict[str, None] = {}
    for row in rows:
        episodes, name = row.measurement["episodes"], row.measurement["method"]
        if times[episodes, name] > 1:
            name = row.method if name == MEMORY else f"{row.method}: {name}"
        of = estimate(row.test, within="episodes" if row.measurement["over"] == "episodes" else "evaluation networks")
        n = f"{of.memories} × {of.networks}" if of.memories > 1 else str(of.networks)
        over |= {str(of.interval_over): None} if of.interval_over else {}
        panels.setdefault(episodes, {})[name] = charts.Bar(of.mean, of.interval, n)
    title = _scale(records) + (f"; 95% intervals over {' or '.join(over)}" if over else "")
    within = dict.fromkeys("episodes" if row.measurement["over"] == "episodes" else "networks" for row in rows)
    title += f"; n = {'memories × ' if 'memories' in over else ''}{' or '.join(within)}"
    make_directory(file.parent)
    charts.accuracy_bars(panels, title, file)


@picture
def _after_each_task(records: Sequence[Record], file: Path) -> None:
    """By stream, the mean accuracy on the tasks so far of every method, where it was measured."""
    found: dict[str, dict[str, dict[int, list[list[float | None]]]]] = {}
    for record, method in zip(records, methods_of(records), strict=True):
        matrices = record["facts"].get("matrices")
        if matrices:
            curves = [metrics.curve(matrix) for matrix in matrices]
            found.setdefault(record["facts"]["dataset"], {}).setdefault(method, {})[record["seed"]] = curves
    if not found:
        return
    panels = {
        f"{stream}; {_scale(records)}; 95% intervals": {
            f"{method} ({_count(len(seeds), 'stream')} × {_count(len(next(iter(seeds.values()))), 'network')})": (
                _estimates(seeds)
            )
            for method, seeds in methods.items()
        }
        for stream, methods in found.items()
    }
    make_directory(file.parent)
    charts.methods_after_each_task(panels, file)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _estimates(seeds: dict[int, list[list[float | None]]]) -> list[charts.Estimated | None]:
    """After each task the mean, over seeds, of their networks' means, and half of its interval."""
    estimates: list[charts.Estimated | None] = []
    for task in range(len(next(iter(seeds.values()))[0])):
        measured = {seed: [curve[task] for curve in curves] for seed, curves in seeds.items()}
        values = {seed: [value for value in of_seed if value is not None] for seed, of_seed in measured.items()}
        values = {seed: of_seed for seed, of_seed in values.items() if of_seed}
        of = estimate(values, "streams") if values else None
        estimates.append(None if of is None else (of.mean, of.interval))
    return estimates


def _scale(records: Sequence[Record]) -> str:
    """The scales of records, reduced ones marked."""
    scales = [record["scale"] for record in records]
    return ", ".join(dict.fromkeys(f"{s['label']}{' (reduced)' if s['reduced'] else ''}" for s in scales))
