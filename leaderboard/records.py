"""Records from folders, files and trackers. A bad one gets a sentence and is left out; the good ones go on."""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from suite.errors import UsageError
from suite.runtime.record import comparable, label
from suite.runtime.record_schema import ACCURACY, MEMORY, misshapen, upgraded
from suite.runtime.run_directory import is_set_aside
from suite.storage.files import canonical_json, json_sha256

RESULT, OPERATIVE, METRICS, FIGURES = "result.json", "operative.gin", "metrics.csv", "figures"
"""What is taken of a run's folder."""

MAX_BYTES = 2**26
"""Of a record's file, a picture or a curve."""

SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character: JSON can hold it, a page can't."""

NEEDED: tuple[tuple[str, str, type | tuple[type, ...]], ...] = (
    ("budget", "stored_numbers", int),
    ("budget", "images_per_class", (int, float)),
    ("scale", "label", str),
    ("scale", "reduced", bool),
    ("facts", "dataset", str),
    ("environment", "device", str),
)
"""What a table needs of a record: part, key and type."""


class Quantity(NamedTuple):
    """What a measurement measures, whatever the images: the fields that distinguish the measurements of a record."""

    method: str = MEMORY
    """Such as 'memory' or 'random real images'."""
    quantity: str = ACCURACY
    """Such as 'accuracy' or 'RA'."""
    network: str = ""
    """The architecture it was measured on; '' for the run's own."""
    episodes: str = ""
    """The kind of episode; '' where there are none."""

    @property
    def of_memory(self) -> bool:
        """Whether it is a memory's accuracy, on the run's own network or on another; else it is a control's."""
        return (self.method, self.quantity, self.episodes) == (MEMORY, ACCURACY, "")

    @property
    def label(self) -> str:
        """Its name for people."""
        return label(self._asdict())


OF_MEMORY = Quantity()
"""A memory's accuracy on the run's own network."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A valid record, and the folder with its curves and pictures if there is one."""

    record: dict[str, Any]
    """In the present schema."""
    where: str
    """Its file, and its place in a file of several."""
    folder: Path | None = None
    """The run's folder."""
    files: frozenset[str] = frozenset()
    """Names in the run's folder."""

    @cached_property
    def identity(self) -> str:
        """Names the run among all: its table, its cell, and the key of its configuration and seed."""
        return json_sha256([self.record["name"], self.record["cell"], self.record["run_key"]])[:16]

    @cached_property
    def configuration(self) -> str:
        """Equal for runs that differ in their seed alone."""
        return json_sha256([self.record["name"], self.record["cell"], self.record["config"]])

    @cached_property
    def measurements(self) -> dict[Quantity, dict[str, dict[str, Any]]]:
        """By quantity and split, in the record's order; of two for the same, the first."""
        measurements: dict[Quantity, dict[str, dict[str, Any]]] = {}
        for measurement in self.record["measurements"]:
            quantity = Quantity(*(measurement[name] for name in Quantity._fields))
            measurements.setdefault(quantity, {}).setdefault(measurement["split"], measurement)
        return measurements

    def values(self, quantity: Quantity, split: str) -> list[float]:
        """Percent, one for each network or episode; none if it was not measured."""
        measurement = self.measurements.get(quantity, {}).get(split)
        return list(measurement["values"]) if measurement is not None else []


# ---------------------------------------------------------------- reading


def read(places: Iterable[Path]) -> tuple[list[Entry], list[str]]:
    """The records of run folders below each place, or of a file as `suite.run --json` prints it, and what is wrong.

    Raises UsageError for a place that does not exist.
    """
    entries: list[Entry] = []
    complaints: list[str] = []
    for place in places:
        if not place.exists():
            raise UsageError(f"--records: there is no {place}; name the folder that suite.run wrote to with --out")
        for file, folder, names in _files(place, complaints):
            try:
                parsed = _parsed(contents(file))
            except (OSError, ValueError) as error:
                complaints.append(f"{file}: not a record ({error}); it is left out")
                continue
            for i, record in enumerate(parsed if isinstance(parsed, list) else [parsed]):
                where = f"{file}{f', number {i + 1}' if isinstance(parsed, list) else ''}"
                problem = misshapen(record)
                record = record if problem else upgraded(record)
                problem = problem or unfit(record)
                if problem:
                    complaints.append(f"{where}: {problem}; it is left out")
                else:
                    entries.append(Entry(record, where, folder, names))
    distinct, doubles = _distinct(entries)
    return distinct, complaints + doubles


def contents(file: Path) -> bytes:
    """The bytes of a plain file; OSError for links, pipes, folders and what is too large to be a part of a record."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            raise OSError("it is no plain file, or too large")
        return stream.read()


def _files(place: Path, complaints: list[str]) -> Iterator[tuple[Path, Path | None, frozenset[str]]]:
    """Record files below a place in a fixed order, each with the run's folder and the names in it.

    What can't be looked into is a complaint.
    """
    if place.is_file():
        yield place, None, frozenset()
        return

    def blocked(error: OSError) -> None:
        complaints.append(f"{error.filename}: it can't be looked into ({error.strerror}); what it holds is left out")

    for folder, below, names in os.walk(place, onerror=blocked):
        every = frozenset([*names, *below])
        below[:] = sorted(name for name in below if not name.startswith(".") and not is_set_aside(Path(name)))
        complaints += [f"{folder}/{name}: it is a link; what it holds is left out" for name in below
                       if os.path.islink(f"{folder}/{name}")]  # fmt: skip
        if RESULT in names:
            below.clear()
            yield Path(folder) / RESULT, Path(folder), every


def _parsed(data: bytes) -> Any:
    """JSON with finite numbers, without a name given twice, without what no page can show; else ValueError."""

    def refuse(word: str) -> None:
        raise ValueError(f"it holds {word}")

    def finite(digits: str) -> float:
        value = float(digits)
        if value in (float("inf"), float("-inf")):
            raise ValueError("it holds infinity")
        return value

    def whole(digits: str) -> int:
        if len(digits) > 19:
            raise ValueError("it holds a whole number beyond 64 bits")
        return int(digits)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"it says '{next(n for n in names if names.count(n) > 1)}' twice")
        return values

    try:
        parsed = json.loads(data, parse_constant=refuse, parse_float=finite, parse_int=whole, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if b"\\ud" in data.lower() and SURROGATE.search(json.dumps(parsed, ensure_ascii=False)):
        raise ValueError("it holds half of a character (a surrogate)")
    return parsed


def _distinct(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Every run once. Copies are no fault; two records of one run, or of one seed, that say different things are."""
    distinct: dict[str, Entry] = {}
    seeds: dict[tuple[str, int], Entry] = {}
    complaints = []
    for entry in entries:
        first = distinct.setdefault(entry.identity, entry)
        if first is not entry:
            if canonical_json(comparable(first.record)) != canonical_json(comparable(entry.record)):
                complaints.append(f"{entry.where}: {first.where} is another record of the same run; it is left out")
            continue
        other = seeds.setdefault((entry.configuration, entry.record["seed"]), entry)
        if other is not entry:
            del distinct[entry.identity]
            complaints.append(
                f"{entry.where}: {other.where} has the same settings and seed under another key; it is left out"
            )
    return list(distinct.values()), complaints


# ---------------------------------------------------------------- the check


def unfit(record: dict[str, Any]) -> str | None:
    """Why the leaderboard can't show a record of the present schema, in words, or None."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", record["run_key"]):
        return "'run_key' is not a key of hexadecimal digits"
    if not all(isinstance(v, str) for v in record["cell"].values()):
        return "'cell' holds what is not a text"
    for part, key, kind in NEEDED:
        value = record[part].get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return f"'{part}.{key}' is {'missing' if value is None else 'of a wrong type'}"
    for measurement in record["measurements"]:
        values, mean = measurement["values"], measurement["mean"]
        if not all(-100 <= value <= 100 for value in [*values, mean]):
            return f"the measurement '{label(measurement)}' holds what is not a percentage"
        if abs(mean - sum(values) / measurement["n"]) > 1e-6:
            return f"the mean of the measurement '{label(measurement)}' is not that of its values"
    return _contradiction(record)


def _contradiction(record: dict[str, Any]) -> str | None:
    """What contradicts itself: a full run that did less, a memory that stores more than its budget."""
    scale, declared = record["scale"], record["config"].get("images_per_class")
    less = scale.get("reduced_by", [])
    if not isinstance(less, list) or not all(isinstance(reason, str) for reason in less):
        return "'scale.reduced_by' is no list of texts"
    done, whole = scale.get("iterations"), scale.get("paper_iterations")
    if not scale["reduced"] and (less or (isinstance(done, int) and isinstance(whole, int) and done < whole)):
        return "it calls itself full, and did less than the paper"
    if isinstance(declared, (int, float)) and record["budget"]["images_per_class"] > declared * (1 + 1e-6):
        return f"its memory stores more than its budget of {declared:g} images per class"
    return None
