"""What a run has to tell its tracker, written into the run's directory first: nothing waits, and nothing is lost.

`journal.jsonl` only ever grows, by whole lines that carry their own checksum: what the run is, its states, metrics and
artifacts, in order, with their times. Whoever sends it to a tracker (`suite.tracking`) remembers how far it came.
A point (metric, iteration) is written once, however often a crash makes the run compute it again.
"""

import json
import os
import time
import uuid
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from suite.errors import RunError
from suite.storage.files import append_synced, canonical_json, disk_errors, make_directory

NAME = "journal.jsonl"

Entry = dict[str, Any]
"""One line: `is` says of what kind, `time` when, in milliseconds since 1970."""

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Point(NamedTuple):
    """One value of one metric; `time` in milliseconds since 1970."""

    name: str
    value: float
    time: int
    iteration: int


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def read(directory: Path, start: int = 0) -> tuple[list[Entry], int]:
    """The whole entries of a journal from a byte on, and where the next one will begin.

    A last line without its end is still being written, or was cut off by a crash: it is left for the next time. A
    damaged line elsewhere tells nothing and is passed over. A journal that has no line's end at `start` is another one
    than was read before: it is read from its beginning.
    """
    try:
        with (directory / NAME).open("rb") as file:
            if start:
                file.seek(start - 1)
                start = start if file.read(1) == b"\n" else 0
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return [], start
    except OSError as error:
        raise RunError(f"can't read {directory / NAME} ({error.strerror or error}); try again") from error
    whole = data[: data.rfind(b"\n") + 1]
    entries = [entry for line in whole.splitlines() if (entry := _entry(line)) is not None]
    return entries, start + len(whole)


def identity(entries: list[Entry]) -> str | None:
    """Of the run that a journal is of, as it says at its beginning."""
    return next((entry["id"] for entry in entries if entry["is"] == "run"), None)


class Journal:
    """The journal of one run, open for adding. One process at a time: its holder holds the run's lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        entries, end = read(directory)
        self.status: Status | None = None
        self.parent: str | None = None
        self.sittings = 0
        self.began = any(entry["is"] == "run" for entry in entries)
        self._known: set[tuple[str, int]] = set()
        for entry in entries:
            self._note(entry)
        file = directory / NAME
        if file.exists() and file.stat().st_size > end:
            with disk_errors(file):
                os.truncate(file, end)  # half a line that a crash left

    def begin(self, experiment: str, name: str, tags: dict[str, str], parameters: dict[str, str]) -> None:
        """Say what the run is; told once, with an identity that no other run has."""
        if not self.began:
            what: Entry = {"is": "run", "id": uuid.uuid4().hex, "experiment": experiment, "name": name}
            self._add([what | {"tags": tags, "parameters": parameters}])
            self.began = True

    def belongs_to(self, parent: Path) -> None:
        """The run is part of the table whose journal is in the directory `parent`."""
        path = os.path.relpath(parent, self.directory)
        if path != self.parent:
            self._add([{"is": "parent", "journal": path}])

    def mark(self, status: Status, hard: bool = False) -> None:
        """The state that the run is in from now on; `hard`: it was found dead."""
        self._add([{"is": "status", "status": status, "hard": hard}])

    def points(self, points: Iterable[Point], progress: tuple[int, int] | None = None) -> None:
        """Add the points that are not there yet, and how far the run is: iterations done and in all."""
        new = [list(p) for p in points if (p.name, p.iteration) not in self._known]
        entries: list[Entry] = [{"is": "metrics", "points": new}] if new else []
        if progress is not None:
            entries.append({"is": "progress", "done": progress[0], "total": progress[1]})
        self._add(entries)

    def artifacts(self, files: Iterable[Path]) -> None:
        """Name files of the run's directory that belong to its record."""
        self._add([{"is": "artifact", "file": str(file.relative_to(self.directory))} for file in files])

    def _add(self, entries: list[Entry]) -> None:
        if not entries:
            return
        entries = [entry | {"time": now()} for entry in entries]
        make_directory(self.directory)
        append_synced(self.directory / NAME, b"".join(map(_line, entries)))
        for entry in entries:
            self._note(entry)

    def _note(self, entry: Entry) -> None:
        if entry["is"] == "status":
            self.status = entry["status"]
            self.sittings += entry["status"] == "RUNNING"
        elif entry["is"] == "parent":
            self.parent = entry["journal"]
        elif entry["is"] == "metrics":
            self._known |= {(name, iteration) for name, _, _, iteration in entry["points"]}


def _line(entry: Entry) -> bytes:
    text = canonical_json(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _entry(line: bytes) -> Entry | None:
    """What a line says, or None if it is not as it was written."""
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(text):
            return None
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "is" in entry else None
