"""A run's directory as other processes see it: which runs there are, the state of each, and which ones died.

`runs/<name>/<run>/` holds `run.json` (what the run is and how to resume it), `journal.jsonl`, `checkpoints/` and,
written last, `result.json`. The lock of a running process is released by the operating system when the process dies.
"""

import json
import os
import re
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from suite.errors import RunError
from suite.runtime.record import headline, invalid
from suite.runtime.record_schema import upgraded
from suite.storage.files import canonical_json, disk_errors, write_atomic
from suite.storage.journal import NAME as JOURNAL
from suite.storage.journal import Entry, Journal, read
from suite.storage.locks import Held, locked
from suite.storage.plain_files import read_json
from suite.tracking.store import SENT

FINISHED = "result.json"
"""The record. It is written last: a run directory that holds it is done."""

ABOUT = "run.json"
"""What the run is and how to resume it."""

LOCK = ".lock"
"""Held by the process that runs it."""

FILES = ("config.gin", "operative.gin", "failure.txt", "metrics.csv", "memory.safetensors")
FOLDERS = ("checkpoints", "figures", "memories", ".evaluation", ".stages", Path(SENT).parts[0])
OWN = (FINISHED, ABOUT, LOCK, JOURNAL, *FILES, *FOLDERS)
"""What a run's files and folders are called: the suite opens and writes nothing else in a run's directory."""

SHARED = ("cache", "artifacts")
"""Folders beside the runs, which a user may well have put elsewhere by a link."""

State = Literal["finished", "running", "stopped", "killed", "failed"]
"""Stopped: by a signal, at a checkpoint. Killed: its process ended without writing so."""

# ---------------------------------------------------------------- directories


def run_directories(out: Path) -> list[Path]:
    """Every run below `out`, or `out` itself if it is one; without those that `--fresh` set aside."""
    if os.path.lexists(out / ABOUT):
        return [out]
    return [path for path in folders(out) if os.path.lexists(path / ABOUT) and not is_set_aside(path)]


def journal_directories(out: Path) -> list[Path]:
    """Every directory below `out` (or `out` itself) that has a journal: runs, also those set aside, and tables."""
    if os.path.lexists(out / JOURNAL):
        return [out]
    return [path for path in folders(out) if os.path.lexists(path / JOURNAL)]


def folders(out: Path) -> list[Path]:
    """The folders two levels below `out`. Links are not followed: what they lead to may be somebody else's."""
    below = sorted(path for path in out.glob("*/*") if not path.is_symlink() and not path.parent.is_symlink())
    return [path for path in below if path.is_dir()]


def linked_folders(out: Path) -> list[Path]:
    """The links that `folders` leaves out, where they lead to folders; none if `out` is itself a run."""
    if os.path.lexists(out / ABOUT) or os.path.lexists(out / JOURNAL):
        return []
    above = [path for path in out.glob("*") if path.name not in SHARED]
    below = [path for folder in above if not folder.is_symlink() for path in folder.glob("*")]
    return sorted(path for path in [*above, *below] if path.is_symlink() and os.path.isdir(path))


def links_left_out(out: Path) -> str | None:
    """A sentence that names `linked_folders`; None where there are none."""
    links = [str(path.relative_to(out)) for path in linked_folders(out)]
    if not links:
        return None
    more = f" and {len(links) - 3} more" if len(links) > 3 else ""
    return f"links in {out} are not followed: {', '.join(links[:3])}{more}; name the folder where they lead instead"


def set_aside(directory: Path) -> Path:
    """Rename a run's directory, so that its name is free; returns the new path. Raises RunError."""
    n = 1
    while (aside := directory.with_name(f"{directory.name}.old{n}")).exists():
        n += 1
    with disk_errors(aside):
        return directory.rename(aside)


def is_set_aside(directory: Path) -> bool:
    """Whether the directory has a name that `set_aside` gave."""
    return re.search(r"-[0-9a-f]{16}\.old\d+$", directory.name) is not None


# ---------------------------------------------------------------- what a run is


class Options(TypedDict):
    """How a run's command was given."""

    data_dir: str
    """Directory of the data sets."""
    device: str
    """Where networks are trained."""
    tracking_uri: str
    """Address of the tracker, or 'none'."""
    checkpoint_seconds: float
    """Between checkpoints."""
    plugins: list[str]
    """Files with outside methods."""


class About(TypedDict):
    """What a run is."""

    name: str
    """Of the table or experiment."""
    label: str
    """Of the run, for people."""
    cell: dict[str, str]
    """By axis, the label of the run."""
    seed: int
    """Of the run."""
    scale: str
    """How much of the paper's compute is used."""
    key: str
    """Of its configuration and seed."""
    config: dict[str, str]
    """Its configuration, flat."""
    options: Options
    """How to resume it."""
    environment: dict[str, Any]
    """Where its first attempt ran."""
    mixed: list[str]
    """How later attempts' environments differ."""
    record_sha256: NotRequired[str]
    """Of the record's file, once the run is finished."""


def read_about(directory: Path) -> About:
    """The content of `run.json`. Raises FileNotFoundError, and RunError where it is damaged or can't be read."""
    return read_json(directory / ABOUT, About)


def about(directory: Path) -> About | None:
    """The content of `run.json`; None if it is absent, damaged or can't be read."""
    try:
        return read_about(directory)
    except (FileNotFoundError, RunError):
        return None


def judged(directory: Path) -> dict[str, float]:
    """What a finished run is judged by, in percent by split; empty where its record is absent or not valid."""
    try:
        record = read_json(directory / FINISHED, dict[str, Any])
    except (FileNotFoundError, RunError):
        return {}
    if invalid(record):
        return {}
    measured = {split: headline(upgraded(record), split) for split in ("test", "validation")}
    return {split: value for split, value in measured.items() if value is not None}


def write_about(directory: Path, content: About) -> None:
    """Write `run.json`. Raises RunError."""
    write_atomic(directory / ABOUT, json.dumps(content, indent=1, sort_keys=True).encode())


def differences(before: dict[str, str], now: dict[str, str]) -> str:
    """Where two flat configurations differ: 'objective.inner_steps: 150, now 200'."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name}: {before.get(name, 'absent')}, now {now.get(name, 'absent')}" for name in names)


def refuse_another(directory: Path, key: str, config: dict[str, str]) -> None:
    """Raise RunError if the directory holds a run of another configuration, naming the difference."""
    before = about(directory)
    if before is None or before["key"] == key:
        return
    difference = differences(before["config"], config) or "its key"
    raise RunError(
        f"{directory} holds a run of another configuration ({difference}); move it away, or start again with --fresh, "
        "which keeps it under another name"
    )


def unfinished_siblings(
    directory: Path, cell: dict[str, str], seed: int, config: dict[str, str]
) -> list[tuple[Path, About]]:
    """Unfinished runs of the same components beside a directory, with this cell and seed, and their `run.json`.

    They are of other settings, since the directory's name holds the key of its own. Runs of other components, such as
    another inner optimizer, are other methods, of which nobody would expect that a run goes on.
    """
    siblings = []
    for other in run_directories(directory.parent.parent):
        content = about(other)
        if other.parent != directory.parent or other == directory or content is None or (other / FINISHED).exists():
            continue
        alike = canonical_json([content["cell"], content["seed"]]) == canonical_json([cell, seed])
        if alike and _components(content["config"]) == _components(config):
            siblings.append((other, content))
    return siblings


def _components(config: dict[str, str]) -> dict[str, str]:
    """Of a flat configuration, the names that have settings of their own below them."""
    above = {name.rpartition(".")[0] for name in config}
    return {name: value for name, value in config.items() if name in above}


# ---------------------------------------------------------------- states


def state(directory: Path) -> State:
    """The state of a run; nothing is changed."""
    if (directory / FINISHED).is_file():
        return "finished"
    try:
        with locked(directory / LOCK, wait=False, patience=0.0):
            return _last_state(read(directory)[0])
    except Held:
        return "running"
    except RunError:  # nothing can be written there, so no process is at work
        return _last_state(read(directory)[0])


def _last_state(entries: list[Entry]) -> State:
    """The state in which the last process left a run that is not finished."""
    statuses = [entry for entry in entries if entry["is"] == "status"]
    if statuses and statuses[-1]["status"] == "FAILED":
        return "failed"
    return "stopped" if statuses and statuses[-1]["status"] == "KILLED" and not statuses[-1]["hard"] else "killed"


def ended(directory: Path) -> bool:
    """Whether the journal says that all was done, which is all that a table says."""
    statuses = [entry["status"] for entry in read(directory)[0] if entry["is"] == "status"]
    return statuses[-1:] == ["FINISHED"]


def mark_dead(directory: Path, patience: float = 0.0) -> bool:
    """Mark a run (or table) whose process died as KILLED in its journal; whether it was one. Raises RunError."""
    try:
        with locked(directory / LOCK, wait=False, patience=patience):
            journal = Journal(directory)
            if (directory / FINISHED).is_file():  # the process died between the record and the journal's last entries
                mark_finished(directory, journal)
                return False
            if journal.status != "RUNNING":
                return False
            journal.mark("KILLED", hard=True)
            return True
    except Held:
        return False


def mark_finished(directory: Path, journal: Journal) -> None:
    """Write the run's files and its end into the journal, unless they are there. Raises RunError."""
    if journal.status != "FINISHED":
        figures = directory / "figures"
        files = [p for p in directory.iterdir() if not p.name.startswith(".")]
        files += [] if figures.is_symlink() else figures.glob("*.png")
        files = [p for p in files if p.is_file() and not p.is_symlink()]
        journal.artifacts(sorted(p for p in files if p.name not in (JOURNAL, ABOUT)))
        journal.mark("FINISHED")
