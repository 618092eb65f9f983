"""Records from folders, files and trackers. A bad one gets a sentence and is left out; the good ones go on."""

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from suite.errors import UsageError
from suite.runtime.record import comparable, label
from suite.runtime.record_schema import misshapen, upgraded
from suite.storage.files import canonical_json, json_sha256

RESULT, OPERATIVE, METRICS, FIGURES = "result.json", "operative.gin", "metrics.csv", "figures"
"""What is taken of a run's folder."""

LARGEST = 2**26
"""Bytes of a record's file, a picture or a curve, at the most."""

SURROGATE = re.compile("[\ud800-\udfff]")
SET_ASIDE = re.compile(r"-[0-9a-f]{16}\.old\d+$")


@dataclass(frozen=True, eq=False)
class Entry:
    """A valid record, and the folder with its curves and pictures if there is one."""

    record: dict[str, Any]
    where: str
    folder: Path | None = None
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

    def values(self, name: str, split: str) -> list[float] | None:
        """Percent, one for each network."""
        for measurement in self.record["measurements"]:
            if (label(measurement), measurement["split"]) == (name, split):
                return list(measurement["values"])
        return None


def read(places: Iterable[Path]) -> tuple[list[Entry], list[str]]:
    """The records of run folders below each place, or of a file as `suite.run --json` prints it, and what is wrong."""
    entries: list[Entry] = []
    complaints: list[str] = []
    for place in places:
        if not place.exists():
            raise UsageError(f"--records: there is no {place}; name the folder that suite.run wrote to with --out")
        for file, folder, names in _files(place, complaints):
            try:
                held = _parsed(contents(file))
            except (OSError, ValueError) as error:
                complaints.append(f"{file}: not a record ({error}); it is left out")
                continue
            for i, record in enumerate(held if isinstance(held, list) else [held]):
                where = f"{file}{f', number {i + 1}' if isinstance(held, list) else ''}"
                problem = misshapen(record)
                record = record if problem else upgraded(record)
                problem = problem or unfit(record)
                if problem:
                    complaints.append(f"{where}: {problem}; it is left out")
                else:
                    entries.append(Entry(record, where, folder, names))
    kept, doubles = _each_once(entries)
    return kept, complaints + doubles


def contents(file: Path) -> bytes:
    """What is in a plain file; OSError for links, pipes, folders and what is too large to be a part of a record."""
    handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as held:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            raise OSError("it is no plain file, or too large")
        return held.read()


def unfit(record: dict[str, Any]) -> str | None:
    """Why the leaderboard can't show a record of this schema, in words, or None."""
    if not re.fullmatch(r"[0-9a-f]{8,64}", record["run_key"]):
        return "'run_key' is not a key of hexadecimal digits"
    if not all(isinstance(v, str) for v in record["cell"].values()):
        return "'cell' holds what is not a text"
    for part, name, kind in NEEDED:
        value = record[part].get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return f"'{part}.{name}' is {'missing' if value is None else 'of a wrong type'}"
    for measurement in record["measurements"]:
        values, mean = measurement["values"], measurement["mean"]
        if not all(-100 <= value <= 100 for value in [*values, mean]):
            return f"the measurement '{label(measurement)}' holds what is not a percentage"
        if abs(mean - sum(values) / measurement["n"]) > 1e-6:
            return f"the mean of the measurement '{label(measurement)}' is not that of its values"
    return _impossible(record)


def _impossible(record: dict[str, Any]) -> str | None:
    """What contradicts itself: a full run that did less, a memory that stores more than its budget."""
    scale, declared = record["scale"], record["config"].get("images_per_class")
    less = scale.get("reduced_by", [])
    if not isinstance(less, list) or not all(isinstance(one, str) for one in less):
        return "'scale.reduced_by' is no list of texts"
    done, whole = scale.get("iterations"), scale.get("paper_iterations")
    if not scale["reduced"] and (less or (isinstance(done, int) and isinstance(whole, int) and done < whole)):
        return "it calls itself full, and did less than the paper"
    if isinstance(declared, (int, float)) and record["budget"]["images_per_class"] > declared * (1 + 1e-6):
        return f"its memory stores more than its budget of {declared:g} images per class"
    return None


NEEDED: tuple[tuple[str, str, type | tuple[type, ...]], ...] = (
    ("budget", "stored_numbers", int),
    ("budget", "images_per_class", (int, float)),
    ("scale", "label", str),
    ("scale", "reduced", bool),
    ("facts", "dataset", str),
    ("environment", "device", str),
)


def _files(place: Path, complaints: list[str]) -> Iterator[tuple[Path, Path | None, frozenset[str]]]:
    """Record files below a place in a fixed order, each with the run's folder and the names in it.

    What can't be looked into is told.
    """
    if place.is_file():
        yield place, None, frozenset()
        return

    def blocked(error: OSError) -> None:
        complaints.append(f"{error.filename}: it can't be looked into ({error.strerror}); what it holds is left out")

    for folder, below, names in os.walk(place, onerror=blocked):
        held = frozenset([*names, *below])
        below[:] = sorted(name for name in below if not name.startswith(".") and not SET_ASIDE.search(name))
        complaints += [f"{folder}/{name}: it is a link; what it holds is left out" for name in below
                       if os.path.islink(f"{folder}/{name}")]  # fmt: skip
        if RESULT in names:
            below.clear()
            yield Path(folder) / RESULT, Path(folder), held


def _parsed(data: bytes) -> Any:
    """JSON with finite numbers, without a name given twice, without what no page can show; else ValueError."""

    def refuse(word: str) -> None:
        raise ValueError(f"it holds {word}")

    def finite(digits: str) -> float:
        made = float(digits)
        if made in (float("inf"), float("-inf")):
            raise ValueError("it holds infinity")
        return made

    def whole(digits: str) -> int:
        if len(digits) > 19:
            raise ValueError("it holds a whole number beyond 64 bits")
        return int(digits)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"it says '{next(n for n in names if names.count(n) > 1)}' twice")
        return made

    try:
        held = json.loads(data, parse_constant=refuse, parse_float=finite, parse_int=whole, object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if b"\\ud" in data.lower() and SURROGATE.search(json.dumps(held, ensure_ascii=False)):
        raise ValueError("it holds half of a character (a surrogate)")
    return held


def _each_once(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Every run once. Copies are no fault; two records of one run, or of one seed, that say different things are."""
    kept: dict[str, Entry] = {}
    seeds: dict[tuple[str, int], Entry] = {}
    complaints = []
    for entry in entries:
        first = kept.setdefault(entry.identity, entry)
        if first is not entry:
            if canonical_json(comparable(first.record)) != canonical_json(comparable(entry.record)):
                complaints.append(f"{entry.where}: {first.where} is another record of the same run; it is left out")
            continue
        other = seeds.setdefault((entry.configuration, entry.record["seed"]), entry)
        if other is not entry:
            del kept[entry.identity]
            complaints.append(
                f"{entry.where}: {other.where} has the same settings and seed under another key; it is left out"
            )
    return list(kept.values()), complaints
