"""Records from folders, files and trackers. A bad one gets a sentence and is left out; the good ones go on."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from suite.errors import UsageError
from suite.files import canonical_json, json_sha256
from suite.results import comparable, invalid

RESULT, OPERATIVE, METRICS, FIGURES = "result.json", "operative.gin", "metrics.csv", "figures"
"""What is taken of a run's folder."""

SET_ASIDE = re.compile(r"-[0-9a-f]{16}\.old\d+$")


@dataclass(frozen=True, eq=False)
class Entry:
    """A valid record, and the folder with its curves and pictures if there is one."""

    record: dict[str, Any]
    where: str
    folder: Path | None = None

    @cached_property
    def files(self) -> frozenset[str]:
        """Names in the run's folder."""
        return frozenset(os.listdir(self.folder) if self.folder is not None else ())

    @cached_property
    def identity(self) -> str:
        """Names the run among all: its table, its cell, and the key of its configuration and seed."""
        return json_sha256([self.record["name"], self.record["cell"], self.record["run_key"]])[:16]

    @cached_property
    def configuration(self) -> str:
        """Equal for runs that differ in their seed alone."""
        return json_sha256([self.record["name"], self.record["cell"], self.record["config"]])

    def values(self, name: str, split: str) -> list[float] | None:
        """Percent, one for each network."""
        for figure in self.record["figures"]:
            if (figure["name"], figure["split"]) == (name, split):
                return list(figure["values"])
        return None


def read(places: Iterable[Path]) -> tuple[list[Entry], list[str]]:
    """The records of run folders below each place, or of a file as `suite.run --json` prints it, and what is wrong."""
    entries: list[Entry] = []
    complaints: list[str] = []
    for place in places:
        if not place.exists():
            raise UsageError(f"--records: there is no {place}; name the folder that suite.run wrote to with --out")
        for file, folder in _files(place):
            try:
                held = _parsed(file.read_bytes())
            except (OSError, ValueError) as error:
                complaints.append(f"{file}: not a record ({error}); it is left out")
                continue
            for i, record in enumerate(held if isinstance(held, list) else [held]):
                where = f"{file}{f', number {i + 1}' if isinstance(held, list) else ''}"
                problem = unfit(record)
                if problem:
                    complaints.append(f"{where}: {problem}; it is left out")
                else:
                    entries.append(Entry(record, where, folder))
    kept, doubles = _each_once(entries)
    return kept, complaints + doubles


def unfit(record: Any) -> str | None:
    """Why the leaderboard can't show a record, in words, or None."""
    problem = invalid(record)
    if problem:
        return problem
    if not re.fullmatch(r"[0-9a-f]{8,64}", record["run_key"]):
        return "'run_key' is not a key of hexadecimal digits"
    if not all(isinstance(v, str) for v in record["cell"].values()):
        return "'cell' holds what is not a text"
    for part, name, kind in NEEDED:
        value = record[part].get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return f"'{part}.{name}' is {'missing' if value is None else 'of a wrong type'}"
    bad = [f for f in record["figures"] if not all(0 <= v <= 100 for v in f["values"])]
    if bad:
        return f"the figure '{bad[0]['name']}' holds what is not a percentage"
    return None


NEEDED: tuple[tuple[str, str, type | tuple[type, ...]], ...] = (
    ("budget", "stored_numbers", int),
    ("budget", "images_per_class", (int, float)),
    ("scale", "label", str),
    ("scale", "reduced", bool),
    ("facts", "dataset", str),
    ("environment", "device", str),
)


def _files(place: Path) -> Iterator[tuple[Path, Path | None]]:
    """Record files below a place in a fixed order, each with the run's folder."""
    if place.is_file():
        yield place, None
        return
    for folder, below, names in os.walk(place):
        below[:] = sorted(name for name in below if not name.startswith(".") and not SET_ASIDE.search(name))
        if RESULT in names:
            below.clear()
            yield Path(folder) / RESULT, Path(folder)


def _parsed(data: bytes) -> Any:
    """JSON without NaN and without a name given twice; raises ValueError."""

    def refuse(word: str) -> None:
        raise ValueError(f"it holds {word}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"it says '{next(n for n in names if names.count(n) > 1)}' twice")
        return made

    try:
        return json.loads(data, parse_constant=refuse, object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _each_once(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Every run once. Copies are no fault; two records of one run that say different things are."""
    kept: dict[str, Entry] = {}
    complaints = []
    for entry in entries:
        first = kept.setdefault(entry.identity, entry)
        if first is not entry and canonical_json(comparable(first.record)) != canonical_json(comparable(entry.record)):
            complaints.append(f"{entry.where}: {first.where} is another record of the same run; this one is left out")
    return list(kept.values()), complaints
