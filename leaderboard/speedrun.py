"""The speedrun: which configurations reach an accuracy, and in how many seconds of distillation."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from leaderboard import format
from leaderboard.columns import Cell, Detail, Link, costs, seed_link
from leaderboard.lines import MEMORIES
from leaderboard.pages import Page
from leaderboard.records import OF_MEMORY, OPERATIVE
from leaderboard.rows import Row
from leaderboard.tables import Table

TARGETS: dict[str, tuple[float, ...]] = {"fashion_mnist": (70, 75, 80, 83.9, 86.7, 88.5), "digits": (90, 92, 95)}
"""By data set, test accuracies in percent to be reached."""

SECONDS = "distillation_seconds"
"""The entry of a record's cost that is the time."""

REPOSITORY = Path(__file__).resolve().parent.parent
"""What commands in Markdown name files from."""

PAGE = Page(
    "speedrun",
    "Speedrun",
    "Speedrun: time to an accuracy",
    "Who reaches an accuracy on test images in the fewest seconds of distillation, on which hardware.",
    ranked=False,
)
"""Its page. It shows records of all tables once more, so it is the home of none."""

RULE = (
    f"A configuration counts for a target if the mean test accuracy of at least {MEMORIES} memories, one for each "
    "seed, is at or above it, measured once, at the end of each run. Its time is the mean over these seeds of the "
    f"seconds that their starts and outer steps took ({SECONDS} in the records); loading, validation and evaluation "
    "are not counted. Any budget may take part, and stands in the row. Full and reduced runs stand together here, "
    "fastest first, since the accuracy is what they share; but times of different hardware, or of machines that had "
    "other work, are no comparison of methods."
)
"""What counts."""

NO_RECORD = "no record yet"
"""Of a target that nobody reached."""


@dataclass(frozen=True)
class Finish:
    """A configuration that reached a target."""

    row: Row
    """Its runs, and what they measured."""
    home: Page
    """The page of the table that it is in."""

    @property
    def seconds(self) -> list[float]:
        """Of distillation, for each seed."""
        return format.costs(self.row, SECONDS)

    @property
    def time(self) -> float:
        """Their mean."""
        return fmean(self.seconds)


@dataclass(frozen=True)
class Race:
    """One target, and who reached it."""

    dataset: str
    """Its name in records."""
    target: float
    """Test accuracy in percent."""
    note: str
    """Who printed it; '' for a round number."""
    finishes: tuple[Finish, ...]
    """Fastest first."""

    @property
    def title(self) -> str:
        """Such as '83.9%'."""
        return f"{self.target:g}%"


def races(tables: Sequence[Table]) -> tuple[Race, ...]:
    """A race for each target of each data set, of the rows of all tables."""
    finishes = [Finish(row, table.page) for table in tables for row in table.measured if _counts(row)]
    made = []
    for dataset, targets in TARGETS.items():
        own = sorted((one for one in finishes if one.row.dataset == dataset), key=lambda one: one.time)
        for target in targets:
            reached = tuple(one for one in own if one.row.test is not None and one.row.test.mean >= target)
            made.append(Race(dataset, target, _printed(tables, dataset, target), reached))
    return tuple(made)


def _counts(row: Row) -> bool:
    """Whether it has memories enough, each with its test accuracy on the network it was made with, and its seconds."""
    complete = row.test is not None and row.test.memories == len(row.runs) == len(format.costs(row, SECONDS))
    return row.shows == OF_MEMORY and complete and len(row.runs) >= MEMORIES


def _printed(tables: Sequence[Table], dataset: str, target: float) -> str:
    """'printed for BPTT at 1 I/C (S, Table 3)', if a source prints this accuracy for the data set."""
    for row in (row for table in tables for row in table.rows if row.dataset == dataset):
        for number in row.published:
            if number.accuracy == target:
                what = f"{row.method} at {format.budget(row.images_per_class)} I/C"
                return f"printed for {what} ({number.source}, {number.place})"
    return ""


def count(every: Sequence[Race]) -> str:
    """'2 of 9 targets reached'."""
    return f"{sum(bool(race.finishes) for race in every)} of {len(every)} targets reached"


# ---------------------------------------------------------------- columns

COLUMNS = ("method", "accuracy (%)", "time", "budget", "scale", "hardware", "seeds")
"""Over the columns of the page."""


def cells(finish: Finish) -> tuple[Cell, ...]:
    """What stands in a row of the page, under `COLUMNS`."""
    row = finish.row
    label, _, steps = format.scale(row).partition(", ")
    least, most = (format.duration(pick(finish.seconds)) for pick in (min, max))
    return (
        Cell(_method(row), finish.home.short, mark="reduced" if row.reduced else ""),
        Cell(format.accuracy(row.test)),
        Cell(format.duration(finish.time), f"{least} to {most}"),
        Cell(_budget(row), format.stored(row)),
        Cell(label, steps),
        Cell("", format.hardware(row)),
        Cell(format.sample(row.test), links=tuple(seed_link(entry) for entry in row.runs)),
    )


def details(finish: Finish) -> tuple[Detail, ...]:
    """What folds out of a row; its command is for the folder that its gin file is saved in."""
    row, name = finish.row, f"{finish.row.runs[0].identity}.gin"
    judged = ", ".join(filter(None, (_network(row), _protocol(row))))
    return (
        Detail("run it again", command(row, name), (Link(f"runs/{name}", name),)),
        Detail("judged by", judged),
        *costs(row),
    )


TITLES = ("data set and target", "time", "accuracy (95% interval)", "method", "n", "scale", "configuration")
"""Over the columns in Markdown."""


def texts(finish: Finish) -> tuple[str, ...]:
    """What stands in a row in Markdown, without the first, which is of the race, and the last, which is `file`."""
    row = finish.row
    return (
        format.duration(finish.time),
        format.accuracy(row.test),
        f"{_method(row)}{' (reduced)' if row.reduced else ''}, {_budget(row)}",
        format.sample(row.test),
        format.scale(row),
    )


def file(finish: Finish) -> str:
    """The gin file that its runs are repeated with, from the folder of a checkout; '' where there is none."""
    entry = finish.row.runs[0]
    if entry.folder is None or OPERATIVE not in entry.files:
        return ""
    place = entry.folder / OPERATIVE
    return str(place.relative_to(REPOSITORY) if place.is_relative_to(REPOSITORY) else place)


def command(row: Row, file: str) -> str:
    """The command that does all of a row's runs from the configuration of its first."""
    seeds = [entry.record["seed"] for entry in row.runs]
    return f"python -m suite.run --gin {shlex.quote(file)} --set 'run.seeds = {seeds}'"


def _method(row: Row) -> str:
    return ", ".join(filter(None, (row.made_with, row.method)))


def _budget(row: Row) -> str:
    return f"{format.budget(row.images_per_class)} I/C"


def _protocol(row: Row) -> str:
    return str(row.first["scale"].get("protocol", ""))


def _network(row: Row) -> str:
    network = row.first["config"].get("architecture")
    return str(network.get("model", network.get("is", ""))) if isinstance(network, dict) else ""


def by_dataset(every: Sequence[Race]) -> Iterator[tuple[str, list[Race]]]:
    """The races of each data set, by its name for readers."""
    for dataset in dict.fromkeys(race.dataset for race in every):
        yield format.dataset(dataset), [race for race in every if race.dataset == dataset]
