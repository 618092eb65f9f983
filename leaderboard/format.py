"""How numbers and names are written, in Markdown and on the pages alike."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from statistics import fmean

from leaderboard.pages import DATASETS
from leaderboard.published import Published
from leaderboard.rows import Row, number
from suite.runtime.record_statistics import Difference, Estimate

NONE = "–"
"""What stands where there is no number."""


# ---------------------------------------------------------------- numbers


def accuracy(estimate: Estimate | None) -> str:
    """'72.9 ± 1.2': the mean and half of its 95% interval."""
    if estimate is None:
        return NONE
    return f"{estimate.mean:.1f}" + (f" ± {estimate.interval:.1f}" if estimate.interval is not None else "")


def mean(estimate: Estimate | None) -> str:
    """'72.9'."""
    return f"{estimate.mean:.1f}" if estimate is not None else NONE


def sample(estimate: Estimate | None) -> str:
    """'3 memories × 10': how many seeds, and how many values of each."""
    if estimate is None:
        return NONE
    singular, plural = ("stream", "streams") if estimate.seeds == "streams" else ("memory", "memories")
    return f"{estimate.memories} {singular if estimate.memories == 1 else plural} × {estimate.networks}"


def count(estimate: Estimate) -> str:
    """'100' or '3 × 100': of how many values it is the mean."""
    return f"{estimate.memories} × {estimate.networks}" if estimate.memories > 1 else str(estimate.networks)


def over(estimate: Estimate | None) -> str:
    """What its interval is over, such as 'memories'."""
    return estimate.interval_over or "one value, no interval" if estimate is not None else NONE


def spread(value: float | None) -> str:
    """A standard deviation: '1.25'."""
    return f"{value:.2f}" if value is not None else NONE


def printed(value: Published | None) -> str:
    """A published accuracy as its source prints it: '88.5 ± 0.4'."""
    if value is None:
        return NONE
    return _decimal(value.accuracy) + (f" ± {_decimal(value.spread)}" if value.spread is not None else "")


def _decimal(value: float) -> str:
    """With one decimal, or as many as were printed."""
    return f"{value:.1f}" if round(value, 1) == value else f"{value:g}"


def points(value: float | None) -> str:
    """A difference in percentage points, with its sign: '+2.5'; '+0.0' from either side of zero."""
    return f"{value:+.1f}".replace("-0.0", "+0.0") if value is not None else NONE


def difference(of: Difference) -> str:
    """'+2.5 ± 1.2': the mean and half of its 95% interval."""
    return points(of.mean) + (f" ± {of.interval:.1f}" if of.interval is not None else "")


def budget(images_per_class: float | None) -> str:
    """'10', or 'all' for the whole training part."""
    return f"{images_per_class:.4g}" if images_per_class is not None else "all"


def short(text: str, most: int = 40) -> str:
    """The beginning of a long text."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def duration(seconds: float) -> str:
    """Seconds with three digits, in a unit that fits.

    >>> duration(8.049), duration(113.2), duration(1694), duration(90000)
    ('8.05 s', '113 s', '28.2 min', '25 h')
    """
    size, unit = (1, "s") if seconds < 600 else (60, "min") if seconds < 36_000 else (3600, "h")
    return f"{seconds / size:.3g} {unit}"


def day(since_1970: float) -> str:
    """'2026-01-31': the day of a time in seconds since 1970, in UTC.

    >>> day(0.0)
    '1970-01-01'
    """
    return datetime.fromtimestamp(since_1970, UTC).date().isoformat()


# ---------------------------------------------------------------- rows


def dataset(name: str) -> str:
    """'Fashion-MNIST' for 'fashion_mnist', also at the end of a stream's name; any other name as it is.

    >>> dataset("rotations of mnist")
    'rotations of MNIST'
    """
    what, of, images = name.rpartition(" of ")
    return what + of + DATASETS.get(images, images)


def scale(row: Row) -> str:
    """'cpu, 200 of 50,000 iterations'; 'paper, reduced' where it is reduced by something else."""
    if row.conditions is None:
        return NONE
    done, whole = row.conditions.iterations, row.conditions.paper_iterations
    iterations = f", {done:,} of {whole:,} iterations" if done is not None and whole is not None else ""
    return row.conditions.label + (iterations or ", reduced" * row.reduced)


def costs(row: Row, key: str) -> list[float]:
    """One entry of `cost` of every run that has it."""
    values = [number(entry.record["cost"].get(key)) for entry in row.runs]
    return [value for value in values if value is not None]


TIMES = {
    "distillation_seconds": "of distillation",
    "training_seconds": "of training and testing",
    "last_attempt_seconds": "from the start to the record",
}
"""The entries of `cost` that are a run's time, the one that is taken first, and what they are of."""


def time(row: Row) -> tuple[float, str] | None:
    """Mean seconds of its runs, and what they are of; None where a run has none."""
    for key, what in TIMES.items():
        seconds = costs(row, key)
        if seconds and len(seconds) == len(row.runs):
            return fmean(seconds), what
    return None


def stored(row: Row) -> str:
    """'7,840 numbers'."""
    return f"{row.first['budget']['stored_numbers']:,} numbers"


def rate(row: Row) -> str:
    """Outer iterations per second: the harmonic mean over runs."""
    seconds = [value for value in costs(row, "seconds_per_iteration") if value > 0]
    return f"{len(seconds) / sum(seconds):.3g}" if seconds else NONE


def peak_mib(row: Row) -> str:
    """The largest peak of the runs in MiB: allocated on the GPU, or of the whole process."""
    on_gpu, process = costs(row, "peak_memory_mib"), costs(row, "process_peak_memory_mib")
    return f"{max(on_gpu):,.0f} (GPU)" if on_gpu else f"{max(process):,.0f} (process)" if process else NONE


def peaks_mib(row: Row) -> list[float]:
    """The peaks that `peak_mib` chooses from."""
    return costs(row, "peak_memory_mib") or costs(row, "process_peak_memory_mib")


def notes(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Title and note of every control that has a note, once; of several notes, with their data sets."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        for title, control in row.controls.items():
            if control.note:
                found.setdefault((title, control.note), {})[dataset(row.dataset)] = None
    times = Counter(title for title, _ in found)
    return [
        (", ".join([title[0].upper() + title[1:], *(where if times[title] > 1 else ())]), note)
        for (title, note), where in found.items()
    ]


def hardware(row: Row) -> str:
    """Every device that the runs were made on."""
    return ", ".join(dict.fromkeys(_device(entry.record["environment"]) for entry in row.runs)) or NONE


def _device(environment: dict[str, object]) -> str:
    if environment["device"] != "cpu":
        return str(environment["device"])
    threads = environment.get("threads")
    count = f", {threads} thread{'' if threads == 1 else 's'}" if threads else ""
    return f"{environment.get('processor') or 'cpu'}{count}"
