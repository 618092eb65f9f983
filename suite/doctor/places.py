"""Folders: where runs, data sets and caches are, how large they are, and what room is left."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from suite.errors import RunError, UsageError
from suite.runtime.run_directory import run_directories, state
from suite.tracking.store import Store
from suite.tracking.uri import MADE, check_uri, default_uri, plain_uri, whole_uri

ROOM_GIB = 1.0
"""Less room than this is worth a line: a table's runs, checkpoints and a data set's cache fit into it."""


def folder(place: Path) -> dict[str, Any]:
    """Where it is, whether it is there and may be written, its size, and the room on its disk."""
    there = place.is_dir()
    above = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
    return {
        "place": homely(place),
        "there": there,
        "writable": above.is_dir() and os.access(above, os.W_OK),
        "mib": round(size(place) / 2**20, 1) if there else 0.0,
        "free_gib": round(shutil.disk_usage(above).free / 2**30, 1),
    }


def runs(out: Path) -> dict[str, Any]:
    """The folder of runs, and how many there are in each state."""
    states = Counter(map(state, run_directories(out))) if out.is_dir() else Counter[str]()
    return folder(out) | {"states": dict(sorted(states.items()))}


def size(place: Path) -> int:
    """Bytes of all files in a folder; links are not followed, and what can't be read counts nothing."""
    total = 0
    for where, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return total


def homely(place: Path | str) -> str:
    """A path, or a text with one in it, in which the home is '~': who pastes it shows no name."""
    home = os.path.expanduser("~").rstrip("/")
    return re.sub(rf"{re.escape(home)}(?![\w.-])", "~", str(place)) if home else str(place)


def problems(found: dict[str, Any], option: str) -> list[str]:
    """What is wrong with a folder, in sentences."""
    wrong = []
    if not found["writable"]:
        wrong.append(f"{found['place']} can't be written; choose another {option}")
    if found["free_gib"] < ROOM_GIB:
        wrong.append(f"{found['place']}: {found['free_gib']} GiB are free; free some room or choose another {option}")
    return wrong


def tracker(uri: str | None, out: Path) -> dict[str, Any]:
    """The tracker that a run would use, and how it answers: in words, with what is wrong in a sentence.

    A database that is not there yet is made by the first run, and not by this.
    """
    if uri == "none":
        return {"uri": "none", "answer": "not asked for", "problem": None}
    shown = f"a database in {homely(out)}" if uri is None else homely(plain_uri(uri))
    try:
        whole = default_uri(out) if uri is None else whole_uri(uri)
        check_uri(whole)
        if uri is None and not (out / MADE).exists():
            return {"uri": shown, "answer": "the first run makes it", "problem": None}
        Store(whole, out).connect()
        return {"uri": shown, "answer": "it answers", "problem": None}
    except UsageError as error:
        return {"uri": shown, "answer": "not usable", "problem": homely(str(error))}
    except RunError as error:
        return {"uri": shown, "answer": "no answer", "problem": homely(f"{error}; or give --tracking-uri none")}
