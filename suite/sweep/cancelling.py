"""Asks what is at work on a table to stop at checkpoints: a sweep, arrays of Slurm, runs that a dead sweep left.

A process is sent a signal only where the operating system itself says that it holds the lock: what a file says of it
may be old, or of another machine.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from suite.errors import RunError, first_line
from suite.runtime.run_directory import FINISHED
from suite.runtime.run_directory import LOCK as LOCK_OF_RUN
from suite.storage.files import delete, make_directory, write_atomic
from suite.storage.locks import Held, holder, locked
from suite.storage.plain_files import read_json
from suite.sweep.attended import is_attended
from suite.sweep.slurm import CANCELLED
from suite.sweep.units import Unit

LOCK, NOTE, ASKING = ".sweep.lock", ".sweep.json", ".sweep.cancel.lock"
"""Of the sweep in a table's folder: the lock that it holds, what it says of itself, and a lock around its changes."""

LOOK_AGAIN = 0.1
"""Seconds after which a lock that a process only looked at is free."""


class Dead(TypedDict):
    """A sweep's command that was killed."""

    host: str
    """Its machine."""
    pid: int
    """Its process there."""
    on: str
    """Its engine."""
    stop: str
    """The file by which its workers are called off, from the table's folder."""
    runs: NotRequired[dict[str, int]]
    """At work when the next one began: by a run's folder its process, 0: out of sight; absent: all that is at work."""


class Driver(Dead):
    """What a sweep's command says of itself."""

    asked: list[int]
    """Processes that were asked to stop: a second signal would end them before a checkpoint."""
    before: NotRequired[list[Dead]]
    """Those before it that were killed, and left something."""


@contextmanager
def note(folder: Path, on: str, stop: Path) -> Iterator[None]:
    """Say beside the lock, which the caller holds, who drives the sweep of this folder. Raises RunError.

    So a note beside a lock that nobody holds is that of a driver that was killed, which may have left runs at work. The
    next driver's note names it, too, and at the end it is put back if it still has something at work.
    """
    place, where = folder.parent, str(stop.relative_to(folder.parent))
    with locked(place / ASKING):
        there = _read(place)
        before = [dead for dead in _dead(place, there) if _may_wait(place, dead)]
        left = {process for dead in before for process in dead.get("runs", {}).values()}
        asked = [] if there is None else [process for process in there["asked"] if process in left]
        driver = Driver(host=socket.gethostname(), pid=os.getpid(), on=on, stop=where, asked=asked, before=before)
        _write(place, driver)
    try:
        yield
    finally:
        with locked(place / ASKING):
            there = _read(place)
            before = [dead for dead in _before(place, there) if _may_wait(place, dead)]
            if there is None or not before:
                delete(place / NOTE)
            else:
                _write(place, {**before[-1], "asked": there["asked"], "before": before[:-1]})


def cancel(folder: Path, units: Sequence[Unit]) -> list[str]:
    """Ask what is at work on a sweep's units to stop; what was asked, a sentence each.

    `folder`: the sweep's own. Raises RunError where something is at work and can't be asked from here, which says first
    what was asked.
    """
    asked: list[str] = []
    try:
        for sentence in _asking(folder, units):
            asked.append(sentence)
    except RunError as error:
        raise RunError("; ".join([*asked, str(error)])) from error
    return asked


def _asking(folder: Path, units: Sequence[Unit]) -> Iterator[str]:
    """Ask one after the other. The lock: two commands at once would ask twice, or each take the other for a sweep."""
    place = folder.parent
    if not place.is_dir():
        return
    with locked(place / ASKING):
        driven = _ask_driver(place)
        if driven is not None:
            yield driven
            yield from _ask_what_was_left(place, _before(place, _read(place)), units)
    arrays = _cancel_arrays(folder, any(unit.state != "finished" for unit in units))
    yield from arrays
    if driven is None and not arrays:
        with locked(place / ASKING):
            any_left = False
            for sentence in _ask_what_was_left(place, _dead(place, _read(place)), units):
                any_left = True
                yield sentence
            if not any_left:
                yield from _name_what_was_started_by_hand(place, units)


# ---------------------------------------------------------------- the sweep's own process


def _ask_driver(place: Path) -> str | None:
    """Ask the process that holds the sweep's lock; None where none does."""
    lock = place / LOCK
    if not lock.is_file():
        return None
    try:
        with locked(lock, wait=False, patience=0.0):
            return None
    except Held:
        driver, process = _read(place), holder(lock)
    if process is None:
        who = "a process that can't be seen from here" if driver is None else _who(driver)
        raise RunError(f"the sweep in {place} is driven by {who}; give the same command there")
    engine = "" if driver is None or driver["pid"] != process else f" on {driver['on']}"
    return _ask(place, process, f"process {process}, which drives the sweep{engine}")


def _who(driver: Dead) -> str:
    return f"process {driver['pid']} on {driver['host']}"


def _ask(place: Path, process: int, what: str) -> str:
    """Send a process the signal that has it stop, once; what was done."""
    driver = _read(place)
    if driver is not None and process in driver["asked"]:
        return f"{what}, was asked before; it ends once its checkpoint is written"
    if driver is not None:  # before it is: a process that ends at once deletes its note
        _write(place, {**driver, "asked": [*driver["asked"], process]})
    try:
        os.kill(process, signal.SIGTERM)
    except OSError as error:
        if driver is not None and not isinstance(error, ProcessLookupError):
            _write(place, driver)
        raise RunError(f"{what}, can't be asked to stop ({error.strerror}); its owner can") from error
    return f"asked {what}, to stop: runs stop at their next checkpoints, and the same command without --cancel goes on"


def _read(place: Path) -> Driver | None:
    try:
        return read_json(place / NOTE, Driver)
    except (FileNotFoundError, RunError):  # of a version that wrote none, or damaged: the locks tell enough
        return None


def _write(place: Path, driver: Driver) -> None:
    write_atomic(place / NOTE, json.dumps(driver).encode())


# ---------------------------------------------------------------- runs whose sweep is dead


def _dead(place: Path, driver: Driver | None) -> list[Dead]:
    """Of a note whose driver is dead: it and those before it, as far as they left something."""
    if driver is None:
        return []
    own = Dead(host=driver["host"], pid=driver["pid"], on=driver["on"], stop=driver["stop"])
    if "runs" in driver:  # it was put back
        own["runs"] = driver["runs"]
    return _left(place, [*driver.get("before", []), own])


def _before(place: Path, driver: Driver | None) -> list[Dead]:
    """Of a note, the dead drivers before its own, as far as they left something."""
    return [] if driver is None else _left(place, driver.get("before", []))


def _left(place: Path, dead: Sequence[Dead]) -> list[Dead]:
    """Those that left something, with those of their runs that are still at work and that no worker attends."""
    at_work = _at_work(place) if dead else {}
    known = {of_one for driver in dead for of_one in driver.get("runs", {}).items()}
    rest = {run: it for run, it in at_work.items() if (run, it) not in known and not is_attended(it)}
    left = list[Dead]()
    for driver in dead:
        if _has_workers(place, driver):
            left.append({**driver, "runs": {}})
        elif runs := {run: it for run, it in driver.get("runs", rest).items() if at_work.get(run) == it}:
            left.append({**driver, "runs": runs})
    return left


def _at_work(place: Path) -> dict[str, int]:
    """By the folder of each run of a table at which a process is at work: the process, 0 for one that can't be seen."""

    def look() -> dict[str, int]:
        locks = [lock for lock in place.glob(f"*/{LOCK_OF_RUN}") if not (lock.parent / FINISHED).is_file()]
        return {lock.parent.name: holder(lock) or 0 for lock in locks if _is_held(lock)}

    before = look()
    if not before:
        return {}
    time.sleep(LOOK_AGAIN)
    return {run: process for run, process in look().items() if before.get(run) == process}


def _is_held(lock: Path) -> bool:
    try:
        with locked(lock, wait=False, patience=0.0):
            return False
    except Held:
        return True
    except RunError:  # nothing can be written there, so no process is at work
        return False


def _has_workers(place: Path, driver: Dead) -> bool:
    """Whether a driver's runs are attended by workers that look for its file, which is where a driver puts it."""
    proper = re.fullmatch(r"\.sweep-\w+/stopped-[\w.-]+", driver["stop"])
    return driver["on"] != "local" and proper is not None and (place / driver["stop"]).parent.is_dir()


def _may_wait(place: Path, driver: Dead) -> bool:
    """Whether a dead driver's runs are at work, or jobs of it may wait in a queue: not called off, and not all done."""
    if not _has_workers(place, driver):
        return bool(driver.get("runs"))
    stop = place / driver["stop"]
    keys = [config.stem.rpartition("-")[2] for config in stop.parent.glob("*.gin")]
    done = [any(place.glob(f"*-{key}/{FINISHED}")) for key in keys]
    return not stop.exists() and not (done and all(done))


def _ask_what_was_left(place: Path, dead: Sequence[Dead], units: Sequence[Unit]) -> Iterator[str]:
    """Ask runs that dead drivers left at work: those of this machine, and those that their workers attend."""
    names = {unit.place.name: unit.name for unit in units}
    unfinished = any(unit.state != "finished" for unit in units)
    away = []
    for driver in dead:
        if _has_workers(place, driver) and unfinished:
            yield _call_off_workers(place, driver)
        runs = {run: process for run, process in driver.get("runs", {}).items() if run in names}
        for run, process in runs.items():
            if process:
                yield _ask(place, process, f"process {process}, which does {names[run]} without a sweep")
        unseen = ", ".join(names[run] for run, process in runs.items() if not process)
        if unseen:
            where = f"another machine; {_who(driver)} drove the sweep, so give the same command there"
            away.append(f"{unseen}: at work on {where}")
    if away:
        raise RunError("; ".join(away))


def _call_off_workers(place: Path, driver: Dead) -> str:
    """Write the file that the workers of a dead driver look for, whose jobs may also wait in a queue."""
    write_atomic(place / driver["stop"], b"")
    return (
        f"{_who(driver)}, which drove the sweep on {driver['on']}, is dead; called its jobs off: runs stop at their "
        "next checkpoints, and what waits does not begin"
    )


def _name_what_was_started_by_hand(place: Path, units: Sequence[Unit]) -> list[str]:
    """Runs that no sweep left, which are left alone. Raises RunError for those of another machine."""
    names = {unit.place.name: unit.name for unit in units}
    at_work = {names[run]: process for run, process in _at_work(place).items() if run in names}
    unseen = [name for name, process in at_work.items() if not process]
    if unseen:
        raise RunError(f"{', '.join(unseen)}: at work on another machine, so give the same command there")
    return [
        f"process {process}, which does {name}, was started by hand: stop it there" for name, process in at_work.items()
    ]


# ---------------------------------------------------------------- arrays of Slurm

QUEUE = ("squeue", "--me", "--noheader", "--format=%F %o")
"""Prints of each job its array's number and the script that was submitted."""


def _cancel_arrays(folder: Path, unfinished: bool) -> list[str]:
    """Take what waits of this sweep's arrays out of Slurm's queue, and have what is at work stop at checkpoints."""
    scripts = sorted(folder.glob("array-*.sbatch"))
    if not scripts:
        return []
    try:
        queue = _asked_of_slurm(QUEUE)
    except RunError as error:
        if not unfinished:
            return []
        _call_off(folder)
        of_this = shlex.quote(f"{folder}/array-")
        list_of_them = f"{shlex.join(QUEUE)} | grep -F {of_this} | cut -d ' ' -f 1 | sort -u"
        commands = (
            f'[ -z "$arrays" ] || {{ {"; ".join(_words("$arrays"))}; }}'  # without a number, all that wait would go
        )
        raise RunError(
            f"arrays of {folder} may wait in Slurm's queue, which can't be asked here ({error}); where it can, give "
            f"arrays=$({list_of_them}); {commands}"
        ) from error
    lines = [line.strip().partition(" ") for line in queue.splitlines()]
    arrays = sorted({number for number, _, script in lines if script.startswith(tuple(map(str, scripts)))})
    if not arrays:
        return []
    _call_off(folder)
    for command in _words(" ".join(arrays)):
        try:
            _asked_of_slurm(shlex.split(command))
        except RunError as error:
            raise RunError(f"{error}; give it by hand: {' && '.join(_words(' '.join(arrays)))}") from error
    what = f"array{'s' if len(arrays) > 1 else ''} {', '.join(arrays)} of Slurm"
    return [
        f"cancelled {what}: what waited is gone, runs stop at their next checkpoints, and the same command without "
        "--cancel goes on"
    ]


def _words(arrays: str) -> list[str]:
    """The commands that cancel arrays: plain `scancel` would kill runs within seconds, whether or not at a checkpoint.

    The script hears SIGUSR1, passes it on, and sees by the file `cancelled` that it is not to be requeued.
    """
    return [f"scancel --state=PENDING {arrays}", f"scancel --batch --signal=USR1 {arrays}"]


def _call_off(folder: Path) -> None:
    write_atomic(make_directory(folder) / CANCELLED, b"")


def _asked_of_slurm(words: Sequence[str]) -> str:
    """What a command of Slurm prints. Raises RunError."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{words[0]}: {first_line(error)}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise RunError(f"{words[0]}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout
