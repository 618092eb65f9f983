"""How figures are written, in Markdown and on the pages alike."""

from collections.abc import Iterable

from leaderboard.published import Published
from leaderboard.statistics import Difference, Estimate
from leaderboard.tables import MEMORY, Row, number
from suite.runtime.record import label

NONE = "–"

DATASETS = {
    "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "svhn": "SVHN", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100",
    "tiny_imagenet": "TinyImageNet", "digits": "digits",
}  # fmt: skip


def dataset(name: str) -> str:
    return DATASETS.get(name, name)


def accuracy(found: Estimate | None) -> str:
    """'72.9 ± 1.2': the mean and half of its 95% interval."""
    if found is None:
        return NONE
    return f"{found.mean:.1f}" + (f" ± {found.interval:.1f}" if found.interval is not None else "")


def mean(found: Estimate | None) -> str:
    return f"{found.mean:.1f}" if found is not None else NONE


def seeds(found: Estimate | None) -> str:
    """What the figure is of."""
    if found is None:
        return NONE
    one, several = ("stream", "streams") if found.seeds == "streams" else ("memory", "memories")
    return f"{found.memories} {one if found.memories == 1 else several} × {found.networks}"


def values(found: Estimate) -> str:
    """How many it is a mean of, where each of them counts."""
    return f"{found.memories} × {found.networks}" if found.memories > 1 else str(found.networks)


def over(found: Estimate | None) -> str:
    """What the interval is over."""
    return found.interval_over or "one value, no interval" if found is not None else NONE


def spread(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else NONE


def printed(found: Published | None) -> str:
    if found is None:
        return NONE
    return _decimal(found.accuracy) + (f" ± {_decimal(found.spread)}" if found.spread is not None else "")


def _decimal(value: float) -> str:
    """With one decimal, or as many as were printed."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:g}"


def points(value: float | None) -> str:
    """A difference in percentage points, with its sign."""
    return f"{value:+.1f}" if value is not None else NONE


def difference(found: Difference) -> str:
    return points(found.mean) + (f" ± {found.interval:.1f}" if found.interval is not None else "")


def verdict(found: Difference) -> str:
    if found.interval is None:
        return "one shared seed: no interval"
    return "the interval excludes zero" if found.shown else "the interval includes zero"


def budget(value: float | None) -> str:
    return f"{value:.4g}" if value is not None else "all"


def scale(row: Row) -> str:
    """'cpu, 200 of 50,000 iterations'."""
    if row.conditions is None:
        return NONE
    at, of = row.conditions.iterations, row.conditions.paper_iterations
    return row.conditions.label + (f", {at:,} of {of:,} iterations" if at is not None and of is not None else "")


def cost(row: Row, name: str) -> list[float]:
    """One of the costs, of every run that has it."""
    found = [number(entry.record["cost"].get(name)) for entry in row.runs]
    return [value for value in found if value is not None]


def rate(row: Row) -> str:
    """Outer iterations per second, the mean over runs."""
    found = [value for value in cost(row, "seconds_per_iteration") if value > 0]
    return f"{len(found) / sum(found):.3g}" if found else NONE


def memory(row: Row) -> str:
    """Peak MiB: of the GPU, or of the whole process; the largest of the runs."""
    on_gpu, process = cost(row, "peak_memory_mib"), cost(row, "process_peak_memory_mib")
    return f"{max(on_gpu):,.0f} (GPU)" if on_gpu else f"{max(process):,.0f} (process)" if process else NONE


def peaks(row: Row) -> list[float]:
    return cost(row, "peak_memory_mib") or cost(row, "process_peak_memory_mib")


def note(row: Row, name: str) -> str:
    """What the record says of a control, where it is trained otherwise than a memory's networks are, or in episodes."""
    kind = row.figure.removesuffix(MEMORY)
    for figure in row.first["measurements"]:
        if label(figure) == kind + name and (name == "full data" or figure["over"] == "episodes"):
            return str(figure.get("note", ""))
    return ""


def notes(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Every control's name with its note, once."""
    found = dict.fromkeys((name, note(row, name)) for row in rows for name in row.controls)
    return [(name[0].upper() + name[1:], said) for name, said in found if said]


def hardware(row: Row) -> str:
    """Every device that the runs were made on."""
    return ", ".join(dict.fromkeys(_hardware(entry.record["environment"]) for entry in row.runs)) or NONE


def _hardware(environment: dict[str, object]) -> str:
    if environment["device"] != "cpu":
        return str(environment["device"])
    threads = environment.get("threads")
    said = f", {threads} thread{'' if threads == 1 else 's'}" if threads else ""
    return f"{environment.get('processor') or 'cpu'}{said}"
