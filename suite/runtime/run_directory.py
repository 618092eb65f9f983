"""A run's directory, as others see it: which runs there are, how each stands, and which died without a word.

`runs/<name>/<run>/` holds `run.json` (what it is and how to go on with it), `journal.jsonl`, `checkpoints/` and, last
of all, `result.json`. A lock, which the operating system drops with its holder, tells a run at work from a dead one.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal

from suite.errors import RunError
from suite.storage.files import canonical_json, write_atomic
from suite.storage.journal import NAME as JOURNAL
from suite.storage.journal import Journal, read
from suite.storage.locks import Held, locked

FINISHED = "result.json"
"""Written last: a run directory that holds it is done."""

ABOUT, LOCK = "run.json", ".lock"

State = Literal["finished", "running", "stopped", "killed", "failed"]
"""Stopped: by a signal, at a checkpoint. Killed: hard, without a word."""


def run_directories(out: Path) -> list[Path]:
    """Every run below `out` (or `out` itself, if it is one), set-aside ones left out."""
    if (out / ABOUT).is_file():
        return [out]
    found = (path.parent for path in out.glob(f"*/*/{ABOUT}"))
    return sorted(path for path in found if not is_set_aside(path))


def is_set_aside(directory: Path) -> bool:
    """Whether `--fresh` gave the run this name."""
    return re.search(r"-[0-9a-f]{16}\.old\d+$", directory.name) is not None


def journal_directories(out: Path) -> list[Path]:
    """Every directory below `out` (or `out` itself) with something to tell: runs, set-aside ones too, and tables."""
    if (out / JOURNAL).is_file():
        return [out]
    return sorted(path.parent for path in out.glob(f"*/*/{JOURNAL}"))


def about(directory: Path) -> dict[str, Any] | None:
    """What `run.json` says; None if there is none, or it can't be read or is damaged."""
    try:
        said = json.loads((directory / ABOUT).read_text())
        whole = all(isinstance(said[name], dict) for name in ("cell", "config", "environment", "options"))
        return said if whole and isinstance(said["key"], str) and isinstance(said["mixed"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_about(directory: Path, said: dict[str, Any]) -> None:
    write_atomic(directory / ABOUT, json.dumps(said, indent=1, sort_keys=True).encode())


def state(directory: Path) -> State:
    """How a run stands; nothing is changed."""
    if (directory / FINISHED).is_file():
        return "finished"
    try:
        with locked(directory / LOCK, wait=False, patience=0.0):
            return _left(read(directory)[0])
    except Held:
        return "running"
    except RunError:  # where nothing can be written, nothing is at work
        return _left(read(directory)[0])


def _left(entries: list[dict[str, Any]]) -> State:
    """The state in which the last process left a run that is not finished."""
    said = [entry for entry in entries if entry["is"] == "status"]
    if said and said[-1]["status"] == "FAILED":
        return "failed"
    return "stopped" if said and said[-1]["status"] == "KILLED" and not said[-1]["hard"] else "killed"


def mark_dead(directory: Path, patience: float = 0.0) -> bool:
    """Mark a run (or table) that was killed hard as KILLED, in its journal; says whether it was one."""
    try:
        with locked(directory / LOCK, wait=False, patience=patience):
            journal = Journal(directory)
            if (directory / FINISHED).is_file():  # killed between the record and the word of it
                say_finished(directory, journal)
                return False
            if journal.status != "RUNNING":
                return False
            journal.mark("KILLED", hard=True)
            return True
    except Held:
        return False


def say_finished(directory: Path, journal: Journal) -> None:
    """Tell the run's files, and that it is done, unless that was told before."""
    if journal.status != "FINISHED":
        files = [p for p in directory.iterdir() if p.is_file() and not p.name.startswith(".")]
        files += (directory / "figures").glob("*.png")
        journal.artifacts(sorted(p for p in files if p.name not in (JOURNAL, ABOUT)))
        journal.mark("FINISHED")


def differences(before: dict[str, str], now: dict[str, str]) -> str:
    """Where two flat configurations part, for people: 'objective.inner_steps: 150, now 200'."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name}: {before.get(name, 'absent')}, now {now.get(name, 'absent')}" for name in names)


def refuse_another(directory: Path, key: str, config: dict[str, str]) -> None:
    """Raise RunError if the directory holds a run of another configuration, naming the difference."""
    said = about(directory)
    if said is None or said.get("key") == key:
        return
    parted = differences(said.get("config", {}), config) or "its key"
    raise RunError(
        f"{directory} holds a run of another configuration ({parted}); move it away, or start anew with --fresh, which "
        "keeps it under another name"
    )


def same_work_beside(directory: Path, what: dict[str, Any]) -> list[tuple[Path, dict[str, Any]]]:
    """Unfinished runs beside a directory with its cell and seed, but another configuration."""
    found = []
    for other in run_directories(directory.parent.parent):
        said = about(other)
        if other.parent != directory.parent or other == directory or said is None or (other / FINISHED).exists():
            continue
        if canonical_json([said.get("cell"), said.get("seed")]) == canonical_json([what["cell"], what["seed"]]):
            found.append((other, said))
    return found
