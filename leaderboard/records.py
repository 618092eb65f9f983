"""Records from folders, files and trackers. A bad one gets a sentence and is left out; the good ones go on."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast

from suite.errors import RunError, UsageError
from suite.runtime.record import comparable, label
from suite.runtime.record_schema import ACCURACY, MEMORY, misshapen, upgraded
from suite.runtime.record_statistics import stdev
from suite.runtime.run_directory import is_set_aside
from suite.storage.files import canonical_json, json_sha256, sha256
from suite.storage.plain_files import parse_json, read_plain, shown

RESULT, OPERATIVE, METRICS, FIGURES = "result.json", "operative.gin", "metrics.csv", "figures"
"""What is taken of a run's folder."""

MAX_BYTES = 2**26
"""Of a record's file, a picture or a curve."""

PAPER_ITERATIONS = 50_000
"""Outer iterations of the paper: `suite.core.outer_loop.PAPER_ITERATIONS`, which needs torch."""

PROTOCOL = {
    "name": "paper", "version": 1, "networks": 10, "epochs": 300, "batch": 640, "lr": 0.01, "momentum": 0.9,
    "augment": True,
}  # fmt: skip
"""The published protocol, as `suite.evaluation.protocol` describes it."""

DIGESTS = {
    "digits": "cc1746b686398a5a3c2b0625b3568a289c949fbf3e4bc945722f01df450fa5ba",
    "fashion_mnist": "10b4cb90b4fd639f719ec713f76231e123349c15e62a5f7dc6c8d5b8acfa5daf",
    "mnist": "", "svhn": "", "cifar10": "", "cifar100": "", "tiny_imagenet": "",
}  # fmt: skip
"""By data set of the suite, the digest of its images; '' where it is not known here."""


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
    """Names in the run's folder, links aside."""

    @cached_property
    def identity(self) -> str:
        """Names the run among all: its table, its cell, and the key of its configuration and seed."""
        return json_sha256([self.record["name"], self.record["cell"], self.record["run_key"]])[:16]

    @cached_property
    def configuration(self) -> str:
        """Equal for runs that differ in their seed alone."""
        return json_sha256([self.record["name"], self.record["cell"], self.record["config"]])

    def read(self, name: str) -> bytes | None:
        """The bytes of a file in the run's folder; None where it has none that is a plain file of a record's size."""
        if self.folder is None or name.split("/")[0] not in self.files:
            return None
        with suppress(FileNotFoundError, RunError):
            return read_plain(self.folder / name, MAX_BYTES)
        return None

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
                parsed = _parsed(read_plain(file, MAX_BYTES, follow=file == place), str(file))
            except FileNotFoundError:
                complaints.append(f"{file} is gone since it was listed; it is left out")
                continue
            except RunError as error:
                complaints.append(f"{error}; it is left out")
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
        links = {name for name in (*names, *below) if os.path.islink(f"{folder}/{name}")}
        every = frozenset([*names, *below]) - links
        below[:] = sorted(name for name in below if not name.startswith(".") and not is_set_aside(Path(name)))
        complaints += [f"{folder}/{name}: it is a link; what it holds is left out" for name in below if name in links]
        if RESULT in names:
            below.clear()
            yield Path(folder) / RESULT, Path(folder), every


def _parsed(data: bytes, what: str) -> Any:
    """JSON without a name given twice and without a whole number beyond 64 bits; else RunError."""
    value: Any = parse_json(data, cast(type[Any], Any), what)

    def whole(digits: str) -> int:
        if len(digits) > 19:
            raise RunError(f"{what} is damaged: it holds a whole number beyond 64 bits")
        return int(digits)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise RunError(f"{what} is damaged: it says {shown(twice)} twice")
        return values

    json.loads(data, parse_int=whole, object_pairs_hook=unique)
    return value


def _distinct(entries: list[Entry]) -> tuple[list[Entry], list[str]]:
    """Every run once. Copies are no fault. Two records of one run that differ are, and one data set of two contents."""
    distinct: dict[str, Entry] = {}
    images: dict[str, Entry] = {}
    complaints = []
    for entry in entries:
        first = distinct.setdefault(entry.identity, entry)
        if first is not entry:
            if canonical_json(comparable(first.record)) != canonical_json(comparable(entry.record)):
                complaints.append(f"{entry.where}: {first.where} is another record of the same run; it is left out")
            continue
        digest = entry.record["facts"].get("dataset_digest")
        dataset = canonical_json([entry.record["experiment"], entry.record["config"].get("dataset")])
        other = images.setdefault(dataset, entry) if digest else entry
        if other.record["facts"].get("dataset_digest") != digest:
            del distinct[entry.identity]
            complaints.append(
                f"{entry.where}: its data set is set as in {other.where}, and gave other images; it is left out"
            )
    return list(distinct.values()), complaints


# ---------------------------------------------------------------- the check


def unfit(record: dict[str, Any]) -> str | None:
    """Why the leaderboard can't show a record of the present schema, in words, or None.

    What can be computed anew from the record is, and must agree.
    """
    config, seed = record["config"], record["seed"]
    if json_sha256([json_sha256(config), seed])[:16] != record["run_key"]:
        return "its 'run_key' is not that of its 'config' and 'seed'"
    if sha256(record["config_text"].encode()) != record["config_text_sha256"]:
        return "its 'config_text_sha256' is not that of its 'config_text'"
    if config.get("is") != record["experiment"]:
        return f"its 'experiment' is {shown(record['experiment'])}, and its 'config' is of {shown(config.get('is'))}"
    problems = (_miscounted(measurement) for measurement in record["measurements"])
    return next(filter(None, problems), None) or _other_images(record) or _other_scale(record)


def _miscounted(measurement: dict[str, Any]) -> str | None:
    """What a measurement's values say against its mean, its standard deviation or what percentages are."""
    what = f"the measurement {shown(label(measurement), 80)}"
    values, mean, std = measurement["values"], measurement["mean"], measurement["std"]
    least = 0 if measurement["quantity"] == ACCURACY else -100
    if not all(least - 1e-9 <= value <= 100 + 1e-9 for value in values):
        return f"{what} holds what is not a percentage"
    if not math.isclose(mean, fmean(values), rel_tol=0, abs_tol=1e-6):
        return f"the mean of {what} is {mean:g}, and that of its values {fmean(values):g}"
    spread = stdev(values) if len(values) > 1 else None
    if (std is None) != (spread is None) or abs((std or 0) - (spread or 0)) > 1e-6:
        return f"the standard deviation of {what} is {std}, and that of its values {spread}"
    return None


def _other_images(record: dict[str, Any]) -> str | None:
    """Where a record's data set is not the one that its settings, or the digest of its images, name."""
    name, digest = record["facts"]["dataset"], record["facts"].get("dataset_digest")
    dataset = record["config"].get("dataset")
    declared = dataset.get("is") if isinstance(dataset, dict) else None
    if isinstance(declared, str) and declared in DIGESTS and name != declared:
        return f"its data set is {shown(name)}, and its 'config' names '{declared}'"
    true = next((known for known, sha256 in DIGESTS.items() if sha256 and sha256 == digest), name)
    if digest is not None and true != name:
        return f"its data set is {shown(name)}, and the digest of its images is that of '{true}'"
    if digest is not None and DIGESTS.get(name) not in (None, "", digest):
        return f"the digest of its images is not that of '{name}'"
    return None


def _other_scale(record: dict[str, Any]) -> str | None:
    """What contradicts itself: a full run that did less, a memory that stores more than its budget."""
    scale, config = record["scale"], record["config"]
    less, done, whole = (scale.get(key) for key in ("reduced_by", "iterations", "paper_iterations"))
    if less is not None and scale["reduced"] != bool(less):
        return "its 'scale' calls itself " + (
            "reduced, by nothing" if scale["reduced"] else "full, and names what is less"
        )
    own = "source" not in config  # an experiment from outside may follow another paper
    if own and whole not in (None, PAPER_ITERATIONS):
        return f"its 'scale' gives the paper {whole} iterations, which has {PAPER_ITERATIONS}"
    if whole is not None and config.get("iterations", done) != done:
        return f"its 'scale' has {done} iterations, and its 'config' {shown(config['iterations'])}"
    if whole and done is not None and not math.isclose(scale.get("fraction", done / whole), done / whole, abs_tol=1e-9):
        return f"its 'scale' gives {done} of {whole} iterations as a fraction of {scale['fraction']:g}"
    did_less = (whole and done is not None and done < whole) or (own and _changed_protocol(config))
    if did_less and not scale["reduced"]:
        return "it calls itself full, and did less than the paper"
    declared, stored = config.get("images_per_class"), record["budget"]["images_per_class"]
    if isinstance(declared, (int, float)) and stored > declared * (1 + 1e-6):
        return f"its memory stores more than its budget of {declared:g} images per class"
    return None


def _changed_protocol(config: dict[str, Any]) -> bool:
    """Whether a configuration changes the protocol 'paper'. How many networks an episode has is each run's choice."""
    protocol = config.get("evaluation")
    compared = {key: value for key, value in PROTOCOL.items() if key != "networks" or "ways" not in config}
    return isinstance(protocol, dict) and any(protocol.get(key, value) != value for key, value in compared.items())
