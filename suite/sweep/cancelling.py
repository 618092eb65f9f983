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

from typing_extensions import TypedDict

from suite.errors import RunError, first_line
from suite.runtime.run_directory import LOCK as LOCK_OF_RUN
from suite.storage.files import delete, make_directory, write_atomic
from suite.storage.locks import Held, holder, locked
from suite.storage.plain_files import read_json
from suite.sweep.slurm import CANCELLED
from suite.sweep.units import Unit

LOCK, NOTE = ".sweep.lock", ".sweep.json"
"""Of the sweep in a table's folder: the lock that it holds, and what it says of itself."""

LOOK_AGAIN = 0.1
"""Seconds after which a lock that a process only looked at is free."""


class Driver(TypedDict):
    """What a sweep's command says of itself."""

    host: str
    """Its machine."""
    pid: int
    """Its process there."""
    on: str
    """Its engine."""
    stop: str
    """The file by which its workers are called off, from the table's folder."""
    asked: list[int]
    """Processes that were asked to stop: a second signal would end them before a checkpoint."""


@contextmanager
def note(folder: Path, on: str, stop: Path) -> Iterator[None]:
    """Say beside the lock, which the caller holds, who drives the sweep of this folder. Raises RunError.

    So a note beside a lock that nobody holds is that of a driver that was killed, which may have left runs at work.
    """
    driver = Driver(
        host=socket.gethostname(), pid=os.getpid(), on=on, stop=str(stop.relative_to(folder.parent)), asked=[]
    )
    _write(folder.parent, driver)
    try:
        yield
    finally:
        delete(folder.parent / NOTE)


def cancel(folder: Path, units: Sequence[Unit]) -> list[str]:
    """Ask what is at work on a sweep's units to stop; what was asked, a sentence each.

    `folder`: the sweep's own. Raises RunError where something is at work and can't be asked from here.
    """
    place = folder.parent
    driven = _ask_driver(place)
    asked = [driven] if driven else []
    asked += _cancel_arrays(folder, any(unit.state != "finished" for unit in units))
    return asked or _ask_what_was_left(place, units)


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


def _who(driver: Driver) -> str:
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


def _ask_what_was_left(place: Path, units: Sequence[Unit]) -> list[str]:
    """Ask runs that a dead sweep left at work: those of this machine, and those that its workers attend.

    Its note tells that there was one. Without it they were started by hand, and are named and left alone.
    """
    driver = _read(place)
    if driver is not None and driver["on"] != "local" and any(unit.state != "finished" for unit in units):
        called_off = _call_off_workers(place, driver)
        if called_off:
            return [called_off]
    before = {unit.key: holder(unit.place / LOCK_OF_RUN) for unit in units if unit.state == "running"}
    if not before:
        return []
    time.sleep(LOOK_AGAIN)
    left = [unit for unit in units if unit.key in before and unit.state == "running"]
    asked, unseen = [], []
    for unit in left:
        process = holder(unit.place / LOCK_OF_RUN)
        if process is not None and process == before[unit.key] and driver is None:
            asked.append(f"process {process}, which does {unit.name}, was started by hand: stop it there")
        elif process is not None and process == before[unit.key]:
            asked.append(_ask(place, process, f"process {process}, which does {unit.name} without a sweep"))
        else:
            unseen.append(unit.name)
    if unseen:
        where = "another machine" if driver is None else f"another machine; {_who(driver)} drove the sweep"
        raise RunError(f"{', '.join(unseen)}: at work on {where}, so give the same command there")
    return asked


def _call_off_workers(place: Path, driver: Driver) -> str | None:
    """Write the file that the workers of a dead driver look for, whose jobs may also wait in a queue."""
    stop = driver["stop"]
    if not re.fullmatch(r"\.sweep-\w+/stopped-[\w.-]+", stop) or not (place / stop).parent.is_dir():
        return None  # no path that a driver wrote
    write_atomic(place / stop, b"")
    return (
        f"{_who(driver)}, which drove the sweep on {driver['on']}, is dead; called its jobs off: runs stop at their "
        "next checkpoints, and what waits does not begin"
    )


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
