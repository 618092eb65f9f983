"""The journal of a run: everything its tracker shall get, written to the run's directory first.

`journal.jsonl` only grows, by whole lines that carry their own checksum: what the run is, its states, metrics and
artifacts, in order, with their times. So training never waits for a tracker, and nothing is lost while one is away;
the process that sends the journal (`suite.tracking`) notes how far it came. A point (metric, iteration) is written
once, however often a crash makes the run compute it again.
"""

import os
import re
import time
import uuid
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple, cast

from pydantic import AfterValidator, AllowInfNan, Field, StringConstraints
from typing_extensions import TypedDict

from suite.errors import RunError
from suite.storage.files import append_synced, canonical_json, disk_errors, make_directory
from suite.storage.plain_files import MOST_BYTES_OF_STEPS, open_plain, parse_json

NAME = "journal.jsonl"
"""The journal's file in a run's directory."""

Entry = dict[str, Any]
"""One line. `is` names its kind, one of those below; `time` as in `now`."""

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
"""The states of a run, as MLflow names them."""


class Point(NamedTuple):
    """One value of one metric."""

    name: str
    """Of the metric."""
    value: float
    """Finite."""
    time: int
    """When it was measured, as in `now`."""
    iteration: int
    """Iterations done when it was measured."""


# ---------------------------------------------------------------- what a line may be

Whole = Annotated[int, Field(ge=0, lt=2**63)]
"""A number that counts."""

PointRow = tuple[str, Annotated[float, AllowInfNan(False)], Whole, Whole]
"""A `Point` as JSON has it."""


def _below_the_run(file: str) -> str:
    path = Path(file)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in file:
        raise ValueError("it is no file of the run's folder")
    return file


def _a_table(journal: str) -> str:
    if re.fullmatch(r"\.\./(\.\./(?!\.\./)[^/\0]+/)?\.table-[^/\0]+", journal) is None:
        raise ValueError("it is no table beside the run")
    return journal


_Run = TypedDict(
    "_Run",
    {
        "is": Literal["run"],
        "time": Whole,
        "id": Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")],
        "experiment": str,
        "name": str,
        "tags": dict[str, str],
        "parameters": dict[str, str],
    },
)
_Parent = TypedDict(
    "_Parent", {"is": Literal["parent"], "time": Whole, "journal": Annotated[str, AfterValidator(_a_table)]}
)
_Status = TypedDict("_Status", {"is": Literal["status"], "time": Whole, "status": Status, "hard": bool})
_Metrics = TypedDict("_Metrics", {"is": Literal["metrics"], "time": Whole, "points": list[PointRow]})
_Progress = TypedDict("_Progress", {"is": Literal["progress"], "time": Whole, "done": Whole, "total": Whole})
_Artifact = TypedDict(
    "_Artifact", {"is": Literal["artifact"], "time": Whole, "file": Annotated[str, AfterValidator(_below_the_run)]}
)

_Dataset = TypedDict(
    "_Dataset", {"is": Literal["dataset"], "time": Whole, "name": str, "digest": str, "images": dict[str, Whole]}
)
_Description = TypedDict(
    "_Description",
    {
        "is": Literal["description"],
        "time": Whole,
        "text": str,
        "pictures": list[Annotated[str, AfterValidator(_below_the_run)]],
    },
)

_Entry = Annotated[
    _Run | _Parent | _Status | _Metrics | _Progress | _Artifact | _Dataset | _Description, Field(discriminator="is")
]

# ---------------------------------------------------------------- reading


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def read(directory: Path, start: int = 0) -> tuple[list[Entry], int]:
    """The whole entries of a journal from byte `start` on, and the byte at which the next one will begin.

    A last line without its end is still being written, or was cut off by a crash: it is left for the next reading.
    Lines that the disk damaged are skipped. If no line ends at `start`, the journal was replaced by another one, and is
    read from its beginning. Raises RunError if it can't be read, is no plain file, or holds a whole line that is no
    entry: no crash writes one.
    """
    try:
        with open_plain(directory / NAME) as file:
            start, data = _rest(file, start)
    except FileNotFoundError:
        return [], start
    except OSError as error:
        raise RunError(f"can't read {directory / NAME} ({error.strerror or error}); try again") from error
    if len(data) > MOST_BYTES_OF_STEPS:
        most = f"{MOST_BYTES_OF_STEPS:,}"
        raise RunError(f"{directory / NAME} has more than {most} bytes, which no journal has; move it away")
    whole = data[: data.rfind(b"\n") + 1]
    texts = [text for line in whole.splitlines() if (text := _intact(line)) is not None]
    # in one piece, which is quicker; a wrong entry is named by its number
    entries = parse_json(b"[%s]" % b",".join(texts), list[_Entry], str(directory / NAME))
    return cast(list[Entry], entries), start + len(whole)


def _rest(file: BinaryIO, start: int) -> tuple[int, bytes]:
    """Where reading begins, and what is there, to a byte more than a journal may have."""
    if start:
        file.seek(start - 1)
        start = start if file.read(1) == b"\n" else 0
    file.seek(start)
    return start, file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES_OF_STEPS) + 1)


def identity(entries: list[Entry]) -> str | None:
    """The identity of the run that a journal belongs to; None if it does not hold one."""
    return next((entry["id"] for entry in entries if entry["is"] == "run"), None)


# ---------------------------------------------------------------- writing


class Journal:
    """The journal of one run, open for adding. The holder of the run's lock alone may open it."""

    def __init__(self, directory: Path) -> None:
        """Reads what is there, and cuts off a partial line that a crash left. Raises RunError."""
        self.directory = directory
        """The run's directory."""
        self.status: Status | None = None
        """The last state; None before the first."""
        self.parent: str | None = None
        """The table's directory, relative to the run's; None for a run on its own."""
        self.attempts = 0
        """How many processes began or resumed the run."""
        self.began = False
        """Whether the journal says what the run is."""
        self._known: set[tuple[str, int]] = set()
        self._last: dict[str, tuple[int, float]] = {}
        self._said: dict[tuple[str, str], Entry] = {}
        entries, end = read(directory)
        for entry in entries:
            self._note(entry)
        file = directory / NAME
        if file.exists() and file.stat().st_size > end:
            with disk_errors(file):
                os.truncate(file, end)

    def begin(self, experiment: str, name: str, tags: dict[str, str], parameters: dict[str, str]) -> None:
        """Write what the run is, once, with an identity that no other run has."""
        if not self.began:
            make_directory(self.directory)
            entry: Entry = {"is": "run", "id": uuid.uuid4().hex, "experiment": experiment, "name": name}
            self._add([entry | {"tags": tags, "parameters": parameters}])

    def belongs_to(self, parent: Path) -> None:
        """Write that the run is part of the table whose journal is in the directory `parent`."""
        path = os.path.relpath(parent, self.directory)
        if path != self.parent:
            self._add([{"is": "parent", "journal": path}])

    def mark(self, status: Status, hard: bool = False) -> None:
        """Write the run's state; `hard`: its process was found dead."""
        self._add([{"is": "status", "status": status, "hard": hard}])

    def points(self, points: Iterable[Point], progress: tuple[int, int] | None = None) -> None:
        """Write the points that are not there yet, and `progress`: iterations done, and in all."""
        new = [list(p) for p in points if (p.name, p.iteration) not in self._known]
        entries: list[Entry] = [{"is": "metrics", "points": new}] if new else []
        if progress is not None:
            entries.append({"is": "progress", "done": progress[0], "total": progress[1]})
        self._add(entries)

    def figures(self, values: Mapping[str, float]) -> None:
        """Write values that say what is known now: one that is another than before goes after it, and replaces it."""
        new = []
        for name, value in values.items():
            iteration, before = self._last.get(name, (-1, None))
            if value != before:
                new.append(Point(name, value, now(), iteration + 1))
        self.points(new)

    def artifacts(self, files: Iterable[Path]) -> None:
        """Write the names of files in the run's directory that belong to its record."""
        self._add([{"is": "artifact", "file": str(file.relative_to(self.directory))} for file in files])

    def dataset(self, name: str, digest: str, images: dict[str, int]) -> None:
        """Write which data set the run is of: its identity, and the number of images by split."""
        self._say({"is": "dataset", "name": name, "digest": digest, "images": images})

    def description(self, text: str, pictures: Iterable[Path] = ()) -> None:
        """Write what the run found, in Markdown, and the pictures of it that are shown below."""
        files = [str(picture.relative_to(self.directory)) for picture in pictures]
        self._say({"is": "description", "text": text, "pictures": files})

    def _say(self, entry: Entry) -> None:
        """Write an entry, unless the last one of its kind and name says the same."""
        before = self._said.get((entry["is"], entry.get("name", "")), {})
        if any(before.get(name) != value for name, value in entry.items()):
            self._add([entry])

    def _add(self, entries: list[Entry]) -> None:
        if not entries:
            return
        entries = [entry | {"time": now()} for entry in entries]
        append_synced(self.directory / NAME, b"".join(map(_line, entries)))
        for entry in entries:
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry["is"] == "run":
            self.began = True
        elif entry["is"] == "status":
            self.status = entry["status"]
            self.attempts += entry["status"] == "RUNNING"
        elif entry["is"] == "parent":
            self.parent = entry["journal"]
        elif entry["is"] in ("dataset", "description"):
            self._said[entry["is"], entry.get("name", "")] = entry
        elif entry["is"] == "metrics":
            for name, value, _, iteration in entry["points"]:
                self._known.add((name, iteration))
                self._last[name] = iteration, value


def _line(entry: Entry) -> bytes:
    """An entry's checksum and JSON text."""
    text = canonical_json(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _intact(line: bytes) -> bytes | None:
    """The JSON text of a line; None if it was damaged."""
    checksum, _, text = line.partition(b" ")
    return text if checksum == b"%08x" % zlib.crc32(text) else None
